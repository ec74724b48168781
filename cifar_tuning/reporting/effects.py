"""What each hyperparameter does: its values compared where all else is equal, the seed included."""

import itertools
import math
import statistics
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from cifar_tuning.reporting.factors import FEWEST_FOR_TREND, Factor, find_factors, numbers_in
from cifar_tuning.reporting.pairs import Context, Point, Side, two_sides
from cifar_tuning.reporting.statistics import Comparison, compare, holm, in_words
from cifar_tuning.reporting.table import Table, value_in_words
from cifar_tuning.reporting.trends import Trend, find_trend, trend_in_words
from cifar_tuning.reporting.varying import MISSING

# Up to so many values are all compared with each other; of more, the best with the others. Which one is the best is
# found in the same data, so that all pairs count as tests.
ALL_PAIRS = 4
# More numbers than this that never meet under equal conditions were drawn from a range.
FEW_NUMBERS = 8
# Up to so many comparisons under each setting of the other hyperparameters are added.
MOST_SETTINGS = 12


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


def find_effects(table: Table, searched: Mapping[str, bool] | None = None) -> list[Effect | Trend]:
    """Compares each hyperparameter's values, corrects for their number and says it in words.

    Where several seeds are common, the metric is averaged over the other hyperparameters' settings seed by seed, and
    the pairs are the seeds: settings of one seed are no independent repetitions. With a single seed the pairs are the
    settings. Only what ran under both values counts. Where nothing did, the groups are compared as they are.
    What follows from a hyperparameter is none of the others: a model's size can't stay while the model changes, nor
    SGD's momentum while Adam comes in its place. That a value is missing is no value where another option decides it,
    or where there are two to compare. Numbers from a continuous range have a trend; where they are too few for one,
    those are compared that nothing else tells apart.

    Args:
        table: the configurations.
        searched: the hyperparameters that a study chose, each by itself, and whether from a continuous range. What is
            not known is told from the values.
    """
    found = [effect for factor in find_factors(table, searched) for effect in _effects(table, factor, bool(searched))]
    corrected = holm([effect.p for effect in found], count_tests(found))
    return [_said(effect, p, table) for effect, p in zip(found, corrected, strict=True)]


def count_tests(effects: Iterable[Effect | Trend]) -> int:
    """Returns how many tests the shown ones were picked from."""
    tested = (effect for effect in effects if effect.p is not None)
    return math.ceil(sum(effect.stands_for if isinstance(effect, Effect) else 1 for effect in tested))


def _said(effect: Effect | Trend, p: float | None, table: Table) -> Effect | Trend:
    if isinstance(effect, Trend):
        return replace(effect, p=p, text=trend_in_words(effect, p, table.metric))
    if table.has_best:
        sentence = in_words(*effect.names, effect.comparison, p, table.unit, table.maximize)
    else:
        sentence = in_words(*effect.names, effect.comparison, p, table.unit, quantity=table.metric)
    # A value's name keeps its spelling, also at the beginning.
    text = f"At {effect.setting}: {sentence}" if effect.setting else sentence.replace("no diff", "No diff", 1)
    shown = "" if effect.setting or not effect.basis else f"; {effect.basis}"
    return replace(effect, p=p, text=f"{text}{shown}.")


def _effects(table: Table, factor: Factor, of_study: bool) -> Iterator[Effect | Trend]:
    points = _points(table, factor)
    if factor.place in factor.conditional or len(points) > 2:
        points.pop(MISSING, None)
    if _has_trend(points, factor.continuous):
        trend = find_trend(table, factor.place, of_study)
        if trend is not None:
            yield trend
        return
    ordered = _best_first(points, table.maximize)
    several = len(ordered) <= ALL_PAIRS
    pairs = list(itertools.combinations(ordered, 2) if several else ((ordered[0], other) for other in ordered[1:]))
    if factor.continuous:
        pairs = [(a, b) for a, b in pairs if _settings(points[a]) & _settings(points[b])]
    stands_for = 1.0 if several else len(ordered) / 2
    for a, b in pairs:
        yield replace(_effect(table, factor, (a, b), points), stands_for=stands_for)
    for effect in _by_setting(table, factor, pairs, points):
        yield replace(effect, stands_for=stands_for)


