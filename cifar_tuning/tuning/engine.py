"""Takes trials, has them trained by the launcher, and tells the study how they ended; one process's part of a study."""

import logging
import math
import signal
import time
import traceback
from collections.abc import Callable, Iterator
from itertools import groupby

import optuna
from hydra.core.plugins import Plugins
from hydra.core.utils import JobReturn
from hydra.errors import HydraException
from hydra.types import HydraContext, TaskFunction
from optuna.trial import Trial, TrialState

from cifar_tuning.errors import DiskError, UserError, full_disk
from cifar_tuning.processes import asked_to_stop, deferred_signals
from cifar_tuning.targets import BASIC_LAUNCHER
from cifar_tuning.tuning.budget import enough, failed_before, finished, limit
from cifar_tuning.tuning.claims import Claims
from cifar_tuning.tuning.endings import Endings, error_of
from cifar_tuning.tuning.exits import JobExit, exited, reason, stops_process
from cifar_tuning.tuning.options import StudyOptions
from cifar_tuning.tuning.place import OVERRIDES, REPEAT, LostTrial
from cifar_tuning.tuning.stream import Stream, TrainInTurn
from cifar_tuning.tuning.study import storage_of
from cifar_tuning.tuning.trial import may_go_on, on_job_end

log = logging.getLogger(__name__)


