"""The effect of each hyperparameter: which test suits it, the tests corrected together, the results in words."""

import itertools
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from cifar_tuning.reporting.comparisons import Effect, Remark, compare_values, points_of, settings_of
from cifar_tuning.reporting.factors import FEWEST_FOR_TREND, Factor, find_factors, numbers_in
from cifar_tuning.reporting.interactions import Interaction, find_interactions
from cifar_tuning.reporting.pairs import Point
from cifar_tuning.reporting.response import Influence, find_influences, influence_in_words
from cifar_tuning.reporting.statistics import holm
from cifar_tuning.reporting.table import Table
from cifar_tuning.reporting.trends import Trend, find_trend, trend_in_words
from cifar_tuning.reporting.wording import in_words, p_in_words

# More values than this that never occur under equal settings are taken for draws from a range.
FEW_NUMBERS = 8

Finding = Effect | Trend | Influence | Interaction | Remark


def find_effects(table: Table, searched: Mapping[str, bool] | None = None) -> list[Finding]:
    """Compares each hyperparameter's values, corrects for their number and says it in words.

    Only what ran under both values counts. The pairs are seeds, the metric averaged over the settings of the others
    that they share: settings of one seed are no independent repetitions. Of fewer seeds than four nothing could be
    told; where there are more settings, these are the pairs, and the sentence says that it speaks of no other seeds.
    Where nothing ran under both, the groups are compared as they are.
    What follows from a hyperparameter is none of the others: a model's size can't stay while the model changes, nor
    SGD's momentum while Adam comes in its place. That a value is missing is no value where another option decides it,
    or where there are two to compare. What was drawn, and what never met for that, is looked for in a model of all at
    once, and where there are too few configurations for that, in a trend.

    Args:
        table: the configurations.
        searched: the hyperparameters that a study chose, each by itself, and whether from a continuous range. What is
            not known is told from the values.

    Returns:
        Of pairs of hyperparameters those that depend on each other first, the others last; between them what each does.
    """
    factors = find_factors(table, searched)
    compared = [factor for factor in factors if not _of_images(table, factor)]
    points = {factor.place: points_of(table, factor) for factor in compared}
    drawn = {f.place for f in compared if _has_trend(points[f.place], f.continuous, bool(searched))}
    modelled = drawn | {f.place for f in compared if _never_met(points[f.place], f.drawn or bool(searched))}
    influences = find_influences(table, factors, modelled, bool(searched))
    found: list[Finding] = []
    for factor in compared:
        if (influence := influences.get(factor.place)) is not None:
            found.append(influence)
        elif factor.place in drawn:
            trend = find_trend(table, factor.place, bool(searched))
            found += [trend] if trend is not None else []
        else:
            found += (
                e for e in compare_values(table, factor, points[factor.place]) if not (searched and _by_chance(e))
            )
    corrected = holm([effect.p for effect in found], count_tests(found))
    # A study's choices met by chance: there is no grid.
    grid = [f for f in compared if not modelled and f.place not in f.conditional]
    interactions = find_interactions(table, grid)
    together = holm([interaction.p for interaction in interactions])
    pairs = [replace(i, p=p) for i, p in zip(interactions, together, strict=True)]
    sure = [_depends(pair) for pair in pairs if pair.sure]
    said = [_said(effect, p, table, sure) for effect, p in zip(found, corrected, strict=True)]
    return [*sure, *_settings_first(said, sure), *(pair for pair in pairs if not pair.sure)]


def count_tests(effects: Iterable[Finding]) -> int:
    """Returns how many tests of single hyperparameters the shown ones were picked from."""
    tested = (e for e in effects if e.p is not None and not isinstance(e, Interaction))
    return math.ceil(sum(effect.stands_for if isinstance(effect, Effect) else 1 for effect in tested))


def _by_chance(effect: Effect | Remark) -> bool:
    """Whether a single run was compared with another one that has other values of other hyperparameters, too."""
    if not isinstance(effect, Effect):
        return False
    return effect.comparison.half_width is None and not effect.comparison.paired


def _of_images(table: Table, factor: Factor) -> bool:
    """Whether a hyperparameter decides which images the runs are judged on, so that its values can't be compared."""
    names = {table.names[place] for place in (factor.place, *factor.twins, *factor.followers)}
    return any(names & {key, key.removesuffix("._target_")} for key in table.images)


def _depends(pair: Interaction) -> Interaction:
    first, second = pair.options
    return replace(pair, text=f"What {first} does depends on {second} ({p_in_words(pair.p)}): {pair.text}.")


def _settings_first(found: Sequence[Finding], sure: Sequence[Interaction]) -> list[Finding]:
    """Returns what was found, an average behind what it is of where that differs."""
    differing = {option for pair in sure for option in pair.options}
    ordered: list[Finding] = []
    for _, group in itertools.groupby(found, key=lambda effect: effect.option):
        averages = lambda e: isinstance(e, Effect) and not e.setting and e.option in differing  # noqa: E731
        ordered += sorted(group, key=averages)
    return ordered


def _said(effect: Finding, p: float | None, table: Table, sure: Sequence[Interaction]) -> Finding:
    if isinstance(effect, Trend):
        return replace(effect, p=p, text=trend_in_words(effect, p, table.metric))
    if isinstance(effect, Influence):
        return replace(effect, p=p, text=influence_in_words(effect, p))
    if not isinstance(effect, Effect):
        return effect
    if table.has_best or table.images:
        sentence = in_words(*effect.names, effect.comparison, p, table.unit, table.maximize)
    else:
        sentence = in_words(*effect.names, effect.comparison, p, table.unit, quantity=table.metric)
    if effect.setting:
        text = f"At {effect.setting}: {sentence}"
    elif any(effect.option in pair.options for pair in sure):
        text = f"On average only: {sentence}"
    else:  # A value's name keeps its spelling, also at the beginning.
        text = sentence.replace("no diff", "No diff", 1)
    shown = "" if effect.setting or not effect.basis else f"; {effect.basis}"
    return replace(effect, p=p, text=f"{text}{shown}.")


def _never_met(points: Mapping[str, Sequence[Point]], drawn: bool) -> bool:
    """Whether values did not meet under the same setting of the others, because these were drawn."""
    settings = [settings_of(found) for found in points.values()]
    return drawn and any(not a & b for a, b in itertools.combinations(settings, 2))


def _has_trend(points: Mapping[str, Sequence[Point]], continuous: bool, of_study: bool) -> bool:
    """Whether values are numbers from a range, as a study's: never two where the others agree, or many alone.

    Of a range that is known to be continuous some meet by chance, if little else varies: all would have to.
    Seeds say nothing about that in a study, which trains each configuration with the same ones. Numbers that were typed
    and share seeds are a grid's, however many they are.
    """
    numbers = numbers_in(points)
    if numbers is None or len(numbers) < FEWEST_FOR_TREND:
        return False
    common = _common([settings_of(found) for found in points.values()])
    apart = max(common) < (2 if len(numbers) > FEW_NUMBERS else 1)
    if continuous:
        return apart or min(common) < 1
    return apart and (of_study or min(_common([{point[:2] for point in found} for found in points.values()])) <= 1)


def _common(sets: Sequence[set[Any]]) -> list[int]:
    return [len(a & b) for a, b in itertools.combinations(sets, 2)]
