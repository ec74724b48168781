"""Which hyperparameters are aliases of each other, and which are determined by another one."""

from collections.abc import Iterable, Mapping, Sequence, Set
from dataclasses import dataclass

from cifar_tuning.reporting.table import Table
from cifar_tuning.reporting.varying import MISSING, as_number

# Fisher's interval of a trend needs n > 4, where the order is held constant, and means little long before.
FEWEST_FOR_TREND = 6
# A fraction with more digits was drawn, not typed.
MOST_TYPED_DIGITS = 5


@dataclass(frozen=True)
class Factor:
    """A hyperparameter, told from those that follow from it; all are places in the table's names.

    Attributes:
        place: the one whose values are compared.
        twins: each has one value for each of its values and the other way round, as a model and its size.
        followers: its value decides theirs, but not the other way round.
        others: what may differ under one of its values.
        drawn: whether one of the others was drawn anew for every configuration.
        continuous: whether its own values were drawn from a continuous range.
        conditional: of all, those that are there under some values of another one only, as an optimizer's momentum.
    """

    place: int
    twins: Sequence[int]
    followers: Sequence[int]
    others: Sequence[int]
    drawn: bool
    continuous: bool
    conditional: Set[int]

    def option(self, table: Table) -> str:
        """Returns its name with its twins'."""
        names = [table.names[twin] for twin in self.twins]
        return table.names[self.place] + (f" ({', '.join(names)})" if names else "")


def find_factors(table: Table, searched: Mapping[str, bool] | None = None) -> list[Factor]:
    """Returns the hyperparameters to compare, each with what follows from it, in the table's order.

    Args:
        table: the configurations.
        searched: those that a study chose, each by itself, and whether it drew them from a continuous range.
    """
    known = searched or {}
    columns = list(zip(*(c.values for c in table.configurations), strict=True))
    places = range(len(columns))
    continuous = {p for p in places if known.get(table.names[p], _untyped(columns[p]))}
    # A number of its own for every configuration would decide all else by mere coincidence.
    drawn = continuous | {place for place in places if _own_number(columns[place])}
    chosen = {place for place in places if table.names[place] in known}
    follows = {place: [] if place in drawn else _following(columns, place, chosen, continuous) for place in places}
    conditional = {
        place
        for place in places
        if any(other != place and other not in drawn and _decides_presence(columns, other, place) for other in places)
    }
    factors: list[Factor] = []
    told: set[int] = set()

    # A word says more than the number that stands for it: models are compared, not their sizes; and an option that
    # is always there more than one that comes with it.
    def rank(place: int) -> tuple[bool, bool, int]:
        return place in conditional, numbers_in(columns[place]) is not None, place

    for place in sorted(places, key=rank):
        if place in told:
            continue
        twins = [other for other in follows[place] if _decides(columns, other, place)]
        followers = [other for other in follows[place] if other not in twins]
        others = [other for other in places if other != place and other not in follows[place]]
        new = bool(drawn.intersection(others))
        factors.append(Factor(place, twins, followers, others, new, place in continuous, conditional))
        told.update(twin for twin in twins if twin not in drawn)  # the others have a trend all the same
    return sorted(factors, key=lambda factor: factor.place)


def _following(columns: Sequence[Sequence[str]], place: int, chosen: Set[int], continuous: Set[int]) -> list[int]:
    """Returns which columns follow from one; of two that a study chose, each by itself, neither does."""
    return [
        other
        for other in range(len(columns))
        if other != place
        and not {place, other} <= chosen
        and _decides(columns, place, other)
        and not _may_coincide(columns, place, other, other in continuous)
    ]


def _decides(columns: Sequence[Sequence[str]], a: int, b: int) -> bool:
    return len(set(zip(columns[a], columns[b], strict=True))) == len(set(columns[a]))


def _may_coincide(columns: Sequence[Sequence[str]], a: int, b: int, continuous: bool) -> bool:
    """Whether a decides b merely because no two configurations share a value of a.

    A word of its own for every configuration is taken for what decides a typed number: variants tie options on
    purpose, and models have sizes. Of two numbers, or of one that was drawn, nothing tells that they belong together.
    """
    if len(set(columns[a])) < len(columns[a]):
        return False
    return continuous or (_several_numbers(columns[a]) and _several_numbers(columns[b]))


def _decides_presence(columns: Sequence[Sequence[str]], a: int, b: int) -> bool:
    """Whether a choice among several values decides if another option, which some configurations lack, is there."""
    pairs = {(value, other != MISSING) for value, other in zip(columns[a], columns[b], strict=True)}
    choices = set(columns[a])
    return MISSING in columns[b] and len(choices - {MISSING}) > 1 and len(pairs) == len(choices)


def _own_number(column: Sequence[str]) -> bool:
    there = [value for value in column if value != MISSING]
    numbers = numbers_in(set(there)) or []
    return len(numbers) >= FEWEST_FOR_TREND and 2 * len(numbers) > len(there)


def _untyped(column: Sequence[str]) -> bool:
    """Whether every configuration that has the option has a number of its own, and one that nobody would type."""
    there = [value for value in column if value != MISSING]
    if not _several_numbers(there) or len(set(there)) < len(there):
        return False
    return any(not float(value).is_integer() and _digits(value) > MOST_TYPED_DIGITS for value in there)


def _digits(number: str) -> int:
    return len(number.partition("e")[0].lstrip("-").replace(".", "").strip("0"))


def _several_numbers(values: Iterable[str]) -> bool:
    return len(numbers_in(set(values)) or []) > 1


def numbers_in(values: Iterable[str]) -> list[float] | None:
    """Returns the numbers that values are, those that are missing left out; None if there are words among them."""
    found = [as_number(value) for value in values if value != MISSING]
    numbers = [number for number in found if number is not None]
    return numbers if len(numbers) == len(found) else None
