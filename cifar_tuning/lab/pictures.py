"""The page's pictures, drawn from its CSV and JSON files alone."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from cifar_tuning.lab.counted import layer_speedups, load_surface
from cifar_tuning.lab.experiments import REPORT
from cifar_tuning.lab.measure import BATCH_NORM, SEPARABLE, SURFACES
from cifar_tuning.lab.published import TOLERANCE
from cifar_tuning.lab.results import Results
from cifar_tuning.lab.tables import describe, rows_of
from cifar_tuning.lab.weights import draw_weights
from cifar_tuning.reporting.drawing import save_figure, styled

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.lines import Line2D

# Epochs before this one do not decide where an axis of accuracies begins: all are low there.
BEGUN = 2
LABELS = {"train_acc": "training", "val_acc": "validation", "train_loss": "training", "val_loss": "validation"}


@dataclass(frozen=True)
class Picture:
    """A picture of the page.

    Attributes:
        name: of the file, without its ending.
        experiment: under whose heading it stands; empty: at the top.
        caption: what it shows.
        draw: draws it, or returns None where nothing is there to be drawn.
    """

    name: str
    experiment: str
    caption: str
    draw: Callable[[Results, Path], Path | None]


def _curves_of(experiment: str) -> Callable[[Results, Path], Path | None]:
    """Returns what draws each configuration's validation accuracy: mean of the seeds, and their range."""

    @styled
    def draw(results: Results, file: Path) -> Path | None:
        from matplotlib.figure import Figure

        figure = Figure(figsize=(9, 3.8), layout="constrained")
        axes = figure.subplots()
        drawn = [
            found
            for configuration in results.configurations(experiment)
            if (found := _draw_mean(axes, results, experiment, configuration, "val_acc")) is not None
        ]
        if not drawn:
            return None
        axes.set(xlabel="epoch", ylabel="validation accuracy")
        axes.locator_params(axis="x", integer=True)
        later = np.concatenate([values[:, BEGUN:].ravel() for _, values in drawn])
        if np.isfinite(later).any():
            low, high = float(np.nanmin(later)), axes.get_ylim()[1]
            axes.set_ylim(bottom=low - 0.05 * (high - low))
        if len(drawn) > 1:  # in the order in which they end
            ends = {line: values[:, -1].mean() for line, values in drawn}
            for line in (line for line, end in ends.items() if np.isnan(end)):
                line.set_label(f"{line.get_label()} (diverged)")
            lines = sorted(ends, key=lambda line: float(np.nan_to_num(-ends[line])))
            figure.legend(handles=lines, loc="outside right upper")
        return save_figure(figure, file)

    return draw


def _draw_mean(
    axes: "Axes", results: Results, experiment: str, configuration: str, quantity: str, label: str = ""
) -> "tuple[Line2D, np.ndarray] | None":
    """Draws the mean over the seeds as a line in their range, as far as all have come, if there is any.

    Returns:
        The line, and the values: seeds × epochs.
    """
    keys = [run.key for run in results.of(experiment, configuration)]
    found = [results.curves[key][quantity] for key in keys if quantity in results.curves.get(key, {})]
    if not found:
        return None
    values = np.array([curve[: min(map(len, found))] for curve in found], np.float64)  # None becomes NaN
    epochs = np.arange(values.shape[1])
    (line,) = axes.plot(epochs, values.mean(0), label=label or describe(configuration) or experiment)
    axes.fill_between(epochs, values.min(0), values.max(0), color=line.get_color(), alpha=0.15, linewidth=0)
    return line, values


