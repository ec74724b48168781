"""What went wrong when the cause is something the user can change, as opposed to a bug.

The command line prints these without a traceback; everything else keeps its traceback.
"""

import errno
import logging
import os
from collections.abc import Sequence

from cifar_tuning.text import counted


class UserError(Exception):
    """A mistake the user can mend; the message says what was given, what is allowed and what to do."""


class ConfigError(UserError):
    """Every problem found in one job's configuration, reported together before any compute is spent.

    Args:
        problems: one line each, in the form `key=value: what is allowed`.
    """

    def __init__(self, problems: Sequence[str]) -> None:
        self.problems = list(problems)
        lines = "\n".join(f"  - {problem}" for problem in self.problems)
        super().__init__(f"{counted(len(self.problems), 'problem')} in the configuration; nothing was run.\n{lines}")

    def __reduce__(self) -> tuple[type, tuple[list[str]]]:
        # Exceptions cross process borders under the parallel launchers; the default would call
        # __init__ with the finished message.
        return type(self), (self.problems,)


class DataError(UserError):
    """The dataset could not be had; the message lists what was tried and where to put files by hand."""


class DiskError(UserError):
    """The disk took no more of what a job has to write; its study gives the trial back instead of failing it."""


class TrackingError(UserError):
    """The tracking store can't be used; raised before training starts."""


def root_cause(error: BaseException) -> BaseException:
    """Returns the error that an error was raised from in the end; itself if from none."""
    while error.__cause__ is not None:
        error = error.__cause__
    return error


def full_disk(error: BaseException, what: str = "the same command goes on") -> DiskError | None:
    """Returns what to say of a disk that takes no more; None of any other error.

    It has no room, the user's share of it is used up, or it is read only.

    Args:
        error: that was raised.
        what: happens once it takes more.
    """
    if isinstance(error, DiskError):
        return error
    if not isinstance(error, OSError) or error.errno not in (errno.ENOSPC, errno.EDQUOT, errno.EROFS):
        return None
    way_out = "Make it writable" if error.errno == errno.EROFS else "Make room"
    return DiskError(f"{error}. {way_out}; {what}.")


def full_errors() -> bool:
    """Whether whole tracebacks are asked for, with `HYDRA_FULL_ERROR=1` in the environment."""
    return os.environ.get("HYDRA_FULL_ERROR") == "1"


def wants_traces(log: logging.Logger) -> bool:
    """Whether an error told in a line brings its traceback: with `hydra.verbose=true` or `HYDRA_FULL_ERROR=1`."""
    return log.isEnabledFor(logging.DEBUG) or full_errors()
