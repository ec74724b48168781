"""What an option must be: one rule for each, and the line that a user reads about one that is broken."""

from collections.abc import Callable, Collection, Iterable, Mapping
from typing import Any, NamedTuple

from cifar_tuning.numeric import is_number, is_whole


class Rule(NamedTuple):
    """What an option must be.

    Attributes:
        holds: whether a value is right.
        expected: the end of the sentence "must be …".
    """

    holds: Callable[[Any], bool]
    expected: str


def whole(low: int) -> Rule:
    """A whole number, this or above."""
    return Rule(lambda value: is_whole(value, low), f"a whole number, {low} or above")


def number(holds: Callable[[float], bool], expected: str) -> Rule:
    """A finite number of which something more holds."""
    return Rule(lambda value: is_number(value) and holds(value), expected)


def one_of(names: Collection[str]) -> Rule:
    """One of some words."""
    return Rule(lambda value: isinstance(value, str) and value in names, f"one of {', '.join(names)}")


FLAG = Rule(lambda value: isinstance(value, bool), "true or false")
BELOW_ONE = number(lambda value: 0 <= value < 1, "a number from 0 up to, not including, 1")
UP_TO_ONE = number(lambda value: 0 <= value <= 1, "a number from 0 to 1")


def broken(group: str, rules: Mapping[str, Rule], options: Mapping[str, object]) -> list[str]:
    """Returns a line for each option of a config group that is not what its rule says; those without one are right."""
    return [
        f"{group}.{name}={value}: must be {rules[name].expected}"
        for name, value in options.items()
        if name in rules and not rules[name].holds(value)
    ]


def raise_all(problems: Iterable[str]) -> None:
    """Raises ValueError with all the problems in one message, if there are any."""
    if message := "; ".join(problems):
        raise ValueError(message)