@styled
def draw_baseline(results: Results, file: Path) -> Path | None:
    """Draws the baseline's losses and accuracies, training against validation."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 3.6), layout="constrained")
    panels = figure.subplots(1, 2)
    drawn = []
    for axes, quantities, name in zip(
        panels, (("train_loss", "val_loss"), ("train_acc", "val_acc")), ("cross-entropy", "accuracy"), strict=True
    ):
        drawn += [_draw_mean(axes, results, "lab1_baseline", "", name, LABELS[name]) for name in quantities]
        axes.set(xlabel="epoch", ylabel=name)
        axes.locator_params(axis="x", integer=True)
    if not any(drawn):
        return None
    panels[0].legend()
    return save_figure(figure, file)


@styled
def draw_overview(results: Results, file: Path) -> Path | None:
    """Draws every published value beside our mean and standard deviation, and how far apart they are."""
    from matplotlib.figure import Figure

    found = [
        (experiment, describe(row.configuration) or "baseline", row.published, row.ours)
        for experiment in REPORT
        for row in rows_of(results, experiment)
        if row.published is not None and row.ours is not None
    ]
    if not found:
        return None
    experiments, names, published, ours = zip(*found, strict=True)
    places, spreads = range(len(found)), np.array([one.std or 0.0 for one in ours])
    means, theirs = np.array([one.mean for one in ours]), np.array(published)
    begins = [place for place in places if place == 0 or experiments[place] != experiments[place - 1]]
    figure = Figure(figsize=(9, 1.2 + 0.24 * len(found)), layout="constrained")
    left, right = figure.subplots(1, 2, sharey=True, width_ratios=(3, 2))
    left.plot(theirs, places, "D", color="C1", markersize=5, label="published")
    style = {"fmt": "o", "color": "C0", "markersize": 4, "capsize": 3}
    left.errorbar(means, places, xerr=spreads, label="ours: mean ± standard deviation over the seeds", **style)
    right.axvspan(-100 * TOLERANCE, 100 * TOLERANCE, color="0.9", label="up to two points apart")
    right.axvline(0, color="C1", linewidth=0.8)
    right.errorbar(100 * (means - theirs), places, xerr=100 * spreads, **style)
    left.set_yticks(places, names, fontsize=8)
    left.set_ylim(len(found) - 0.5, -0.5)
    left.set_xlabel("best validation accuracy")
    right.set_xlabel("ours − published, points")
    for place in begins:
        left.text(0.22, place - 0.45, experiments[place], transform=left.get_yaxis_transform(), va="top", fontsize=7)
    for axes in (left, right):
        axes.grid(axis="y", visible=False)
        for place in begins[1:]:
            axes.axhline(place - 0.5, color="0.8", linewidth=0.8)
    figure.legend(loc="outside upper center", ncols=3)
    return save_figure(figure, file)


def draw_batch_norm(results: Results, file: Path) -> Path | None:
    """Draws the channel means of the first seed's network."""
    from cifar_tuning.lab.batch_norm import ChannelMeans, draw_channel_means

    measured = results.measured(BATCH_NORM)
    if measured is None:
        return None
    return draw_channel_means([ChannelMeans(**entry) for entry in measured[min(measured, key=int)]], file)


@styled
def draw_speedups(results: Results, file: Path) -> Path | None:
    """Draws how many times fewer MACs each layer needs when separable, and how many times faster it is."""
    from matplotlib.figure import Figure

    measured = results.measured(SEPARABLE)
    if measured is None:
        return None
    names, counted, timed = zip(*layer_speedups(measured), strict=True)
    figure = Figure(figsize=(9, 3.6), layout="constrained")
    axes = figure.subplots()
    places = np.arange(len(names))
    axes.bar(places - 0.2, counted, 0.4, label="multiply-adds")
    axes.bar(places + 0.2, timed, 0.4, label="time, forward and backward")
    axes.axhline(9, color="0.4", linestyle="--", linewidth=0.8, label="9, with ever more channels")
    axes.axhline(1, color="0.4", linewidth=0.8)
    axes.grid(axis="x", visible=False)
    axes.set_xticks(places, names, rotation=45, ha="right", rotation_mode="anchor", fontsize=8)
    axes.set_ylabel("times fewer, separable")
    figure.legend(loc="outside upper center", ncols=3)
    return save_figure(figure, file)


def draw_surfaces_of(results: Results, file: Path) -> Path | None:
    """Draws the two loss surfaces, in relief and as contours."""
    from cifar_tuning.lab.surface import draw_surfaces

    titles = {"A": "ResNet-20", "none": "the same without shortcuts"}
    surfaces = {titles[kind]: load_surface(results, name) for kind, name in SURFACES.items()}
    there = {title: surface for title, surface in surfaces.items() if surface is not None}
    return draw_surfaces(there, file) if there else None


OF_SEEDS = "Validation accuracy in {}: mean over the seeds, and their range; the first two epochs may lie below"
PICTURES: Sequence[Picture] = (
    Picture("overview", "", "Every published value and ours", draw_overview),
    Picture("baseline", "lab1_baseline", "The baseline: mean over the seeds, and their range", draw_baseline),
    *(
        Picture(name, name, OF_SEEDS.format(name), _curves_of(name))
        for name in ("lab1_decay", "lab2_bn_lr", "lab2_lr", "lab3_resnet20", "lab3_untried", "lab3_past_90")
    ),
    Picture("weights", "lab2_l1", "The weights of one seed's networks, logarithmic counts", draw_weights),
    Picture("batch_norm", "claim_bn_mean", "Each channel's mean, by layer, one network", draw_batch_norm),
    *(Picture(name, name, OF_SEEDS.format(name), _curves_of(name)) for name in ("claim_dropout", "claim_leaky_relu")),
    Picture("separable", "claim_separable", "Depthwise separable layers of ResNet-20", draw_speedups),
    Picture("surfaces", "claim_shortcut", "The loss around the trained networks (logarithmic)", draw_surfaces_of),
)


def draw_all(results: Results) -> dict[str, list[Picture]]:
    """Draws what can be drawn; returns the pictures that are there, by experiment."""
    results.scale.pictures.mkdir(parents=True, exist_ok=True)
    there: dict[str, list[Picture]] = {}
    for picture in PICTURES:
        file = results.scale.pictures / f"{picture.name}.png"
        if picture.draw(results, file) is not None:
            there.setdefault(picture.experiment, []).append(picture)
    return there
