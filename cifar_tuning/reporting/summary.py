"""What a sweep found, as a table on the terminal: `python -m cifar_tuning.reporting.summary FOLDER`."""

import json
import logging
import shlex
import statistics
import sys
from pathlib import Path
from typing import Any

from cifar_tuning import PROJECT_ROOT
from cifar_tuning.job_folders import files_of_jobs, is_study
from cifar_tuning.overrides import key_of, meant_by, to_be_typed, value_of
from cifar_tuning.ranking import BEST_ACCURACY, ENDED, competes, merit, rank
from cifar_tuning.text import (
    command_line,
    counted,
    in_short,
    override,
    training_program,
    with_comment,
    without_password,
)

log = logging.getLogger(__name__)

TOP = 10
# Columns of a log file, which has no width of its own; a table takes what it needs.
WIDE = 240


def read_results(sweep: Path, since: float = 0.0) -> list[dict[str, Any]]:
    """Returns the results of a sweep's jobs, each with its `job`, the best first; those that did not end last.

    A job is called by its folder in the sweep's: its number, unless `hydra.sweep.subdir` says otherwise. A study's
    trial of several seeds is one job: the mean over its seeds, which are counted as `seeds`. What came to no end, or
    has fewer seeds than others, stands behind what has.

    Args:
        sweep: the sweep's folder.
        since: leaves out what was written before this time (seconds since the epoch), by an earlier sweep.
    """
    results, trials = [], dict[str, list[dict[str, Any]]]()
    for file in files_of_jobs(sweep, "result.json"):
        if file.stat().st_mtime < since or (result := _read(file)) is None:
            continue
        job, _, seed = str(file.parent.relative_to(sweep)).partition("/")
        if seed and is_study(sweep):
            trials.setdefault(job, []).append(result)
        else:
            results.append({**result, "job": str(file.parent.relative_to(sweep)), "seeds": 1})
    results += [{**_over_seeds(seeds), "job": job} for job, seeds in trials.items()]
    for result in results:
        result["merit"] = merit(*asked) if (asked := _asked(result)) is not None else result["value"]
    most = max((result["seeds"] for result in results), default=1)

    def order(result: dict[str, Any]) -> tuple[Any, ...]:
        unfinished, *rest = rank(result["state"], result["merit"], result["job"])
        return unfinished, result["seeds"] < most, *rest

    return sorted(results, key=order)


def _read(file: Path) -> dict[str, Any] | None:
    """Returns a job's result; None, with a warning, where somebody has damaged the file."""
    try:
        result = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        log.warning("%s can't be read, so its job is left out: %s", file, error)
        return None
    return result if isinstance(result, dict) else None


def best_job(results: list[dict[str, Any]]) -> dict[str, Any] | None:
    """Returns the first of the results, best first, unless it is none to choose: it did not end, or has no value."""
    return results[0] if results and competes(results[0]["state"], results[0]["merit"]) else None


def _asked(result: dict[str, Any]) -> tuple[str, float | None] | None:
    """Returns the name and value of a job's objective, where it is one, and another than the validation accuracy."""
    found = result.get("objective") or {}
    return next(iter(found.items())) if len(found) == 1 and BEST_ACCURACY not in found else None


def _over_seeds(seeds: list[dict[str, Any]]) -> dict[str, Any]:
    """Returns a trial's result, given those of its seeds."""
    found = {key: [seed[key] for seed in seeds if seed[key] is not None] for key in ("value", "best_epoch", "error")}
    means = {key: statistics.mean(found[key]) if found[key] else None for key in ("value", "best_epoch")}
    states = [seed["state"] for seed in seeds]
    common = [o for o in seeds[0]["overrides"] if all(o in seed["overrides"] for seed in seeds)]
    objectives = [seed["objective"] for seed in seeds if seed.get("objective")]
    values = {name: [o[name] for o in objectives if o.get(name) is not None] for name in (objectives or [{}])[0]}
    return {
        **means,
        "objective": {name: statistics.mean(found) if found else None for name, found in values.items()},
        "state": next((state for state in ("failed", "killed", "pruned", "diverged") if state in states), "complete"),
        "seconds": sum(seed["seconds"] for seed in seeds),
        "overrides": [o for o in common if key_of(o) != "seed"],
        "error": next(iter(found["error"]), None),
        "stopped": next((seed["stopped"] for seed in seeds if seed.get("stopped")), None),
        "seeds": len(seeds),
    }


