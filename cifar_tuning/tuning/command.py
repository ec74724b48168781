"""A study's command from start to end: check, open, train (here or in workers), sum up."""

import logging
import sys
import time
from contextlib import AbstractContextManager, nullcontext

import optuna
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig, OmegaConf

from cifar_tuning.compose import remember_files
from cifar_tuning.errors import UserError, full_disk
from cifar_tuning.processes import is_worker
from cifar_tuning.tuning.budget import finished, limit
from cifar_tuning.tuning.endings import stopped_by
from cifar_tuning.tuning.engine import Engine
from cifar_tuning.tuning.exits import ContainedTask
from cifar_tuning.tuning.options import StudyOptions
from cifar_tuning.tuning.study import open_study, storage_of
from cifar_tuning.tuning.worker_count import script, workers_of
from cifar_tuning.tuning.workers import Workers, die_with_parent

log = logging.getLogger(__name__)


def run_study(config: DictConfig, context: HydraContext, task: TaskFunction, arguments: list[str]) -> None:
    """Runs a study until `n_trials` are finished, or as far as this command may.

    Raises:
        ConfigError: the study can't be run as asked; nothing was trained.
        UserError: the storage can't be used, too many trials failed, or the winner could not be retrained.
    """
    context, task = remember_files(context), ContainedTask(task)
    options = StudyOptions.parse(config, arguments)
    study = open_study(options)
    workers = workers_of(options)
    if is_worker():
        die_with_parent()
        Engine(study, options, context, task, workers).run()
        return
    from cifar_tuning.tuning import retrain, study_files, summary

    summary.print_start(study, options)
    command = script()
    if command is None and workers > 1:
        raise UserError("hydra.sweeper.workers: only a script or a module can be repeated in worker processes")
    stopped = True
    try:
        with _monitor(study, options):
            if command and (workers > 1 or sys.stdout.isatty()):
                Workers(command, options, study, workers).run()
            else:
                Engine(study, options, context, task).run()
        stopped = False
    finally:
        try:
            # Who pressed Ctrl-C does not want to wait for pictures; the next command draws them.
            study_files.write(study, options, plots=options.sweeper.plots and not stopped)
        except OSError as error:
            if (full := full_disk(error, f"{options.same_command} goes on")) is None:
                raise
            if not stopped:
                raise full from error
            log.warning("What the study has come to is not in its folder: %s", full)
    timeout = options.sweeper.timeout
    timed_out = (
        timeout is not None and time.time() >= options.begin + timeout and not study_files.is_over(study, options)
    )
    failures = retrain.retrain_best(study, options, context, task)
    summary.print_end(study, options, timed_out, stopped_by(study, storage_of(options), options.begin))
    if failures:
        shown = "\n".join(f"  - {failure}" for failure in failures)
        again = f"The study itself is whole; {options.same_command} trains what is missing."
        raise UserError(f"hydra.sweeper.retrain_best: the winner could not be retrained:\n{shown}\n{again}")


def _monitor(study: optuna.Study, options: StudyOptions) -> AbstractContextManager[object]:
    from cifar_tuning.tuning.display import Monitor
    from cifar_tuning.tuning.progress import Watched

    total = limit(study, options)
    if total <= len(finished(study)):
        return nullcontext()
    # A study object of its own: the table is drawn by another thread.
    watched = optuna.load_study(study_name=study.study_name, storage=storage_of(options).cached)
    epochs = OmegaConf.select(options.config, "trainer.epochs")
    timeout = options.sweeper.timeout
    known = Watched(
        name=study.study_name,
        n_trials=total,
        maximize=options.directions[0] == "maximize",
        epochs=epochs if isinstance(epochs, int) else None,
        deadline=None if timeout is None else options.begin + timeout,
    )
    return Monitor(lambda: watched.get_trials(deepcopy=False), known)
