"""What counts as a number in a configuration: YAML's `true` is an int to Python, and `.nan` a float."""

from numbers import Integral, Real
from typing import TypeGuard


def is_number(value: object) -> TypeGuard[float]:
    """True for a finite int or float, false for booleans and everything else."""
    return isinstance(value, Real) and not isinstance(value, bool) and abs(float(value)) < float("inf")


def is_whole(value: object, low: int, high: int | None = None) -> TypeGuard[int]:
    """True for a whole number within the bounds, which are included; false for booleans and everything else."""
    if not isinstance(value, Integral) or isinstance(value, bool):  # NumPy's are no int
        return False
    return int(value) >= low and (high is None or int(value) <= high)
