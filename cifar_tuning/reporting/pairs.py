"""The runs of two values of a hyperparameter, matched by what was held equal."""

import statistics
from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass

from cifar_tuning.reporting.varying import MISSING

Context = tuple[tuple[str, ...], object]  # the other hyperparameters' values, the seed
Point = tuple[tuple[str, ...], object, float]  # the same and the metric


@dataclass(frozen=True)
class Side:
    """The runs of one of two values.

    Attributes:
        value: the value.
        metrics: by what was held equal; what only this value has is missing there, and averaged over.
        own: places, among the other hyperparameters, of those that this value always has and the other one never.
        settings: how many settings of its own options the average is over.
    """

    value: str
    metrics: dict[Context, float]
    own: Sequence[int]
    settings: int


def two_sides(values: tuple[str, str], points: Mapping[str, Sequence[Point]]) -> tuple[Side, Side]:
    """Returns the runs of two values so that they can meet.

    A momentum that SGD has and Adam has not can't be held equal between them: SGD's runs are averaged over it.
    """
    a, b = (points[value] for value in values)
    own_a, own_b = _own(a, b), _own(b, a)
    first = _side(values[0], a, own_a, {context for context, _ in _blanked(b, own_b)})
    return first, _side(values[1], b, own_b, first.metrics.keys())


def _own(points: Sequence[Point], others: Sequence[Point]) -> list[int]:
    places = range(len(points[0][0]))
    has = [all(options[place] != MISSING for options, _, _ in points) for place in places]
    lacks = [all(options[place] == MISSING for options, _, _ in others) for place in places]
    return [place for place in places if has[place] and lacks[place]]


def _blanked(points: Sequence[Point], own: Sequence[int]) -> list[tuple[Context, float]]:
    return [
        ((tuple(MISSING if place in own else value for place, value in enumerate(options)), seed), metric)
        for options, seed, metric in points
    ]


def _side(value: str, points: Sequence[Point], own: Sequence[int], others: Set[Context]) -> Side:
    settings: dict[tuple[str, ...], dict[Context, float]] = {}
    for (options, _, _), (context, metric) in zip(points, _blanked(points, own), strict=True):
        settings.setdefault(tuple(options[place] for place in own), {})[context] = metric
    met = {context for found in settings.values() for context in found if context in others}
    # A mean over other settings with one seed than with another would take their difference for the seed's.
    whole = [found for found in settings.values() if met <= found.keys()] or list(settings.values())
    metrics: dict[Context, list[float]] = {}
    for found in whole:
        for context, metric in found.items():
            metrics.setdefault(context, []).append(metric)
    return Side(value, {context: statistics.mean(values) for context, values in metrics.items()}, own, len(whole))
