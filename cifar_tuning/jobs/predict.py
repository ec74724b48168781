"""The predict command: finds a run's best checkpoint, builds its model, labels the test images or the user's own."""

import itertools
import logging
import re
import tempfile
from collections.abc import Iterable, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

import torch
import torch.nn.functional as F
from omegaconf import DictConfig, OmegaConf
from torch import Tensor

from cifar_tuning import PROJECT_ROOT
from cifar_tuning.data.image_folder import MOST_WHITE
from cifar_tuning.data.unlabelled import Unlabelled
from cifar_tuning.errors import ConfigError, UserError
from cifar_tuning.job_folders import files_of_jobs, is_study, is_sweep
from cifar_tuning.jobs.export import model_from_checkpoint
from cifar_tuning.jobs.testing import accuracy, label_images
from cifar_tuning.ranking import ENDED
from cifar_tuning.reporting.predictions import write_csv
from cifar_tuning.reporting.summary import best_job, read_results
from cifar_tuning.text import counted, typed
from cifar_tuning.tracking.sweeps import best_values, winner
from cifar_tuning.training.settings import check_device, resolve_device
from cifar_tuning.tuning.place import folder_of_model

log = logging.getLogger(__name__)

RUN_ID = re.compile(r"[0-9a-f]{32}")
# What null means: for the test set, and for images of the user's own.
DEFAULTS = {"labels": ("numbers", "names"), "ids": ("numbers", "files"), "probability": (False, True)}
FIRST_ID = 1  # as in conf/predict.yaml
# Runs that are proposed in place of the folder around them.
SHOWN = 5


def run(cfg: DictConfig) -> float | None:
    """Writes the predictions and returns the test accuracy; None for `images=`, whose classes nobody has said.

    Raises:
        ConfigError: an option is wrong, or there are no images.
        UserError: there is no such run or checkpoint, an image can't be read, or the file can't be written.
    """
    problems, own = find_problems(cfg), None
    if cfg.images is not None:
        try:
            own = Unlabelled(str(cfg.images))
        except (ValueError, OSError, RuntimeError) as error:  # RuntimeError: a ~ of nobody's
            problems.append(f"images={cfg.images}: {error}")
    if problems:
        raise ConfigError(problems)
    with tempfile.TemporaryDirectory() as scratch:
        file = find_checkpoint(str(cfg.run), cfg.tracking.uri, Path(scratch))
        model, data = model_from_checkpoint(file, cfg.data_root, with_images=own is None)
    ids = _ids(cfg, own.names if own is not None else data.files("test"), data.name)
    images, labels = _own_images(own, data) if own is not None else _test_images(data)
    predicted, probabilities = label_images(model, data, images, resolve_device(cfg.device))
    names = data.classes if _chosen(cfg, "labels") == "names" else None
    output = Path(cfg.output)
    replaced = " (what was there is replaced)" if output.exists() else ""
    write_csv(output, predicted, ids, names, probabilities if _chosen(cfg, "probability") else None)
    log.info("%s in %s%s", counted(len(predicted), "prediction"), output, replaced)
    if labels is None:
        return None
    right = accuracy(predicted, labels)
    log.info("test accuracy %.4f", right)
    return right


def _chosen(cfg: DictConfig, option: str) -> Any:
    """Returns an option of the file's form; null depends on whether the images are the user's own."""
    return DEFAULTS[option][cfg.images is not None] if cfg[option] is None else cfg[option]


def _ids(cfg: DictConfig, files: Sequence[str] | None, dataset: str) -> Iterable[int | str]:
    """Returns the images' ids, which for numbers have no end."""
    ids = _chosen(cfg, "ids")
    if ids == "numbers":
        return itertools.count(cfg.first_id)
    if files is None:
        raise ConfigError([f"ids={ids}: the images of {dataset} are no files of their own; take ids=numbers"])
    return [str(PurePosixPath(file).with_suffix("")) for file in files] if ids == "stems" else files


def _test_images(data: Any) -> tuple[Tensor, Tensor]:
    test = data.load_test()
    return test.images, test.labels


def _own_images(own: Unlabelled, data: Any) -> tuple[Tensor, None]:
    if data.image_shape[2] != 3:
        raise UserError(f"images={own.place}: the run's images have {data.image_shape[2]} channels in place of three.")
    log.info("%s", own)
    height, width, _ = data.image_shape
    size = height - 2 * data.border, width - 2 * data.border
    images = torch.from_numpy(own.arrays(size, getattr(data, "white", MOST_WHITE)))
    return (F.pad(images, (0, 0, *(data.border,) * 4)) if data.border else images), None


def find_problems(cfg: DictConfig) -> list[str]:
    """Returns a line for each option that is wrong; empty if all are right."""
    if OmegaConf.is_missing(cfg, "run"):
        return ["run: is missing; give a run's folder, a checkpoint or an MLflow run id, such as run=multirun/tune/0"]
    problems = check_device(cfg.device, "device")
    if cfg.labels not in (None, "numbers", "names"):
        problems.append(f"labels={cfg.labels}: must be numbers or names")
    if cfg.ids not in (None, "numbers", "files", "stems"):
        problems.append(f"ids={cfg.ids}: must be numbers, files or stems")
    elif cfg.images is not None and cfg.ids == "numbers":
        problems.append("ids=numbers: numbers are for the test set; with images= take files or stems")
    if cfg.probability not in (None, True, False):
        problems.append(f"probability={cfg.probability}: must be true or false")
    if not isinstance(cfg.first_id, int) or cfg.first_id < 0:
        problems.append(f"first_id={cfg.first_id}: must be a whole number, 0 or above")
    elif cfg.images is not None and cfg.first_id != FIRST_ID:
        problems.append(f"first_id={cfg.first_id}: the images of images= have names in place of numbers; leave it out")
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
        if job is None:
            raise UserError(f"{option}={name}: is {_without_best(path)}.")
        if (folder := folder_of_model(path / job)) is None:
            raise UserError(f"{option}={name}: {_without_model(path, job)}.")
        log.info("%s is a sweep; taking its best job, %s", path, job)
        _say_seed(folder, path / job)
        return folder / "best.pt"
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
