"""Trials for a launcher that takes another one whenever one ends."""

import logging
from collections.abc import Callable
from typing import TYPE_CHECKING

from hydra.core.utils import JobReturn
from optuna.trial import Trial

from cifar_tuning.errors import DiskError
from cifar_tuning.tuning.endings import error_of
from cifar_tuning.tuning.place import LostTrial
from cifar_tuning.tuning.trial import Outcome, may_go_on, on_job_end

if TYPE_CHECKING:
    from cifar_tuning.tuning.engine import Engine

log = logging.getLogger(__name__)

# A launcher's method. Its arguments: jobs to train side by side, a function that gives further jobs, and one that is
# told of each job that ended.
TrainInTurn = Callable[
    [int, Callable[[int], list[tuple[int, list[str]]]], Callable[[int, JobReturn], None]],
    None,
]


class Stream:
    """Hands trials to a launcher as it has room for them, seed by seed, and takes new ones from the study.

    Args:
        engine: of this process.
        trials: to begin with; those that are taken later are added.
        goes_on: asked before a trial is taken.
    """

    def __init__(self, engine: "Engine", trials: list[Trial], goes_on: Callable[[], bool]) -> None:
        self.engine, self.trials, self.goes_on = engine, trials, goes_on
        self.waiting = list(trials)
        self.ends: dict[int, list[Outcome]] = {}
        # Those in training, which give signs of life.
        self.begun: dict[int, Trial] = {}
        self.heartbeats = engine.claims.heartbeats
        # What went wrong with the study itself; it must not cost those that are in training.
        self.failure: Exception | None = None

    def run(self, train: TrainInTurn, room: int) -> None:
        """Trains trials, `room` at a time, until there are no more for this process.

        Raises:
            Exception: what kept the study from giving a trial or hearing of one; all in training have ended by then.
        """
        try:
            with on_job_end(self.engine.endings.settle):
                train(room, self.more, self.ended)
        finally:
            self.heartbeats.end(self.begun.values())
        if self.failure is not None:
            raise self.failure

    def more(self, room: int) -> list[tuple[int, list[str]]]:
        """Returns up to `room` jobs: number and overrides."""
        jobs: list[tuple[int, list[str]]] = []
        try:
            if len(self.waiting) < room and self.failure is None and self.goes_on():
                taken = self.engine.claims.take(room - len(self.waiting), self.engine.suggest) or []
                self.trials += taken
                self.waiting += taken
            while self.waiting and len(jobs) < room:
                job = self._next_job(self.waiting[0])
                self.waiting.pop(0)
                if job is not None:
                    jobs.append(job)
        except Exception as error:
            self._keep(error)
        return jobs

    def _next_job(self, trial: Trial) -> tuple[int, list[str]] | None:
        number, repeats = trial.number, self.engine.repeats
        if number not in self.begun:
            self.begun[number] = trial
            self.heartbeats.begin([trial])
        ends = self.ends.setdefault(number, self.engine.endings.left(number))
        if len(ends) == repeats or not may_go_on(ends):
            self._conclude(number)
            return None
        return number, self.engine.overrides(trial, len(ends))

    def ended(self, number: int, result: JobReturn) -> None:
        """Takes note of a job's end; the next seed of its trial comes before new trials."""
        try:
            self._take_note(number, result)
        except Exception as error:
            self._keep(error)

    def _keep(self, error: Exception) -> None:
        if self.failure is None:
            kind = type(error).__name__
            log.warning("No trial can be taken (%s: %s); what is in training is trained to its end.", kind, error)
            self.failure = error

    def _take_note(self, number: int, result: JobReturn) -> None:
        if isinstance(error := error_of(result), LostTrial | DiskError):
            self.ends.pop(number, None)
            self.heartbeats.end([self.begun.pop(number)])
            if isinstance(error, DiskError):  # its trial is given back in the end
                raise error
            log.warning("%s", error)
            return
        ends = self.ends[number]
        ends.append(self.engine.endings.outcome(number, result, len(ends)))
        if len(ends) < self.engine.repeats and may_go_on(ends):
            self.waiting.insert(0, self.begun[number])
        else:
            self._conclude(number)

    def _conclude(self, number: int) -> None:
        if not self.engine.endings.settle(number):
            self.engine.endings.conclude(number, self.ends[number])
        self.heartbeats.end([self.begun.pop(number)])
