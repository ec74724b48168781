"""Which of a sweep's jobs is the best: one rule for its table, for `predict.py` and for MLflow."""

import math
from collections.abc import Iterable, Sequence

# States of a job that came to its end: a diverged one has its accuracy too. The best accuracy of a pruned, failed or
# killed one is that of an unfinished training: it doesn't compete.
ENDED = ("complete", "diverged")
# Figures of a run, by their public names, of which less is better; of the others more is.
SMALLER_IS_BETTER = ("train/loss", "val/loss", "epoch_seconds", "model/macs", "model/parameters")
# What jobs are ranked by unless their `objective` is another figure.
BEST_ACCURACY = "val/acc_best"


def merit(name: str, value: float | None) -> float | None:
    """Returns a figure as one of which the largest is the best."""
    return -value if value is not None and name in SMALLER_IS_BETTER else value


def competes(state: str | None, value: float | None) -> bool:
    """Whether a job can be a sweep's best: it ended, with what it is ranked by."""
    return state in ENDED and value is not None


def can_win(values: Sequence[float | None] | None, violations: Iterable[float]) -> bool:
    """Whether a complete trial can be its study's best: its values are finite, and it violates no constraint.

    Optuna has an infinite value for the best there can be; it is what a model returns that overflowed.

    Args:
        values: of its objectives.
        violations: of its constraints; above 0 is against one.
    """
    finite = bool(values) and all(value is not None and math.isfinite(value) for value in values or ())
    return finite and all(violation <= 0 for violation in violations)


def rank(state: str | None, value: float | None, job: str | None) -> tuple[bool, bool, float, float, str]:
    """Returns what sorts jobs, the best first: those that ended, by their value, the first of equals by its number.

    Args:
        state: how the job ended.
        value: its best validation accuracy, or the `merit` of another objective.
        job: its number, or what its folder is called instead.
    """
    name = job or ""
    number = int(name) if name.isdecimal() else math.inf
    return state not in ENDED, value is None, -(value or 0.0), number, name
