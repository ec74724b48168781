"""A job's own trial: finds it by its number, reports every epoch, asks whether to prune."""

import logging
import math
import signal
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import optuna
from optuna.exceptions import UpdateFinishedTrialError
from optuna.samplers import RandomSampler
from optuna.trial import FrozenTrial, Trial, TrialState

from cifar_tuning.processes import asked_to_stop
from cifar_tuning.training.events import EpochMetrics, Listener
from cifar_tuning.tuning.options import make_pruner
from cifar_tuning.tuning.place import AGAIN, OWNER, LostTrial, is_trial, study_place
from cifar_tuning.tuning.storage import STORAGE_ERRORS, open_storage, patiently
from cifar_tuning.tuning.study import PRUNER

log = logging.getLogger(__name__)

# Name of the system attribute in which a job leaves its outcome.
OUTCOME = "cifar_tuning:outcome"
_ON_JOB_END: ContextVar[Callable[[int], object] | None] = ContextVar("_ON_JOB_END", default=None)


def current_trial(hydra: Any) -> Trial | None:
    """Returns the Optuna trial of the job that this process runs; None for a job that is no trial of a study.

    For the tasks of any Hydra application:

        trial = current_trial(HydraConfig.get())
        trial.report(value, step)
        if trial.should_prune():
            raise optuna.TrialPruned

    Args:
        hydra: Hydra's own part of the job's configuration.
    """
    if not is_trial(hydra):
        return None
    place = study_place(hydra)
    opened = place.storage, hydra.sweeper.heartbeat_interval, hydra.sweeper.grace_period
    study = _study(place.name, *opened)
    return Trial(study, open_storage(*opened).trial_id(study, int(hydra.job.num)))


@lru_cache(maxsize=8)
def _study(name: str, url: str, heartbeat_interval: int, grace_period: int | None) -> optuna.Study:
    """Opens a study for this process's jobs, once: it keeps the finished trials, which every pruner reads."""
    storage = open_storage(url, heartbeat_interval, grace_period)
    # Every parameter is drawn already, so the cheapest sampler will do; the pruner is not in the storage.
    study = optuna.load_study(study_name=name, storage=storage.cached, sampler=RandomSampler())
    study.pruner = make_pruner(study.user_attrs.get(PRUNER))
    return study


@dataclass(frozen=True)
class Outcome:
    """How a job of a trial ended, as kept in the trial until its study is told.

    Attributes:
        state: complete, diverged, pruned or failed.
        value: the objective, or the list of several; None for failed.
        epochs: trained.
        of: epochs asked for.
    """

    state: str
    value: Any
    epochs: int | None = None
    of: int | None = None


