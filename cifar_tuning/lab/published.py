"""How ours lie to what was published: each row by itself, all rows together, and their order."""

import itertools
import math
from collections.abc import Sequence

from cifar_tuning.lab.experiments import LENGTH, REPORT, options_of
from cifar_tuning.lab.results import Results
from cifar_tuning.lab.tables import Row, describe, rows_of
from cifar_tuning.lab.verdicts import capital
from cifar_tuning.reporting.statistics import CONFIDENCE, compare, holm, p_of_another, summarize
from cifar_tuning.reporting.wording import p_in_words
from cifar_tuning.text import counted

# A mean this far below the published value wants an explanation.
TOLERANCE = 0.02
# Of fewer runs the spread is anybody's guess.
FEWEST = 3
# Images that an accuracy is measured on, the report's and ours.
IMAGES = 5000
# A run of the report: its accuracy, and its place among its table's rows that have the same one.
PublishedRun = tuple[float, int]


def shortfalls(results: Results, experiment: str, published_epochs: int) -> list[str]:
    """Returns a sentence for each row that lies more than two points below the published value, saying why."""
    chances = published_chances(results)
    return [
        _shortfall(row, published_epochs, chances.get((experiment, row.configuration)))
        for row in rows_of(results, experiment)
        if row.published is not None and row.ours is not None and row.ours.mean < row.published - TOLERANCE
    ]


def published_runs(results: Results) -> dict[PublishedRun, list[tuple[str, Row]]]:
    """Returns the report's distinct runs, each with the experiments and rows that it stands in and that have ours.

    One that stands in several tables, as the baseline does, is known by its accuracy; in one table the same accuracy
    belongs to different runs.
    """
    found: dict[PublishedRun, list[tuple[str, Row]]] = {}
    for name in REPORT:
        alike: dict[float, list[str]] = {}
        for row in rows_of(results, name):
            if row.published is None:
                continue
            of_table, base = alike.setdefault(row.published, []), row.configuration.partition(LENGTH)[0].strip()
            if base not in of_table:
                of_table.append(base)
            if row.ours is not None:
                found.setdefault((row.published, of_table.index(base)), []).append((name, row))
    return found


def published_chances(results: Results) -> dict[tuple[str, str], float | None]:
    """Returns how likely a further run of ours would lie as far off as the published one.

    By experiment and configuration. A published run is tested once, whatever tables it stands in, and its p corrected
    for all of them that ours are enough for: among so many single runs some are lucky ones.
    """
    groups = [
        [(name, row) for name, row in rows if row.ours is not None and row.ours.n >= FEWEST]
        for rows in published_runs(results).values()
    ]
    corrected = holm([_chance([row for _, row in rows]) for rows in groups])
    return {(name, row.configuration): p for rows, p in zip(groups, corrected, strict=True) for name, row in rows}


def _chance(rows: Sequence[Row]) -> float | None:
    """Returns the p of the table whose runs are the least sure.

    Tables repeat each other's seeds, so their runs together would be no larger sample.
    """
    found = [p_of_another(row.ours, row.published) for row in rows if row.ours and row.published is not None]
    return max((p for p in found if p is not None), default=None)


def offsets(results: Results) -> list[str]:
    """Returns sentences on how SimpleNN's rows lie to the published ones together, without and with augmentation."""
    groups = _groups(results)
    if not all(groups.values()):
        return []
    without, with_crops = map(_offset, groups.values())
    return [
        f"SimpleNN without augmentation is {without}; with crop and flip it is {with_crops}.",
        "The standard error has two parts: the rows' own spread, divided by the root of their number, and the choice "
        f"of {IMAGES:,} validation images, which all rows share and which differs between the report and us. Our "
        "seeds, which all rows share as well, are not in it.",
    ]


def mean_offset(results: Results) -> float | None:
    """Returns by how many points ours lie above the report's in the rows with augmentation; None without any."""
    found = _groups(results)[True]
    return summarize(points for points, _ in found).mean if found else None


def _groups(results: Results) -> dict[bool, list[tuple[float, float]]]:
    """Returns, of SimpleNN's rows without and with augmentation, ours minus the published one in points, and the
    variance of an accuracy that is measured on so many images.
    """
    groups: dict[bool, list[tuple[float, float]]] = {False: [], True: []}
    for (published, _), rows in published_runs(results).items():
        rows = [(name, row) for name, row in rows if name.startswith(("lab1", "lab2"))]
        means = [row.ours.mean for _, row in rows if row.ours is not None]
        if means:
            augmented = any(_is_augmented(name, row) for name, row in rows)
            variance = published * (1 - published) / IMAGES
            groups[augmented].append((100 * (summarize(means).mean - published), variance))
    return groups


