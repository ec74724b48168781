"""What a study leaves: the winner as files and words, Optuna's plots, and the winner trained once more."""

import json
import logging
import shlex
import statistics
from pathlib import Path
from typing import Any

import optuna
from filelock import FileLock, Timeout
from hydra.core.plugins import Plugins
from hydra.plugins.launcher import Launcher
from hydra.types import HydraContext, TaskFunction
from omegaconf import OmegaConf
from optuna.trial import FrozenTrial, TrialState

from cifar_tuning import PROJECT_ROOT
from cifar_tuning.text import without_password
from cifar_tuning.tuning.engine import OVERRIDES
from cifar_tuning.tuning.options import StudyOptions
from cifar_tuning.tuning.overlays import as_overlay
from cifar_tuning.tuning.place import RETRAIN
from cifar_tuning.tuning.trial import outcome_key

log = logging.getLogger(__name__)

BEST, RESULTS, RETRAINED, CURVE = "best.yaml", "optimization_results.yaml", "retrained.json", "best_values.json"


def write(study: optuna.Study, options: StudyOptions, plots: bool = True) -> None:
    """Writes the stock plugin's result file, the winner as an overlay, and the plots into the study's folder."""
    from cifar_tuning.reporting.study import best_values, write_plots

    folder, trials = options.place.folder, finished(study)
    if not any(trial.state == TrialState.COMPLETE for trial in trials):
        return
    if len(options.directions) == 1:
        best = study.best_trial
        results: dict[str, Any] = {"name": "optuna", "best_params": best.params, "best_value": best.value}
    else:
        front = [{"params": trial.params, "values": trial.values} for trial in study.best_trials]
        results = {"name": "optuna", "solutions": front}
    _write(folder / RESULTS, OmegaConf.to_yaml(OmegaConf.create(results)))
    if len(options.directions) == 1:
        try:
            _write(folder / BEST, overlay(best, options))
        except Exception as error:  # an old trial whose options are gone
            log.warning("%s was not written: trial %d can't be composed any more: %s", BEST, best.number, error)
    _write(folder / CURVE, json.dumps(best_values(study)))
    if not plots:
        return
    write_plots(study, folder / "plots", "validation accuracy" if options.directions == ["maximize"] else "objective")


def finished(study: optuna.Study) -> list[FrozenTrial]:
    """Returns the trials that ended."""
    return [trial for trial in study.get_trials(deepcopy=False) if trial.state.is_finished()]


def overrides_of(trial: FrozenTrial, options: StudyOptions) -> list[str]:
    """Returns the overrides that a trial's jobs had, also where the command's have changed since."""
    return list(trial.system_attrs.get(OVERRIDES) or options.space.overrides(trial.params))


def overlay(best: FrozenTrial, options: StudyOptions) -> str:
    """Returns the winner as an experiment overlay: the groups it chose, and every value that it set.

    The values are those of its composed configuration, so that the overlay means the same without the study's.
    """
    from hydra.core.global_hydra import GlobalHydra

    loader = GlobalHydra.instance().config_loader()
    config = loader.load_sweep_config(options.config, overrides_of(best, options))
    place = options.place
    command = _experiment(options) or "copy it to conf/experiment/ to use it"
    return as_overlay(
        config,
        f"# The best of the study {place.name}: trial {best.number}, {best.value:.6g}.\n"
        f"# From {without_password(place.storage)}\n"
        f"#   {command}\n",
    )


def _experiment(options: StudyOptions) -> str | None:
    """The command that uses the overlay; None where the folder is not below the project's multirun/."""
    try:
        below = options.place.folder.relative_to(PROJECT_ROOT / "multirun")
    except ValueError:
        return None
    return f"python train.py experiment={below}/best"


def _write(file: Path, text: str) -> None:
    partial = file.with_name(f".{file.name}.tmp")
    partial.write_text(text, encoding="utf-8")
    partial.replace(file)


def retrain_best(study: optuna.Study, options: StudyOptions, context: HydraContext, task: TaskFunction) -> None:
    """Trains the winner with `retrain_best` seeds that took no part in the search, and tests each once."""
    count, file = options.sweeper.retrain_best, options.place.folder / RETRAINED
    if not count or len(options.directions) > 1 or len(finished(study)) < options.n_trials:
        return
    if not any(trial.state == TrialState.COMPLETE for trial in finished(study)):
        return
    best = study.best_trial
    known = json.loads(file.read_text()) if file.is_file() else {}
    if known.get("trial") != best.number:
        known = {"trial": best.number, "runs": {}}
    launcher = Plugins.instance().instantiate_launcher(config=options.config, hydra_context=context, task_function=task)
    try:
        with FileLock(options.place.folder / ".retrain.lock", timeout=0):
            _retrain(best, known, launcher, options)
    except Timeout:
        print("Another process retrains the winner just now.")
    except Exception as error:  # the study's own results stand
        log.warning("The winner could not be retrained: %s: %s", type(error).__name__, error)


def _retrain(best: FrozenTrial, known: dict[str, Any], launcher: Launcher, options: StudyOptions) -> None:
    first = options.config.seed + options.sweeper.repeats
    for seed in range(first, first + options.sweeper.retrain_best):
        if str(seed) in known["runs"]:
            continue
        subdir = f"best_{best.number}/seed_{seed}"
        extra = [f"seed={seed}", f"hydra.sweep.subdir={subdir}", f"+{RETRAIN}=1"]
        number = options.n_trials + seed - first
        (result,) = launcher.launch([overrides_of(best, options) + extra], initial_job_idx=number)
        left = options.place.folder / subdir / "result.json"
        detail = json.loads(left.read_text()) if left.is_file() else {}
        known["runs"][str(seed)] = {"value": float(result.return_value), "test": detail.get("test_acc")}
        _write(options.place.folder / RETRAINED, json.dumps(known, indent=1))


