"""A study's printed summary: how far it is before it goes on, and its results at the end."""

import math
import shlex
import statistics
import sys
from pathlib import Path

import optuna
from omegaconf import OmegaConf
from optuna.trial import FrozenTrial, TrialState
from rich.table import Table

from cifar_tuning.databases import with_driver
from cifar_tuning.targets import is_tracked
from cifar_tuning.text import command_line, counted, override, with_comment, without_password
from cifar_tuning.tuning.budget import enough, exhausted, finished, forgiven, limit
from cifar_tuning.tuning.claims import is_foreign
from cifar_tuning.tuning.options import StudyOptions
from cifar_tuning.tuning.overlays import looks_for_studies
from cifar_tuning.tuning.place import SAME_AS, folder_of_model, more_to_type, objectives_of
from cifar_tuning.tuning.progress import eligible, number, reason, short_keys
from cifar_tuning.tuning.retrain import retrained, subfolder
from cifar_tuning.tuning.study_files import (
    PLOTS,
    experiment,
    is_over,
    objective_name,
    overrides_of,
    pareto_front,
    winner,
)
from cifar_tuning.tuning.trial import outcome_key

# Failed trials that are listed, and characters of their reasons.
SHOWN_FAILURES, SHOWN_OF_FRONT, REASON = 5, 10, 200
EXHAUSTED = "every point of the search space is tried"


def print_start(study: optuna.Study, options: StudyOptions) -> None:
    """Prints where the study is, how far it has come, and which defaults it can't begin with."""
    before = len(forgiven(study, options))
    done = len(finished(study)) - before
    apart = f"; {before} failed before and don't count" if before else ""
    print(f"Study {study.study_name} in {without_password(options.place.storage)}, folder {options.place.folder}")
    if more := more_to_type(options.config):
        print(
            f"The time is in the folder's name: the same command begins another study;{more} it goes on with this one."
        )
    if len(options.directions) > 1:
        print(f"{len(options.directions)} objectives: there is no pruning (a curve has only one).")
    if (no_more := no_more_needed(study, options)) and is_over(study, options):
        print(no_more)
    elif done >= options.n_trials:
        print(f"all {counted(done, 'trial')} finished; hydra.sweeper.n_trials={2 * done} would go on with it{apart}")
    elif done or before:
        print(f"going on: {done} of {counted(options.n_trials, 'trial')} finished{apart}")
    elif (left_out := options.left_out()) is not None:
        print(left_out)


def no_more_needed(study: optuna.Study, options: StudyOptions) -> str | None:
    """Returns in words why no further trial is drawn, though there are fewer than `n_trials`; None if one is."""
    return EXHAUSTED if exhausted(study) else enough(study, options.sweeper)


def print_end(study: optuna.Study, options: StudyOptions, timed_out: bool, stopped_by: str | None) -> None:
    """Prints the winner, the best five, what pruning saved, why trials failed and how to go on.

    Args:
        study: as far as it has come.
        options: of the sweep.
        timed_out: whether `timeout` kept trials from being started.
        stopped_by: the sampler that called `study.stop()`, if one has.
    """
    from cifar_tuning.reporting.summary import open_console

    console = open_console()
    ended, several = finished(study), len(options.directions) > 1
    complete = [trial for trial in ended if trial.state == TrialState.COMPLETE]
    trained = [trial for trial in complete if SAME_AS not in trial.user_attrs]
    shown_trials = pareto_front(study) if several and complete else _ranked(trained, options)[:5]
    if shown_trials:
        objectives = objectives_of(options.config) if several else []
        console.print(_table(shown_trials, "Pareto front" if several else "the best five", objectives))
    before = len(forgiven(study, options))
    counts = {state: sum(t.state == state for t in ended) for state in (TrialState.PRUNED, TrialState.FAIL)}
    no_more = no_more_needed(study, options)
    missing = 0 if no_more and not options.exhaustive else counts[TrialState.FAIL] - before
    lines = [
        f"{len(ended)} of {counted(limit(study, options), 'trial')} finished: {len(complete)} complete, "
        f"{counts[TrialState.PRUNED]} pruned, {counts[TrialState.FAIL]} failed{saved(ended, options.sweeper.repeats)}",
        *_repeated(len(complete) - len(trained)),
        *failures(ended),
        *([f"{options.same_command} trains {missing} more in place of those that failed"] if missing else []),
        *([] if complete or not ended else [f"None is complete; their logs are in {options.place.folder}/<trial>/"]),
        *([no_more] if no_more else []),
    ]
    if not is_over(study, options):
        lines += [*unfinished(options, len(ended) - before, timed_out, stopped_by), *foreign(study)]
    if shown_trials and several:
        lines += [*_front(shown_trials, options), *_look_next(options, [])]
    elif (best := winner(study, options)) is not None:
        lines += [*_retrained(best, options), *_once_more(best, options), *_look_next(options, _model(best, options))]
    elif complete:
        finite = any(math.isfinite(value) for trial in complete for value in trial.values)
        why = "all complete trials violate constraints" if finite else "no complete trial has a finite value"
        lines.append(f"None is the best: {why}.")
    for line in lines:
        console.print(line, soft_wrap=True)


