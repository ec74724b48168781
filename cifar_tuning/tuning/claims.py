"""Which process trains which trial: taking one, giving it back, and taking up those whose process died.

A trial that is taken up again keeps its number, parameters, folder and MLflow run. Optuna's own retry adds a copy with
a new number, which would tear those apart; its heartbeats and its queue of waiting trials are what is used here.
"""

import json
import logging
import math
import os
import time
import uuid
import warnings
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from optuna.exceptions import UpdateFinishedTrialError
from optuna.trial import FrozenTrial, Trial, TrialState, create_trial

from cifar_tuning.processes import TOLERANCE_SECONDS, host, lives, started
from cifar_tuning.text import counted
from cifar_tuning.tuning.budget import exhausted
from cifar_tuning.tuning.endings import Endings
from cifar_tuning.tuning.heartbeats import Heartbeats
from cifar_tuning.tuning.place import AGAIN, OWNER
from cifar_tuning.tuning.pruners import learn_brackets
from cifar_tuning.tuning.storage import LOCK_SECONDS, TAKING_SECONDS, study_lock

log = logging.getLogger(__name__)

# Further system attributes of a trial: the moment at which a process was about to take it, and how often its process
# died.
TAKING = "cifar_tuning:taking"
RETRIES = "cifar_tuning:retries"


class Claims:
    """Hands out a study's trials, each to one process, no more than `n_trials` in all.

    Args:
        endings: ends a trial that only its process did not tell the study of, or that died too often.
        n_trials: the study's total.
        max_retry: how often a trial whose process died is taken up again; None: always.
        enough: says why no further trial is to be drawn; None if one is. Those that wait are taken all the same.
    """

    def __init__(
        self,
        endings: Endings,
        n_trials: int,
        max_retry: int | None,
        enough: Callable[[], str | None] = lambda: None,
    ) -> None:
        self.endings, self.n_trials, self.max_retry, self.enough = endings, n_trials, max_retry, enough
        self.study, self.folder = endings.study, endings.folder
        # Itself: Optuna's cache around it passes neither heartbeats nor changes of state on as they are.
        self.storage, self.study_id = endings.storage, endings.study._study_id
        self.heartbeats = Heartbeats(self.storage)
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
        with study_lock(self.storage, self.folder):
            trials = self.take_up_dead()
            training = {t._trial_id for t in trials if self.is_mine(t)}
            learn_brackets(self.study)
            try:
                for number in range(count):
                    trial = self._take_one(trials)
                    if trial is None:
                        return taken if number else None
                    trials = self.study.get_trials(deepcopy=False) if number + 1 < count else trials
                    if suggest(trial):
                        taken.append(trial)
            except BaseException:
                self.storage.fresh_session()
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
        waiting = [t._trial_id for t in trials if t.state == TrialState.WAITING and t.number < self.n_trials]
        if not waiting and (len(trials) >= self.n_trials or exhausted(self.study) or self.enough()):
            return None
        # Marked before it is RUNNING: one without an owner may also be another program's.
        if waiting:
            next_one = waiting[0]
            self._mark(next_one, time.time())
        else:
            marked = create_trial(state=TrialState.WAITING, system_attrs={TAKING: time.time()})
            next_one = self.storage.create_new_trial(self.study_id, marked)
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "Heartbeat of storage")  # `heartbeats` records it
            trial = self.study.ask()
        if trial._trial_id != next_one:  # another program was faster
            self._mark(next_one, 0.0)
        if trial.number >= self.n_trials:  # another machine was faster; a waiting trial harms nobody
            self._mark(trial._trial_id, 0.0)
            self._set_state(trial._trial_id, TrialState.WAITING)
            return None
        if OWNER in self.storage.get_trial(trial._trial_id).system_attrs:
            self.storage.set_trial_system_attr(trial._trial_id, AGAIN, True)
        # Of a trial that is taken twice by one process, the first job (on another machine, say) must notice it.
        owner = self.process | {"claim": uuid.uuid4().hex[:8], "at": time.time()}
        self.storage.set_trial_system_attr(trial._trial_id, OWNER, json.dumps(owner))
        self.storage.record_heartbeat(trial._trial_id)
        return trial

    def _mark(self, trial_id: int, moment: float) -> None:
        with suppress(UpdateFinishedTrialError):  # by another program, by now
            self.storage.set_trial_system_attr(trial_id, TAKING, moment)

    def release(self, number: int) -> None:
        """Gives back a trial that was interrupted on purpose: the next process goes on with it."""
        self._set_state(self.storage.trial_id(self.study, number), TrialState.WAITING)

    def again(self, number: int) -> None:
        """Counts a death of a trial whose job a launcher lost, and queues it once more."""
        self._take_up(self.storage.get_trial(self.storage.trial_id(self.study, number)))

    def take_up_dead(self) -> list[FrozenTrial]:
        """Queues trials whose process died, once more each; gives up on those that died too often.

        Returns:
            All trials as they are afterwards.
        """
        trials = self.study.get_trials(deepcopy=False)
        running = [t for t in trials if t.state == TrialState.RUNNING]
        silent = set(self.storage._get_stale_trial_ids(self.study_id)) if running else set()
        dead = [t for t in running if self._orphaned(t) or owner_is_dead(t, t._trial_id in silent)]
        for trial in dead:
            self._take_up(trial)
        return self.study.get_trials(deepcopy=False) if dead else trials

    def _orphaned(self, trial: FrozenTrial) -> bool:
        """Whether a process of ours died while it took a trial, which belongs to nobody.

        It was set to RUNNING just after the mark, and the mark has had no claim. Taking happens under a lock of all
        that use the database, but for servers without one.
        """
        marked, start = trial.system_attrs.get(TAKING, 0.0), _start(trial)
        if _last_claim(trial)[1] >= marked or abs(start - marked) > LOCK_SECONDS:
            return False
        return self.storage.engine.dialect.name in ("sqlite", "postgresql") or time.time() - start > TAKING_SECONDS

    def _take_up(self, trial: FrozenTrial) -> None:
        if self.endings.settle(trial.number):
            return
        retries = trial.system_attrs.get(RETRIES, 0) + 1
        if self.max_retry is not None and retries > self.max_retry:
            self.endings.fail(trial.number, f"its process died {counted(retries, 'time')}")
            return
        log.warning("Trial %d: its process died; it goes on from its last checkpoint, if there is one.", trial.number)
        self.storage.record_heartbeat(trial._trial_id)  # so that no other machine takes it up at the same time
        self.storage.set_trial_system_attr(trial._trial_id, RETRIES, retries)
        self._set_state(trial._trial_id, TrialState.WAITING)

    def _set_state(self, trial_id: int, state: TrialState) -> None:
        try:
            self.storage.set_trial_state_values(trial_id, state)
        except UpdateFinishedTrialError:
            log.warning("A trial that was to be taken up has meanwhile been finished by its process.")


