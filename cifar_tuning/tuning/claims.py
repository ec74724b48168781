"""Which process trains which trial: taking one, giving it back, and taking up those whose process died.

A trial that is taken up again keeps its number, parameters, folder and MLflow run. Optuna's own retry adds a copy with
a new number, which would tear those apart; its heartbeats and its queue of waiting trials are what is used here.
"""

import json
import logging
import math
import os
import uuid
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from threading import Event, Thread
from typing import Any

from optuna import Study
from optuna.exceptions import UpdateFinishedTrialError
from optuna.samplers import BruteForceSampler
from optuna.trial import FrozenTrial, Trial, TrialState

from cifar_tuning.processes import host, lives, started, undisturbed
from cifar_tuning.text import counted, first_line
from cifar_tuning.tuning.storage import TAKING_SECONDS, Storage, study_lock, trial_id

log = logging.getLogger(__name__)

# Names of a trial's system attributes, which neither the samplers nor Optuna's plots see.
OWNER = "cifar_tuning:owner"
RETRIES = "cifar_tuning:retries"
AGAIN = "cifar_tuning:again"


class Claims:
    """Hands out a study's trials, each to one process, no more than `n_trials` in all.

    Args:
        study: with its sampler.
        folder: the study's.
        n_trials: the study's total.
        max_retry: how often a trial whose process died is taken up again; None: always.
        settle: ends a trial that only its process did not tell the study of; true if the trial has ended.
        fail: ends a trial as failed, given its number and the reason.
    """

    def __init__(
        self,
        study: Study,
        folder: Path,
        n_trials: int,
        max_retry: int | None,
        settle: Callable[[int], bool],
        fail: Callable[[int, str], None],
    ) -> None:
        # Optuna wraps its databases in a cache that passes neither heartbeats nor changes of state on as they are.
        backend = getattr(study._storage, "_backend", None)
        assert isinstance(backend, Storage)
        self.backend = backend
        self.study, self.folder, self.n_trials, self.max_retry = study, folder, n_trials, max_retry
        self.settle, self.fail = settle, fail
        self.process = {"host": host(), "pid": os.getpid(), "started": started(os.getpid()), "id": uuid.uuid4().hex[:8]}

    def take(self, count: int, suggest: Callable[[Trial], bool]) -> list[Trial] | None:
        """Returns up to `count` trials to train, now RUNNING; None when all that there can be are taken or finished.

        Args:
            count: at most so many.
            suggest: draws a trial's parameters, before the next is taken, so that the sampler sees them; false if
                that failed.
        """
        taken: list[Trial] = []
        # The samplers are not atomic: of two asking at once, the second would not see the first's draw.
        with study_lock(self.backend, self.folder):
            trials = self.take_up_dead()
            training = {t._trial_id for t in trials if self.is_mine(t)}
            try:
                for number in range(count):
                    with undisturbed():  # in between it is RUNNING, and still of whoever gave it back
                        trial = self._take_one(trials)
                    if trial is None:
                        return taken if number else None
                    trials = self.study.get_trials(deepcopy=False) if number + 1 < count else trials
                    if suggest(trial):
                        taken.append(trial)
            except BaseException:
                self.backend.fresh_session()
                self._give_back_half_taken(training)
                raise
        return taken

    def is_mine(self, trial: FrozenTrial) -> bool:
        """Whether this process is training a trial."""
        return trial.state == TrialState.RUNNING and owner_of(trial).get("id") == self.process["id"]

    def _give_back_half_taken(self, training: set[int]) -> None:
        """Queues what this process was about to take, beside the trials that it trains already (by their ids)."""
        for trial in self.study.get_trials(deepcopy=False):
            half = (self.is_mine(trial) and trial._trial_id not in training) or self._orphaned(trial)
            if trial.state == TrialState.RUNNING and half:
                self._set_state(trial._trial_id, TrialState.WAITING)

    def _take_one(self, trials: list[FrozenTrial]) -> Trial | None:
        waiting = any(t.state == TrialState.WAITING and t.number < self.n_trials for t in trials)
        if not waiting and (len(trials) >= self.n_trials or exhausted(self.study)):
            return None
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "Heartbeat of storage")  # this module records it
            trial = self.study.ask()
        if trial.number >= self.n_trials:  # another machine was faster; a waiting trial harms nobody
            self._set_state(trial._trial_id, TrialState.WAITING)
            return None
        if OWNER in self.backend.get_trial(trial._trial_id).system_attrs:
            self.backend.set_trial_system_attr(trial._trial_id, AGAIN, True)
        # Of a trial that is taken twice by one process, the first job (on another machine, say) must notice it.
        owner = self.process | {"claim": uuid.uuid4().hex[:8]}
        self.backend.set_trial_system_attr(trial._trial_id, OWNER, json.dumps(owner))
        self.backend.record_heartbeat(trial._trial_id)
        return trial

    def release(self, number: int) -> None:
        """Gives back a trial that was interrupted on purpose: the next process goes on with it."""
        self._set_state(trial_id(self.study, number), TrialState.WAITING)

    def again(self, number: int) -> None:
        """Counts a death of a trial whose job a launcher lost, and queues it once more."""
        self._take_up(self.backend.get_trial(trial_id(self.study, number)))

    def take_up_dead(self) -> list[FrozenTrial]:
        """Queues trials whose process died, once more each; gives up on those that died too often.

        Returns:
            All trials as they are afterwards.
        """
        trials = self.study.get_trials(deepcopy=False)
        running = [t for t in trials if t.state == TrialState.RUNNING]
        silent = set(self.backend._get_stale_trial_ids(self.study._study_id)) if running else set()
        dead = [t for t in running if self._orphaned(t) or owner_is_dead(t, t._trial_id in silent)]
        for trial in dead:
            self._take_up(trial)
        return self.study.get_trials(deepcopy=False) if dead else trials

    def _orphaned(self, trial: FrozenTrial) -> bool:
        """Whether a trial's process died while it took it: it belongs to nobody.

        Taking happens under a lock of all that use the database, but for servers without one.
        """
        if OWNER in trial.system_attrs:
            return False
        age = (datetime.now() - trial.datetime_start).total_seconds() if trial.datetime_start else math.inf
        return self.backend.engine.dialect.name in ("sqlite", "postgresql") or age > TAKING_SECONDS

    def _take_up(self, trial: FrozenTrial) -> None:
        if self.settle(trial.number):
            return
        retries = trial.system_attrs.get(RETRIES, 0) + 1
        if self.max_retry is not None and retries > self.max_retry:
            self.fail(trial.number, f"its process died {counted(retries, 'time')}")
            return
        log.warning("Trial %d: its process died; it goes on from its last checkpoint.", trial.number)
        self.backend.record_heartbeat(trial._trial_id)  # so that no other machine takes it up at the same time
        self.backend.set_trial_system_attr(trial._trial_id, RETRIES, retries)
        self._set_state(trial._trial_id, TrialState.WAITING)

    @contextmanager
    def alive(self, trials: list[Trial]) -> Iterator[None]:
        """Gives signs of life for the trials that are being trained, from a thread of its own."""
        over = Event()

        def beat() -> None:
            level = logging.WARNING
            while not over.wait(self.backend.heartbeat_interval):
                for trial in trials:
                    try:
                        self.backend.record_heartbeat(trial._trial_id)
                    except Exception as error:  # a database that is away now may be back at the next
                        log.log(level, "Trial %d can't give a sign of life: %s", trial.number, first_line(error))
                        level = logging.DEBUG

        thread = Thread(target=beat, daemon=True)
        thread.start()
        try:
            yield
        finally:
            over.set()
            thread.join()

    def _set_state(self, known_as: int, state: TrialState) -> None:
        try:
            self.backend.set_trial_state_values(known_as, state)
        except UpdateFinishedTrialError:
            log.warning("A trial that was to be taken up has meanwhile been finished by its process.")


