"""How far the page's figures can be trusted: other corrections, other epochs, other stacks."""

import itertools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from statistics import mean

from cifar_tuning.lab.published import published_runs
from cifar_tuning.lab.results import Results
from cifar_tuning.lab.rules import rule_on
from cifar_tuning.lab.verdicts import Verdict
from cifar_tuning.reporting.statistics import CONFIDENCE, holm
from cifar_tuning.text import counted

# On either side of the best epoch.
NEIGHBOURS = 2


@dataclass(frozen=True)
class Checked:
    """A verdict, and whether it stands when it is asked for otherwise.

    Attributes:
        verdict: as it is.
        page_p: of the comparison that decided, corrected for all of the page; None without a test.
        barely: whether the outcome is another with such p values.
        by_last_epoch: the outcome if each run counts by its last epoch; empty where no figure changes.
    """

    verdict: Verdict
    page_p: float | None
    barely: bool
    by_last_epoch: str

    @property
    def outcome(self) -> str:
        """The verdict's word or words."""
        return f"{self.verdict.outcome}, barely" if self.barely else self.verdict.outcome


def check(results: Results, *judges: Callable[[Results], list[Verdict]]) -> list[list[Checked]]:
    """Returns the verdicts of each judge, checked; the tests of all judges together are those of the page."""
    groups = [judge(results) for judge in judges]
    by_last = [judge(results.by_last_epoch()) for judge in judges]
    verdicts = [verdict for group in groups for verdict in group]
    corrected = iter(holm([contest.raw_p for verdict in verdicts for contest in verdict.contests]))
    return [
        [
            _checked(verdict, other, list(itertools.islice(corrected, len(verdict.contests))))
            for verdict, other in zip(*pair, strict=True)
        ]
        for pair in zip(groups, by_last, strict=True)
    ]


def _checked(verdict: Verdict, other: Verdict, page: Sequence[float | None]) -> Checked:
    pairs = [(contest, p) for contest, p in zip(verdict.contests, page, strict=True) if contest.side != "missing"]
    stricter = [
        replace(one, side="level") if one.side in ("ahead", "behind") and (p is None or p >= 1 - CONFIDENCE) else one
        for one, p in zip(verdict.contests, page, strict=True)
    ]
    decided = any(p is not None for p in page)
    barely = decided and rule_on(stricter, verdict.rule).outcome != verdict.outcome
    last = "" if verdict.evidence == other.evidence else other.outcome
    return Checked(verdict, pairs[verdict.decisive][1] if pairs else None, barely, last)


def sentences(results: Results, groups: Sequence[Sequence[Checked]]) -> list[str]:
    """Returns, for the page's introduction, how many tests there are, and what best epochs and stacks do to them."""
    contests = [contest for group in groups for one in group for contest in one.verdict.contests]
    lines = [f"The verdicts rest on {counted(sum(one.raw_p is not None for one in contests), 'test')}."]
    if (found := peaks(results)) is not None:
        lines.append(
            f"A best epoch flatters, and not all rows alike: by configuration, it is {found[0]:.1f} to {found[1]:.1f} "
            "points above the mean of the two epochs before and the two after it, most where the curve jumps."
        )
    if apart := reruns(results):
        different = [points for points in apart if points]
        lines.append(
            "Some runs have the same configuration and seed in two tables. Of "
            f"{counted(len(apart), 'such pair')} {len(different) or 'none'} differ"
            + (
                f", by {mean(different):.1f} points in the mean and {max(different):.1f} at most, because they were "
                "trained in stacks of other runs, which add up the same numbers in another order "
                "([performance.md](performance.md#stacked-runs)). That alone makes a difference over five seeds "
                f"uncertain by ± {_of_reruns(apart):.1f} points; a narrower interval is luck."
                if different
                else "."
            )
        )
    return lines


def _of_reruns(apart: Sequence[float], seeds: int = 5) -> float:
    """Returns the half width of the 95 % interval around a mean difference that comes from training again alone."""
    from scipy.stats import t

    spread = math.sqrt(mean(points**2 for points in apart))
    return float(t.ppf((1 + CONFIDENCE) / 2, seeds - 1)) * spread / math.sqrt(seeds)


def peaks(results: Results) -> tuple[float, float] | None:
    """Returns by how many points the best epoch is above its neighbours, by configuration: the least and the most.

    A best epoch is one of luck as well: the two epochs before and after it have the same training, nearly, and no
    choice. None without curves.
    """
    found: dict[tuple[str, str], list[float]] = {}
    for run in results.runs:
        curve, best = results.curves.get(run.key, {}).get("val_acc", []), run.best_epoch
        near = curve[max(0, best - NEIGHBOURS) : best] + curve[best + 1 : best + 1 + NEIGHBOURS]
        values = [value for value in near if value is not None]
        if values:
            found.setdefault(run.key[:2], []).append(100 * (run.val_acc - mean(values)))
    means = [mean(values) for values in found.values()]
    return (min(means), max(means)) if means else None


def reruns(results: Results) -> list[float]:
    """Returns, in points, how far two runs of one configuration and seed lie apart, for each pair of two tables."""
    found = []
    for rows in published_runs(results).values():
        tables = [results.values(name, row.configuration) for name, row in rows]
        for a, b in itertools.combinations(tables, 2):
            found += [100 * abs(a[seed] - b[seed]) for seed in a if seed in b]
    return found
