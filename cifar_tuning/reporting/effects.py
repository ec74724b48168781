"""What each hyperparameter does: its values compared where all else is equal, the seed included."""

import itertools
import math
import statistics
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

from cifar_tuning.reporting.factors import FEWEST_FOR_TREND, Factor, find_factors, numbers_in
from cifar_tuning.reporting.statistics import CONFIDENCE, Comparison, compare, holm, in_words, p_in_words
from cifar_tuning.reporting.table import Table, value_in_words
from cifar_tuning.reporting.varying import MISSING, as_number

# Up to so many values are all compared with each other; of more, the best with the others. Which one is the best is
# found in the same data, so that all pairs count as tests.
ALL_PAIRS = 4
# More numbers than this that never meet under equal conditions were drawn from a range.
FEW_NUMBERS = 8
# Up to so many comparisons under each setting of the other hyperparameters are added.
MOST_SETTINGS = 12

Context = tuple[tuple[str, ...], object]  # the other hyperparameters' values, the seed
Point = tuple[tuple[str, ...], object, float]  # the same and the metric


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
class Trend:
    """How the metric goes with a hyperparameter whose values were drawn from a range.

    Attributes:
        option: the hyperparameter.
        rho: Spearman's rank correlation with the metric.
        low: lower end of its 95 % interval.
        high: upper end.
        n: configurations.
        p: corrected for the number of comparisons in the report.
        text: the result as a sentence.
    """

    option: str
    rho: float
    low: float
    high: float
    n: int
    p: float | None = None
    text: str = ""


def find_effects(table: Table) -> list[Effect | Trend]:
    """Compares each hyperparameter's values, corrects for their number and says it in words.

    Where several seeds are common, the metric is averaged over the other hyperparameters' settings seed by seed, and
    the pairs are the seeds: settings of one seed are no independent repetitions. With a single seed the pairs are the
    settings. Only what ran under both values counts. Where nothing did, the groups are compared as they are.
    What follows from a hyperparameter is none of the others: a model's size can't stay while the model changes.
    """
    found = [effect for factor in find_factors(table) for effect in _effects(table, factor)]
    corrected = holm([effect.p for effect in found], count_tests(found))
    return [_said(effect, p, table) for effect, p in zip(found, corrected, strict=True)]


def count_tests(effects: Iterable[Effect | Trend]) -> int:
    """Returns how many tests the shown ones were picked from."""
    tested = (effect for effect in effects if effect.p is not None)
    return math.ceil(sum(effect.stands_for if isinstance(effect, Effect) else 1 for effect in tested))


def _said(effect: Effect | Trend, p: float | None, table: Table) -> Effect | Trend:
    if isinstance(effect, Trend):
        return replace(effect, p=p, text=_trend_in_words(effect, p, table))
    if table.has_best:
        sentence = in_words(*effect.names, effect.comparison, p, table.unit, table.maximize)
    else:
        sentence = in_words(*effect.names, effect.comparison, p, table.unit, quantity=table.metric)
    # A value's name keeps its spelling, also at the beginning.
    text = f"At {effect.setting}: {sentence}" if effect.setting else sentence.replace("no diff", "No diff", 1)
    shown = "" if effect.setting or not effect.basis else f"; {effect.basis}"
    return replace(effect, p=p, text=f"{text}{shown}.")


def _effects(table: Table, factor: Factor) -> Iterator[Effect | Trend]:
    points = _points(table, factor)
    if _drawn(points):
        trend = _trend(table, factor.place)
        if trend is not None:
            yield trend
        return
    ordered = _best_first(points, table.maximize)
    several = len(ordered) <= ALL_PAIRS
    pairs = list(itertools.combinations(ordered, 2) if several else ((ordered[0], other) for other in ordered[1:]))
    stands_for = 1.0 if several else len(ordered) / 2
    for a, b in pairs:
        yield replace(_effect(table, factor, (a, b), points), stands_for=stands_for)
    for effect in _by_setting(table, factor, pairs, points):
        yield replace(effect, stands_for=stands_for)


def _drawn(points: dict[str, list[Point]]) -> bool:
    """Whether values are numbers from a range, as a study's: never two where the others agree, or many alone."""
    numbers = numbers_in(points)
    if numbers is None or len(numbers) < FEWEST_FOR_TREND:
        return False
    settings = [{others for others, _, _ in found} for found in points.values()]
    if not any(a & b for a, b in itertools.combinations(settings, 2)):
        return True
    pairs = itertools.combinations(map(_by_context, points.values()), 2)
    return len(numbers) > FEW_NUMBERS and max(len(set(a) & set(b)) for a, b in pairs) < 2


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


def _by_context(points: Sequence[Point]) -> dict[Context, float]:
    return {(others, seed): metric for others, seed, metric in points}


def _by_others(group: dict[Context, float]) -> dict[object, float]:
    means: dict[object, list[float]] = {}
    for (others, _), metric in group.items():
        means.setdefault(others, []).append(metric)
    return {others: statistics.mean(metrics) for others, metrics in means.items()}


def _names(table: Table, place: int, values: tuple[str, str]) -> tuple[str, str]:
    return value_in_words(table.names[place], values[0]), value_in_words(table.names[place], values[1])