def viewer(uri: str | None) -> str:
    """Returns the command or address that shows the runs of an MLflow store; None is the project's."""
    if uri is None:
        return "make ui" if Path.cwd() == PROJECT_ROOT else shlex.join(["make", "-C", str(PROJECT_ROOT), "ui"])
    shown = without_password(uri)
    return shown if shown.startswith("http") else f"mlflow ui --backend-store-uri {shlex.quote(shown)}"


def report_command(sweep: Path, uri: str | None) -> str:
    """Returns the command that reports a sweep, given the MLflow store that its command named."""
    store = [] if uri is None else [override("tracking.uri", without_password(uri))]
    return command_line("report.py", override("sweep", sweep), *store)


def open_console() -> Any:
    """Returns Rich's console for texts as they are; lines cut at 80 columns would be useless in a log file."""
    from rich.console import Console

    return Console(width=None if sys.stdout.isatty() else WIDE, highlight=False, markup=False)


def print_summary(sweep: Path, since: float = 0.0, tracked: bool = True, uri: str | None = None) -> None:
    """Prints the best configurations of a sweep as a table, and where to look next.

    Args:
        sweep: the sweep's folder.
        since: leaves out earlier results, see `read_results`.
        tracked: whether its runs are in MLflow.
        uri: the store, if it is not the project's; None asks the jobs' command lines.
    """
    from rich.table import Table

    console = open_console()
    results = read_results(sweep, since)
    if not results:
        console.print(f"No finished job in {sweep}.")
        return
    swept, common = split_overrides([result["overrides"] for result in results])
    best = best_job(results)
    order = ", best first" if best else ""
    table = Table(
        title=f"{counted(len(results), 'job')}{order}" + (f" (the first {TOP})" if len(results) > TOP else "")
    )
    several = any(result["seeds"] > 1 for result in results)
    objective = next((asked[0] for result in results if (asked := _asked(result)) is not None), None)
    own = [] if objective is None else [objective]
    for name in ("job", *own, "val acc", *(["seeds"] if several else []), "best epoch", "state", "seconds"):
        whole = name in (*own, "val acc")  # which a narrow terminal leaves whole
        table.add_column(name, justify="left" if name == "state" else "right", no_wrap=whole)
    for name in swept:
        table.add_column(name, justify="right", overflow="fold")  # a value cut short says nothing
    for result in results[:TOP]:
        table.add_row(*_row(result, swept, several, objective), style="bold" if result is best else None)
    console.print(table)
    if not several and (means := _means(results, swept, objective or "val acc")) is not None:
        console.print(means)
    names = next((list(found) for result in results if len(found := result.get("objective") or {}) > 1), None)
    if names:
        said = f"several objectives ({', '.join(names)}): ordered by the validation accuracy alone"
        console.print(said)
    if common and len(results) > 1:  # one alone does not say what the others would have been
        console.print("the same in every job: " + " ".join(common))
    if early := sum(bool(result.get("stopped")) for result in results):  # absent in an older job's
        jobs = f"{early} of {counted(len(results), 'job')}"
        console.print(f"{jobs} ended before the last epoch: no better validation accuracy (trainer.patience)")
    _print_next(console, sweep, results, tracked, uri)


def over_seeds(results: list[dict[str, Any]]) -> list[tuple[dict[str, str], list[float], int]]:
    """Returns a grid's configurations over their seeds, the best mean first, those that lost a seed behind the others.

    Returns:
        The options, the figures that the jobs are ranked by, and how many jobs there were, for each configuration;
        nothing where none has several seeds.
    """
    groups = dict[tuple[str, ...], list[dict[str, Any]]]()
    for result in results:
        groups.setdefault(tuple(one for one in result["overrides"] if key_of(one) != "seed"), []).append(result)
    if max(map(len, groups.values()), default=1) < 2 or any(len(r.get("objective") or {}) > 1 for r in results):
        return []
    ended = {key: [one for one in jobs if competes(one["state"], one["merit"])] for key, jobs in groups.items()}
    whole = {key: len(ended[key]) == len(jobs) for key, jobs in groups.items()}
    first = sorted(
        (key for key in groups if ended[key]),
        key=lambda key: (not whole[key], -statistics.mean(one["merit"] for one in ended[key])),
    )
    return [
        ({key_of(one): value_of(one) for one in key}, [_ranked_by(one) for one in ended[key]], len(groups[key]))
        for key in first
    ]


def _ranked_by(result: dict[str, Any]) -> float:
    asked = _asked(result)
    return float(result["value"] if asked is None else asked[1] or 0.0)  # one that competes has it


