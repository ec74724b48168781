"""Which checkpoints a user's names mean: folders of runs and of sweeps, files, patterns, MLflow run ids."""

import logging
import os
import re
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

from cifar_tuning import PROJECT_ROOT
from cifar_tuning.errors import UserError
from cifar_tuning.job_folders import files_of_jobs, is_study, is_sweep
from cifar_tuning.jobs.result import JobResult
from cifar_tuning.ranking import ENDED
from cifar_tuning.reporting.summary import best_job, read_results
from cifar_tuning.text import counted, typed
from cifar_tuning.tracking.sweeps import best_values, winner
from cifar_tuning.tuning.place import folder_of_model

log = logging.getLogger(__name__)

MULTIRUN = PROJECT_ROOT / "multirun"
RUN_ID = re.compile(r"[0-9a-f]{32}")
# Runs that are proposed in place of the folder around them.
SHOWN = 5


def run_names(given: Any) -> list[str]:
    """Returns the runs that `run=` names: one, those of a list, or those that fit a pattern such as multirun/tune/*.

    Of those that fit a pattern, what came to no end is left out, which the log says; what is named is taken as it is.

    Raises:
        UserError: nothing that has a model fits a pattern, or nothing of that came to its end.
    """
    names = []
    for name in map(str, given if OmegaConf.is_list(given) else [given]):
        path = Path(name).expanduser()
        if not any(sign in name for sign in "*?[") or path.exists():
            names.append(name)
            continue
        fitting = _fitting(Path.cwd() / path) or _fitting(MULTIRUN / path)
        if not fitting:
            raise UserError(f"run={name}: no folder of a run and no checkpoint fits this pattern.")
        names += _ended(fitting, name)
    voices = dict[Path, str]()
    for name in names:  # one that fits two patterns, or is named in two ways, has one voice
        voices.setdefault(_place(name).resolve(), name)
    return list(voices.values())


def _place(name: str) -> Path:
    """Returns where a name leads; of a folder below multirun/ its name will do, as report.py has it."""
    path = Path(name).expanduser()
    return MULTIRUN / path if not path.exists() and (MULTIRUN / path).is_dir() else path


def _fitting(pattern: Path) -> list[str]:
    """Returns what has a model and fits an absolute pattern, job 10 behind job 9."""
    found = Path(pattern.anchor).glob(str(pattern.relative_to(pattern.anchor)))
    having = [str(path) for path in found if (path.suffix == ".pt" if path.is_file() else folder_of_model(path))]
    return sorted(having, key=lambda name: [int(part) if part.isdigit() else part for part in re.split(r"(\d+)", name)])


def _ended(fitting: list[str], name: str) -> list[str]:
    """Returns what came to its end of the runs that fit a pattern: a pruned one was hardly trained."""
    without = dict[str, list[str]]()
    for one in fitting:
        if (state := _unfinished(Path(one))) is not None:
            without.setdefault(state, []).append(one)
    if not without:
        return fitting
    left_out = [one for each in without.values() for one in each]
    counts = ", ".join(f"{len(each)} {state}" for state, each in without.items())
    if len(left_out) == len(fitting):
        raise UserError(f"run={name}: none of the runs that fit this pattern came to its end ({counts}); name one.")
    common = os.path.commonpath(fitting)
    said = ", ".join(
        f"{' '.join(os.path.relpath(one, common) for one in each)} ({state})" for state, each in without.items()
    )
    log.info("%s: %d of %d runs came to no end and are left out: %s", name, len(left_out), len(fitting), said)
    return [one for one in fitting if one not in left_out]


def _unfinished(path: Path) -> str | None:
    """Returns the state of a run that came to no end, given its folder or checkpoint; None of any other."""
    folder = path.parent if path.is_file() else folder_of_model(path)
    result = None if folder is None else JobResult.read(folder)
    if result is not None:
        return None if result.state in ENDED else result.state
    # A job that is being trained, or that was killed; elsewhere a checkpoint may lie by itself.
    return "unfinished" if folder is not None and (is_sweep(folder.parent) or is_study(folder.parent.parent)) else None


