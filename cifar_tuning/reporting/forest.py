"""A forest plot of all comparisons: a line for each, with its confidence interval."""

from collections.abc import Sequence, Set
from itertools import accumulate
from pathlib import Path
from textwrap import wrap
from typing import TYPE_CHECKING

from cifar_tuning.reporting.comparisons import Effect
from cifar_tuning.reporting.drawing import save_figure, styled
from cifar_tuning.reporting.metric_names import in_words
from cifar_tuning.reporting.statistics import CONFIDENCE
from cifar_tuning.reporting.table import Table

if TYPE_CHECKING:
    from matplotlib.axes import Axes

MOST = 40
SURE, UNSURE = "C0", "0.55"
# Letters of a line of a name; a longer one goes on in the next.
LINE = 52
# Inside of a dot, so that those who print in grey can tell it too.
INSIDE = {SURE: SURE, UNSURE: "white"}
# What a mark and its colour mean: the picture is shown without its report, too.
LEGEND = {
    ("o", SURE): "holds after the correction for all tests (p < 0.05)",
    ("o", UNSURE): "may be chance",
    ("x", UNSURE): "a single run, no interval",
}


@styled
def draw(effects: Sequence[Effect], table: Table, file: Path) -> Path:
    """Draws the differences with their 95 % intervals; those that stay after the correction filled.

    Args:
        effects: at least one; of more than 40 the surest.
        table: where they come from.
        file: where the PNG goes.
    """
    from matplotlib.figure import Figure

    # All in their order, or those with the smallest p values.
    by_p = sorted(effects, key=lambda effect: 2.0 if effect.p is None else effect.p)
    shown = effects if len(effects) <= MOST else by_p[:MOST]
    scale = 100 if table.unit == "points" else 1
    apart = {frozenset(effect.names) for effect in effects if effect.setting}
    names = ["\n".join(wrap(_label(effect, apart), LINE)) for effect in shown]
    # The bottom of each row: a name of two lines needs more room.
    bottoms = list(accumulate(1 + 0.5 * name.count("\n") for name in names))
    places = [(top + bottom) / 2 for top, bottom in zip([0.0, *bottoms], bottoms, strict=False)]
    figure = Figure(figsize=(9, 1.2 + 0.3 * bottoms[-1]), layout="constrained")
    axes = figure.subplots()
    used = {_draw_row(axes, place, effect, scale) for place, effect in zip(places, shown, strict=True)}
    axes.axvline(0, color="black", linewidth=0.8)
    if shown is effects:  # hyperparameter by hyperparameter
        for bottom, one, following in zip(bottoms, shown, shown[1:], strict=False):
            if one.option != following.option:
                axes.axhline(bottom, color="0.8", linewidth=0.8)
    axes.set_yticks(places, names, fontsize=8)
    axes.set_ylim(bottoms[-1], 0)
    unit = ", percentage points" if scale == 100 else ""
    interval = ", and its 95 % interval" if any(mark == "o" for mark, _ in used) else ""
    axes.set_xlabel(f"difference in {in_words(table.metric)}{unit}{interval}", fontsize=9)
    axes.grid(axis="y", visible=False)
    if scale == 100:  # an interval can be wider than the whole scale
        low, high = axes.get_xlim()
        axes.set_xlim(max(low, -100), min(high, 100))
    handles = [
        axes.plot([], [], mark, color=colour, markerfacecolor=INSIDE[colour])[0]
        for mark, colour in LEGEND
        if (mark, colour) in used
    ]
    figure.legend(
        handles,
        [words for kind, words in LEGEND.items() if kind in used],
        loc="outside lower center",
        ncols=2,
    )
    return save_figure(figure, file)


def _draw_row(axes: "Axes", place: float, effect: Effect, scale: int) -> tuple[str, str]:
    """Draws a difference with its interval, if it has one; returns its mark and its colour."""
    sure = effect.p is not None and effect.p < 1 - CONFIDENCE
    half = effect.comparison.half_width
    mark, colour = "x" if half is None else "o", SURE if sure else UNSURE
    axes.errorbar(
        scale * effect.comparison.difference,
        place,
        xerr=None if half is None else scale * half,
        fmt=mark,
        color=colour,
        markerfacecolor=INSIDE[colour],
        capsize=3,
    )
    return mark, colour


def _label(effect: Effect, apart: Set[frozenset[str]]) -> str:
    """Returns a row's name; of what is also compared under each setting apart, the row of all says that it is that."""
    all_of_them = "  (on average)" if frozenset(effect.names) in apart else ""
    return f"{effect.names[0]} − {effect.names[1]}" + (f"  (at {effect.setting})" if effect.setting else all_of_them)