class Engine:
    """One process's part of a study.

    Args:
        study: opened by `study.open_study`.
        options: of the sweep.
        context: Hydra's.
        task: what trains a job.
        workers: processes of the command.
    """

    def __init__(
        self,
        study: optuna.Study,
        options: StudyOptions,
        context: HydraContext,
        task: TaskFunction,
        workers: int = 1,
    ) -> None:
        self.study, self.options, self.context = study, options, context
        sweeper = options.sweeper
        self.launcher = Plugins.instance().instantiate_launcher(
            config=options.config, hydra_context=context, task_function=task
        )
        self.storage = storage_of(options)
        self.endings = Endings(study, self.storage, options.place.folder, sweeper.repeats, len(options.directions))
        n_trials = limit(study, options)
        self.claims = Claims(self.endings, n_trials, sweeper.max_retry, lambda: enough(study, sweeper))
        # The fused launcher takes another trial whenever one ends; others launch batches, and wait for all of one.
        self.flow: TrainInTurn | None = getattr(self.launcher, "flow", None)
        left = n_trials - len(finished(study))
        self.room = room(sweeper.n_jobs, left, workers, options.config.hydra.launcher.get("stack"))
        one_by_one = self.flow is not None or options.config.hydra.launcher._target_ == BASIC_LAUNCHER
        self.batch = 1 if one_by_one else sweeper.n_jobs
        self.repeats: int = sweeper.repeats
        self.deadline = math.inf if sweeper.timeout is None else options.begin + sweeper.timeout

    def run(self) -> None:
        """Trains trial after trial until none is left, time is up, the sampler says so, or too many failed.

        Raises:
            UserError: more than `max_failure_rate` of the trials failed.
            DiskError: the disk is full; its trials are given back.
            SystemExit: the process was asked to stop, though the signal's own exit may have been lost.
        """

        def goes_on() -> bool:
            return time.time() < self.deadline and not self.endings.stopped and not asked_to_stop()

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
                    full = full_disk(error, f"{self.options.same_command} goes on")
                    if full is not None:  # the next trial would fail of it too
                        self._give_back()
                        raise full from (error.__cause__ if full is error else error)
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
            self.storage.set_trial_system_attr(trial._trial_id, OVERRIDES, used)
            if self.options.sweeper.skip_duplicates and self.endings.repeat(trial, used):
                return False
        except optuna.TrialPruned:  # the user's own function wants no such trial
            self.endings.tell(trial.number, "pruned", None)
            return False
        except Exception as error:  # a mistake in the user's own function, or in what it suggests
            self.endings.keep_traceback(trial.number, traceback.format_exc())
            self.endings.fail(trial.number, reason(error))
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
        earlier = {trial.number: self.endings.left(trial.number) for trial in trials}
        lost = set[int]()
        full: DiskError | None = None
        with self.claims.heartbeats.of(trials), on_job_end(self.endings.settle):
            for repeat in range(self.repeats):
                going = [t for t in trials if may_go_on(earlier[t.number]) and t.number not in lost]
                todo = [trial for trial in going if len(earlier[trial.number]) <= repeat]
                for trial, result in self._launch(todo, repeat):
                    if isinstance(error := error_of(result), LostTrial):  # of one job among several
                        log.warning("%s", error)
                        lost.add(trial.number)
                    elif isinstance(error, DiskError):
                        lost.add(trial.number)
                        full = error
                    else:
                        earlier[trial.number].append(self.endings.outcome(trial.number, result, repeat))
        for trial in trials:
            if trial.number not in lost and not self.endings.settle(trial.number):
                self.endings.conclude(trial.number, earlier[trial.number])
        if full is not None:
            raise full

    def _launch(self, trials: list[Trial], repeat: int) -> Iterator[tuple[Trial, JobReturn]]:
        # A launcher counts job numbers up from the first; another process may have taken one in between.
        for _, numbered in groupby(enumerate(trials), lambda one: one[1].number - one[0]):
            group = [trial for _, trial in numbered]
            params = [self.overrides(trial, repeat) for trial in group]
            yield from zip(group, self.launcher.launch(params, initial_job_idx=group[0].number), strict=True)

    def overrides(self, trial: Trial, repeat: int) -> list[str]:
        """Returns what a trial's job is called with, for one of its seeds."""
        params = self.options.space.overrides(trial.params)
        if self.repeats == 1:
            return params
        seed = self.options.config.seed + repeat
        return [*params, f"seed={seed}", f"hydra.sweep.subdir={trial.number}/seed_{seed}", f"+{REPEAT}={repeat}"]

    def _give_back(self) -> None:
        """Ends or gives back every trial that this process has; a launcher's job elsewhere will notice."""
        with deferred_signals():
            self.storage.fresh_session()
            for trial in self.study.get_trials(deepcopy=False):
                if self.claims.is_mine(trial) and not self.endings.settle(trial.number):
                    self.claims.release(trial.number)

    def _after_launcher_error(self, trials: list[Trial], error: Exception) -> None:
        """Sorts a batch whose launcher raised: a bad configuration fails, a lost job is begun again.

        Raises:
            UserError: the launcher could not start any job; the trials are given back.
        """
        why = reason(error)
        now = {trial.number: trial for trial in self.study.get_trials(deepcopy=False)}
        running = [trial for trial in trials if self.claims.is_mine(now[trial.number])]
        folder, numbers = self.options.place.folder, [trial.number for trial in trials]
        begun = any((folder / str(number)).is_dir() or self.endings.left(number) for number in numbers)
        if not isinstance(error, HydraException) and not begun:
            for trial in running:
                self.claims.release(trial.number)
            raise UserError(f"hydra/launcher could not start a job: {why}\nNo trial is lost.") from error
        for trial in running:
            if self.endings.settle(trial.number):
                continue
            if isinstance(error, HydraException):
                self.endings.fail(trial.number, why)
            else:
                log.warning("Trial %d: its job was lost (%s).", trial.number, why.splitlines()[0])
                self.claims.again(trial.number)

    def _failed(self) -> list[optuna.trial.FrozenTrial] | None:
        """Returns the trials that failed since the command began; None if they are no more than is allowed."""
        trials = self.study.get_trials(deepcopy=False)
        before = {trial.number for trial in failed_before(trials, self.options.begin)}
        failed = [trial for trial in trials if trial.state == TrialState.FAIL and trial.number not in before]
        return failed if len(failed) > self.options.sweeper.max_failure_rate * self.options.n_trials else None

    def _stop_if_too_many_failed(self) -> None:
        if failed := self._failed():
            rate = self.options.sweeper.max_failure_rate
            shown = "\n".join(f"  - trial {t.number}: {t.user_attrs.get('error', '')}" for t in failed[:5])
            raise UserError(
                f"{len(failed)} of {self.options.n_trials} trials failed, more than "
                f"hydra.sweeper.max_failure_rate={rate} allows:\n{shown}\nTheir tracebacks are in "
                f"{self.options.place.folder}/<trial>/traceback.txt. To go on with the study, type "
                f"{self.options.same_command}: it trains as many more in place of those that failed."
            )


def room(n_jobs: int, left: int, workers: int, stack: int | None) -> int:
    """Returns how many trials a process has at a time, under a launcher that takes another whenever one ends.

    Args:
        n_jobs: that all of the command's processes have together.
        left: trials of the study that have not ended; larger stacks would be measured in vain.
        workers: processes of the command.
        stack: that the user gave the launcher, for which each process has room.
    """
    return max(stack or 1, -(-min(n_jobs, left) // workers))
