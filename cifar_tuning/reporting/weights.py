"""The weights of trained runs, layer by layer: how many are next to zero, how they are distributed, in histograms."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from textwrap import wrap

import numpy as np

from cifar_tuning.reporting.drawing import save_figure, styled

NEAR_ZERO = 1e-3
BINS = 101  # odd: the middle bin lies around zero
ALL_LAYERS = "all layers"
LETTERS = 12  # of a title to an inch


@dataclass(frozen=True)
class LayerWeights:
    """Statistics of one layer's weights, without its bias.

    Args:
        checkpoint: its label.
        layer: the layer's name in the model, or `all layers`.
        count: number of weights.
        near_zero: share of weights w with |w| < `NEAR_ZERO`, 0 to 1.
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


def weight_table(weights: Mapping[str, Mapping[str, np.ndarray]]) -> list[LayerWeights]:
    """Computes the statistics of every layer of every checkpoint; a row for all layers ends each checkpoint's.

    Args:
        weights: as `layer_weights` returns them, by the checkpoint's label.
    """
    rows = []
    for label, layers in weights.items():
        together = np.concatenate([array.ravel() for array in layers.values()])
        rows += [_statistics(label, layer, array) for layer, array in [*layers.items(), (ALL_LAYERS, together)]]
    return rows


def _statistics(label: str, layer: str, weights: np.ndarray) -> LayerWeights:
    from scipy.stats import kurtosis

    values = weights.ravel().astype(np.float64)
    finite = bool(np.isfinite(values).all())
    return LayerWeights(
        checkpoint=label,
        layer=layer,
        count=values.size,
        near_zero=_near_zero(values),
        std=float(values.std()) if finite else None,
        kurtosis=float(kurtosis(values)) if finite and np.ptp(values) > 0 else None,
    )


def _near_zero(weights: np.ndarray) -> float:
    return float((np.abs(weights) < NEAR_ZERO).mean())


@dataclass(frozen=True)
class LayerHistograms:
    """Histograms of one layer's weights in several runs, over the same bins, so that they can be compared.

    Args:
        limit: outer edge of the `BINS` equally wide bins, which are symmetric about zero.
        counts: weights in each bin, by the run's label.
        near_zero: share of weights w with |w| < `NEAR_ZERO`, 0 to 1, by the run's label.
    """

    limit: float
    counts: dict[str, list[int]]
    near_zero: dict[str, float]


def make_histograms(weights: Mapping[str, Mapping[str, np.ndarray]]) -> dict[str, LayerHistograms]:
    """Counts the finite weights of each layer.

    Args:
        weights: as `layer_weights` returns them, by the run's label; a layer need not be in all of the runs.

    Returns:
        the histograms by the layer's name, in the order of the models.
    """
    found = {}
    for layer in dict.fromkeys(layer for of_run in weights.values() for layer in of_run):
        arrays = {label: of_run[layer].ravel() for label, of_run in weights.items() if layer in of_run}
        limit = max(float(np.abs(array[np.isfinite(array)]).max(initial=0.0)) for array in arrays.values()) or 1.0
        counts = {label: np.histogram(array, BINS, (-limit, limit))[0].tolist() for label, array in arrays.items()}
        found[layer] = LayerHistograms(limit, counts, {label: _near_zero(array) for label, array in arrays.items()})
    return found


@styled
def draw_histograms(
    layers: Mapping[str, LayerHistograms], titles: Mapping[str, str], file: Path, *, log: bool = False
) -> Path:
    """Draws a row for each layer and a column for each run; a layer that a run does not have leaves its place empty.

    Args:
        layers: as `make_histograms` returns them.
        titles: of the columns, by the runs' labels.
        file: where the PNG goes.
        log: a logarithmic axis of counts, which shows the few large weights too.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(max(5.0, min(9.0, 3.4 * len(titles))), 1.5 * len(layers) + 0.5), layout="constrained")
    grid = figure.subplots(len(layers), len(titles), sharex="row", sharey="row", squeeze=False)
    for row, (layer, histograms) in zip(grid, layers.items(), strict=True):
        edges = np.linspace(-histograms.limit, histograms.limit, BINS + 1)
        for axes, label in zip(row, titles, strict=True):
            axes.grid(False)
            if label not in histograms.counts:
                axes.set_frame_on(False)
                axes.tick_params(left=False, bottom=False, labelleft=False, labelbottom=False)
                continue
            # One shape; `hist` draws a hundred rectangles.
            axes.stairs(histograms.counts[label], edges, color="C0", fill=True)
            if log:
                axes.set_yscale("symlog", linthresh=1)  # which has a place for empty bins, too
            axes.margins(y=0.25)  # room for the text
            text = f"|w| < {NEAR_ZERO:g}: {histograms.near_zero[label]:.1%}"
            axes.text(0.98, 0.95, text, transform=axes.transAxes, ha="right", va="top", fontsize=7)
            axes.tick_params(labelsize=7)
            axes.locator_params("x", nbins=5)
        row[0].set_ylabel(layer, fontsize=9)
        leftmost = next(axes for axes, label in zip(row, titles, strict=True) if label in histograms.counts)
        leftmost.tick_params(labelleft=True)
    letters = int(LETTERS * figure.get_figwidth() / len(titles))
    for axes, title in zip(grid[0], titles.values(), strict=True):
        axes.set_title("\n".join(wrap(title, letters)), fontsize=8)
    figure.supxlabel("weight", fontsize=10)
    return save_figure(figure, file)
