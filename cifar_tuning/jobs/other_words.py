"""What options are called elsewhere: in Optuna, in other sweepers, in templates for Hydra and Lightning."""

import difflib
from collections.abc import Iterable
from dataclasses import fields

from cifar_tuning.overrides import key_of
from cifar_tuning.tuning.plugin import StudySweeperConf

SWEEPER = "hydra.sweeper."
OPTIONS = [field.name for field in fields(StudySweeperConf) if field.name != "defaults"]
_AGAIN = "the same command goes on with a study, without an option"
# By the word that is typed, without `hydra.sweeper.`: an option of a study, or what to do.
_OF_STUDIES = {
    **dict.fromkeys(("early_stopping", "early_stop", "max_stagnation_trials", "terminator", "callbacks"), "patience"),
    **dict.fromkeys(("n_seeds", "num_seeds", "seeds", "n_repeats"), "repeats"),
    **dict.fromkeys(("max_trials", "num_trials", "num_samples", "n_iter", "budget"), "n_trials"),
    **dict.fromkeys(("n_workers", "num_workers", "max_workers", "parallelism"), "workers"),
    **dict.fromkeys(("max_time", "time_budget", "time_limit", "time_budget_s", "max_hours"), "timeout"),
    **dict.fromkeys(("enqueue_trials", "initial_params", "points_to_evaluate", "initial_points"), "enqueue"),
    **dict.fromkeys(("max_retries", "retries", "retry", "n_retries"), "max_retry"),
    **dict.fromkeys(("fail_fast", "max_failures", "catch", "raise_on_failure"), "max_failure_rate"),
    **dict.fromkeys(("search_space", "space"), "params"),
    **dict.fromkeys(("only_if", "conditional", "conditional_params"), "conditions"),
    **dict.fromkeys(("stop_value", "stop_score", "max_score"), "target"),
    **dict.fromkeys(("avoid_duplicates", "unique", "no_duplicates", "deduplicate"), "skip_duplicates"),
    **dict.fromkeys(("load_if_exists", "resume", "skip_if_exists", "restore"), _AGAIN),
    **dict.fromkeys(("transfer_from", "previous_study", "initial_study"), "warm_start"),
    **dict.fromkeys(("metric", "optimized_metric", "objective", "monitor"), "objective=…, without hydra.sweeper"),
    "seed": "hydra.sweeper.sampler.seed",
}
# Whole overrides, where those are not of a study; {} stands for the value.
_OF_RUNS = {
    **dict.fromkeys(("optimized_metric", "metric", "monitor"), "objective={}"),
    **dict.fromkeys(("ckpt_path", "checkpoint", "resume_from", "resume_from_checkpoint"), "resume={}"),
    **dict.fromkeys(("run_name", "task_name", "name"), "tracking.run_name={}"),
    **dict.fromkeys(("experiment_name", "project"), "tracking.experiment={}"),
    **dict.fromkeys(("max_epochs", "num_epochs", "n_epochs"), "trainer.epochs={}"),
    "learning_rate": "optimizer.lr={}",
    **dict.fromkeys(("early_stopping", "early_stopping_patience"), "trainer.patience={}"),
    "hparams_search": "study=simplenn, or another of conf/study",
    "logger": "tracking=mlflow or tracking=none",
    "dataset": "data={}",
    "scheduler": "schedule={}",
    "optim": "optimizer={}",
    "tags": "'+tracking.tags.NAME={}'",
}


def of_a_study(given: Iterable[str]) -> list[str]:
    """Returns a line for each override of the study sweeper that it has no such option for, and that we can guess.

    Args:
        given: overrides of a command that chooses the study sweeper.
    """
    lines = []
    for one in given:
        word = key_of(one).removeprefix(SWEEPER).partition(".")[0]
        if not one.startswith(SWEEPER) or word in OPTIONS:
            continue
        if meant := _OF_STUDIES.get(word) or next(iter(difflib.get_close_matches(word, OPTIONS, n=1)), None):
            said = f"did you mean {SWEEPER}{meant}?" if meant in OPTIONS else f"what there is: {meant}"
            lines.append(f"{one}: no option; {said}")
    return lines


def of_a_run(one: str) -> str | None:
    """Returns what an override is here whose key nothing at the top of the configuration has; None if unknown."""
    word, _, value = one.partition("=")
    if word in _OF_RUNS:
        return _OF_RUNS[word].format(value)
    return f"{SWEEPER}{one}" if word in OPTIONS else None
