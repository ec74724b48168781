"""Jobs of one process side by side: each runs as under any launcher, and pauses where its training begins.

A job is a greenlet, because Hydra's way through a job (folder, configuration, log, callbacks, result) is one function
call that can't be cut in two. What Hydra and Python keep once a process is put in place for whichever job goes on.
"""

import copy
import logging
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from contextvars import copy_context
from pathlib import Path
from typing import Any

from greenlet import getcurrent, greenlet
from hydra.core.hydra_config import HydraConfig
from hydra.core.utils import JobReturn
from omegaconf import OmegaConf

from cifar_tuning.fused.stack import draws_of, own_generator, use_global_generator
from cifar_tuning.training.events import Result, State
from cifar_tuning.training.trainer import JOINT_FIT, Trainer

# Sent to a paused job in place of a state: it is to train by itself.
ALONE = object()


class ProcessGlobals:
    """What a process has one of, and each job its own: Hydra's configuration, log handlers, environment, folder."""

    def __init__(self) -> None:
        self.hydra = HydraConfig.instance().cfg
        self.handlers, self.level = logging.root.handlers[:], logging.root.level
        self.environ, self.folder = dict(os.environ), Path.cwd()

    def set(self) -> None:
        """Puts it in place."""
        HydraConfig.instance().cfg = self.hydra
        logging.root.handlers[:] = self.handlers
        logging.root.setLevel(self.level)
        if dict(os.environ) != self.environ:
            os.environ.clear()
            os.environ.update(self.environ)
        if Path.cwd() != self.folder:
            os.chdir(self.folder)


class _Numbered(logging.Formatter):
    """Says which of several jobs a line is about.

    Args:
        usual: how lines look.
        number: of the job.
    """

    def __init__(self, usual: logging.Formatter, number: int) -> None:
        super().__init__()
        self.usual, self.number = usual, number

    def format(self, record: logging.LogRecord) -> str:
        """Formats a line as usual, the job's number before its message."""
        numbered = copy.copy(record)
        numbered.msg, numbered.args = f"#{self.number}: {record.getMessage()}", None
        return self.usual.format(numbered)


def ends_one_job(error: SystemExit) -> bool:
    """Whether an error ends its job alone, although Hydra lets it through: its trial is another process's."""
    return type(error) is not SystemExit


class PausedJob:
    """One job, run until it would train.

    Args:
        number: of the job.
        work: runs it as Hydra does.

    Attributes:
        run: what waits to be trained, once the job has paused.
    """

    run: Trainer

    def __init__(self, number: int, work: Callable[[], JobReturn]) -> None:
        self.number = number
        self.result: JobReturn | None = None
        self.error: BaseException | None = None
        self._work, self._globals, self._hub = work, ProcessGlobals(), getcurrent()
        self._greenlet = greenlet(self._whole)
        self._greenlet.gr_context = copy_context()

    def begin(self) -> JobReturn | None:
        """Runs the job until its training begins; returns its result if it has ended before that."""
        self._go(self._greenlet.switch)
        return self.result

    def end(self, state: State | object | None) -> JobReturn:
        """Goes on after the training, with how it ended, and returns the job's result.

        Raises:
            BaseException: what ended the job where it is no job's failure: Ctrl-C, say.
        """
        if self.error is None:
            self._go(lambda: self._greenlet.switch(state))
        else:
            error = self.error
            self._go(lambda: self._greenlet.throw(error))
        assert self.result is not None
        return self.result

    def end_alone(self) -> JobReturn:
        """Has the job train by itself and returns its result."""
        return self.end(ALONE)

    def stop(self, error: BaseException) -> None:
        """Goes on with an error instead of the training; the job ends as it would by itself."""
        self.error = error
        with suppress(BaseException):
            self.end(None)

    @contextmanager
    def aside(self) -> Iterator[None]:
        """Does something for this job alone, its log kept off the terminal; an error is the job's own."""
        hub = ProcessGlobals()
        self._globals.set()
        loud = [h for h in self._globals.handlers if not isinstance(h, logging.FileHandler)]
        before = [(handler.level, handler.formatter) for handler in loud]
        for handler in loud:  # an epoch's line of each run would bury the stack's own; a warning must be seen
            handler.setLevel(max(handler.level, logging.WARNING))
            handler.setFormatter(_Numbered(handler.formatter or logging.Formatter(), self.number))
        try:
            with draws_of(self.run):
                yield
        except Exception as error:
            self.error = error
        except SystemExit as error:
            if not ends_one_job(error):  # a signal's
                raise
            self.error = error
        finally:
            for handler, (level, formatter) in zip(loud, before, strict=True):
                handler.setLevel(level)
                handler.setFormatter(formatter)
            hub.set()

    def _whole(self) -> None:
        token = JOINT_FIT.set(self._pause)
        try:
            self.result = self._work()
        finally:  # or the job, and with it its run's memory, would be the garbage collector's to find
            JOINT_FIT.reset(token)

    def _pause(self, run: Trainer) -> Result:
        own_generator(run)  # the next job to begin seeds the process's generators for itself
        self.run = run
        try:
            state = self._hub.switch()
        except BaseException:
            run.write_anyway()
            raise
        if state is ALONE:
            use_global_generator(run)
            return run.fit_alone()
        return run.end(state)

    def _go(self, switch: Callable[[], Any]) -> None:
        hub, self._hub = ProcessGlobals(), getcurrent()
        self._globals.set()
        try:
            switch()
        finally:
            self._globals = ProcessGlobals()
            # What the job itself set (cuBLAS's workspace, say) is the process's; what Hydra set for it is not.
            hydra: Any = self._globals.hydra
            own = OmegaConf.select(hydra, "hydra.job.env_set") or {} if hydra is not None else {}
            hub.environ |= {k: v for k, v in os.environ.items() if k not in hub.environ and k not in own}
            hub.set()


@contextmanager
def stopped_on_error(jobs: list[PausedJob]) -> Iterator[None]:
    """Ends the jobs that still wait when something else fails, so that none is left open; the error goes on its way.

    Args:
        jobs: as they are when it fails.
    """
    try:
        yield
    except BaseException as error:
        for job in list(jobs):
            if job.result is None:
                job.stop(error)
        raise
