"""Learning curves of configurations: the mean over their seeds, with a band of one standard deviation."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from cifar_tuning.reporting.metric_names import IN_WORDS, in_words
from cifar_tuning.reporting.plots import save_figure
from cifar_tuning.reporting.statistics import summarize

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Curve = Sequence[tuple[int, float]]  # (step, value)

# More lines than this can't be told apart by their colours.
MOST_LINES = 8
MOST_PANELS = 6
# Share of the values that an axis always shows; the rest is cut off where it is TOO_TALL times as tall.
SHOWN_SHARE, TOO_TALL = 0.95, 4.0
# Shown first, in this order; the others as they come.
FAMILIAR = ("train/loss", "val/loss", "train/acc", "val/acc")
# Left out: the schedule and the speed are no results.
DULL = ("lr", "images_per_second", "epoch_seconds")


@dataclass(frozen=True)
class Band:
    """A configuration's curve; all lists are as long as there are steps.

    Attributes:
        steps: as far as all of its runs have come.
        mean: over the runs that have the step.
        spread: their standard deviation; 0 for a single run.
        n: how many runs.
    """

    steps: list[int]
    mean: list[float]
    spread: list[float]
    n: int


def band(curves: Sequence[Curve]) -> Band:
    """Averages curves step by step; values that are not finite are left out.

    The mean ends where the first of the curves does: that of the others would seem to leap.
    """
    finite = [[(step, value) for step, value in curve if math.isfinite(value)] for curve in curves]
    last = min((max(step for step, _ in curve) for curve in finite if curve), default=0)
    values: dict[int, list[float]] = {}
    for curve in finite:
        for step, value in curve:
            if step <= last:
                values.setdefault(step, []).append(value)
    steps = sorted(values)
    summaries = [summarize(values[step]) for step in steps]
    return Band(steps, [s.mean for s in summaries], [s.std or 0.0 for s in summaries], len(curves))


def best_step(curve: Curve, maximize: bool) -> int | None:
    """Returns the first step at which a curve is at its best; None if it has a single point."""
    finite = [(step, value) for step, value in curve if math.isfinite(value)]
    if len(finite) < 2:
        return None
    best = max if maximize else min
    peak = best(value for _, value in finite)
    return next(step for step, value in finite if value == peak)


def worth_drawing(curves: Mapping[str, Curve], metric: str) -> list[str]:
    """Returns the metrics that have a curve worth seeing, the familiar ones first.

    Args:
        curves: of one run that has them, by metric.
        metric: the reported one: drawn if nothing else is.
    """
    changing = [name for name, curve in curves.items() if len(curve) > 1 and len({value for _, value in curve}) > 1]
    running_best = {name for name in changing if name.endswith("_best") and name.removesuffix("_best") in changing}
    shown = [name for name in changing if name not in DULL and name not in running_best] or [
        name for name in changing if name == metric
    ]
    shown.sort(key=lambda name: FAMILIAR.index(name) if name in FAMILIAR else len(FAMILIAR))
    return shown[:MOST_PANELS]


def draw(panels: Mapping[str, Mapping[str, Band]], file: Path) -> Path:
    """Draws a panel for each metric, a line and its band for each configuration.

    Args:
        panels: by metric, by the configuration's label; the same labels have the same colours.
        file: where the PNG goes.
    """
    from matplotlib import colormaps
    from matplotlib.figure import Figure

    labels = list(dict.fromkeys(label for bands in panels.values() for label in bands))
    colours = dict(zip(labels, colormaps["tab10"].colors, strict=False))  # type: ignore[attr-defined]
    columns = min(2, len(panels))
    rows = math.ceil(len(panels) / columns)
    figure = Figure(
        figsize=(4.8 * columns + 1, 3.1 * rows + 0.4 + 0.22 * math.ceil(len(labels) / 2)), layout="constrained"
    )
    grid = figure.subplots(rows, columns, squeeze=False).ravel()
    for axes, (metric, bands) in zip(grid, panels.items(), strict=False):
        for label, line in bands.items():
            axes.plot(line.steps, line.mean, color=colours[label], label=label, linewidth=1.6)
            if line.n == 1:
                continue
            low = [mean - spread for mean, spread in zip(line.mean, line.spread, strict=True)]
            high = [mean + spread for mean, spread in zip(line.mean, line.spread, strict=True)]
            axes.fill_between(line.steps, low, high, color=colours[label], alpha=0.2, linewidth=0)
        axes.set_title(in_words(metric), fontsize=10)
        axes.set_xlabel("epoch" if metric in IN_WORDS else "step")
        axes.locator_params("x", integer=True)
        axes.grid(alpha=0.3)
        _limit(axes, [value for line in bands.values() for value in line.mean])
    for axes in grid[len(panels) :]:
        axes.set_visible(False)
    handles = [next(h for axes in grid for h in axes.lines if h.get_label() == label) for label in labels]
    figure.legend(handles, labels, loc="outside lower center", ncols=min(2, len(labels)), frameon=False)
    return save_figure(figure, file)


def _limit(axes: "Axes", values: list[float]) -> None:
    """Cuts off what a diverged run would make of the axis."""
    ordered = sorted(values)
    usual = ordered[int(SHOWN_SHARE * (len(ordered) - 1))]
    span = usual - ordered[0]
    if span > 0 and ordered[-1] - ordered[0] > TOO_TALL * span:
        axes.set_ylim(ordered[0] - 0.05 * span, usual + 0.1 * span)