def print_start(study: optuna.Study, options: StudyOptions) -> None:
    """Prints where the study is and how far it has come."""
    done = len(finished(study))
    print(f"Study {study.study_name} in {without_password(options.place.storage)}, folder {options.place.folder}")
    if done:
        all_done = f"all {done} trials finished; hydra.sweeper.n_trials={2 * done} would go on with it"
        print(all_done if done >= options.n_trials else f"going on: {done} of {options.n_trials} trials finished")


def print_end(study: optuna.Study, options: StudyOptions) -> None:
    """Prints the winner, the best five, what pruning saved and how to go on."""
    from rich.console import Console

    from cifar_tuning.reporting.summary import WIDE

    console = Console() if _terminal() else Console(width=WIDE)
    ended = finished(study)
    complete = [trial for trial in ended if trial.state == TrialState.COMPLETE]
    if not complete:
        console.print(f"{len(ended)} trials ended, none complete; their logs are in {options.place.folder}/<trial>/")
        return
    several = len(options.directions) > 1
    shown_trials = study.best_trials if several else _ranked(complete, options)[:5]
    console.print(_table(shown_trials, "Pareto front" if several else "the best five"))
    counts = {state: sum(t.state == state for t in ended) for state in (TrialState.PRUNED, TrialState.FAIL)}
    console.print(
        f"{len(ended)} of {options.n_trials} trials finished: {len(complete)} complete, "
        f"{counts[TrialState.PRUNED]} pruned, {counts[TrialState.FAIL]} failed{_saved(ended)}",
        highlight=False,
    )
    if not several:
        _print_next(console, study, options)


def _terminal() -> bool:
    import sys

    return sys.stdout.isatty()


def _ranked(complete: list[FrozenTrial], options: StudyOptions) -> list[FrozenTrial]:
    return sorted(complete, key=lambda t: t.value or 0.0, reverse=options.directions[0] == "maximize")


def _table(trials: list[FrozenTrial], title: str) -> Any:
    from rich.table import Table

    from cifar_tuning.tuning.display import number

    names = list(dict.fromkeys(name for trial in trials for name in trial.params))
    table = Table(title=title)
    for name in ("trial", "value", *names):
        table.add_column(name, justify="right", overflow="fold")
    for index, trial in enumerate(trials):
        values = ", ".join(f"{value:.4f}" if abs(value) < 1000 else f"{value:,.0f}" for value in trial.values or ())
        params = [trial.params.get(name, "") for name in names]
        cells = [number(p) if isinstance(p, float) else str(p) for p in params]
        table.add_row(str(trial.number), values, *cells, style="bold" if index == 0 else None)
    return table


def _saved(ended: list[FrozenTrial]) -> str:
    """What pruning saved, from what the jobs said of their epochs."""
    trained, asked = 0, 0
    for trial in ended:
        for name, kept in trial.system_attrs.items():
            if name.startswith(outcome_key(0)[:-1]) and kept.get("of"):
                asked += kept["of"]
                trained += kept["epochs"] if kept["state"] == "pruned" else kept["of"]
    if not asked or trained == asked:
        return ""
    return f"; {trained:,} of {asked:,} epochs trained, {1 - trained / asked:.0%} saved by pruning"


def _print_next(console: Any, study: optuna.Study, options: StudyOptions) -> None:
    best, folder = study.best_trial, options.place.folder
    known = json.loads((folder / RETRAINED).read_text()) if (folder / RETRAINED).is_file() else {}
    if known.get("trial") == best.number:
        runs = known["runs"]
        for name, key in (("validation", "value"), ("test", "test")):
            values = [run[key] for run in runs.values() if run[key] is not None]
            if values:
                spread = f" ± {statistics.stdev(values):.4f}" if len(values) > 1 else ""
                console.print(
                    f"the best, retrained with {len(values)} other seeds: {name} accuracy "
                    f"{statistics.mean(values):.4f}{spread}",
                    highlight=False,
                )
    overrides = [o for o in overrides_of(best, options) if not o.startswith("hydra.")]
    lines = [
        ("The best configuration once more:", None),
        (f"  python {_program()} {' '.join(shlex.quote(o) for o in overrides)}", None),
        (f"  {_experiment(options)}", "the same, from best.yaml") if _experiment(options) else ("", None),
        ("Where to look next:", None),
        (f"  {folder / 'plots'}", "Optuna's plots; study.html has them to explore"),
        (f"  python predict.py run={folder / str(best.number)}", "its test accuracy")
        if _has_model(best, folder)
        else ("", None),
        (
            f"  optuna-dashboard {without_password(options.place.storage)}",
            "the study in a browser (pip install optuna-dashboard)",
        ),
    ]
    for text, comment in lines:
        if text:
            console.print(text + (f"  {comment}" if comment else ""), highlight=False, markup=False, soft_wrap=True)


def _has_model(best: FrozenTrial, folder: Path) -> bool:
    return (folder / str(best.number) / "best.pt").is_file()


def _program() -> str:
    import sys

    return Path(sys.argv[0]).name or "train.py"
