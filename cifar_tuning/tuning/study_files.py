"""The files that a study leaves in its folder: the winner as an overlay, results, Optuna's plots."""

import json
import logging
import math
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import optuna
from omegaconf import OmegaConf
from optuna.trial import FrozenTrial, TrialState

from cifar_tuning import PROJECT_ROOT
from cifar_tuning.files import write_text
from cifar_tuning.overrides import of_job
from cifar_tuning.text import command_line, counted, override, without_password
from cifar_tuning.tuning.budget import enough, exhausted, finished, limit
from cifar_tuning.tuning.options import StudyOptions
from cifar_tuning.tuning.overlays import as_overlay, looks_for_studies
from cifar_tuning.tuning.place import OVERRIDES, SAME_AS, objectives_of
from cifar_tuning.tuning.progress import best_trial

log = logging.getLogger(__name__)

BEST, RESULTS, CURVE, PLOTS = "best.yaml", "optimization_results.yaml", "best_values.json", "plots"


def write(study: optuna.Study, options: StudyOptions, plots: bool = True) -> None:
    """Writes the stock plugin's result file, the winner as an overlay, and the plots into the study's folder.

    Args:
        study: as far as it has come.
        options: of the sweep.
        plots: draw Optuna's, where trials ended since that was last done.
    """
    from cifar_tuning.reporting.study import best_values, write_plots

    folder, trials = options.place.folder, finished(study)
    if not any(trial.state == TrialState.COMPLETE for trial in trials):
        return
    best = winner(study, options)
    if len(options.directions) > 1:
        front = [{"params": trial.params, "values": trial.values} for trial in pareto_front(study)]
        _write_results(folder, {"solutions": front})
    elif best is not None:
        _write_results(folder, {"best_trial": best.number, "best_params": best.params, "best_value": best.value})
        try:
            write_text(folder / BEST, overlay(best, options))
        except Exception as error:  # an old trial whose options are gone
            log.warning("%s was not written: trial %d can't be composed any more: %s", BEST, best.number, error)
    write_text(folder / CURVE, json.dumps(best_values(study)))
    if plots and _plots_are_old(folder / PLOTS, trials):
        with _no_word_of_what_is_omitted(trials):
            write_plots(study, folder / PLOTS, objective_name(options), objectives=objectives_of(options.config))


def _write_results(folder: Path, results: dict[str, Any]) -> None:
    write_text(folder / RESULTS, OmegaConf.to_yaml(OmegaConf.create({"name": "optuna", **results})))


@contextmanager
def _no_word_of_what_is_omitted(trials: list[FrozenTrial]) -> Iterator[None]:
    """Says once that infinite values are in no plot; Optuna says it of each trial in each of them."""
    infinite = [trial for trial in trials if any(map(math.isinf, trial.values or ()))]
    if infinite:
        log.warning("%s with an infinite value: in none of the plots.", counted(len(infinite), "trial"))
    before = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    try:
        yield
    finally:
        optuna.logging.set_verbosity(before)


def _plots_are_old(folder: Path, ended: list[FrozenTrial]) -> bool:
    page = folder / "study.html"  # the last that is written
    times = [trial.datetime_complete.timestamp() for trial in ended if trial.datetime_complete is not None]
    return not page.is_file() or page.stat().st_mtime < max(times, default=0.0)


def objective_name(options: StudyOptions) -> str:
    """Returns what the one objective is called, as far as the application says."""
    names = objectives_of(options.config)
    return {"val/acc_best": "validation accuracy"}.get(names[0], names[0]) if len(names) == 1 else "objective"


def winner(study: optuna.Study, options: StudyOptions) -> FrozenTrial | None:
    """Returns the best trial of a study with one objective; None while none is complete that violates no constraint."""
    several = len(options.directions) > 1
    return None if several else best_trial(finished(study), options.directions[0] == "maximize")


def pareto_front(study: optuna.Study) -> list[FrozenTrial]:
    """Returns the trials that no other one beats in all objectives, each configuration's that was trained alone."""
    return [trial for trial in study.best_trials if SAME_AS not in trial.user_attrs]


def is_over(study: optuna.Study, options: StudyOptions) -> bool:
    """Whether all trials have ended that the study is to have, or there can be."""
    ended = len(finished(study))
    if ended >= limit(study, options):
        return True
    none_left = ended == len(study.get_trials(deepcopy=False))
    return none_left and (exhausted(study) or enough(study, options.sweeper) is not None)


def overrides_of(trial: FrozenTrial, options: StudyOptions) -> list[str]:
    """Returns the overrides that a trial's jobs had, also where the command's have changed since."""
    given = trial.system_attrs.get(OVERRIDES) or options.space.overrides(trial.params)
    return [of_job(override, trial.number) for override in given]


def overlay(best: FrozenTrial, options: StudyOptions) -> str:
    """Returns the winner as an experiment overlay: the groups it chose, and every value that it set.

    The values are those of its composed configuration, so that the overlay means the same without the study's.
    """
    from hydra.core.global_hydra import GlobalHydra

    loader = GlobalHydra.instance().config_loader()
    config = loader.load_sweep_config(options.config, overrides_of(best, options))
    place = options.place
    command = experiment(options) or "copy it to conf/experiment/ to use it"
    return as_overlay(
        config,
        f"# The best of the study {place.name}: trial {best.number}, {best.value:.6g}.\n"
        f"# From {without_password(place.storage)}\n"
        f"#   {command}\n",
    )


def experiment(options: StudyOptions) -> str | None:
    """Returns the command that uses the overlay; None where the folder is not below the project's multirun/.

    Nor where the command is another application's, which does not look for studies there.
    """
    if not looks_for_studies():
        return None
    try:
        below = options.place.folder.relative_to(PROJECT_ROOT / "multirun")
    except ValueError:
        return None
    return command_line("train.py", override("experiment", f"{below}/best"))
