"""The winner of a study trained with seeds that took no part in the search, and tested once with each."""

import json
import logging
from typing import Any

import optuna
from filelock import FileLock, Timeout
from hydra.core.plugins import Plugins
from hydra.plugins.launcher import Launcher
from hydra.types import HydraContext, TaskFunction
from optuna.trial import FrozenTrial, TrialState

from cifar_tuning.tuning.options import StudyOptions
from cifar_tuning.tuning.outcome import finished, overrides_of, write_file
from cifar_tuning.tuning.place import RETRAIN

log = logging.getLogger(__name__)

RETRAINED = "retrained.json"


def retrain_best(study: optuna.Study, options: StudyOptions, context: HydraContext, task: TaskFunction) -> None:
    """Trains the winner with `retrain_best` seeds that took no part in the search, and tests each once."""
    count = options.sweeper.retrain_best
    if not count or len(options.directions) > 1 or len(finished(study)) < options.n_trials:
        return
    if not any(trial.state == TrialState.COMPLETE for trial in finished(study)):
        return
    launcher = Plugins.instance().instantiate_launcher(config=options.config, hydra_context=context, task_function=task)
    try:
        with FileLock(options.place.folder / ".retrain.lock", timeout=0):
            _retrain(study.best_trial, launcher, options)
    except Timeout:
        print("Another process retrains the winner just now.")
    except Exception as error:  # the study's own results stand
        log.warning("The winner could not be retrained: %s: %s", type(error).__name__, error)


def retrained(best: FrozenTrial, options: StudyOptions) -> dict[str, Any]:
    """Returns what the winner's further seeds came to, by seed."""
    file = options.place.folder / RETRAINED
    known = json.loads(file.read_text()) if file.is_file() else {}
    return known["runs"] if known.get("trial") == best.number else {}


def _retrain(best: FrozenTrial, launcher: Launcher, options: StudyOptions) -> None:
    """Trains the seeds that are missing, all in one launch: launchers that run several jobs at once do so here too."""
    runs, first = retrained(best, options), options.config.seed + options.sweeper.repeats
    seeds = [seed for seed in range(first, first + options.sweeper.retrain_best) if str(seed) not in runs]
    if not seeds:
        return
    folders = {seed: f"best_{best.number}/seed_{seed}" for seed in seeds}
    jobs = [
        [*overrides_of(best, options), f"seed={seed}", f"hydra.sweep.subdir={folders[seed]}", f"+{RETRAIN}=1"]
        for seed in seeds
    ]
    results = launcher.launch(jobs, initial_job_idx=options.n_trials + seeds[0] - first)
    for seed, result in zip(seeds, results, strict=True):
        try:
            value = float(result.return_value)
        except Exception as error:
            log.warning("The winner could not be retrained with seed %d: %s: %s", seed, type(error).__name__, error)
            continue
        left = options.place.folder / folders[seed] / "result.json"
        detail = json.loads(left.read_text()) if left.is_file() else {}
        runs[str(seed)] = {"value": value, "test": detail.get("test_acc")}
    write_file(options.place.folder / RETRAINED, json.dumps({"trial": best.number, "runs": runs}, indent=1))
