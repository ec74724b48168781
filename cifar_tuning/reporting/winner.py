"""How sure the best configuration is: its lead over the next, ties, and lost or diverged seeds."""

import math

from cifar_tuning.reporting.statistics import compare
from cifar_tuning.reporting.table import Configuration, Table
from cifar_tuning.reporting.wording import size_in_words

# Most configurations that are named as sharing the first place.
SHOWN = 4


def winner_in_words(table: Table) -> list[str]:
    """Returns what is to be known of the best configuration beside its figure.

    The interval around its lead is that of the two alone. It is no test, which stands below with those it is one of.
    """
    return [*_rivals(table), *_broken(table.best)]


def _rivals(table: Table) -> list[str]:
    """Says how far ahead of the next one the best is, or with how many it shares its place."""
    best = table.best
    # What lost seeds stands behind, however good those are that came through.
    others = [c for c in table.configurations[1:] if (c.lost > 0) == (best.lost > 0)]
    equal = [c for c in others if math.isclose(c.summary.mean, best.summary.mean, rel_tol=1e-9)]
    if equal:
        names = ", ".join(table.label(c) for c in equal[:SHOWN]) + (" …" if len(equal) > SHOWN else "")
        return [f"It shares this place: {len(equal) + 1} configurations have the same mean (also {names})."]
    if not others or len(table.configurations) < 3:  # the comparison of the two stands below
        return []
    second = others[0]
    comparison = compare(
        *({seed: run.metrics[table.metric] for seed, run in c.runs.items()} for c in (best, second)),
    )
    size = size_in_words(abs(comparison.difference), comparison.half_width, table.unit)
    # The means are over all of their seeds, the comparison is over those that both have.
    behind = (comparison.difference > 0) is not table.maximize and comparison.difference != 0
    lead = "Its mean is the best, but where both ran it is" if behind else "It is"
    lead += f" {size} {'behind' if behind else 'ahead of'} the next, {table.label(second)}"
    if comparison.half_width is None:
        return [f"{lead}, in a single comparison, which may be chance."]
    how = f"n = {comparison.n}, paired over seeds" if comparison.paired else f"n = {comparison.n}"
    doubt = ": no difference can be told" if abs(comparison.difference) <= comparison.half_width else ""
    return [f"{lead} ({how}){doubt}."]


def _broken(best: Configuration) -> list[str]:
    """Says so where the best lost seeds, or diverged."""
    sentences = []
    if best.lost:
        began = best.summary.n + best.lost
        sentences.append(f"Every configuration lost seeds; of this one {best.summary.n} of {began} came through.")
    if best.diverged:
        sentences.append(
            f"{best.diverged} of its {best.summary.n} runs diverged: what they reached, they reached before. Such a "
            "configuration is at the edge of what can be trained."
        )
    return sentences
