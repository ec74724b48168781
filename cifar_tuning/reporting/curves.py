"""Learning curves of configurations: the mean over their seeds, with a band of one standard deviation."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from textwrap import wrap
from typing import TYPE_CHECKING

import numpy as np

from cifar_tuning.reporting.drawing import cut_off, save_figure, styled, text_width
from cifar_tuning.reporting.metric_names import IN_WORDS, in_words
from cifar_tuning.reporting.statistics import summarize

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Curve = Sequence[tuple[int, float]]  # (step, value)

# As many lines as there are colours.
MOST_LINES = 8
MOST_PANELS = 6
WIDTH = 9.0  # inches
# Letters of a line in the legend; a longer name goes on in the next.
LINE = 100
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
    return max(finite, key=lambda point: point[1] if maximize else -point[1])[0]  # of equals the first


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


@styled
def draw(panels: Mapping[str, Mapping[str, Band]], file: Path) -> Path:
    """Draws a panel for each metric, a line and its band for each configuration.

    Args:
        panels: by metric, by the configuration's label; the same labels have the same colours.
        file: where the PNG goes.
    """
    from matplotlib import rcParams
    from matplotlib.figure import Figure

    labels = list(dict.fromkeys(label for bands in panels.values() for label in bands))
    looks = dict(zip(labels, rcParams["axes.prop_cycle"](), strict=False))
    names = ["\n".join(wrap(label, LINE)) for label in labels]
    columns = max(1, min(4, int(WIDTH / (0.7 + max(map(text_width, names))))))
    beneath = 0.2 * math.ceil(sum(name.count("\n") + 1 for name in names) / columns)
    across = min(2, len(panels))
    rows = math.ceil(len(panels) / across)
    figure = Figure(figsize=(WIDTH, 2.8 * rows + 0.2 + beneath), layout="constrained")
    grid = figure.subplots(rows, across, squeeze=False).ravel()
    for axes, (metric, bands) in zip(grid, panels.items(), strict=False):
        last = max((band.steps[-1] for band in bands.values() if band.steps), default=0)
        for label, line in bands.items():
            axes.plot(line.steps, line.mean, label=label, **looks[label])
            if line.steps and line.steps[-1] < last:
                axes.plot(line.steps[-1], line.mean[-1], "x", color=looks[label]["color"])
            if line.n > 1:
                mean, spread = np.array(line.mean), np.array(line.spread)
                axes.fill_between(
                    line.steps, mean - spread, mean + spread, color=looks[label]["color"], alpha=0.15, linewidth=0
                )
        _limit(axes, metric, [line.mean for line in bands.values()])
        axes.set_xlabel("epoch" if metric in IN_WORDS else "step")
        axes.locator_params("x", integer=True)
    for axes in grid[len(panels) :]:
        axes.set_visible(False)
    handles = [next(h for axes in grid for h in axes.lines if h.get_label() == label) for label in labels]
    figure.legend(handles, names, loc="outside lower center", ncols=columns)
    return save_figure(figure, file)


def _limit(axes: "Axes", metric: str, means: Sequence[Sequence[float]]) -> None:
    """Keeps an axis to what can be, and to what can be read; the title says what it leaves out."""
    axes.set_title(in_words(metric) + cut_off(axes, means))
    if "accuracy" in in_words(metric) and all(0 <= value <= 1 for mean in means for value in mean):
        low, high = axes.get_ylim()  # a standard deviation reaches beyond
        axes.set_ylim(max(low, -0.03), min(high, 1.03))
