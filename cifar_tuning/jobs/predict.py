"""The predict command: finds a run's best checkpoint, builds its model, labels the test images."""

import itertools
import logging
import re
import tempfile
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from cifar_tuning import PROJECT_ROOT
from cifar_tuning.errors import ConfigError, UserError
from cifar_tuning.job_folders import files_of_jobs, is_study, is_sweep
from cifar_tuning.jobs.export import model_from_checkpoint
from cifar_tuning.jobs.testing import accuracy, label_test_images
from cifar_tuning.ranking import ENDED
from cifar_tuning.reporting.predictions import write_csv
from cifar_tuning.reporting.summary import best_job, read_results
from cifar_tuning.text import counted, typed
from cifar_tuning.tracking.sweeps import best_values, winner
from cifar_tuning.training.settings import check_device, resolve_device
from cifar_tuning.tuning.place import folder_of_model

log = logging.getLogger(__name__)

RUN_ID = re.compile(r"[0-9a-f]{32}")
# Runs that are proposed in place of the folder around them.
SHOWN = 5


def run(cfg: DictConfig) -> float:
    """Writes the predictions and returns the test accuracy.

    Raises:
        ConfigError: an option is wrong.
        UserError: there is no such run or checkpoint, or the file can't be written.
    """
    if problems := find_problems(cfg):
        raise ConfigError(problems)
    with tempfile.TemporaryDirectory() as scratch:
        file = find_checkpoint(str(cfg.run), cfg.tracking.uri, Path(scratch))
        model, data = model_from_checkpoint(file, cfg.data_root)
    ids = data.files("test") if cfg.ids == "files" else itertools.count(cfg.first_id)
    if ids is None:
        raise ConfigError([f"ids=files: the images of {data.name} are no files of their own; take ids=numbers"])
    predicted, labels = label_test_images(model, data, resolve_device(cfg.device))
    names = data.classes if cfg.labels == "names" else None
    output = Path(cfg.output)
    replaced = " (what was there is replaced)" if output.exists() else ""
    write_csv(output, predicted, ids, names)
    right = accuracy(predicted, labels)
    log.info("%s predictions in %s%s", f"{len(predicted):,}", output, replaced)
    log.info("test accuracy %.4f", right)
    return right


def find_problems(cfg: DictConfig) -> list[str]:
    """Returns a line for each option that is wrong; empty if all are right."""
    if OmegaConf.is_missing(cfg, "run"):
        return ["run: is missing; give a run's folder, a checkpoint or an MLflow run id, such as run=multirun/tune/0"]
    problems = check_device(cfg.device, "device")
    if cfg.labels not in ("numbers", "names"):
        problems.append(f"labels={cfg.labels}: must be numbers or names")
    if cfg.ids not in ("numbers", "files"):
        problems.append(f"ids={cfg.ids}: must be numbers or files")
    if not isinstance(cfg.first_id, int) or cfg.first_id < 0:
        problems.append(f"first_id={cfg.first_id}: must be a whole number, 0 or above")
    folder = Path(cfg.output).absolute().parent
    if not folder.is_dir() or Path(cfg.output).is_dir():
        problems.append(f"output={cfg.output}: must be a file in a folder that exists")
    return problems


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
    path = Path(name).expanduser()
    if not path.exists() and (PROJECT_ROOT / "multirun" / path).is_dir():  # as report.py has it
        path = PROJECT_ROOT / "multirun" / path
    if path.is_file():
        return path
    if path.is_dir():
        # Of what is no trial's, folders called seed_3 are jobs among others.
        single = path if (path / "best.pt").is_file() else None
        if (folder := folder_of_model(path) if is_study(path.absolute().parent) else single) is not None:
            _say_seed(folder, path)
            return folder / "best.pt"
        if not is_sweep(path):
            raise UserError(f"{option}={name}: {_without_sweep(path, option)}")
        job = _best_job(path)
        if job is not None and (folder := folder_of_model(path / job)) is not None:
            log.info("%s is a sweep; taking its best job, %s", path, job)
            _say_seed(folder, path / job)
            return folder / "best.pt"
        raise UserError(f"{option}={name}: is {_without_best(path)}.")
    if RUN_ID.fullmatch(name):
        from cifar_tuning.tracking import download_artifact

        return download_artifact(uri, name, "checkpoints/best.pt", scratch)
    raise UserError(
        f"{option}={name}: is neither a run's folder, nor a checkpoint file, "
        "nor an MLflow run id (32 hexadecimal digits)."
    )


def _say_seed(folder: Path, trial: Path) -> None:
    """Says which of a trial's seeds is taken, where it has several: another one may predict otherwise."""
    if folder != trial and len(seeds := list(trial.glob("*/best.pt"))) > 1:
        log.info("%s has %d seeds; taking the first, %s", trial, len(seeds), folder.name)


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


def _without_best(sweep: Path) -> str:
    """Returns what a sweep is none of whose jobs is the best."""
    if best_values(sweep) == []:
        return "a study of several objectives, so no trial is the best; give a trial's folder, of its Pareto front say"
    results = [result for result in read_results(sweep) if (sweep / result["job"] / "best.pt").is_file()]
    if any(result["state"] in ENDED for result in results):
        return "a sweep without validation, so no job is the best; give a job's folder"
    return "a sweep of which no job ended; give a job's folder"