def _ranked(complete: list[FrozenTrial], options: StudyOptions) -> list[FrozenTrial]:
    sign = -1 if options.directions[0] == "maximize" else 1
    return sorted(complete, key=lambda t: (not eligible(t), sign * (t.value or 0.0)))


def _table(trials: list[FrozenTrial], title: str, objectives: list[str]) -> Table:
    """Returns trials as a table: a column for each objective that has a name, one for all where they have none.

    Where a trial violates constraints, another column says so: it is shown, but can't be the best.
    """
    names = short_keys(name for trial in trials for name in trial.params)
    table = Table(title=title)
    violated = any(_violates(trial) for trial in trials)  # most studies have no constraints
    for name in ("trial", *(objectives or ["value"]), *names.values(), *(["constraints"] if violated else [])):
        table.add_column(name, justify="right", overflow="fold")
    for index, trial in enumerate(trials):
        values = [f"{value:.4f}" if abs(value) < 1000 else f"{value:,.0f}" for value in trial.values or ()]
        params = [trial.params.get(name, "") for name in names]
        cells = values if objectives else [", ".join(values)]
        cells += [number(p) if isinstance(p, float) else str(p) for p in params]
        cells += [("violated" if _violates(trial) else "kept")] if violated else []
        table.add_row(str(trial.number), *cells, style="bold" if index == 0 and eligible(trial) else None)
    return table


def _violates(trial: FrozenTrial) -> bool:
    return any(violation > 0 for violation in trial.constraints.values())


def saved(ended: list[FrozenTrial], repeats: int) -> str:
    """Returns in words what pruning and patience saved, from what the jobs said of their epochs.

    Args:
        ended: trials.
        repeats: seeds that each of them was to train.
    """
    trained, asked, spared, given_up = 0, 0, 0, 0
    for trial in ended:
        kept = [trial.system_attrs.get(outcome_key(repeat)) or {} for repeat in range(repeats)]
        seeds = [seed for seed in kept if seed.get("of") and seed.get("epochs") is not None]
        trained += sum(seed["epochs"] for seed in seeds)
        asked += sum(seed["of"] for seed in seeds)
        given_up += sum(seed["of"] - seed["epochs"] for seed in seeds if seed["state"] == "complete")
        if trial.state != TrialState.PRUNED or not seeds:
            continue
        never_run = (repeats - len(seeds)) * seeds[0]["of"]
        asked += never_run
        spared += never_run + sum(seed["of"] - seed["epochs"] for seed in seeds if seed["state"] == "pruned")
    reasons = (spared, "pruning"), (given_up, "trainer.patience")
    shares = " and ".join(f"{count / asked:.0%} by {what}" for count, what in reasons if count)
    if not shares:
        return ""
    return f"; {trained:,} of {asked:,} epochs trained, {shares.replace(' by ', ' saved by ', 1)}"


def failures(ended: list[FrozenTrial]) -> list[str]:
    """Returns a line for each of the latest failed trials, with its reason."""
    failed = [trial for trial in ended if trial.state == TrialState.FAIL]
    latest = failed[-SHOWN_FAILURES:]
    lines = [f"  trial {t.number} failed: {reason(t, REASON) or 'no reason is known'}" for t in latest]
    more = len(failed) - len(lines)
    return [*([f"  {counted(more, 'earlier trial')} failed too"] if more else []), *lines]


def _repeated(count: int) -> list[str]:
    """Returns a line on the trials that were not trained, if any."""
    had = "had the configuration of one that was complete, and its value"
    return [f"{counted(count, 'trial')} {had} (hydra.sweeper.skip_duplicates)"] if count else []


