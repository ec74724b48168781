"""Corrections to the pictures that Optuna draws with matplotlib."""

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from cifar_tuning.reporting.drawing import COLOURS
from cifar_tuning.reporting.importances import complete_trials, varied

if TYPE_CHECKING:
    import optuna
    from matplotlib.axes import Axes
    from matplotlib.axis import Axis

# A pruned trial's colour.
PRUNED = COLOURS[4]
# Ours for Optuna's of the timeline: of complete, pruned, failed and running trials, the last two green and red.
STATES = {"#1f77b4": COLOURS[0], "#ff7f0e": PRUNED, "#d62728": COLOURS[1], "#2ca02c": COLOURS[2]}
# From pale to dark, and back.
DARKER, PALER = "viridis_r", "viridis"
# First digits of a logarithmic axis' ticks, by the ratio of its ends up to which they have room.
DIGITS = {4: range(1, 10), 20: (1, 2, 5), 300: (1, 3), math.inf: (1,)}
# More lines than this need a scale of colours; a legend would be longer than the picture.
MOST_IN_LEGEND = 10


def plain(axes: "Axes") -> None:
    """Takes Optuna's grey away, so that its pictures look like the others."""
    if axes.get_facecolor()[:3] != (1.0, 1.0, 1.0):
        axes.set_facecolor("white")
        axes.grid(color="0.9")
        axes.spines[["left", "bottom"]].set(visible=True, color="black")


def mark_chance(axes: "Axes", chance: float) -> None:
    """Draws where chance ends among the bars of importances, which Optuna's axis may leave out; no bar needs a legend.

    Args:
        axes: of the bars.
        chance: see `importances.Importances`.
    """
    axes.axvline(chance, color="black", linestyle=":")
    axes.set_xlim(0, max(axes.get_xlim()[1], 1.1 * chance))
    axes.text(chance, 1, "chance", transform=axes.get_xaxis_transform(), ha="center", va="bottom")
    axes.set(xlabel="importance", ylabel="")
    axes.grid(axis="y", visible=False)
    if (legend := axes.get_legend()) is not None:
        legend.remove()


def tidy_history(drawn: "Sequence[Axes]", study: "optuna.Study") -> None:
    """Has the best value rise in steps, adds the pruned trials, and puts the legend where it covers nothing."""
    from optuna.trial import TrialState

    axes = drawn[0]
    for line in axes.lines:
        line.set(drawstyle="steps-post", color="0.4", label="best so far")
    axes.collections[0].set_label("complete")
    pruned = study.get_trials(deepcopy=False, states=(TrialState.PRUNED,))
    last = {
        trial.number: trial.intermediate_values[max(trial.intermediate_values)]
        for trial in pruned
        if trial.intermediate_values
    }
    stopped = {number: value for number, value in last.items() if math.isfinite(value)}
    if stopped:
        axes.scatter(list(stopped), list(stopped.values()), marker="x", color=PRUNED, label="pruned, its last value")
    _legend_above(axes)
    axes.set_xlabel("trial")
    axes.locator_params("x", integer=True)


def tidy_front(drawn: "Sequence[Axes]", study: "optuna.Study") -> None:
    """Says what the front is, in a mark of its own; millions are written as such."""
    from matplotlib.ticker import EngFormatter

    axes = drawn[0]
    for dots in axes.collections:
        label = str(dots.get_label())
        if label == "Best Trial":
            label = "on the front: no trial is as good in all objectives and better in one"
            dots.set(label=label, color=COLOURS[0], edgecolor="black")
        else:
            dots.set(label=label.lower(), color="0.65" if label != "Infeasible Trial" else "0.85")
    for axis in (axes.xaxis, axes.yaxis):
        if max(map(abs, axis.get_view_interval())) >= 1e4:
            axis.set_major_formatter(EngFormatter())
    _legend_above(axes)


def _legend_above(axes: "Axes", *given: Any) -> None:
    axes.legend(*given, loc="lower left", bbox_to_anchor=(0, 1), ncols=4, frameon=False, borderaxespad=0)


def tidy_intermediate(drawn: "Sequence[Axes]", study: "optuna.Study") -> None:
    """Colours the complete trials, the best darkest; Optuna has 20 colours and then repeats the last."""
    from matplotlib import colormaps
    from matplotlib.cm import ScalarMappable
    from matplotlib.colors import Normalize
    from optuna.study import StudyDirection

    axes = drawn[0]
    axes.set(xlabel="step", ylabel="intermediate value")
    axes.locator_params("x", integer=True)
    legend = axes.get_legend()
    if legend is None or len(axes.lines) <= MOST_IN_LEGEND:
        return
    legend.remove()
    values = {f"Trial{trial.number}": trial.values[0] for trial in complete_trials(study)}
    scale = Normalize(min(values.values(), default=0.0), max(values.values(), default=1.0))
    shades = DARKER if study.directions[0] == StudyDirection.MAXIMIZE else PALER
    for line in axes.lines:
        value = values.get(str(line.get_label()))
        if value is None:
            line.set(color="0.55", linewidth=0.8, markersize=2, zorder=2)
        else:
            line.set(color=colormaps[shades](scale(value)), linewidth=1.4, markersize=4, zorder=3)
    if values:
        axes.figure.colorbar(ScalarMappable(scale, shades), ax=axes, label="final value (grey: not complete)")


