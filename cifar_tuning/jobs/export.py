"""Finished runs as models for others: uint8 images in, logits out."""

import inspect
import re
from pathlib import Path
from typing import Any

import numpy as np
import torch
from hydra.errors import InstantiationException
from omegaconf import DictConfig, OmegaConf
from torch import Tensor, nn

from cifar_tuning.errors import UserError
from cifar_tuning.jobs.build import build_part
from cifar_tuning.jobs.checks import find_target
from cifar_tuning.targets import IMAGE_FOLDER, refused
from cifar_tuning.text import on_one_line
from cifar_tuning.training import checkpoint as checkpoints
from cifar_tuning.training.settings import place
from cifar_tuning.tuning.place import folder_of_model


class RawImageClassifier(nn.Module):
    """A trained model behind the normalisation it was trained with.

    Args:
        model: maps normalised images N×C×H×W to logits.
        mean: per channel, on the scale 0 to 1.
        std: per channel, on the scale 0 to 1.
    """

    def __init__(self, model: nn.Module, mean: tuple[float, ...], std: tuple[float, ...]) -> None:
        super().__init__()
        self.scale: Tensor
        self.shift: Tensor
        self.model = model
        self.register_buffer("scale", 1 / (255 * torch.tensor(std)))
        self.register_buffer("shift", torch.tensor(mean) / torch.tensor(std))

    def forward(self, images: Tensor) -> Tensor:
        """Maps uint8 images N×H×W×C to logits N×classes."""
        logits: Tensor = self.model((images * self.scale - self.shift).permute(0, 3, 1, 2))
        return logits


def model_from_checkpoint(
    file: Path, data_root: str | None = None, *, with_images: bool = True
) -> tuple[nn.Module, Any]:
    """Builds a checkpoint's model, on the CPU in evaluation mode, and the data group it was trained with.

    The model is in the memory format that it was trained in, and takes images in either.

    Args:
        file: the checkpoint.
        data_root: where the dataset is on this machine, if not where the run had it.
        with_images: whether the dataset's images are wanted; else a folder of one's own need not be there any more.

    Raises:
        UserError: the file is no checkpoint, the code of its model or data is not found here or may not be called by
            configurations, the dataset is not where it is looked for, or the weights do not fit the model that the
            checkpoint's configuration builds; or `data_root` is given for data that has no folder.
    """
    checkpoint = checkpoints.load(file)
    config = OmegaConf.create(checkpoint.config)
    if data_root is None and not with_images and config.data.get("_target_") == IMAGE_FOLDER:
        config.data.root = None
    try:
        if data_root is not None:
            _move(config.data, data_root)
        data = build_part(config.data)
        model = build_part(config.model, data, restored=True)
    except (ImportError, InstantiationException) as error:
        reason = refused(error)
        if reason is None and not isinstance(error, ImportError):
            raise
        reason = reason or on_one_line(str(error))
        raise UserError(
            f"What {file} was trained with can't be built here: {reason}. If it is in a file of your own, type the "
            "command in the folder that it was trained from."
        ) from error
    except ValueError as error:  # the constructor's own: a folder of images is not there, say
        said = str(error).split("\nfull_key")[0]
        moved = (
            "; if it lies elsewhere by now, give data_root=FOLDER"
            if data_root is None and re.search(r"data\.(root|labels)=", said)
            else ""
        )
        raise UserError(f"What {file} was trained with can't be built here: {said}{moved}") from error
    checkpoints.load_weights(model, checkpoint, file)
    if checkpoint.memory_format == "contiguous_format":  # perhaps the only one that its code runs in
        model.register_forward_pre_hook(_in_order)
    return place(model, torch.device("cpu"), checkpoint.memory_format).eval(), data


def _move(options: DictConfig, root: str) -> None:
    """Has a dataset be looked for in another folder.

    Raises:
        UserError: it is in none.
    """
    name = str(options.get("_target_"))
    takes = inspect.signature(find_target(name)).parameters.values()
    if not any(one.name == "root" or one.kind is one.VAR_KEYWORD for one in takes):
        raise UserError(
            f"data_root={root}: the data of this run, {name}, has no option `root`, so there is no folder to look for "
            "elsewhere; leave data_root out."
        )
    labels = Path(options.get("labels") or "") if name == IMAGE_FOLDER else Path()
    if labels.is_absolute() and labels.is_relative_to(options.root):
        options.labels = str(labels.relative_to(options.root))  # it has moved with the images
    options.root = root


def _in_order(model: nn.Module, images: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    """Lays images out as N×C×H×W in memory."""
    return tuple(one.contiguous() for one in images)


def load_classifier(folder: Path) -> tuple[nn.Module, np.ndarray]:
    """Returns a run's best model for raw images, and an example batch (uint8, 2×H×W×3) to show its signature.

    Of a trial of several seeds it is the first one's.
    """
    model, data = model_from_checkpoint((folder_of_model(Path(folder)) or Path(folder)) / "best.pt")
    splits = data.load()
    shown = splits.val if len(splits.val) else splits.train
    return RawImageClassifier(model, data.mean, data.std).eval(), shown.stored[shown.rows[:2]].numpy()
