"""What counts as a number in a configuration: YAML's `true` is an int to Python, and `.nan` a float."""

from numbers import Real
from typing import TypeGuard


def is_number(value: object) -> TypeGuard[float]:
    """True for a finite int or float, false for booleans and everything else."""
    return isinstance(value, Real) and not isinstance(value, bool) and abs(float(value)) < float("inf")


def is_whole(value: object, low: int, high: int | None = None) -> TypeGuard[int]:
    """True for an int within the bounds, which are included; false for booleans and everything else."""
    return isinstance(value, int) and not isinstance(value, bool) and value >= low and (high is None or value <= high)
