"""How our pictures look, in one place. No pyplot, whose global state two runs in one process would share."""

import logging
import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from functools import cache, wraps
from pathlib import Path
from threading import RLock
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar

from cifar_tuning.files import written

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

P = ParamSpec("P")
R = TypeVar("R")

# Formats of `also_as`.
VECTOR = ("pdf", "svg")
# The same figures make the same file again: without the time, which the formats call differently, and random names.
METADATA = {"pdf": {"CreationDate": None}, "svg": {"Date": None}}
# Publishers refuse the fonts that Matplotlib puts into a PDF by itself, Type 3.
SETTINGS: Any = {"pdf.fonttype": 42, "svg.hashsalt": "cifar_tuning"}
_vector: ContextVar[str | None] = ContextVar("vector", default=None)
# Matplotlib's settings belong to the whole process.
LOCK = RLock()
# Okabe and Ito's colours, which colour-blind readers can tell apart, with a brown for their yellow, which is too light;
# the later lines are dashed, for those who print in grey.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000", "#7A3B1D")
DASHES = ("-",) * 4 + ((0, (4, 1.5)),) * 4
STYLE: Any = {
    "axes.axisbelow": True,
    "axes.grid": True,
    "axes.spines.right": False,
    "axes.spines.top": False,
    "axes.titlesize": "medium",
    "figure.dpi": 150,  # a picture is shown some nine inches wide, on screens with small pixels too
    "grid.alpha": 0.3,
    "legend.fontsize": "small",
    "legend.frameon": False,
}
# A loss's axis ends below what is so many times as tall as most of it.
MOST, TOO_TALL = 0.8, 4.0


def styled(draw: Callable[P, R]) -> Callable[P, R]:
    """Has a function draw in our style, and leaves Matplotlib's settings as they were."""

    @wraps(draw)
    def drawn(*args: P.args, **kwargs: P.kwargs) -> R:
        from matplotlib import rc_context
        from matplotlib.rcsetup import cycler

        cycle = cycler(color=COLOURS) + cycler(linestyle=DASHES)
        with LOCK, rc_context(STYLE | {"axes.prop_cycle": cycle}):
            return draw(*args, **kwargs)

    return drawn


@contextmanager
def also_as(kind: str | None) -> Iterator[None]:
    """Has `save_figure` write each picture in a vector format, too: `pdf` or `svg`."""
    before = _vector.set(kind)
    try:
        yield
    finally:
        _vector.reset(before)


def save_figure(figure: "Figure", file: Path, **options: Any) -> Path:
    """Writes a picture as PNG, all or nothing; returns the file.

    Args:
        figure: to be written.
        file: where the PNG goes; another format that `also_as` asks for lies beside it.
        options: of Matplotlib's `savefig`.
    """
    from matplotlib import rc_context

    vector = _vector.get()
    for target, kind in [(file, "png"), *([(file.with_suffix(f".{vector}"), vector)] if vector else [])]:
        # What becomes of each table of a font is told at INFO.
        with written(target) as partial, LOCK, rc_context(SETTINGS), quiet("fontTools"):
            figure.savefig(partial, format=kind, metadata=METADATA.get(kind), **options)
    return file


@contextmanager
def quiet(logger: str) -> Iterator[None]:
    """Has a logger say warnings and worse alone, in an application that logs all."""
    log = logging.getLogger(logger)
    level = log.level
    log.setLevel(logging.WARNING)
    try:
        yield
    finally:
        log.setLevel(level)


def cut_off(axes: "Axes", curves: Sequence[Any]) -> str:
    """Cuts off what a diverged run would make of an axis; returns what the title says of that, or nothing.

    Args:
        axes: of the curves.
        curves: their values; the beginnings of at least half of them stay.
    """
    finite = [[value for value in curve if math.isfinite(value)] for curve in curves]
    values = sorted(value for curve in finite for value in curve)
    if not values:
        return ""
    first = sorted(curve[0] for curve in finite if curve)
    usual = max(values[int(MOST * (len(values) - 1))], first[(len(first) - 1) // 2])
    span = usual - values[0]
    if not span > 0 or values[-1] - values[0] <= TOO_TALL * span:
        return ""
    axes.set_ylim(values[0] - 0.05 * span, usual + 0.1 * span)
    return ", cut off above"


@cache
def text_width(text: str) -> float:
    """Returns how many inches a text takes; a sweep's jobs have the same names, and measuring ten takes 30 ms."""
    from matplotlib import rcParams
    from matplotlib.textpath import TextPath

    if not text.strip():
        return 0.0
    return float(TextPath((0, 0), text, size=rcParams["font.size"]).get_extents().width) / 72
