"""The picture of all comparisons: a line for each, its interval beside zero."""

from collections.abc import Sequence
from pathlib import Path

from cifar_tuning.reporting.comparisons import Effect
from cifar_tuning.reporting.plots import save_figure
from cifar_tuning.reporting.statistics import CONFIDENCE
from cifar_tuning.reporting.table import Table

MOST = 40
SURE, UNSURE = "tab:blue", "0.6"


def draw(effects: Sequence[Effect], table: Table, file: Path) -> Path:
    """Draws the differences with their 95 % intervals; those that stay after the correction in colour.

    Args:
        effects: at least one; of more than 40 the surest.
        table: where they come from.
        file: where the PNG goes.
    """
    from matplotlib.figure import Figure

    shown = list(effects)
    if len(shown) > MOST:
        shown = sorted(shown, key=lambda effect: 2.0 if effect.p is None else effect.p)[:MOST]
    scale = 100 if table.unit == "points" else 1
    figure = Figure(figsize=(8, 1.1 + 0.32 * len(shown)), layout="constrained")
    axes = figure.subplots()
    for place, effect in enumerate(shown):
        sure = effect.p is not None and effect.p < 1 - CONFIDENCE
        half = effect.comparison.half_width
        axes.errorbar(
            scale * effect.comparison.difference,
            place,
            xerr=None if half is None else scale * half,
            fmt="o" if half is not None else "x",
            color=SURE if sure else UNSURE,
            capsize=3,
        )
    axes.axvline(0, color="black", linewidth=0.8)
    axes.set_yticks(range(len(shown)), [_label(effect) for effect in shown], fontsize=8)
    axes.set_ylim(len(shown) - 0.5, -0.5)
    axes.set_xlabel(f"difference in {table.metric}{' (percentage points)' if scale == 100 else ''}", fontsize=9)
    axes.grid(axis="x", alpha=0.3)
    return save_figure(figure, file)


def _label(effect: Effect) -> str:
    return f"{effect.names[0]} − {effect.names[1]}" + (f"  (at {effect.setting})" if effect.setting else "")
