"""The weights of trained runs, layer by layer: how many are next to zero, how they are distributed, in histograms."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from cifar_tuning.reporting.plots import save_figure

if TYPE_CHECKING:
    from matplotlib.axes import Axes

NEAR_ZERO = 1e-3
BINS = 101  # odd: the middle bin lies around zero
COLOURS = ("tab:blue", "tab:orange", "tab:green", "tab:red", "tab:purple", "tab:brown")
ALL_LAYERS = "all layers"


@dataclass(frozen=True)
class LayerWeights:
    """Statistics of one layer's weights, without its bias.

    Args:
        checkpoint: its label.
        layer: the layer's name in the model, or `all layers`.
        count: number of weights.
        near_zero: share of weights w with |w| below the threshold, 0 to 1.
        std: standard deviation.
        kurtosis: Fisher's, μ₄/σ⁴ - 3: 0 for a normal distribution, 3 for Laplace's, the prior behind an L1
            penalty. None where all weights are equal, or not all are finite.
    """

    checkpoint: str
    layer: str
    count: int
    near_zero: float
    std: float | None
    kurtosis: float | None


def layer_weights(checkpoint: Path) -> dict[str, np.ndarray]:
    """Reads the weights of a checkpoint's convolutions and fully connected layers, in the order of the model.

    Args:
        checkpoint: a run's `best.pt` or `last.pt`.

    Returns:
        float32 arrays by the layers' names, shaped as in the model: out×in×height×width or out×in. Biases
        and the parameters of batch normalisation, which have one dimension, are left out.

    Raises:
        UserError: the file is no checkpoint.
    """
    from cifar_tuning.training import checkpoint as checkpoints

    return {
        name.removesuffix(".weight"): value.float().numpy()
        for name, value in checkpoints.load(checkpoint).model.items()
        if name.endswith(".weight") and value.ndim >= 2
    }


def weight_table(checkpoints: Mapping[str, Path], threshold: float = NEAR_ZERO) -> list[LayerWeights]:
    """Computes the statistics of every layer of every checkpoint; a row for all layers ends each checkpoint's.

    Args:
        checkpoints: files by their labels.
        threshold: weights below it in size count as near zero.

    Raises:
        UserError: a file is no checkpoint.
    """
    rows = []
    for label, file in checkpoints.items():
        layers = layer_weights(file)
        together = np.concatenate([weights.ravel() for weights in layers.values()])
        for layer, weights in [*layers.items(), (ALL_LAYERS, together)]:
            rows.append(_statistics(label, layer, weights, threshold))
    return rows


def _statistics(label: str, layer: str, weights: np.ndarray, threshold: float) -> LayerWeights:
    from scipy.stats import kurtosis

    values = weights.ravel().astype(np.float64)
    finite = bool(np.isfinite(values).all())
    return LayerWeights(
        checkpoint=label,
        layer=layer,
        count=values.size,
        near_zero=float((np.abs(values) < threshold).mean()),
        std=float(values.std()) if finite else None,
        kurtosis=float(kurtosis(values)) if finite and np.ptp(values) > 0 else None,
    )


def draw_histograms(
    checkpoints: Mapping[str, Path], file: Path, *, log: bool = False, threshold: float = NEAR_ZERO
) -> Path:
    """Draws a histogram of each layer's weights: a row a layer, a column a checkpoint.

    The plots of a row have the same bins and axes, so that they can be compared; a layer that a checkpoint
    does not have leaves its place empty. Weights that are not finite are left out.

    Args:
        checkpoints: files by their labels, the columns' titles.
        file: where the PNG goes.
        log: a logarithmic axis of counts, which shows the few large weights too.
        threshold: weights below it in size count as near zero; their share stands in each plot.

    Raises:
        UserError: a file is no checkpoint.
    """
    from matplotlib.figure import Figure

    found = {label: layer_weights(path) for label, path in checkpoints.items()}
    layers = list(dict.fromkeys(layer for weights in found.values() for layer in weights))
    figure = Figure(figsize=(max(5.0, 3.4 * len(found)), 1.9 * len(layers) + 0.5), layout="constrained")
    grid = figure.subplots(len(layers), len(found), sharex="row", sharey="row", squeeze=False)
    for row, layer in zip(grid, layers, strict=True):
        rows = [weights.get(layer) for weights in found.values()]
        edges = _edges([weights for weights in rows if weights is not None])
        for number, (axes, weights) in enumerate(zip(row, rows, strict=True)):
            if weights is None:
                axes.set_frame_on(False)
                axes.tick_params(left=False, bottom=False, labelleft=False, labelbottom=False)
                continue
            _draw_histogram(axes, weights, edges, COLOURS[number % len(COLOURS)], log, threshold)
        row[0].set_ylabel(layer)
        leftmost = next(axes for axes, weights in zip(row, rows, strict=True) if weights is not None)
        leftmost.tick_params(labelleft=True)
    for axes, label in zip(grid[0], found, strict=True):
        axes.set_title(label)
    figure.supxlabel("weight")
    return save_figure(figure, file)


def _edges(rows: list[np.ndarray]) -> np.ndarray:
    """Returns the edges of the bins, symmetric about zero, around all finite weights."""
    finite = [weights[np.isfinite(weights)] for weights in rows]
    largest = max((float(np.abs(weights).max()) for weights in finite if weights.size), default=0.0)
    return np.linspace(-1, 1, BINS + 1) * (largest or 1.0)


def _draw_histogram(
    axes: "Axes", weights: np.ndarray, edges: np.ndarray, colour: str, log: bool, threshold: float
) -> None:
    values = weights[np.isfinite(weights)]
    counts, _ = np.histogram(values, edges)
    axes.stairs(counts, edges, color=colour, fill=True)  # one shape; `hist` draws a hundred rectangles
    if log:
        axes.set_yscale("symlog", linthresh=1)  # which has a place for empty bins, too
    axes.margins(y=0.25)  # room for the text
    share = float((np.abs(weights) < threshold).mean())
    text = f"|w| < {threshold:g}: {share:.1%}"
    axes.text(0.98, 0.95, text, transform=axes.transAxes, ha="right", va="top", fontsize=8)
    axes.tick_params(labelsize=8)
