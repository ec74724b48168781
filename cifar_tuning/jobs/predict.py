"""The predict command: finds the best checkpoints of one run or several, labels the test images or the user's own."""

import itertools
import logging
import tempfile
from collections.abc import Iterable, Sequence
from pathlib import Path, PurePosixPath
from statistics import mean, stdev
from typing import Any

import torch
import torch.nn.functional as F
from omegaconf import DictConfig, OmegaConf
from torch import Tensor, nn

from cifar_tuning.data.image_folder import MOST_WHITE
from cifar_tuning.data.unlabelled import Unlabelled
from cifar_tuning.errors import ConfigError, UserError
from cifar_tuning.jobs.export import model_from_checkpoint
from cifar_tuning.jobs.named_runs import find_checkpoint, run_names
from cifar_tuning.jobs.testing import accuracy, probabilities_of, recalls
from cifar_tuning.reporting.predictions import write_csv
from cifar_tuning.text import counted
from cifar_tuning.training.settings import check_device, resolve_device

log = logging.getLogger(__name__)

# What null means: for the test set, and for images of the user's own.
DEFAULTS = {"labels": ("numbers", "names"), "ids": ("numbers", "files"), "probability": (False, True)}
# Classes of unequal size that are named, those recognised least.
LEAST = 3
FIRST_ID = 1  # as in conf/predict.yaml


def run(cfg: DictConfig) -> float | None:
    """Writes the predictions and returns the test accuracy; None for `images=`, whose classes nobody has said.

    Several runs predict together, by the mean of their probabilities (Lakshminarayanan et al. 2017, "Simple and
    Scalable Predictive Uncertainty Estimation using Deep Ensembles").

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
    names = run_names(cfg.run)
    models = [_model(name, cfg, with_images=own is None) for name in names]
    data = models[0][1]
    _check_alike(names, [its_data for _, its_data in models])
    ids = _ids(cfg, own.names if own is not None else data.files("test"), data.name)
    probabilities, labels, accuracies = _predicted(names, models, own, resolve_device(cfg.device))
    likeliest, predicted = probabilities.max(1)
    classes = data.classes if _chosen(cfg, "labels") == "names" else None
    output = Path(cfg.output)
    replaced = " (what was there is replaced)" if output.exists() else ""
    write_csv(output, predicted, ids, classes, likeliest if _chosen(cfg, "probability") else None)
    together = f" by the mean of the probabilities of {len(names)} runs" if len(names) > 1 else ""
    log.info("%s%s in %s%s", counted(len(predicted), "prediction"), together, output, replaced)
    if labels is None:
        return None
    if len(names) > 1:
        log.info("test accuracy of one %.4f ± %.4f (mean ± standard deviation)", mean(accuracies), stdev(accuracies))
    right = accuracy(predicted, labels)
    log.info("test accuracy%s %.4f", " of all together" if len(names) > 1 else "", right)
    if (of_classes := recalls(predicted, labels)) is not None:
        worst = sorted(of_classes, key=of_classes.__getitem__)[:LEAST]
        least = ", ".join(f"{data.classes[label]} {of_classes[label]:.4f}" for label in worst)
        log.info(
            "balanced accuracy %.4f, the mean over the classes; least of all: %s", mean(of_classes.values()), least
        )
    return right


def _model(name: str, cfg: DictConfig, with_images: bool) -> tuple[nn.Module, Any]:
    """Returns the best model of a run, and the data group that it was trained with."""
    with tempfile.TemporaryDirectory() as scratch:
        file = find_checkpoint(name, cfg.tracking.uri, Path(scratch))
        return model_from_checkpoint(file, cfg.data_root, with_images=with_images)


def _predicted(
    names: Sequence[str], models: Sequence[tuple[nn.Module, Any]], own: Unlabelled | None, device: torch.device
) -> tuple[Tensor, Tensor | None, list[float]]:
    """Has every run predict the test set, or the user's own images.

    Returns:
        The mean of their probabilities, N×classes; the true classes, N; the accuracy of each. Of images of the user's
        own there are no classes and no accuracies.

    Raises:
        UserError: the runs have different test images.
    """
    total, accuracies = torch.zeros(()), []
    first: tuple[Tensor, Tensor, Any] | None = None
    for name, (model, data) in zip(names, models, strict=True):
        images, labels = _own_images(own, data) if own is not None else _test_images(data)
        if labels is not None:
            first = first or (images, labels, data)
            if not _are_same((images, labels, data), first):
                raise UserError(f"run={name}: has other test images than {names[0]}, so they can't predict together.")
        probabilities = probabilities_of(model, data, images, device)
        if labels is not None:
            accuracies.append(accuracy(probabilities.argmax(1), labels))
            if len(names) > 1:
                log.info("%s: test accuracy %.4f", name, accuracies[-1])
        total = total + probabilities
    return total / len(names), labels, accuracies


def _are_same(mine: tuple[Tensor, Tensor, Any], other: tuple[Tensor, Tensor, Any]) -> bool:
    """Whether two runs' test images, given with their labels and data group, are the same; their size may differ."""
    (images, labels, data), (others, known, its_data) = mine, other
    if images.shape == others.shape:  # two folders of images may have as many of each class
        return torch.equal(labels, known) and torch.equal(images, others)
    return torch.equal(labels, known) and data.files("test") == its_data.files("test")


def _check_alike(names: Sequence[str], groups: Sequence[Any]) -> None:
    """Looks whether runs that are to predict together were trained on the same classes of the same data.

    Raises:
        UserError: they were not.
    """
    for name, data in zip(names, groups, strict=True):
        if (data.name, tuple(data.classes)) != (groups[0].name, tuple(groups[0].classes)):
            raise UserError(
                f"run={name}: was trained on other data or classes ({data.name}) than {names[0]} ({groups[0].name}), "
                "so they can't predict together."
            )


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
    if OmegaConf.is_missing(cfg, "run") or cfg.run == []:
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