def tidy_slice(drawn: "Sequence[Axes]", study: "optuna.Study") -> None:
    """Gives choices room at both sides and no quotes, whole numbers whole ticks, also where they count trials."""
    from matplotlib.category import StrCategoryLocator

    whole = _whole(study)
    for axes in drawn:
        if isinstance(axes.xaxis.get_major_locator(), StrCategoryLocator):
            ticks = axes.get_xticks()
            names = axes.xaxis.get_major_formatter().format_ticks(list(ticks))
            axes.set_xticks(ticks, [name.strip("'\"") for name in names])
            axes.set_xlim(-0.5, len(ticks) - 0.5)
            axes.tick_params("x", rotation=30)
        elif axes.get_xscale() == "log":
            few_ticks(axes.xaxis)
            axes.tick_params("x", labelsize=8)
        elif axes.get_xlabel() in whole:
            axes.locator_params("x", integer=True)
        axes.collections[0].set(cmap="viridis")
    colours = drawn[0].figure.axes[-1]
    colours.set_ylabel("trial")
    colours.locator_params("y", integer=True)


def tidy_lines(drawn: "Sequence[Axes]", study: "optuna.Study") -> None:
    """Gives lines colours that can be seen, names their whole length, and whole numbers whole ticks."""
    from matplotlib.ticker import FixedLocator

    axes = drawn[0]
    lines = axes.collections[0]
    # Optuna's ends in white, on white; like that one, ours is darkest where the value is best.
    lines.set_cmap(PALER if lines.get_cmap().name.endswith("_r") else DARKER)
    labels = [label.get_text() for label in axes.get_xticklabels()]
    names = varied(study)  # Optuna cuts them short
    axes.set_xticklabels(labels[: -len(names)] + names, rotation=-25, ha="left", rotation_mode="anchor")
    whole = _whole(study)
    for name, scale in zip(names, axes.figure.axes[-len(names) :], strict=True):
        if scale.get_yscale() == "log":
            few_ticks(scale.yaxis)
        if name in whole and not isinstance(scale.yaxis.get_major_locator(), FixedLocator):
            scale.locator_params("y", integer=True)
    for label in [label for scale in axes.figure.axes for label in scale.get_yticklabels()]:
        label.set_bbox({"facecolor": "white", "alpha": 0.8, "linewidth": 0, "pad": 0.5})


def tidy_timeline(drawn: "Sequence[Axes]", study: "optuna.Study") -> None:
    """Has the first trial at the top, days beside the times, thin bars in sight, and no red beside green."""
    from matplotlib.colors import to_hex
    from matplotlib.dates import ConciseDateFormatter

    axes = drawn[0]
    legend = axes.get_legend()
    bars: list[Any] = [*axes.patches, *(legend.legend_handles if legend else [])]
    for bar in bars:
        # With edges: the light ones of Optuna's style hide bars that are as thin, as thousands are.
        bar.set_color(STATES.get(to_hex(bar.get_facecolor()), bar.get_facecolor()))
    # Optuna's ticks are times of the day, and a study can take many days.
    formatter = ConciseDateFormatter(axes.xaxis.get_major_locator())
    formatter.formats[5] = formatter.zero_formats[5] = "%H:%M:%S"  # its seconds alone would be numbers of anything
    axes.xaxis.set_major_formatter(formatter)
    axes.set(xlabel="time", ylabel="trial")
    axes.invert_yaxis()
    axes.locator_params("y", integer=True)
    if legend is not None:
        _legend_above(axes, legend.legend_handles, [text.get_text().lower() for text in legend.get_texts()])


def few_ticks(axis: "Axis") -> None:
    """Gives a logarithmic axis ticks that do not run into each other, and names them as one types them."""
    from matplotlib.ticker import LogLocator, NullFormatter

    low, high = axis.get_view_interval()
    digits = next(digits for ratio, digits in DIGITS.items() if high <= ratio * low)
    axis.set_major_locator(LogLocator(subs=digits))
    axis.set_major_formatter(lambda value, _: f"{value:g}")
    axis.set_minor_formatter(NullFormatter())


def _whole(study: "optuna.Study") -> set[str]:
    """Returns the parameters that are whole numbers, not spread over powers of ten."""
    from optuna.distributions import IntDistribution

    known = [item for trial in study.get_trials(deepcopy=False) for item in trial.distributions.items()]
    other = {name for name, space in known if not isinstance(space, IntDistribution) or space.log}
    return {name for name, _ in known} - other
