"""Takes trials, has them trained by the launcher, and tells the study how they ended; one process's part of a study."""

import logging
import math
import signal
import time
import traceback
from collections.abc import Callable, Iterator, Mapping
from itertools import pairwise
from typing import Any

import optuna
from hydra.core.plugins import Plugins
from hydra.core.utils import JobReturn, JobStatus
from hydra.errors import HydraException
from hydra.types import HydraContext, TaskFunction
from optuna.trial import Trial, TrialState

from cifar_tuning.errors import UserError
from cifar_tuning.files import write_text
from cifar_tuning.processes import asked_to_stop, undisturbed
from cifar_tuning.tuning.claims import Claims, tell
from cifar_tuning.tuning.exits import JobExit, exited, stops_process
from cifar_tuning.tuning.options import StudyOptions
from cifar_tuning.tuning.place import REPEAT, LostTrial
from cifar_tuning.tuning.storage import trial_id
from cifar_tuning.tuning.stream import Stream, TrainInTurn
from cifar_tuning.tuning.trial import Outcome, may_go_on, on_job_end, outcomes

log = logging.getLogger(__name__)

# System attribute of a trial: the overrides of its jobs.
OVERRIDES = "cifar_tuning:overrides"
BASIC_LAUNCHER = "hydra._internal.core_plugins.basic_launcher.BasicLauncher"