def find_checkpoint(name: str, uri: Any, scratch: Path, option: str = "run") -> Path:
    """Returns the checkpoint that a folder, a file or an MLflow run id means; an id's is fetched to `scratch`.

    Args:
        name: what the user gave; of a folder below multirun/ its name will do.
        uri: the store of a run id; None for the default.
        scratch: a folder.
        option: that the user gave it with, for messages.

    Raises:
        UserError: there is none.
    """
    path = _place(name)
    if path.is_file():
        return path
    if path.is_dir():
        # Of what is no trial's, folders called seed_3 are jobs among others.
        single = path if (path / "best.pt").is_file() else None
        if (folder := folder_of_model(path) if is_study(path.absolute().parent) else single) is not None:
            _say_seed(folder, path, option)
            return folder / "best.pt"
        if not is_sweep(path):
            raise UserError(f"{option}={name}: {_without_sweep(path, option)}")
        job = _best_job(path)
        if job is None:
            raise UserError(f"{option}={name}: is {_without_best(path)}.")
        if (folder := folder_of_model(path / job)) is None:
            raise UserError(f"{option}={name}: {_without_model(path, job)}.")
        log.info("%s is a sweep; taking its best job, %s", path, job)
        _say_seed(folder, path / job, option)
        return folder / "best.pt"
    if RUN_ID.fullmatch(name):
        from cifar_tuning.tracking import download_artifact

        return download_artifact(uri, name, "checkpoints/best.pt", scratch)
    raise UserError(
        f"{option}={name}: is neither a run's folder, nor a checkpoint file, "
        "nor an MLflow run id (32 hexadecimal digits)."
    )


def _say_seed(folder: Path, trial: Path, option: str) -> None:
    """Says which of a trial's seeds is taken, where it has several: another one may predict otherwise."""
    if folder != trial and len(seeds := list(trial.glob("*/best.pt"))) > 1:
        together = f" ({typed(option, trial / '*')} takes all together)" if option == "run" else ""
        log.info("%s has %d seeds; taking the first, %s%s", trial, len(seeds), folder.name, together)


def _best_job(sweep: Path) -> str | None:
    """Returns which of a sweep's jobs is its best: the study's winner, or the highest accuracy of those that ended."""
    curve = best_values(sweep)
    if curve is not None:
        number = winner(curve)
        return None if number is None else str(number)
    best = best_job(read_results(sweep))
    return None if best is None else str(best["job"])


def _without_sweep(folder: Path, option: str) -> str:
    """Returns what to give instead of a folder that is neither a run's nor a sweep's: none of its runs is the best."""
    runs = sorted((file.parent for file in files_of_jobs(folder, "best.pt")), key=lambda run: -run.stat().st_mtime)
    if not runs:
        return "the folder has no best.pt; give the folder of a run or of a sweep."
    shown = [typed(option, run) for run in runs[:SHOWN]] + (["…"] if len(runs) > SHOWN else [])
    return f"holds {counted(len(runs), 'run')} and is no sweep; name one: {', '.join(shown)}"


def _without_model(sweep: Path, job: str) -> str:
    """Returns what to do where a sweep's best job left no model in it."""
    why = "trained on another machine, deleted, or added to a study by hand"
    return f"its best job, {job}, has no best.pt in {sweep / job} ({why}?); give its MLflow run id, or another job"


def _without_best(sweep: Path) -> str:
    """Returns what a sweep is none of whose jobs is the best."""
    if best_values(sweep) == []:
        return "a study of several objectives, so no trial is the best; give a trial's folder, of its Pareto front say"
    results = [result for result in read_results(sweep) if (sweep / result["job"] / "best.pt").is_file()]
    if any(result["state"] in ENDED for result in results):
        return "a sweep without validation, so no job is the best; give a job's folder"
    return "a sweep of which no job ended; give a job's folder"
