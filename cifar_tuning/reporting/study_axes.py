"""What is put right in the pictures that Optuna draws with matplotlib."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from cifar_tuning.reporting.importances import complete_trials, varied

if TYPE_CHECKING:
    import optuna
    from matplotlib.axes import Axes

# More lines than this need a scale of colours; a legend would be longer than the picture.
MOST_IN_LEGEND = 10


def tidy_history(drawn: "Sequence[Axes]", study: "optuna.Study") -> None:
    """Puts the legend where there is room."""
    drawn[0].legend(loc="best")  # Optuna's stands beside the plot and takes a third of it
    drawn[0].locator_params("x", integer=True)


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
    """Gives choices room at both sides."""
    from matplotlib.category import StrCategoryLocator

    for axes in drawn:
        if isinstance(axes.xaxis.get_major_locator(), StrCategoryLocator):
            axes.set_xlim(-0.5, len(axes.get_xticks()) - 0.5)
            axes.tick_params("x", rotation=30)


def tidy_lines(drawn: "Sequence[Axes]", study: "optuna.Study") -> None:
    """Gives lines colours that can be seen, and names their whole length."""
    axes = drawn[0]
    axes.collections[0].set_cmap("viridis")  # Optuna's ends in white, on white
    labels = [label.get_text() for label in axes.get_xticklabels()]
    names = varied(study)  # Optuna cuts them short
    axes.set_xticklabels(labels[: -len(names)] + names, rotation=-25, ha="left", rotation_mode="anchor")
    for label in [label for scale in axes.figure.axes for label in scale.get_yticklabels()]:
        label.set_bbox({"facecolor": "white", "alpha": 0.8, "linewidth": 0, "pad": 0.5})


def tidy_timeline(drawn: "Sequence[Axes]", study: "optuna.Study") -> None:
    """Has the first trial at the top, and days beside the times."""
    from matplotlib.dates import ConciseDateFormatter

    # Optuna's ticks are times of the day, and a study can take many days.
    drawn[0].xaxis.set_major_formatter(ConciseDateFormatter(drawn[0].xaxis.get_major_locator()))
    drawn[0].invert_yaxis()
