"""Which of a sweep's jobs is the best: one rule for its table, for `predict.py` and for MLflow."""

import math

# States of a job that came to its end: a diverged one has its accuracy too. The best accuracy of a pruned, failed or
# killed one is that of an unfinished training: it doesn't compete.
ENDED = ("complete", "diverged")


def competes(state: str | None, value: float | None) -> bool:
    """Whether a job can be a sweep's best: it ended, with a validation accuracy."""
    return state in ENDED and value is not None


def rank(state: str | None, value: float | None, job: str | None) -> tuple[bool, bool, float, float, str]:
    """Returns what sorts jobs, the best first: those that ended, by accuracy, the first of equals by its number.

    Args:
        state: how the job ended.
        value: its best validation accuracy.
        job: its number, or what its folder is called instead.
    """
    name = job or ""
    number = int(name) if name.isdecimal() else math.inf
    return state not in ENDED, value is None, -(value or 0.0), number, name