def _means(results: list[dict[str, Any]], swept: list[str], name: str) -> Any:
    """Returns the table of a grid's configurations over their seeds; None where there are no seeds to speak of."""
    from rich.table import Table

    if not (found := over_seeds(results)):
        return None
    table = Table(title="over the seeds, the best mean first" + (f" (the first {TOP})" if len(found) > TOP else ""))
    keys = [key for key in swept if key != "seed"]
    table.add_column(f"{name}, mean ± standard deviation", justify="right", no_wrap=True)
    for key in ("seeds", *keys):
        table.add_column(key, justify="right", overflow="fold")
    for options, values, jobs in found[:TOP]:
        spread = f" ± {_figure(statistics.stdev(values))}" if len(values) > 1 else ""
        seeds = str(jobs) if len(values) == jobs else f"{len(values)} of {jobs}"
        row = [in_short(options.get(key, "")) for key in keys]
        table.add_row(f"{_figure(statistics.mean(values))}{spread}", seeds, *row)
    return table


def split_overrides(jobs: list[list[str]]) -> tuple[list[str], list[str]]:
    """Returns the keys whose values differ between jobs, and the overrides that every job has."""
    common = [one for one in jobs[0] if all(one in job for job in jobs)]
    keys = {key_of(one): None for job in jobs for one in job if one not in common}
    return list(keys), common


def _row(result: dict[str, Any], swept: list[str], several: bool, objective: str | None) -> list[str]:
    values = {key_of(one): value_of(one) for one in result["overrides"]}
    value = "" if result["value"] is None else f"{result['value']:.4f}"
    epoch = "" if result["best_epoch"] is None else f"{round(result['best_epoch'], 1):g}"
    seeds = [str(result["seeds"])] if several else []
    own = [] if objective is None else [_figure((result.get("objective") or {}).get(objective))]
    cells = [result["job"], *own, value, *seeds, epoch, result["state"], f"{result['seconds']:.0f}"]
    return cells + [in_short(values.get(key, "")) for key in swept]


def _figure(value: float | None) -> str:
    """A loss or a time to four decimals, a count of parameters without any."""
    if value is None:
        return ""
    return f"{value:.4f}" if abs(value) < 1e4 else f"{value:,.0f}"


def _print_next(console: Any, sweep: Path, results: list[dict[str, Any]], tracked: bool, uri: str | None) -> None:
    best = best_job(results)
    failed = [result for result in results if result["state"] == "failed"]
    for result in failed[:3]:
        console.print(f"job {result['job']} failed: {result['error']}")
    if best is None:
        ended = any(result["state"] in ENDED for result in results)
        lacking = _asked(results[0])
        what = "a validation accuracy" if lacking is None else lacking[0]
        why = f"No job has {what}, so none is the best." if ended else "No job finished."
        console.print(f"{why} Each job's log is in {sweep}/<job>/.")
        return
    console.print("\nThe best configuration once more, in full:", style="bold")
    again = command_line(training_program(), *_once_more(best))
    console.print(f"  {again}", soft_wrap=True)
    console.print("Where to look next:", style="bold")
    asked = {key_of(one): meant_by(one) for one in best["overrides"] if key_of(one) in ("tracking", "tracking.uri")}
    uri, lines = uri or asked.get("tracking.uri"), list[str]()
    if tracked and asked.get("tracking") != "none":
        lines += [
            with_comment(viewer(uri), "compares all runs in MLflow's UI"),
            with_comment(report_command(sweep, uri), "all of it on one page, with comparisons"),
        ]
    lines.append(with_comment(sweep / best["job"], "its checkpoint, curves and log"))
    lines.append(with_comment(command_line("predict.py", override("run", sweep / best["job"])), "its test accuracy"))
    for line in lines:
        console.print(f"  {line}", soft_wrap=True)


def _once_more(best: dict[str, Any]) -> list[str]:
    """Returns a job's overrides, with what measuring chose: it may choose otherwise the next time."""
    chosen = best.get("chosen") or {}
    given = [one for one in best["overrides"] if key_of(one) not in chosen]
    return to_be_typed([*given, *(override(key, value) for key, value in chosen.items())])


if __name__ == "__main__":
    if len(sys.argv) != 2 or not Path(sys.argv[1]).is_dir():
        sys.exit("python -m cifar_tuning.reporting.summary FOLDER: the folder of a sweep, such as multirun/NAME")
    print_summary(Path(sys.argv[1]))
