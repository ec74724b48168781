"""Corrections to the pictures that Optuna draws with matplotlib."""

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

from cifar_tuning.reporting.importances import complete_trials, varied

if TYPE_CHECKING:
    import optuna
    from matplotlib.axes import Axes

# More lines than this need a scale of colours; a legend would be longer than the picture.
MOST_IN_LEGEND = 10


def tidy_history(drawn: "Sequence[Axes]", study: "optuna.Study") -> None:
    """Adds the pruned trials, and puts the legend where there is room."""
    from optuna.trial import TrialState

    axes = drawn[0]
    pruned = study.get_trials(deepcopy=False, states=(TrialState.PRUNED,))
    last = {
        trial.number: trial.intermediate_values[max(trial.intermediate_values)]
        for trial in pruned
        if trial.intermediate_values
    }
    stopped = {number: value for number, value in last.items() if math.isfinite(value)}
    if stopped:
        axes.scatter(list(stopped), list(stopped.values()), marker="x", color="0.55", label="Pruned, its last value")
    axes.legend(loc="best")  # Optuna's stands beside the plot and takes a third of it
    axes.locator_params("x", integer=True)


def tidy_intermediate(drawn: "Sequence[Axes]", study: "optuna.Study") -> None:
    """Colours the complete trials by their values; Optuna has 20 colours and then repeats the last."""
    from matplotlib import colormaps
    from matplotlib.cm import ScalarMappable
    from matplotlib.colors import Normalize

    axes = drawn[0]
    axes.locator_params("x", integer=True)
    legend = axes.get_legend()
    if legend is None or len(axes.lines) <= MOST_IN_LEGEND:
        return
    legend.remove()
    values = {f"Trial{trial.number}": trial.values[0] for trial in complete_trials(study)}
    scale = Normalize(min(values.values(), default=0.0), max(values.values(), default=1.0))
    for line in axes.lines:
        value = values.get(str(line.get_label()))
        if value is None:
            line.set(color="0.55", linewidth=0.8, markersize=2, zorder=2)
        else:
            line.set(color=colormaps["viridis"](scale(value)), linewidth=1.4, markersize=4, zorder=3)
    if values:
        axes.figure.colorbar(ScalarMappable(scale, "viridis"), ax=axes, label="final value (grey: not complete)")


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
        elif axes.get_xlabel() in whole:
            axes.locator_params("x", integer=True)
    drawn[0].figure.axes[-1].locator_params("y", integer=True)  # the scale of colours


def tidy_lines(drawn: "Sequence[Axes]", study: "optuna.Study") -> None:
    """Gives lines colours that can be seen, names their whole length, and whole numbers whole ticks."""
    from matplotlib.ticker import FixedLocator

    axes = drawn[0]
    axes.collections[0].set_cmap("viridis")  # Optuna's ends in white, on white
    labels = [label.get_text() for label in axes.get_xticklabels()]
    names = varied(study)  # Optuna cuts them short
    axes.set_xticklabels(labels[: -len(names)] + names, rotation=-25, ha="left", rotation_mode="anchor")
    whole = _whole(study)
    for name, scale in zip(names, axes.figure.axes[-len(names) :], strict=True):
        if name in whole and not isinstance(scale.yaxis.get_major_locator(), FixedLocator):
            scale.locator_params("y", integer=True)
    for label in [label for scale in axes.figure.axes for label in scale.get_yticklabels()]:
        label.set_bbox({"facecolor": "white", "alpha": 0.8, "linewidth": 0, "pad": 0.5})


def tidy_timeline(drawn: "Sequence[Axes]", study: "optuna.Study") -> None:
    """Has the first trial at the top, and days beside the times."""
    from matplotlib.dates import ConciseDateFormatter

    axes = drawn[0]
    # Optuna's ticks are times of the day, and a study can take many days.
    formatter = ConciseDateFormatter(axes.xaxis.get_major_locator())
    formatter.formats[5] = formatter.zero_formats[5] = "%H:%M:%S"  # its seconds alone would be numbers of anything
    axes.xaxis.set_major_formatter(formatter)
    axes.set_xlabel("time")
    axes.invert_yaxis()


def _whole(study: "optuna.Study") -> set[str]:
    """Returns the parameters that are whole numbers, not spread over powers of ten."""
    from optuna.distributions import IntDistribution

    known = [item for trial in study.get_trials(deepcopy=False) for item in trial.distributions.items()]
    other = {name for name, space in known if not isinstance(space, IntDistribution) or space.log}
    return {name for name, _ in known} - other
