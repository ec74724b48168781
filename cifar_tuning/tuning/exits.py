"""Contains a job's own `sys.exit`: its trial fails, and the study goes on."""

import functools
import signal
from typing import Any

from hydra.types import TaskFunction

from cifar_tuning.errors import ConfigError
from cifar_tuning.processes import asked_to_stop
from cifar_tuning.text import without_password
from cifar_tuning.tuning.place import LostTrial

# Exit codes of a process that was ended by a signal, by our handler or the application's own.
BY_SIGNAL = (128 + signal.SIGINT, 128 + signal.SIGTERM)


class JobExit(Exception):  # noqa: N818  no mistake of ours, and users read its name
    """A job, or its launcher, called `sys.exit`."""


def stops_process(error: SystemExit) -> bool:
    """Whether an exit is not a job's own: somebody asked the process to stop, or its trial is another process's."""
    return asked_to_stop() or isinstance(error, LostTrial) or error.code in BY_SIGNAL


class ContainedTask:
    """An application's task whose own exits are failures of its job; Hydra lets them through, as it does Ctrl-C.

    An object, not a function in a function: launchers send it to other processes.

    Args:
        task: the application's.
    """

    def __init__(self, task: TaskFunction) -> None:
        functools.update_wrapper(self, task)
        self.task = task

    def __call__(self, config: Any) -> Any:
        """Runs a job.

        Raises:
            JobExit: the job called `sys.exit`.
        """
        try:
            return self.task(config)
        except SystemExit as error:
            if stops_process(error):
                raise
            raise JobExit(f"the job {exited(error)}") from error


def exited(error: SystemExit) -> str:
    """Returns in words how somebody exited."""
    code = 0 if error.code is None else error.code
    return f"exited with code {code}" if isinstance(code, int) else f"exited: {code}"


def reason(error: BaseException) -> str:
    """Returns why a trial failed; an exit says it in words of its own, and mistakes of a configuration are one line."""
    said = without_password("; ".join(error.problems) if isinstance(error, ConfigError) else str(error))
    return said if isinstance(error, JobExit) else f"{type(error).__name__}: {said}"