class TrialReporter(Listener):
    """Reports every epoch's figure to the study and passes on its wish to stop.

    Args:
        trial: this job's.
        epochs: of a whole run; with several seeds a trial, the next one's steps follow.
        repeat: which of the trial's seeds this is.
        objectives: the figures that the study optimises; the curve of a single one is what the pruner sees.
        last: whether no further seed of the trial follows.
    """

    def __init__(
        self,
        trial: Trial,
        epochs: int,
        repeat: int = 0,
        objectives: Sequence[str] = ("val/acc_best",),
        last: bool = True,
    ) -> None:
        self.trial, self.offset, self.last, self.hopeless = trial, repeat * epochs, last, False
        self.storage = trial.storage
        frozen = self.storage.get_trial(trial._trial_id)
        attributes = frozen.system_attrs
        self.owner, self.key = attributes.get(OWNER), outcome_key(repeat)
        self.again: bool = attributes.get(AGAIN, False)  # an earlier process began this trial
        self.reported = set(frozen.intermediate_values)
        # The best so far never falls, so the accuracy itself says more of a curve.
        self.curve = {"val/acc_best": "val/acc"}.get(objectives[0], objectives[0]) if len(objectives) == 1 else None

    def on_epoch(self, metrics: EpochMetrics) -> bool:
        """Reports; true when the pruner says that the trial is hopeless.

        Raises:
            LostTrial: the trial is another process's by now.
            SystemExit: the process was asked to stop, and nothing came of it so far.
        """
        if asked_to_stop():
            raise SystemExit(128 + signal.SIGTERM)
        value = metrics.figure(str(self.curve))
        value = math.nan if value is None else value
        try:
            frozen = self.storage.get_trial(self.trial._trial_id)
            # It may have been given back too, by a command that was stopped while its launcher's job trained on.
            if frozen.system_attrs.get(OWNER) != self.owner or frozen.state != TrialState.RUNNING:
                raise LostTrial(f"Trial {self.trial.number} is no longer this process's, which stops.")
            if math.isnan(value):  # several objectives, one that has no curve, or an epoch that diverged
                return False
            step = self.offset + metrics.epoch
            if step not in self.reported and not (metrics.epoch == 0 and self.offset):
                self.trial.report(value, step)
                self.reported.add(step)
            self.hopeless = metrics.epoch > 0 and self.trial.should_prune()
            return self.hopeless
        except Exception as error:  # a study whose server is away must not cost the training
            known = isinstance(error, (*STORAGE_ERRORS, UpdateFinishedTrialError))  # not a mistake in somebody's pruner
            log.warning("The study could not be told of epoch %d: %s", metrics.epoch, error, exc_info=not known)
            return False

    def began(self, run_id: str | None, folder: Path) -> None:
        """Tells the trial where its run is, for who reads the study elsewhere, as in optuna-dashboard.

        Args:
            run_id: in MLflow; None if the run is not tracked.
            folder: of the job.
        """
        try:
            self.trial.set_user_attr("folder", str(folder))
            if run_id is not None:
                self.trial.set_user_attr("mlflow_run_id", run_id)
        except (*STORAGE_ERRORS, UpdateFinishedTrialError) as error:  # it says nothing that training needs
            log.warning("The study could not be told where the run of trial %d is: %s", self.trial.number, error)

    def of_trial(self, state: str) -> str:
        """Returns how the job's trial ends, given how the job did: behind a hopeless seed there is no other."""
        return "pruned" if self.hopeless and not self.last else state

    def ended(self, state: str, value: Any, epochs: int, of: int) -> None:
        """Leaves the outcome in the trial, where it is found even if the study's process dies now."""
        outcome = vars(Outcome(self.of_trial(state), value, epochs, of))
        try:
            patiently(lambda: self.storage.set_trial_system_attr(self.trial._trial_id, self.key, outcome))
        except STORAGE_ERRORS as error:  # the job returns the value too, where the study still waits
            log.warning("The study could not be told how the job ended: %s", error)
            return
        if (told := _ON_JOB_END.get()) is None:
            return
        try:
            told(self.trial.number)
        except STORAGE_ERRORS as error:  # it would only have spared the study a wait
            log.warning("The study will hear later how the job of trial %d ended: %s", self.trial.number, error)


@contextmanager
def on_job_end(tell: Callable[[int], object]) -> Iterator[None]:
    """Calls a function with the trial's number whenever a job ends in this process.

    It spares the study a wait, nothing more: of a job in another process the outcome in the trial says as much, later.
    """
    token = _ON_JOB_END.set(tell)
    try:
        yield
    finally:
        _ON_JOB_END.reset(token)


def outcome_key(repeat: int) -> str:
    """Names the trial's attribute that holds the outcome of one of its seeds."""
    return f"{OUTCOME}:{repeat}"


def may_go_on(ended: list[Outcome]) -> bool:
    """Whether a trial has further seeds to train, given how the earlier ones ended."""
    return not ended or ended[-1].state not in ("failed", "pruned")


def outcomes(trial: FrozenTrial, repeats: int) -> list[Outcome]:
    """Returns what a trial's jobs left about their ends, seed by seed up to the first that did not end."""
    found: list[Outcome] = []
    for repeat in range(repeats):
        if (kept := trial.system_attrs.get(outcome_key(repeat))) is None:
            break
        found.append(Outcome(**kept))
    return found