def _effect(table: Table, factor: Factor, values: tuple[str, str], points: dict[str, list[Point]]) -> Effect:
    a, b = (_by_context(points[value]) for value in values)
    common = [key for key in a if key in b]
    seeds = {seed for _, seed in common}
    settings = {others for others, _ in common}
    if len(seeds) > 1:
        comparison = compare(_over_settings(a, common), _over_settings(b, common))
        basis = "paired over seeds" + (f", averaged over {len(settings)} settings" if len(settings) > 1 else "")
    elif len(common) > 1:
        comparison, basis = compare(a, b), "one seed; paired over the other hyperparameters' settings"
    elif common or not factor.others:
        comparison = compare(a, b)
        basis = "" if comparison.paired else "unpaired"
    else:
        comparison, basis = _never_met(factor, a, b)
    return _made(table, factor, values, "", _with_followers(table, factor, values, basis), comparison)


def _never_met(factor: Factor, a: dict[Context, float], b: dict[Context, float]) -> tuple[Comparison, str]:
    """Compares two values that never ran under the same setting of the others with the same seed."""
    # Of settings that were drawn at random a configuration's seeds are no independent trials.
    by_setting = compare(_by_others(a), _by_others(b))
    if by_setting.paired:
        return by_setting, "no common seed; paired over the other hyperparameters' settings"
    by_seed = compare(_over_settings(a, list(a)), _over_settings(b, list(b)))
    seeded = by_seed.paired and by_seed.n > 1 and not factor.drawn
    how = "paired over seeds, but" if seeded else "unpaired, and"
    basis = f"{how} the other hyperparameters differ as well: this may be their doing"
    return (by_seed if seeded else by_setting), basis


def _with_followers(table: Table, factor: Factor, values: tuple[str, str], basis: str) -> str:
    """Adds to what was compared the hyperparameters that changed with the value."""
    a, b = (next(c.values for c in table.configurations if c.values[factor.place] == value) for value in values)
    changed = [table.names[place] for place in factor.followers if a[place] != b[place]]
    also = f"{' and '.join(changed)} changed with it" if changed else ""
    return "; ".join(part for part in (basis, also) if part)


def _over_settings(group: dict[Context, float], keys: Sequence[Context]) -> dict[object, float]:
    seeds: dict[object, list[float]] = {}
    for key in keys:
        seeds.setdefault(key[1], []).append(group[key])
    return {seed: statistics.mean(values) for seed, values in seeds.items()}


def _by_setting(
    table: Table, factor: Factor, pairs: Sequence[tuple[str, str]], points: dict[str, list[Point]]
) -> Iterator[Effect]:
    """Compares under each setting of the other hyperparameters, where several have several seeds."""
    groups: dict[tuple[str, ...], dict[str, dict[object, float]]] = {}
    for value, found in points.items():
        for others, seed, metric in found:
            groups.setdefault(others, {}).setdefault(value, {})[seed] = metric
    met = [
        (others, a, b)
        for others, by_value in groups.items()
        for a, b in pairs
        if len(set(by_value.get(a, ())) & set(by_value.get(b, ()))) > 1
    ]
    settings = list(dict.fromkeys(others for others, _, _ in met))
    if len(settings) < 2 or len(met) > MOST_SETTINGS:
        return
    names = [table.names[other] for other in factor.others]
    differing = [i for i in range(len(names)) if len({others[i] for others in settings}) > 1]
    for others, a, b in met:
        where = ", ".join(value_in_words(names[i], others[i]) for i in differing)
        comparison = compare(groups[others][a], groups[others][b])
        yield _made(table, factor, (a, b), where, "paired over seeds", comparison)


def _made(
    table: Table, factor: Factor, values: tuple[str, str], setting: str, basis: str, comparison: Comparison
) -> Effect:
    names = _names(table, factor.place, values)
    return Effect(factor.option(table), names, setting, basis, comparison, comparison.p)


def _trend(table: Table, place: int) -> Trend | None:
    from scipy.stats import norm, spearmanr

    found = [(as_number(c.values[place]), c.summary.mean) for c in table.configurations if c.values[place] != MISSING]
    numbers, metrics = [number for number, _ in found], [metric for _, metric in found]
    n = len(found)
    if n < FEWEST_FOR_TREND or len(set(metrics)) < 2:
        return None
    result = spearmanr(numbers, metrics)
    rho = float(result.statistic)
    # Bonett and Wright, Psychometrika 65 (2000): the standard error of Fisher's z of a rank correlation.
    z, error = math.atanh(max(-0.9999, min(0.9999, rho))), math.sqrt((1 + rho**2 / 2) / (n - 3))
    width = float(norm.ppf((1 + CONFIDENCE) / 2)) * error
    low, high = min(rho, math.tanh(z - width)), max(rho, math.tanh(z + width))
    return Trend(table.names[place], rho, low, high, n, float(result.pvalue))


def _trend_in_words(trend: Trend, p: float | None, table: Table) -> str:
    facts = f"rank correlation {trend.rho:+.2f}, {trend.low:+.2f} to {trend.high:+.2f}, {p_in_words(p)}, n = {trend.n}"
    if trend.low <= 0 <= trend.high:
        return f"No rising or falling trend of {table.metric} with {trend.option} can be told ({facts})."
    way = "higher" if (trend.rho > 0) else "lower"
    doubt = ", which may be chance among so many tests" if p is not None and p >= 1 - CONFIDENCE else ""
    return f"A larger {trend.option} goes with a {way} {table.metric} ({facts}){doubt}."