def unfinished(options: StudyOptions, done: int, timed_out: bool, stopped_by: str | None) -> list[str]:
    """Returns why the study stopped before its end, and what is left undone until it goes on."""
    lines, timeout = [], options.sweeper.timeout
    if timed_out:
        shown = int(timeout) if timeout == int(timeout) else timeout
        lines.append(f"stopped by hydra.sweeper.timeout={shown}; {options.same_command} goes on")
    elif stopped_by is not None:
        lines.append(f"stopped by the sampler: {stopped_by} has called study.stop(); {options.same_command} goes on")
    if options.sweeper.retrain_best and done < options.n_trials:
        lines.append(f"the winner is retrained once all n_trials={options.n_trials} are finished")
    return lines


def foreign(study: optuna.Study) -> list[str]:
    """Returns a line on the trials that another program has in training, if any."""
    numbers = [str(trial.number) for trial in study.get_trials(deepcopy=False) if is_foreign(trial)]
    return [f"another program asked Optuna for trial {', '.join(numbers)}, which is left to it"] if numbers else []


def _retrained(best: FrozenTrial, options: StudyOptions) -> list[str]:
    runs, lines = retrained(best, options), []
    changed = "".join(f", {override}" for override in options.sweeper.retrain_overrides)
    for name, key in ((objective_name(options), "value"), ("test accuracy", "test")):
        values = [run[key] for run in runs.values() if run[key] is not None]
        if values:
            spread = f" ± {statistics.stdev(values):.4f}" if len(values) > 1 else ""
            seeds = counted(len(values), "other seed")
            lines.append(f"the best, retrained with {seeds}{changed}: {name} {statistics.mean(values):.4f}{spread}")
    return lines


def _model(best: FrozenTrial, options: StudyOptions) -> list[str]:
    """Returns the line that says what predicts with the winner: as it was retrained, if it was."""
    folder = options.place.folder
    if not looks_for_studies():  # the checkpoints are another application's
        return []
    # Not the best of several: whoever takes that one has chosen on the test set.
    runs = [folder_of_model(folder / subfolder(best, seed)) for seed in sorted(map(int, retrained(best, options)))]
    if kept := [run for run in runs if run is not None]:
        lines = [_predict(kept[0], "predictions of the winner as it was retrained")]
        # The pattern would take those in, too, that are left of a retraining with other overrides.
        fitting = sum(folder_of_model(each) is not None for each in kept[0].parent.iterdir())
        if 1 < len(kept) == fitting:
            lines.append(_predict(kept[0].parent / "*", f"of its {len(kept)} seeds together"))
        return lines
    run = folder_of_model(folder / str(best.number))
    return [] if run is None else [_predict(run, "its test accuracy")]


def _predict(run: Path, remark: str) -> str:
    return f"  {with_comment(command_line('predict.py', override('run', run)), remark)}"


def _command(trial: FrozenTrial, options: StudyOptions) -> str:
    overrides = [override for override in overrides_of(trial, options) if not override.startswith("hydra.")]
    return command_line(Path(sys.argv[0]).name or "train.py", *overrides)


def _once_more(best: FrozenTrial, options: StudyOptions) -> list[str]:
    lines = ["The best configuration once more:", f"  {_command(best, options)}"]
    if command := experiment(options):
        lines.append(f"  {with_comment(command, 'the same, from best.yaml')}")
    return lines


def _front(trials: list[FrozenTrial], options: StudyOptions) -> list[str]:
    """Returns a command for each trial that no other one beats in all objectives, as far as they fit on a screen."""
    lines = [
        f"  {with_comment(_command(trial, options), f'trial {trial.number}')}" for trial in trials[:SHOWN_OF_FRONT]
    ]
    if len(trials) > len(lines):
        lines.append(f"  and {len(trials) - len(lines)} more, in optimization_results.yaml")
    return ["The configurations of the Pareto front once more:", *lines]


def _look_next(options: StudyOptions, model: list[str]) -> list[str]:
    """Returns where to look for more; `model`: what predicts."""
    from cifar_tuning.reporting.summary import report_command

    folder, lines = options.place.folder, ["Where to look next:"]
    if (folder / PLOTS).is_dir():
        lines.append("  " + with_comment(folder / PLOTS, "Optuna's plots; study.html has them to explore"))
    lines += model
    if is_tracked(options.config):
        command = report_command(folder, OmegaConf.select(options.config, "tracking.uri"))
        lines.append(f"  {with_comment(command, 'all of it on one page, with comparisons')}")
    storage = without_password(with_driver(options.place.storage))  # it opens the database by itself
    dashboard = shlex.join(["optuna-dashboard", storage])
    return [*lines, f"  {with_comment(dashboard, 'the study in a browser (pip install optuna-dashboard)')}"]
