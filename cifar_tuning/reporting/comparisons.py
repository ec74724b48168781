"""Pairwise comparisons of a hyperparameter's values, all else equal: on average and under single settings."""

import itertools
import statistics
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from cifar_tuning.reporting.factors import Factor
from cifar_tuning.reporting.pairs import Context, Point, Side, two_sides
from cifar_tuning.reporting.statistics import Comparison, compare
from cifar_tuning.reporting.table import Table, value_in_words
from cifar_tuning.reporting.varying import MISSING

# Up to this many values, all pairs are compared; with more, the best with each of the others. The best is chosen by
# the same data, so all pairs count as tests.
ALL_PAIRS = 4
# Most comparisons under single settings of the other hyperparameters that a report adds.
MOST_SETTINGS = 12
# Least pairs of seeds for such a comparison: two show hardly any difference, but count as a test.
FEWEST_SEEDS = 3
# Least pairs of seeds for a useful interval.
ENOUGH_SEEDS = 4


@dataclass(frozen=True)
class Effect:
    """Two values of a hyperparameter compared.

    Attributes:
        option: the hyperparameter; in brackets those that say the same in other words.
        names: of the two values, as a sentence has them.
        setting: of the other hyperparameters, if only one is meant.
        basis: what was compared, in words.
        comparison: the first value's runs with the second's.
        p: corrected for the number of comparisons in the report.
        text: the result as a sentence.
        stands_for: pairs of values for each that is shown: k/2 where the best of k is compared with the k - 1 others.
    """

    option: str
    names: tuple[str, str]
    setting: str
    basis: str
    comparison: Comparison
    p: float | None = None
    text: str = ""
    stands_for: float = 1.0


@dataclass(frozen=True)
class Remark:
    """A sentence about a hyperparameter that is no test."""

    option: str
    text: str
    p: None = None


def compare_values(table: Table, factor: Factor, points: dict[str, list[Point]]) -> Iterator[Effect | Remark]:
    """Compares a hyperparameter's values in pairs, on average and under each setting of the others."""
    ordered = _best_first(points, table.maximize)
    several = len(ordered) <= ALL_PAIRS
    pairs = list(itertools.combinations(ordered, 2) if several else ((ordered[0], other) for other in ordered[1:]))
    if factor.continuous:
        pairs = [(a, b) for a, b in pairs if settings_of(points[a]) & settings_of(points[b])]
    stands_for = 1.0 if several else len(ordered) / 2
    for a, b in pairs:
        yield replace(_effect(table, factor, (a, b), points), stands_for=stands_for)
    for effect in _by_setting(table, factor, pairs, points):
        yield replace(effect, stands_for=stands_for) if isinstance(effect, Effect) else effect


def settings_of(points: Sequence[Point]) -> set[tuple[str, ...]]:
    """Returns the settings of the other hyperparameters under which a value ran."""
    return {others for others, _, _ in points}


def points_of(table: Table, factor: Factor) -> dict[str, list[Point]]:
    """Returns the runs of each value; those without one where it is none to compare."""
    points: dict[str, list[Point]] = {}
    for c in table.configurations:
        others = tuple(c.values[other] for other in factor.others)
        points.setdefault(c.values[factor.place], []).extend(
            (others, seed, run.metrics[table.metric]) for seed, run in c.runs.items()
        )
    if factor.place in factor.conditional or len(points) > 2:
        points.pop(MISSING, None)
    return points


def _best_first(points: dict[str, list[Point]], maximize: bool) -> list[str]:
    means = {value: statistics.mean(metric for _, _, metric in found) for value, found in points.items()}
    return sorted(means, key=lambda value: -means[value] if maximize else means[value])


def _by_others(metrics: Mapping[Context, float]) -> dict[tuple[str, ...], dict[object, float]]:
    """Returns the metrics of each setting by their seeds."""
    found: dict[tuple[str, ...], dict[object, float]] = {}
    for (others, seed), metric in metrics.items():
        found.setdefault(others, {})[seed] = metric
    return found


def _over_seeds(metrics: Mapping[Context, float]) -> dict[tuple[str, ...], float]:
    return {others: statistics.mean(seeds.values()) for others, seeds in _by_others(metrics).items()}


def _over_settings(metrics: Mapping[Context, float]) -> dict[object, float]:
    found: dict[object, list[float]] = {}
    for (_, seed), metric in metrics.items():
        found.setdefault(seed, []).append(metric)
    return {seed: statistics.mean(values) for seed, values in found.items()}