def tell(study: Study, number: int, state: str, value: Any, error: str | None = None) -> None:
    """Records a trial's end, unless another process has ended it; the words are those of a run's state tag.

    Args:
        study: it belongs to.
        number: of the trial.
        state: complete, diverged, pruned or failed.
        value: a float, or a list for several objectives; None for pruned and failed.
        error: why it failed.
    """
    storage = study._storage
    known_as = trial_id(study, number)
    ends = {"pruned": TrialState.PRUNED, "failed": TrialState.FAIL}
    try:
        if error is not None:
            storage.set_trial_user_attr(known_as, "error", error)
        if state in ("diverged", "failed"):
            storage.set_trial_user_attr(known_as, "state", state)
        if state in ends:
            study.tell(number, state=ends[state])
        else:
            study.tell(number, value)
    except (UpdateFinishedTrialError, ValueError) as refusal:  # the first is a RuntimeError, too
        log.warning("Trial %d was ended by another process: %s", number, refusal)
    except RuntimeError as refusal:
        if not _stops_study(refusal):  # what is taken next is looked at by itself
            raise


def exhausted(study: Study) -> bool:
    """Whether every point of the search space is tried or in training, where the sampler has an end of its own.

    A grid's is known beforehand.
    """
    if not isinstance(study.sampler, BruteForceSampler):
        return False
    drawn = [t for t in study.get_trials(deepcopy=False) if t.params and t.state != TrialState.WAITING]
    if not drawn:
        return False
    try:
        # The only way to ask: it draws nothing and writes nothing.
        study.sampler.after_trial(study, drawn[-1], TrialState.FAIL, None)
    except RuntimeError as refusal:
        if not _stops_study(refusal):
            raise
        return True
    except ValueError:  # the space has changed, which the sampler will say when it draws
        return False
    return False


def _stops_study(error: RuntimeError) -> bool:
    """Whether a sampler wants to stop a study that has no further points, which is only allowed inside `optimize`."""
    return "`Study.stop` is supposed to be invoked" in str(error)


def owner_of(trial: FrozenTrial) -> dict[str, Any]:
    """Returns the process that has a trial: its host, pid and start; empty where nobody has taken it."""
    return dict(json.loads(trial.system_attrs.get(OWNER, "{}")))


def owner_is_dead(trial: FrozenTrial, silent: bool) -> bool:
    """Whether the trial's process is gone.

    On this machine that can be seen (and after it has slept, all are silent); elsewhere heartbeats tell.
    """
    owner = owner_of(trial)
    if owner.get("host") == host():
        return not lives(owner["pid"], owner["started"])
    return silent