def _is_augmented(experiment: str, row: Row) -> bool:
    return experiment.startswith("lab2") and "augmentation=none" not in row.configuration


def _offset(found: Sequence[tuple[float, float]]) -> str:
    points = summarize(difference for difference, _ in found)
    images = 2 * 100**2 * summarize(variance for _, variance in found).mean
    error = math.sqrt(images + (points.std or 0.0) ** 2 / points.n)
    mean = f"{points.mean:+z.1f}".replace("-", "−").replace("+0.0", "0.0")
    below = f"{sum(one < 0 for one, _ in found)} of {counted(points.n, 'published run')}"
    errors = f"{abs(points.mean) / error:.1f} standard errors of {error:.1f}"
    return f"{mean} points from the published values on average ({errors}), below {below}"


def _shortfall(row: Row, published_epochs: int, p: float | None) -> str:
    assert row.ours is not None
    assert row.published is not None
    name = describe(row.configuration) or "the only row"
    points = 100 * (row.published - row.ours.mean)
    below = f"{capital(name)}: ours is {points:.1f} points below the published value."
    if row.epochs < published_epochs:
        below += f" Ours had {row.epochs} epochs, the report's up to {published_epochs}."
    if row.ours.n < FEWEST:
        return f"{below} {counted(row.ours.n, 'run')} of ours: too few to tell whether that is chance."
    if p is None:
        return f"{below} Our {row.ours.n} runs have no spread to judge it by."
    chance = f"({p_in_words(p)}, n = {row.ours.n})"
    if p >= 1 - CONFIDENCE:
        return (
            f"{below} By itself such a row can't be told from chance: one more run of ours could lie as far off "
            f"{chance}."
        )
    return (
        f"{below} One more run of ours would hardly lie as far off {chance}: the published one was a lucky run, had "
        "easier validation images than ours, or was trained otherwise than the report says."
    )


def order(results: Results, experiment: str) -> list[str]:
    """Returns sentences on whether the published order is reproduced; none where nothing can be ordered.

    All pairs are tested and corrected together: the runs themselves say which lie as published and which do not.
    """
    pairs = _ordered_pairs(results, experiment)
    if not pairs:
        return []
    found = [compare(*(results.values(experiment, row.configuration) for row in pair)) for pair in pairs]
    corrected = holm([comparison.p for comparison in found], tests=len(pairs))
    tested = list(zip(pairs, found, corrected, strict=True))
    agreeing = [p for _, comparison, p in tested if comparison.difference >= 0]
    sure = sum(p is not None and p < 1 - CONFIDENCE for p in agreeing)
    if len(agreeing) == len(pairs):
        return [_all_agree(len(pairs), sure)]
    sentences = [
        f"{len(agreeing)} of {len(pairs)} pairs of rows lie as published, {sure or 'none'} of them beyond chance "
        "(corrected for all pairs). The others follow."
    ]
    for (a, b), comparison, p in tested:
        if comparison.difference >= 0:
            continue
        if p is None:
            judged = f"which is not tested (n = {comparison.n})"
        else:
            judged = f"which is {'beyond chance' if p < 1 - CONFIDENCE else 'within noise'} ({p_in_words(p)})"
        sentences.append(
            f"In the report {describe(a.configuration)} is ahead of {describe(b.configuration)} by "
            f"{100 * ((a.published or 0) - (b.published or 0)):.1f} points. Here it is the other way round, by "
            f"{-100 * comparison.difference:.1f}, {judged}."
        )
    return sentences


def _all_agree(pairs: int, sure: int) -> str:
    which = "both rows lie" if pairs == 1 else f"all {pairs} pairs of rows lie"
    if sure == pairs:
        return f"The published order is reproduced: {which} as there, {'' if pairs == 1 else 'each '}beyond chance."
    how = "which may be chance" if pairs == 1 else f"{sure or 'none'} of them beyond chance (corrected for all pairs)"
    return f"{capital(which)} as published, {how}."


def _ordered_pairs(results: Results, experiment: str) -> list[tuple[Row, Row]]:
    """Returns pairs of rows that both have runs, the better published one first.

    Rows are compared only where they agree in the options that the report's table does not have.
    """
    named = {key for options, _ in results.experiment(experiment).published for key in options}
    rows = [row for row in rows_of(results, experiment) if row.published is not None and row.ours is not None]

    def others(row: Row) -> list[tuple[str, str]]:
        return [(key, value) for key, value in options_of(row.configuration) if key not in named]

    pairs = []
    for a, b in itertools.combinations(rows, 2):
        if others(a) == others(b) and a.published != b.published:
            pairs.append((a, b) if (a.published or 0) > (b.published or 0) else (b, a))
    return pairs
