"""Claim 1.6: L1 makes weights sparser than L2. What becomes of every layer's weights, measured, as a table, drawn."""

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from statistics import mean
from typing import Any

import numpy as np

from cifar_tuning.lab.results import Results
from cifar_tuning.lab.tables import describe, line
from cifar_tuning.reporting.plots import save_figure
from cifar_tuning.reporting.weights import BINS, COLOURS, NEAR_ZERO, layer_weights, weight_table

WEIGHTS = "weights"

# By configuration and seed.
Checkpoints = dict[tuple[str, int], Path]


def measure_weights(checkpoints: Checkpoints) -> dict[str, Any]:
    """Statistics of every run's weights, and histograms of the first seed's, a layer's all over the same bins."""
    labels = {f"{configuration}\t{seed}": path for (configuration, seed), path in checkpoints.items()}
    statistics = []
    for row in weight_table(labels):
        configuration, _, seed = row.checkpoint.partition("\t")
        statistics.append({"configuration": configuration, "seed": int(seed), **asdict(row)})
    for entry in statistics:
        del entry["checkpoint"]
    first = min(seed for _, seed in checkpoints)
    weights = {
        configuration: layer_weights(path) for (configuration, seed), path in checkpoints.items() if seed == first
    }
    return {"statistics": statistics, "seed": first, "histograms": histograms(weights)}


def histograms(weights: Mapping[str, Mapping[str, np.ndarray]]) -> dict[str, Any]:
    """Counts weights in bins that are symmetric about zero and the same for a layer of all configurations.

    Args:
        weights: arrays by configuration and layer.

    Returns:
        by layer: `limit`, the outermost edge, and by configuration the `counts` of equally wide bins and
        `near_zero`, the share of weights below the threshold, 0 to 1.
    """
    layers = list(dict.fromkeys(layer for of_layer in weights.values() for layer in of_layer))
    found: dict[str, Any] = {}
    for layer in layers:
        arrays = {name: of_layer[layer].ravel() for name, of_layer in weights.items() if layer in of_layer}
        limit = max(float(np.abs(array[np.isfinite(array)]).max(initial=0.0)) for array in arrays.values()) or 1.0
        edges = np.linspace(-limit, limit, BINS + 1)
        found[layer] = {
            "limit": limit,
            "counts": {name: np.histogram(array, edges)[0].tolist() for name, array in arrays.items()},
            "near_zero": {name: float((np.abs(array) < NEAR_ZERO).mean()) for name, array in arrays.items()},
        }
    return found


def weights_table(results: Results) -> list[str]:
    """Returns the share of weights near zero and the kurtosis by layer, means over the seeds; nothing if unmeasured."""
    measured = results.measured(WEIGHTS)
    if measured is None:
        return []
    found: dict[tuple[str, str], list[tuple[float, float]]] = {}
    for row in measured["statistics"]:
        found.setdefault((row["layer"], row["configuration"]), []).append((row["near_zero"], row["kurtosis"] or 0.0))
    layers = list(dict.fromkeys(layer for layer, _ in found))
    names = [name for name in results.configurations("lab2_l1") if (layers[0], name) in found]
    lines = [
        "Share of weights under 1e-3 in size, and excess kurtosis in brackets (0: normal, 3: Laplace's distribution):",
        "",
        line(["layer", *map(describe, names)]),
        "|" + "---|" * (1 + len(names)),
    ]
    for layer in layers:
        cells = [tuple(map(mean, zip(*found[layer, name], strict=True))) for name in names if (layer, name) in found]
        lines.append(line([layer, *(f"{share:.1%} ({kurtosis:.1f})" for share, kurtosis in cells)]))
    return [*lines, ""]


def draw_weights(results: Results, file: Path) -> Path | None:
    """Draws a histogram of each layer's weights: a row a layer, a column a configuration."""
    from matplotlib.figure import Figure

    measured = results.measured(WEIGHTS)
    if measured is None:
        return None
    layers: dict[str, Any] = measured["histograms"]
    names = [name for name in results.configurations("lab2_l1") if any(name in of["counts"] for of in layers.values())]
    figure = Figure(figsize=(3.2 * len(names), 1.8 * len(layers) + 0.5), layout="constrained")
    grid = figure.subplots(len(layers), len(names), sharex="row", sharey="row", squeeze=False)
    for row, (layer, of) in zip(grid, layers.items(), strict=True):
        edges = np.linspace(-of["limit"], of["limit"], BINS + 1)
        for axes, name, colour in zip(row, names, COLOURS, strict=False):
            axes.stairs(of["counts"][name], edges, color=colour, fill=True)
            axes.set_yscale("symlog", linthresh=1)  # which has a place for empty bins, too
            axes.margins(y=0.25)
            text = f"|w| < {NEAR_ZERO:g}: {of['near_zero'][name]:.1%}"
            axes.text(0.98, 0.95, text, transform=axes.transAxes, ha="right", va="top", fontsize=8)
            axes.tick_params(labelsize=7)
        row[0].set_ylabel(layer)
    for axes, name in zip(grid[0], names, strict=True):
        axes.set_title(describe(name), fontsize=9)
    figure.supxlabel("weight")
    return save_figure(figure, file)
