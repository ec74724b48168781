"""Ends a trial: makes one outcome of what its jobs returned or left in it, and tells the study."""

import logging
import math
import time
import traceback
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import optuna
from hydra.core.utils import JobReturn, JobStatus
from optuna.exceptions import UpdateFinishedTrialError
from optuna.samplers import BruteForceSampler, GridSampler
from optuna.trial import Trial, TrialState

from cifar_tuning.files import write_text
from cifar_tuning.text import without_password
from cifar_tuning.tuning.budget import stops_study
from cifar_tuning.tuning.exits import reason
from cifar_tuning.tuning.place import OVERRIDES, SAME_AS, TRAINED_BY
from cifar_tuning.tuning.storage import STORAGE_ERRORS, Storage
from cifar_tuning.tuning.trial import Outcome, may_go_on, outcomes

log = logging.getLogger(__name__)

# Study system attribute: which sampler called `study.stop()` last, and when, in seconds since 1970.
STOPPED = "cifar_tuning:stopped"


class Endings:
    """Ends a study's trials, each once.

    Args:
        study: with its sampler, which learns from them.
        storage: of the study.
        folder: the study's.
        repeats: seeds that each trial is to train.
        objectives: numbers that each job is to return.

    Attributes:
        stopped: whether the sampler has called `study.stop()`: its process takes no further trial.
    """

    def __init__(self, study: optuna.Study, storage: Storage, folder: Path, repeats: int, objectives: int) -> None:
        self.study, self.storage, self.folder = study, storage, folder
        self.repeats, self.objectives = repeats, objectives
        self.stopped = False

    def left(self, number: int) -> list[Outcome]:
        """Returns what a trial's jobs left about their ends, seed by seed."""
        return outcomes(self.storage.get_trial(self.storage.trial_id(self.study, number)), self.repeats)

    def outcome(self, number: int, result: JobReturn, repeat: int) -> Outcome:
        """Makes a job's return an outcome; what the job itself left in the trial is more exact."""
        error = error_of(result)
        if isinstance(error, optuna.TrialPruned):
            return Outcome("pruned", None)
        if error is not None:
            self.keep_traceback(number, "".join(traceback.format_exception(error)))
            return Outcome("failed", reason(error))
        kept = self.left(number)[repeat:]
        try:
            value = objective(result.return_value, self.objectives)
            return kept[0] if kept else Outcome("complete", value)
        except ValueError as refusal:
            return Outcome("failed", str(refusal))

    def settle(self, number: int) -> bool:
        """Ends a trial whose jobs have left all that is needed, and says whether it has ended.

        Called as soon as one of its jobs ends in this process: trials that are trained together end one by one, and
        the pruner judges by those that are complete.
        """
        trial = self.storage.get_trial(self.storage.trial_id(self.study, number))
        if trial.state.is_finished():
            return True
        ended = outcomes(trial, self.repeats)
        if not ended or (len(ended) < self.repeats and may_go_on(ended)):
            return False
        self.conclude(number, ended)
        return True

    def conclude(self, number: int, ended: list[Outcome]) -> None:
        """Tells the study how a trial ended, given how its seeds did."""
        last = ended[-1]
        if last.state == "failed":
            self.fail(number, last.value)
        elif last.state == "pruned":
            self.tell(number, "pruned", None)
        else:
            several = self.objectives > 1
            columns = list(zip(*(o.value if several else [o.value] for o in ended), strict=True))
            means = [sum(column) / len(column) for column in columns]
            states = {outcome.state for outcome in ended}
            state = "diverged" if "diverged" in states else "complete"
            self.tell(number, state, means if several else means[0])

    def repeat(self, trial: Trial, overrides: list[str]) -> bool:
        """Ends a trial as the complete one with the same overrides did, and says whether there is one.

        It has that one's attributes too, which lead to its folder and its run. An older study's trial, whose other
        options may have differed, is none.
        """
        trials = self.study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
        here = (one for one in trials if TRAINED_BY not in one.user_attrs)
        given = sorted(overrides)  # two commands may name them in another order
        same = next((one for one in here if sorted(one.system_attrs.get(OVERRIDES, [])) == given), None)
        if same is None:
            return False
        for name, value in {**same.user_attrs, SAME_AS: same.number}.items():
            trial.set_user_attr(name, value)
        for name, violation in same.constraints.items():
            trial.set_constraint(name, violation)
        log.info("Trial %d is trial %d once more, and has its value: nothing is trained.", trial.number, same.number)
        self.tell(trial.number, "complete", same.values if self.objectives > 1 else same.values[0])
        return True

    def fail(self, number: int, why: str) -> None:
        """Ends a trial as failed."""
        log.warning("Trial %d failed: %s", number, why)
        self.keep_traceback(number, why + "\n")
        self.tell(number, "failed", None, error=why[:2000])

    def keep_traceback(self, number: int, text: str) -> None:
        """Leaves in a trial's folder what is known of its failure."""
        folder = self.folder / str(number)
        folder.mkdir(parents=True, exist_ok=True)
        if not list(folder.rglob("traceback.txt")):  # the job's own says more
            write_text(folder / "traceback.txt", without_password(text))

    def tell(self, number: int, state: str, value: Any, error: str | None = None) -> None:
        """Records a trial's end, unless another process has ended it; the words are those of a run's state tag.

        What a sampler, or a function of the user's that it calls, makes wrong of an end is shown, and costs no trial:
        Optuna has recorded it by then.

        Args:
            number: of the trial.
            state: complete, diverged, pruned or failed.
            value: a float, or a list for several objectives; None for pruned and failed.
            error: why it failed.
        """
        trial_id = self.storage.trial_id(self.study, number)
        if (now := self.storage.get_trial(trial_id).state) != TrialState.RUNNING:
            log.warning("Trial %d was ended by another process, or given back: it is %s.", number, now.name.lower())
            return
        ends = {"pruned": TrialState.PRUNED, "failed": TrialState.FAIL}
        try:
            if error is not None:
                self.storage.set_trial_user_attr(trial_id, "error", error)
            if state in ("diverged", "failed"):
                self.storage.set_trial_user_attr(trial_id, "state", state)
            if state in ends:
                self.study.tell(number, state=ends[state])
            else:
                self.study.tell(number, value)
        except UpdateFinishedTrialError as refusal:
            log.warning("Trial %d was ended by another process: %s", number, refusal)
        except STORAGE_ERRORS:
            raise
        except Exception as mistake:
            if isinstance(mistake, RuntimeError) and stops_study(mistake):
                self._stop()
                return
            if not self.storage.get_trial(trial_id).state.is_finished():
                raise
            kind = type(self.study.sampler).__name__
            log.exception("Trial %d is recorded, but %s could not learn from it: %s", number, kind, reason(mistake))
            self.keep_traceback(number, traceback.format_exc())

    def _stop(self) -> None:
        # What is left to these two is looked at when a trial is taken: points that failed are tried again.
        if not self.stopped and not isinstance(self.study.sampler, GridSampler | BruteForceSampler):
            log.warning("The sampler has stopped the study: this process takes no further trial.")
            self.stopped = True
            who: Any = {"sampler": type(self.study.sampler).__name__, "at": time.time()}
            self.storage.set_study_system_attr(self.study._study_id, STOPPED, who)


