"""Pictures of one run."""

import contextlib
import importlib
import sys
from collections.abc import Sequence
from pathlib import Path
from threading import Thread
from typing import TYPE_CHECKING

from cifar_tuning.reporting.drawing import cut_off, save_figure, styled, text_width

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from cifar_tuning.training.events import EpochMetrics


# Shares of the figure's size, for two plots side by side with labels of nine characters. Fixed, because matplotlib's
# automatic layout takes as long as the drawing, and every trial of a sweep is drawn.
MARGINS = {"left": 0.085, "right": 0.985, "bottom": 0.14, "top": 0.9, "wspace": 0.22}
# Dots per inch, few for the same reason.
DPI = 100
# Classes up to which a confusion matrix has room for numbers, and for all names; letters that it shows of one.
MOST_IN_FIGURES, LONGEST = 20, 30
# Shares that the scale of a larger one names.
SCALE = (0, 0.05, 0.2, 0.5, 1)


# Imported by the first picture: a fifth of a second.
_DRAWING = "matplotlib.figure", "matplotlib.backends.backend_agg"


def load_meanwhile() -> None:
    """Imports Matplotlib in a thread, while the training computes, which leaves the interpreter's lock alone."""

    def load() -> None:
        with contextlib.suppress(Exception):  # the first picture meets the same one, in the thread that can tell
            for name in _DRAWING:
                importlib.import_module(name)

    if not all(name in sys.modules for name in _DRAWING):
        Thread(target=load, name="import matplotlib", daemon=True).start()


@styled
def learning_curves(history: "Sequence[EpochMetrics]", file: Path) -> Path:
    """Draws loss and accuracy over the epochs, of training and, with its best epoch, of validation, if there is any."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 3.6), dpi=DPI)
    loss, accuracy = figure.subplots(1, 2, sharex=True, gridspec_kw=MARGINS)
    epochs = [metrics.epoch for metrics in history]
    validated = [metrics.val_acc for metrics in history if metrics.val_acc is not None]
    splits = {"train": "training", "val": "validation"} if validated else {"train": "training"}
    for axes, name in ((loss, "loss"), (accuracy, "acc")):
        for split, label in splits.items():
            axes.plot(epochs, [getattr(m, f"{split}_{name}") for m in history], label=label)
        axes.set_xlabel("epoch")
        axes.locator_params("x", integer=True)
    best = ""
    if validated:
        reached, epoch = max(zip(validated, epochs, strict=True), key=lambda p: p[0] if p[0] == p[0] else -1.0)
        accuracy.plot(epoch, reached, "o", color="C1")
        best = f" (best: {reached:.4f}, epoch {epoch})"  # anywhere else it may lie on a curve
    cut = cut_off(loss, [line.get_ydata() for line in loss.lines])
    loss.set_title(f"cross-entropy{cut}")  # beside numbers of any length a label would be cut off
    accuracy.set_title(f"accuracy{best}")
    loss.legend()
    return save_figure(figure, file)


@styled
def confusion_matrix(counts: list[list[int]], classes: Sequence[str], file: Path) -> Path:
    """Draws who was taken for whom, as a share of each true class.

    Args:
        counts: rows are labels, columns predictions.
        classes: names in the order of the labels.
        file: where the PNG goes.
    """
    from matplotlib.colors import PowerNorm

    names = list(classes) if len(classes) == len(counts) else [str(label) for label in range(len(counts))]
    shares = [[count / max(1, sum(row)) for count in row] for row in counts]
    names = [name if len(name) <= LONGEST else f"{name[: LONGEST - 1]}…" for name in names]
    shown = range(0, len(names), -(-len(names) // MOST_IN_FIGURES))
    figure, axes = _square_with_names([names[place] for place in shown], scale=len(names) > MOST_IN_FIGURES)
    # The square root shows mistakes, too, which are rare among many classes.
    image = axes.imshow(shares, cmap="Blues", norm=PowerNorm(0.5, 0, 1))
    axes.grid(False)
    axes.set_xticks(shown, [names[place] for place in shown], rotation=45, ha="right")
    axes.set_yticks(shown, [names[place] for place in shown])
    axes.set_xlabel("prediction")
    axes.set_ylabel("label")
    figured = len(names) <= MOST_IN_FIGURES
    if not figured:
        scale = axes.inset_axes((1.02, 0, 0.03, 1))
        figure.colorbar(image, scale, ticks=SCALE, format=lambda share, _: f"{100 * share:.0f}")
    for row, values in enumerate(shares if figured else []):
        for column, share in enumerate(values):
            if share > 0.005:  # a text takes half a millisecond, and most would be zeros
                colour = "white" if share > 0.5 else "black"
                axes.text(column, row, f"{100 * share:.0f}", ha="center", va="center", color=colour, fontsize=8)
    axes.set_title("validation images, % of each class")
    return save_figure(figure, file)


def _square_with_names(names: Sequence[str], scale: bool) -> "tuple[Figure, Axes]":
    """Returns a square of four inches with room for names: to its left, and, turned by 45 degrees, below it.

    Args:
        names: of the classes.
        scale: room for one at its right.
    """
    from matplotlib.figure import Figure

    side, longest = 4.0, 1.05 * max(map(text_width, names))
    left, below, above, right = 0.5 + longest, 0.6 + 0.71 * longest, 0.35, 0.15 + 0.5 * scale
    width, height = left + side + right, below + side + above
    figure = Figure(figsize=(width, height), dpi=DPI)
    return figure, figure.add_axes((left / width, below / height, side / width, side / height))