def _effect(table: Table, factor: Factor, values: tuple[str, str], points: dict[str, list[Point]]) -> Effect:
    sides = two_sides(values, points)
    a, b = (side.metrics for side in sides)
    common = [key for key in a if key in b]
    seeds = {seed for _, seed in common}
    settings = {others for others, _ in common}
    if len(seeds) > 1 and len(seeds) >= min(ENOUGH_SEEDS, len(settings)):
        shared = [others for others in settings if all((others, seed) in b and (others, seed) in a for seed in seeds)]
        keys = [key for key in common if key[0] in shared] or common
        comparison = compare(*(_over_settings({key: side[key] for key in keys}) for side in (a, b)))
        averaged = f", averaged over {len(shared)} settings" if len(shared) > 1 else ""
        unshared = f", of which none ran all {len(settings)} settings" if not shared else ""
        basis = f"paired over seeds{averaged}{unshared}"
    elif len(settings) > 1:
        comparison = compare(*(_over_seeds({key: side[key] for key in common}) for side in (a, b)))
        which = "this one seed" if len(seeds) == 1 else f"these {len(seeds)} seeds"
        basis = f"paired over settings: this speaks of other settings, with {which}"
    elif common or len({others for others, _ in (*a, *b)}) == 1:
        comparison = compare(a, b)
        basis = "" if comparison.paired else "unpaired"
    else:
        comparison, basis = _unlike(factor, a, b)
    basis = "; ".join(filter(None, (basis, *_means_and_followers(table, factor, sides), _lost(table, factor, values))))
    return _made(table, factor, values, "", basis, comparison)


def _lost(table: Table, factor: Factor, values: tuple[str, str]) -> str:
    lost = {value: sum(c.lost for c in table.configurations if c.values[factor.place] == value) for value in values}
    counts = " and ".join(
        f"{count} of {value_in_words(table.names[factor.place], value)}" for value, count in lost.items() if count
    )
    return f"this leaves out the runs that were lost, {counts}" if counts else ""


def _unlike(factor: Factor, a: dict[Context, float], b: dict[Context, float]) -> tuple[Comparison, str]:
    """Compares two values that never ran under the same setting of the others with the same seed."""
    # Of settings that were drawn at random a configuration's seeds are no independent trials.
    by_setting = compare(_over_seeds(a), _over_seeds(b))
    if by_setting.paired:
        return by_setting, "no common seed; paired over the other hyperparameters' settings"
    by_seed = compare(_over_settings(a), _over_settings(b))
    seeded = by_seed.paired and by_seed.n > 1 and not factor.drawn
    how = "paired over seeds, but" if seeded else "unpaired, and"
    basis = f"{how} the other hyperparameters differ as well: this may be their doing"
    return (by_seed if seeded else by_setting), basis


def _means_and_followers(table: Table, factor: Factor, sides: tuple[Side, Side]) -> list[str]:
    """Says what was averaged over, and which hyperparameters changed with the value."""
    a, b = (next(c.values for c in table.configurations if c.values[factor.place] == side.value) for side in sides)
    changed = [table.names[place] for place in factor.followers if a[place] != b[place]]
    means = []
    for side in sides:
        own = [table.names[factor.others[place]] for place in side.own]
        if own and side.settings > 1:
            word = value_in_words(table.names[factor.place], side.value)
            means.append(f"of {word} the mean over {side.settings} settings of {' and '.join(own)}")
        else:
            changed += own
    return [*means, *([f"{' and '.join(changed)} changed with it"] if changed else [])]


def _by_setting(
    table: Table, factor: Factor, pairs: Sequence[tuple[str, str]], points: dict[str, list[Point]]
) -> Iterator[Effect | Remark]:
    """Compares under each setting of the other hyperparameters, where several have enough seeds."""
    met = []
    for values in pairs:
        sides = two_sides(values, points)
        a, b = (_by_others(side.metrics) for side in sides)
        several = [others for others in a if len(set(a[others]) & set(b.get(others, ()))) >= FEWEST_SEEDS]
        own = {place for side in sides for place in side.own if side.settings > 1}
        # A single setting would say what the comparison over all of them says already.
        met += [(others, values, own, a[others], b[others]) for others in several if len(several) > 1]
    if len(met) > MOST_SETTINGS:
        text = f"The {len(met)} comparisons under each setting of the others are left out (more than {MOST_SETTINGS})."
        yield Remark(factor.option(table), text)
        return
    settings = list(dict.fromkeys(others for others, *_ in met))
    names = [table.names[other] for other in factor.others]
    differing = [i for i in range(len(names)) if len({others[i] for others in settings}) > 1]
    for others, values, own, a_runs, b_runs in sorted(met, key=lambda found: settings.index(found[0])):
        # That Adam has no momentum goes without saying.
        unsaid = {i for i in differing if others[i] == MISSING and factor.others[i] in factor.conditional} | own
        where = [value_in_words(names[i], others[i]) for i in differing if i not in unsaid]
        where += [f"{names[i]} averaged" for i in sorted(own)]
        yield _made(table, factor, values, ", ".join(where), "paired over seeds", compare(a_runs, b_runs))


def _made(
    table: Table, factor: Factor, values: tuple[str, str], setting: str, basis: str, comparison: Comparison
) -> Effect:
    a, b = (value_in_words(table.names[factor.place], value) for value in values)
    return Effect(factor.option(table), (a, b), setting, basis, comparison, comparison.p)
