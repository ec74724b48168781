"""The Pareto front of a study: the configurations that no other one dominates."""

from collections.abc import Mapping, Sequence

from cifar_tuning.reporting.table import Configuration, Table
from cifar_tuning.reporting.wording import number


def pareto_front(points: Sequence[Sequence[float]], maximize: Sequence[bool]) -> list[int]:
    """Returns the places of the points that no other one beats, in their order; of equal points all.

    Args:
        points: a value for each objective.
        maximize: for each objective, whether more is better.
    """
    signs = [1 if more else -1 for more in maximize]
    gains = [tuple(sign * value for sign, value in zip(signs, point, strict=True)) for point in points]
    return [
        place
        for place, own in enumerate(gains)
        if not any(other != own and all(a >= b for a, b in zip(other, own, strict=True)) for other in gains)
    ]


def front_in_words(table: Table, objectives: Mapping[str, bool], most: int) -> list[str]:
    """Returns sentences about a study's front: that nothing is its best, and the configurations that nothing beats.

    Args:
        table: of the study; configurations without all of the objectives are left out.
        objectives: their names, and whether more of each is better.
        most: of the front's configurations, so many are named.
    """
    found = [(c, values) for c in table.configurations if (values := _values(c, objectives)) is not None]
    front = [found[place] for place in pareto_front([values for _, values in found], list(objectives.values()))]
    wanted = " and ".join(f"{'more' if more else 'less'} `{name}`" for name, more in objectives.items())
    named = [
        f"{table.label(c)} ({', '.join(f'{name} {number(v)}' for name, v in zip(objectives, values, strict=True))})"
        for c, values in front[:most]
    ]
    more = f"; and {len(front) - most} more" if len(front) > most else ""
    return [
        f"The study looked for {wanted}: none of its configurations is the best.",
        f"The Pareto front, {len(front)} of {len(found)} configurations (no other one is as good in all of these and "
        f"better in one): {'; '.join(named)}{more}.",
    ]


def _values(configuration: Configuration, objectives: Mapping[str, bool]) -> list[float] | None:
    found = [configuration.over_seeds(name) for name in objectives]
    return [summary.mean for summary in found if summary is not None] if None not in found else None
