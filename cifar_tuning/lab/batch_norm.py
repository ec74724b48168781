"""Claim 1.1: the outputs of batch normalisation do not necessarily have zero mean. Measured on a trained run."""

import copy
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from cifar_tuning.data import EvalBatches
from cifar_tuning.data.base import ArraySet
from cifar_tuning.errors import UserError
from cifar_tuning.jobs.export import model_from_checkpoint
from cifar_tuning.reporting.drawing import save_figure, styled
from cifar_tuning.training.settings import place

Mode = Literal["train", "eval"]
MODES: tuple[Mode, ...] = ("train", "eval")
# Layers whose names have room side by side.
SIDE_BY_SIDE = 6


@dataclass(frozen=True)
class ChannelMeans:
    """The means of one batch-norm layer's channels over a set of images.

    Args:
        layer: the layer's name in the model.
        images: which images, in words.
        mode: `train`: each batch is normalised by its own statistics; `eval`: by the running ones.
        normalised: mean of x̂ of each channel, before the learned scale and shift (Ioffe and Szegedy 2015,
            "Batch Normalization", algorithm 1, third line).
        output: mean of y = γx̂ + β of each channel (fourth line).
    """

    layer: str
    images: str
    mode: Mode
    normalised: list[float]
    output: list[float]


def measure_batch_norm(checkpoint: Path, *, images: int = 5000) -> list[ChannelMeans]:
    """Measures a run's batch-norm layers on training and on validation images, in both modes.

    The images are normalised as in training but not augmented, in batches of the run's size.

    Args:
        checkpoint: a run's `best.pt`.
        images: take the first so many of each set, or all where there are fewer.

    Returns:
        an entry for each set of images, mode and layer, in this order.

    Raises:
        UserError: the file is no checkpoint, or its model has no batch normalisation.
    """
    model, data = model_from_checkpoint(checkpoint)
    if not _layers(model):
        raise UserError(f"{checkpoint}: its model has no batch normalisation; take a run with model.batch_norm=true.")
    model = place(model, torch.device("cpu"))
    splits = data.load()
    return [
        means
        for name, part in (("training", splits.train), ("validation", splits.val))
        for mode in MODES
        for means in channel_means(model, eval_batches(part, images, data, "cpu"), images=name, mode=mode)
    ]


@torch.no_grad()
def channel_means(
    model: nn.Module, batches: Iterable[tuple[Tensor, Tensor]], *, images: str, mode: Mode
) -> list[ChannelMeans]:
    """Measures the channel means of every batch-norm layer, in the order of the model.

    Only the batch-norm layers are put into `mode`; all else is in evaluation mode, so that dropout draws no
    random numbers. All is done on a copy of the model.

    Args:
        model: on the batches' device.
        batches: images N×C×H×W and labels N; every image counts alike.
        images: which images they are, in words.
        mode: `train` or `eval`.
    """
    copied = copy.deepcopy(model).eval()
    layers = _layers(copied)
    sums: dict[str, Tensor] = {}
    count = 0
    for name, layer in layers.items():
        layer.train(mode == "train").register_forward_hook(_adder(sums, name))
    for batch, _ in batches:
        copied(batch)
        count += len(batch)
    means = {name: (total / count).tolist() for name, total in sums.items()}
    return [ChannelMeans(name, images, mode, *means[name]) for name in layers if name in means]


@styled
def draw_channel_means(means: Sequence[ChannelMeans], file: Path) -> Path:
    """Draws every channel's mean as a dot above its layer: x̂ in the upper row, y in the lower, a column a mode.

    Args:
        means: of one model.
        file: where the PNG goes.
    """
    from matplotlib.figure import Figure

    layers = list(dict.fromkeys(entry.layer for entry in means))
    images = list(dict.fromkeys(entry.images for entry in means))
    colours = {name: f"C{number}" for number, name in enumerate(images)}
    figure = Figure(figsize=(9, 5.6), layout="constrained")
    grid = figure.subplots(2, len(MODES), sharex=True, sharey="row", squeeze=False)
    for row, (kind, label) in enumerate((("normalised", "mean of x̂"), ("output", "mean of y = γx̂ + β"))):
        grid[row][0].set_ylabel(label)
        for column, mode in enumerate(MODES):
            axes = grid[row][column]
            axes.axhline(0, color="0.4", linewidth=0.8)
            axes.grid(axis="x", visible=False)
            for entry in (entry for entry in means if entry.mode == mode):
                shift = 0.5 * (images.index(entry.images) + 0.5) / len(images) - 0.25
                values = getattr(entry, kind)
                place = [layers.index(entry.layer) + shift] * len(values)
                axes.plot(place, values, "o", color=colours[entry.images], markersize=3, alpha=0.6)
    for axes, title in zip(
        grid[0], ("training mode: the batch's statistics", "evaluation mode: running ones"), strict=True
    ):
        axes.set_title(title)
    for axes in grid[1]:
        axes.set_xticks(range(len(layers)), layers)
        if len(layers) > SIDE_BY_SIDE:
            axes.tick_params("x", rotation=90)
    handles = [grid[0][0].plot([], [], "o", color=colour, markersize=4)[0] for colour in colours.values()]
    figure.legend(handles, [f"{name} images" for name in images], loc="outside upper center", ncols=len(images))
    return save_figure(figure, file)


def _layers(model: nn.Module) -> dict[str, _BatchNorm]:
    return {name: module for name, module in model.named_modules() if isinstance(module, _BatchNorm)}


def eval_batches(part: ArraySet, images: int, data: Any, device: torch.device | str) -> EvalBatches:
    """Returns the first so many images of a set in batches of the run's size, normalised and not augmented."""
    labels = part.labels[:images]
    return EvalBatches(
        part.stored[part.rows[:images]],
        labels,
        batch_size=min(data.batch_size, len(labels)),
        mean=data.mean,
        std=data.std,
        device=device,
    )


def _adder(sums: dict[str, Tensor], name: str) -> Callable[[Any, tuple[Tensor, ...], Tensor], None]:
    """Returns a hook that adds a layer's channel means, times the images of the batch, to `sums`: float64 2×C."""

    def add(layer: Any, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        # Now or never: the rectifier behind the layer overwrites the output.
        means = torch.stack([_channel_mean(_normalised(layer, inputs[0])), _channel_mean(output)]) * len(output)
        sums[name] = sums[name] + means if name in sums else means

    return add


def _normalised(layer: _BatchNorm, x: Tensor) -> Tensor:
    # Computed anew rather than as (y - β) / γ, which a γ of zero would forbid.
    if layer.training or layer.running_mean is None:
        return F.batch_norm(x, None, None, training=True, eps=layer.eps)
    return F.batch_norm(x, layer.running_mean, layer.running_var, training=False, eps=layer.eps)


def _channel_mean(values: Tensor) -> Tensor:
    return values.mean([0, *range(2, values.ndim)], dtype=torch.float64)