class Engine:
    """One process's part of a study.

    Args:
        study: opened by `study.open_study`.
        options: of the sweep.
        context: Hydra's.
        task: what trains a job.
        begin: when the command began, in seconds since the epoch; failures before it are forgiven.
        workers: processes of the command.
    """

    def __init__(
        self,
        study: optuna.Study,
        options: StudyOptions,
        context: HydraContext,
        task: TaskFunction,
        begin: float,
        workers: int = 1,
    ) -> None:
        self.study, self.options, self.context, self.begin = study, options, context, begin
        sweeper = options.sweeper
        self.launcher = Plugins.instance().instantiate_launcher(
            config=options.config, hydra_context=context, task_function=task
        )
        folder = options.place.folder
        self.claims = Claims(study, folder, options.n_trials, sweeper.max_retry, self.settle, self._fail)
        # The fused launcher takes another trial whenever one ends; others launch batches, and wait for all of one.
        self.flow: TrainInTurn | None = getattr(self.launcher, "flow", None)
        self.room = max(options.config.hydra.launcher.get("stack") or 1, -(-sweeper.n_jobs // workers))
        one_by_one = self.flow is not None or options.config.hydra.launcher._target_ == BASIC_LAUNCHER
        self.batch = 1 if one_by_one else sweeper.n_jobs
        self.repeats: int = sweeper.repeats
        self.deadline = math.inf if sweeper.timeout is None else begin + sweeper.timeout

    def run(self) -> None:
        """Trains trial after trial until none is left, time is up, or too many failed.

        Raises:
            UserError: more than `max_failure_rate` of the trials failed.
            SystemExit: the process was asked to stop, though the signal's own exit may have been lost.
        """

        def goes_on() -> bool:
            return time.time() < self.deadline and not asked_to_stop()

        try:
            while goes_on():
                self._stop_if_too_many_failed()
                trials = self.claims.take(self.batch, self.suggest)
                if trials is None:
                    return
                try:
                    self._train(trials, goes_on)
                except LostTrial as lost:
                    log.warning("%s", lost)
                    self._give_back()
                except Exception as error:
                    if asked_to_stop():  # the signal's exit, which Hydra made an error of its own
                        break
                    self._after_launcher_error(trials, error)
            if asked_to_stop():
                raise SystemExit(128 + signal.SIGTERM)
        except (KeyboardInterrupt, SystemExit):
            self._give_back()
            raise

    def suggest(self, trial: Trial) -> bool:
        """Draws a trial's parameters, or ends it; says whether it has them."""
        try:
            self.options.space.suggest(trial, self.options.config)
            used = self.options.space.overrides(trial.params)
            if self.batch > 1:  # launchers compose a whole batch before its first job: one would fail all
                self.context.config_loader.load_sweep_config(self.options.config, used)
            self.study._storage.set_trial_system_attr(trial._trial_id, OVERRIDES, used)
        except optuna.TrialPruned:  # the user's own function wants no such trial
            tell(self.study, trial.number, "pruned", None)
            return False
        except Exception as error:  # a mistake in the user's own function, or in what it suggests
            self._keep_traceback(trial.number, traceback.format_exc())
            self._fail(trial.number, f"{type(error).__name__}: {error}")
            return False
        return True

    def _train(self, trials: list[Trial], goes_on: Callable[[], bool]) -> None:
        """Has the launcher train trials, and those that it asks for meanwhile.

        Raises:
            JobExit: the launcher exited, and nobody had asked for that.
        """
        try:
            if self.flow is None:
                self._train_batch(trials)
            else:
                Stream(self, trials, lambda: goes_on() and not self._failed()).run(self.flow, self.room)
        except SystemExit as error:
            if stops_process(error):
                raise
            raise JobExit(f"it {exited(error)}") from error

    def _train_batch(self, trials: list[Trial]) -> None:
        """Trains all seeds of a batch of trials, seed by seed; who fails or is pruned drops out."""
        earlier = {trial.number: outcomes(self.study, trial.number, self.repeats) for trial in trials}
        lost = set[int]()
        with self.claims.alive(trials), on_job_end(self.settle):
            for repeat in range(self.repeats):
                going = [t for t in trials if may_go_on(earlier[t.number]) and t.number not in lost]
                todo = [trial for trial in going if len(earlier[trial.number]) <= repeat]
                for trial, result in self._launch(todo, repeat):
                    if isinstance(result._return_value, LostTrial):  # of one job among several
                        log.warning("%s", result._return_value)
                        lost.add(trial.number)
                    else:
                        earlier[trial.number].append(self.outcome(trial, result, repeat))
        for trial in trials:
            if trial.number not in lost and not self.settle(trial.number):
                self.conclude(trial.number, earlier[trial.number])

    def _launch(self, trials: list[Trial], repeat: int) -> Iterator[tuple[Trial, JobReturn]]:
        # A launcher counts job numbers up from the first; another process may have taken one in between.
        for group in consecutive(trials):
            params = [self.overrides(trial, repeat) for trial in group]
            yield from zip(group, self.launcher.launch(params, initial_job_idx=group[0].number), strict=True)

    def overrides(self, trial: Trial, repeat: int) -> list[str]:
        """Returns what a trial's job is called with, for one of its seeds."""
        params = self.options.space.overrides(trial.params)
        if self.repeats == 1:
            return params
        seed = self.options.config.seed + repeat
        return [*params, f"seed={seed}", f"hydra.sweep.subdir={trial.number}/seed_{seed}", f"+{REPEAT}={repeat}"]

    def outcome(self, trial: Trial, result: JobReturn, repeat: int) -> Outcome:
        """Makes a job's return an outcome; what the job itself left in the trial is more exact."""
        error = result._return_value if result.status == JobStatus.FAILED else None
        if isinstance(error, optuna.TrialPruned):
            return Outcome("pruned", None)
        if error is not None:
            self._keep_traceback(trial.number, "".join(traceback.format_exception(error)))
            return Outcome("failed", _reason(error))
        kept = outcomes(self.study, trial.number, self.repeats)[repeat:]
        try:
            value = objective(result.return_value, len(self.options.directions))
            return kept[0] if kept else Outcome("complete", value)
        except ValueError as refusal:
            return Outcome("failed", str(refusal))

    def settle(self, number: int) -> bool:
        """Ends a trial whose jobs have left all that is needed, and says whether it has ended.

        Called as soon as one of its jobs ends in this process: trials that are trained together end one by one, and
        the pruner judges by those that are complete.
        """
        trial = self.study._storage.get_trial(trial_id(self.study, number))
        if trial.state.is_finished():
            return True
        ended = outcomes(self.study, number, self.repeats)
        if not ended or (len(ended) < self.repeats and may_go_on(ended)):
            return False
        self.conclude(number, ended)
        return True

    def conclude(self, number: int, ended: list[Outcome]) -> None:
        """Tells the study how a trial ended, given how its seeds did."""
        last = ended[-1]
        if last.state == "failed":
            self._fail(number, last.value)
        elif last.state == "pruned":
            tell(self.study, number, "pruned", None)
        else:
            several = len(self.options.directions) > 1
            columns = list(zip(*(o.value if several else [o.value] for o in ended), strict=True))
            means = [sum(column) / len(column) for column in columns]
            states = {outcome.state for outcome in ended}
            state = "diverged" if "diverged" in states else "complete"
            tell(self.study, number, state, means if several else means[0])

    def _fail(self, number: int, reason: str) -> None:
        log.warning("Trial %d failed: %s", number, reason)
        self._keep_traceback(number, reason + "\n")
        tell(self.study, number, "failed", None, error=reason[:2000])

    def _keep_traceback(self, number: int, text: str) -> None:
        folder = self.options.place.folder / str(number)
        folder.mkdir(parents=True, exist_ok=True)
        if not list(folder.rglob("traceback.txt")):  # the job's own says more
            write_text(folder / "traceback.txt", text)

    def _give_back(self) -> None:
        """Ends or gives back every trial that this process has; a launcher's job elsewhere will notice."""
        with undisturbed():
            self.claims.backend.fresh_session()
            for trial in self.study.get_trials(deepcopy=False):
                if self.claims.is_mine(trial) and not self.settle(trial.number):
                    self.claims.release(trial.number)

    def _after_launcher_error(self, trials: list[Trial], error: Exception) -> None:
        """Sorts a batch whose launcher raised: a bad configuration fails, a lost job is begun again.

        Raises:
            UserError: the launcher could not start any job; the trials are given back.
        """
        reason = _reason(error)
        running = self._still_running(trials)
        if not isinstance(error, HydraException) and not any(self._begun(trial.number) for trial in trials):
            for trial in running:
                self.claims.release(trial.number)
            raise UserError(f"hydra/launcher could not start a job: {reason}\nNo trial is lost.") from error
        for trial in running:
            if self.settle(trial.number):
                continue
            if isinstance(error, HydraException):
                self._fail(trial.number, reason)
            else:
                log.warning("Trial %d: its job was lost (%s).", trial.number, reason.splitlines()[0])
                self.claims.again(trial.number)

    def _begun(self, number: int) -> bool:
        folder = self.options.place.folder / str(number)
        return folder.is_dir() or bool(outcomes(self.study, number, self.repeats))

    def _still_running(self, trials: list[Trial]) -> list[Trial]:
        """Those of the trials that have not ended and are still this process's."""
        now = {t.number: t for t in self.study.get_trials(deepcopy=False)}
        return [trial for trial in trials if self.claims.is_mine(now[trial.number])]

    def _failed(self) -> list[optuna.trial.FrozenTrial] | None:
        """Returns the trials that failed since the command began; None if they are no more than is allowed."""
        failed = [
            trial
            for trial in self.study.get_trials(deepcopy=False)
            if trial.state == TrialState.FAIL
            and trial.datetime_complete is not None
            and trial.datetime_complete.timestamp() >= self.begin
        ]
        return failed if len(failed) > self.options.sweeper.max_failure_rate * self.options.n_trials else None

    def _stop_if_too_many_failed(self) -> None:
        if failed := self._failed():
            rate = self.options.sweeper.max_failure_rate
            shown = "\n".join(f"  - trial {t.number}: {t.user_attrs.get('error', '')}" for t in failed[:5])
            raise UserError(
                f"{len(failed)} of {self.options.n_trials} trials failed, more than "
                f"hydra.sweeper.max_failure_rate={rate} allows:\n{shown}\nTheir tracebacks are in "
                f"{self.options.place.folder}/<trial>/traceback.txt. The same command goes on with the study."
            )


def _reason(error: BaseException) -> str:
    """Returns why a trial failed; an exit says it in words of its own."""
    return str(error) if isinstance(error, JobExit) else f"{type(error).__name__}: {error}"


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
        raise ValueError(f"The job returned {value!r}, which is no number.") from None
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


def consecutive(trials: list[Trial]) -> list[list[Trial]]:
    """Splits trials into groups whose numbers follow each other."""
    groups = [[trial] for trial in trials[:1]]
    for before, trial in pairwise(trials):
        if trial.number == before.number + 1:
            groups[-1].append(trial)
        else:
            groups.append([trial])
    return groups