def _has_trend(points: Mapping[str, Sequence[Point]], continuous: bool) -> bool:
    """Whether values are numbers from a range, as a study's: never two where the others agree, or many alone.

    Of a range that is known to be continuous some meet by chance, if little else varies: all would have to.
    Seeds say nothing about that: a study trains each configuration with the same ones.
    """
    numbers = numbers_in(points)
    if numbers is None or len(numbers) < FEWEST_FOR_TREND:
        return False
    settings = [_settings(found) for found in points.values()]
    common = [len(a & b) for a, b in itertools.combinations(settings, 2)]
    return max(common) < (2 if len(numbers) > FEW_NUMBERS else 1) or (continuous and min(common) < 1)


def _settings(points: Sequence[Point]) -> set[tuple[str, ...]]:
    return {others for others, _, _ in points}


def _points(table: Table, factor: Factor) -> dict[str, list[Point]]:
    points: dict[str, list[Point]] = {}
    for c in table.configurations:
        others = tuple(c.values[other] for other in factor.others)
        points.setdefault(c.values[factor.place], []).extend(
            (others, seed, run.metrics[table.metric]) for seed, run in c.runs.items()
        )
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


def _names(table: Table, place: int, values: tuple[str, str]) -> tuple[str, str]:
    return value_in_words(table.names[place], values[0]), value_in_words(table.names[place], values[1])


def _effect(table: Table, factor: Factor, values: tuple[str, str], points: dict[str, list[Point]]) -> Effect:
    sides = two_sides(values, points)
    a, b = (side.metrics for side in sides)
    common = [key for key in a if key in b]
    seeds = {seed for _, seed in common}
    settings = {others for others, _ in common}
    if len(seeds) > 1:
        comparison = compare(_over_settings(a, common), _over_settings(b, common))
        basis = "paired over seeds" + (f", averaged over {len(settings)} settings" if len(settings) > 1 else "")
    elif len(common) > 1:
        comparison, basis = compare(a, b), "one seed; paired over the other hyperparameters' settings"
    elif common or len(_by_others(a).keys() | _by_others(b).keys()) == 1:
        comparison = compare(a, b)
        basis = "" if comparison.paired else "unpaired"
    else:
        comparison, basis = _never_met(factor, a, b)
    return _made(table, factor, values, "", _with_followers(table, factor, sides, basis), comparison)


def _never_met(factor: Factor, a: dict[Context, float], b: dict[Context, float]) -> tuple[Comparison, str]:
    """Compares two values that never ran under the same setting of the others with the same seed."""
    # Of settings that were drawn at random a configuration's seeds are no independent trials.
    by_setting = compare(_over_seeds(a), _over_seeds(b))
    if by_setting.paired:
        return by_setting, "no common seed; paired over the other hyperparameters' settings"
    by_seed = compare(_over_settings(a, list(a)), _over_settings(b, list(b)))
    seeded = by_seed.paired and by_seed.n > 1 and not factor.drawn
    how = "paired over seeds, but" if seeded else "unpaired, and"
    basis = f"{how} the other hyperparameters differ as well: this may be their doing"
    return (by_seed if seeded else by_setting), basis


def _with_followers(table: Table, factor: Factor, sides: tuple[Side, Side], basis: str) -> str:
    """Adds to what was compared the hyperparameters that changed with the value."""
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
    also = f"{' and '.join(changed)} changed with it" if changed else ""
    return "; ".join(part for part in (basis, *means, also) if part)


def _over_settings(group: dict[Context, float], keys: Sequence[Context]) -> dict[object, float]:
    seeds: dict[object, list[float]] = {}
    for key in keys:
        seeds.setdefault(key[1], []).append(group[key])
    return {seed: statistics.mean(values) for seed, values in seeds.items()}


def _by_setting(
    table: Table, factor: Factor, pairs: Sequence[tuple[str, str]], points: dict[str, list[Point]]
) -> Iterator[Effect]:
    """Compares under each setting of the other hyperparameters, where several have several seeds."""
    met = []
    for values in pairs:
        sides = two_sides(values, points)
        a, b = (_by_others(side.metrics) for side in sides)
        several = [others for others in a if len(set(a[others]) & set(b.get(others, ()))) > 1]
        own = {place for side in sides for place in side.own if side.settings > 1}
        # A single setting would say what the comparison over all of them says already.
        met += [(others, values, own, a[others], b[others]) for others in several if len(several) > 1]
    if len(met) > MOST_SETTINGS:
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
    names = _names(table, factor.place, values)
    return Effect(factor.option(table), names, setting, basis, comparison, comparison.p)
