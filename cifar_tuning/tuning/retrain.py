"""Retrains a study's winner with seeds that took no part in the search, and tests each once."""

import json
import logging
from typing import Any

import optuna
from filelock import FileLock, Timeout
from hydra.core.plugins import Plugins
from hydra.plugins.launcher import Launcher
from hydra.types import HydraContext, TaskFunction
from optuna.trial import FrozenTrial

from cifar_tuning.files import read_json, write_text
from cifar_tuning.tuning.exits import reason
from cifar_tuning.tuning.options import StudyOptions
from cifar_tuning.tuning.place import RETRAIN
from cifar_tuning.tuning.study_files import is_over, overrides_of, winner

log = logging.getLogger(__name__)

RETRAINED = "retrained.json"


def retrain_best(study: optuna.Study, options: StudyOptions, context: HydraContext, task: TaskFunction) -> list[str]:
    """Trains the winner with `retrain_best` seeds that took no part in the search, and tests each once.

    Returns:
        A line for each that failed, or one for all; the study's own results stand.
    """
    count = options.sweeper.retrain_best
    if not count or not is_over(study, options):
        return []
    if (best := winner(study, options)) is None:
        return []
    launcher = Plugins.instance().instantiate_launcher(config=options.config, hydra_context=context, task_function=task)
    try:
        with FileLock(options.place.folder / ".retrain.lock", timeout=0):
            return _retrain(best, launcher, options)
    except Timeout:
        print("Another process retrains the winner just now.")
        return []
    except Exception as error:
        log.debug("The winner could not be retrained.", exc_info=True)
        return [reason(error)]


def retrained(best: FrozenTrial, options: StudyOptions) -> dict[str, Any]:
    """Returns what the winner's further seeds came to, by seed."""
    known = read_json(options.place.folder / RETRAINED) or {}
    same = known.get("trial") == best.number and known.get("overrides", []) == list(options.sweeper.retrain_overrides)
    return known["runs"] if same else {}


def subfolder(best: FrozenTrial, seed: int | str) -> str:
    """Returns where in the study's folder one of the winner's further seeds is."""
    return f"best_{best.number}/seed_{seed}"


def _retrain(best: FrozenTrial, launcher: Launcher, options: StudyOptions) -> list[str]:
    """Trains the seeds that are missing, all in one launch: launchers that run several jobs at once do so here too.

    Returns:
        A line for each that failed.
    """
    runs, first = retrained(best, options), options.config.seed + options.sweeper.repeats
    seeds = [seed for seed in range(first, first + options.sweeper.retrain_best) if str(seed) not in runs]
    if not seeds:
        return []
    winner = overrides_of(best, options)
    jobs = [
        [*options.retrain_overrides(winner, seed), f"hydra.sweep.subdir={subfolder(best, seed)}", f"+{RETRAIN}=1"]
        for seed in seeds
    ]
    failures = []
    results = launcher.launch(jobs, initial_job_idx=options.n_trials + seeds[0] - first)
    for seed, result in zip(seeds, results, strict=True):
        left = options.place.folder / subfolder(best, seed) / "result.json"
        try:
            value = result.return_value
            test = json.loads(left.read_text()).get("test_acc") if left.is_file() else None
            # Without validation there is no value; the accuracy on the test set is what it was trained for.
            if value is not None or test is None:
                value = float(value)
        except Exception as error:
            failures.append(f"seed {seed}: {reason(error)}")
            continue
        runs[str(seed)] = {"value": value, "test": test}
    kept = {"trial": best.number, "overrides": list(options.sweeper.retrain_overrides), "runs": runs}
    write_text(options.place.folder / RETRAINED, json.dumps(kept, indent=1))
    return failures