def _start(trial: FrozenTrial) -> float:
    """Returns when a trial was last set to RUNNING, in seconds since 1970; Optuna gives it in this machine's time."""
    return -math.inf if trial.datetime_start is None else trial.datetime_start.timestamp()


def _last_claim(trial: FrozenTrial) -> tuple[dict[str, Any], float]:
    """Returns the process of ours that had a trial last, and since when; of an older release's that is not known."""
    owner: dict[str, Any] = json.loads(trial.system_attrs.get(OWNER, "{}"))
    return owner, owner.get("at", math.inf) if owner else -math.inf


def owner_of(trial: FrozenTrial) -> dict[str, Any]:
    """Returns the process of ours that has a trial: its host, pid and start.

    Empty where none has taken it since it was last set to RUNNING: then it waits, or any other program that knows
    Optuna has asked for it.
    """
    owner, since = _last_claim(trial)
    return owner if since >= _start(trial) - TOLERANCE_SECONDS else {}


def is_foreign(trial: FrozenTrial) -> bool:
    """Whether another program has a trial in training; whether that still lives is not known here."""
    return trial.state == TrialState.RUNNING and not owner_of(trial)


def owner_is_dead(trial: FrozenTrial, silent: bool) -> bool:
    """Whether the trial's process is gone, if it is one of ours.

    On this machine that can be seen (and after it has slept, all are silent); elsewhere heartbeats tell.
    """
    owner = owner_of(trial)
    if owner.get("host") == host():
        return not lives(owner["pid"], owner["started"])
    return bool(owner) and silent