def stopped_by(study: optuna.Study, storage: Storage, begin: float) -> str | None:
    """Returns the class of the sampler that has called `study.stop()` since a moment, in any process of the study."""
    known: Any = storage.get_study_system_attrs(study._study_id).get(STOPPED)
    return None if known is None or known["at"] < begin else str(known["sampler"])


def error_of(result: JobReturn) -> BaseException | None:
    """Returns what a job failed with; Hydra's public way to it prints its overrides, and raises it."""
    return result._return_value if result.status == JobStatus.FAILED else None


def objective(value: Any, count: int) -> Any:
    """Returns a job's return value as a float, or as a list of floats for several objectives.

    Raises:
        ValueError: it is none, or not a number (NaN), which nothing can be compared with.
    """
    values = _several(value) if count > 1 else [value]
    if len(values) != count:
        raise ValueError(f"The job returned {value!r}; the study has {count} objectives, so it needs {count} numbers.")
    try:
        floats = [float(v) for v in values]
    except (TypeError, ValueError):
        several = isinstance(value, Sequence) and not isinstance(value, str) and count == 1 < len(value)
        more = f"; {len(value)} objectives need as many in hydra.sweeper.direction=[…]" if several else ""
        raise ValueError(f"The job returned {value!r}, which is no number{more}.") from None
    if any(math.isnan(v) for v in floats):
        raise ValueError(f"The job returned {value!r}, which can't be compared.")
    return floats if count > 1 else floats[0]


def _several(value: Any) -> list[Any]:
    """Returns the numbers in what a job returned: a list's, an array's or a tensor's; of one number that alone."""
    if isinstance(value, str | Mapping):
        return [value]
    try:
        return list(value)
    except TypeError:  # an array without dimensions has an iterator all the same
        return [value]
