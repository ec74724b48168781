"""The fitted response to one hyperparameter in words: where its optimum is, or which choice is best."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from cifar_tuning.reporting.statistics import CONFIDENCE
from cifar_tuning.reporting.table import Table
from cifar_tuning.reporting.wording import size_in_words

# Share of the fit's span within which an end of the range is as good as the optimum inside.
NEAR = 0.1


@dataclass(frozen=True)
class Term:
    """A hyperparameter's columns in a model of n configurations.

    Attributes:
        place: in the table's names.
        columns: n × k. Of a number: the number in standard units, its square, whether it is there; of words: a column
            for each but the first.
        present: n, which configurations have it.
        levels: of words, as sentences have them.
        x: n, the number or its logarithm to the base 10; NaN where it is missing. None for words.
        logarithmic: whether it is the logarithm.
        curved: whether there is a square.
    """

    place: int
    columns: np.ndarray
    present: np.ndarray
    levels: Sequence[str] = ()
    x: np.ndarray | None = None
    logarithmic: bool = False
    curved: bool = False

    @property
    def is_number(self) -> bool:
        """Whether its values are numbers."""
        return self.x is not None

    def of(self, kept: np.ndarray) -> "Term":
        """Returns it for some of the configurations."""
        x = None if self.x is None else self.x[kept]
        return replace(self, columns=self.columns[kept], present=self.present[kept], x=x)


@dataclass(frozen=True)
class Fit:
    """A hyperparameter's coefficients, in the order of its columns.

    Attributes:
        coefficients: k.
        covariance: k × k.
        left: degrees of freedom.
    """

    coefficients: np.ndarray
    covariance: np.ndarray
    left: int

    def half_width(self, place: int) -> float:
        """Returns that of a coefficient's 95 % interval."""
        from scipy.stats import t

        return float(t.ppf((1 + CONFIDENCE) / 2, self.left) * np.sqrt(self.covariance[place, place]))


def shape_in_words(table: Table, term: Term, fit: Fit, of_values: bool) -> str:
    """Returns what the fit says of a hyperparameter.

    Args:
        table: the configurations.
        term: its columns.
        fit: its coefficients.
        of_values: whether the fit is of the metric's values; one of ranks has no sizes.
    """
    return _of_number(table, term, fit, of_values) if term.is_number else _of_words(table, term, fit, of_values)


def _of_words(table: Table, term: Term, fit: Fit, of_values: bool) -> str:
    better = "higher" if table.maximize else "lower"
    effects = {word: float(c) for word, c in zip(term.levels, (0.0, *fit.coefficients), strict=True)}
    first, *others = sorted(effects, key=lambda word: -effects[word] if table.maximize else effects[word])
    if not of_values:
        return f"`{table.metric}` is {better} with {first} than with {' or '.join(others)}"
    if len(others) == 1:
        size = size_in_words(abs(effects[first] - effects[others[0]]), fit.half_width(0), table.unit)
        return f"with {first} `{table.metric}` is {size} {better} than with {others[0]}"
    behind = [f"{w} ({size_in_words(abs(effects[first] - effects[w]), None, table.unit)} behind)" for w in others]
    return f"`{table.metric}` is {_extreme(table)} with {first}, before {', '.join(behind)}"


def _of_number(table: Table, term: Term, fit: Fit, of_values: bool) -> str:
    name = table.names[term.place]
    assert term.x is not None
    x, z = term.x[term.present], term.columns[term.present, 0]
    line, square = float(fit.coefficients[0]), float(fit.coefficients[1]) if term.curved else 0.0
    low, high = float(z.min()), float(z.max())
    step = (x.max() - x.min()) / (high - low)

    def original(at: float) -> str:
        value = float(x.min() + (at - low) * step)
        return f"{10**value if term.logarithmic else value:.3g}"

    def response(at: float) -> float:
        return line * at + square * at**2

    ends = [response(low), response(high)]
    vertex = -line / (2 * square) if square else np.inf
    inside = low < vertex < high and abs(square) > fit.half_width(1)
    top = response(vertex) if inside else ends[0]
    span = max(*ends, top) - min(*ends, top)
    inside = inside and min(abs(top - end) for end in ends) > NEAR * span
    size = f"; the fit spans {size_in_words(span, None, table.unit)} there" if of_values else ""
    tried = f"{original(low)} to {original(high)}"
    if inside:
        peak = (square < 0) is table.maximize
        word = _extreme(table) if peak else ("lowest" if table.maximize else "highest")
        where = "inside the range that was tried" if peak else "and better at both ends of what was tried"
        return f"`{table.metric}` is {word} near {original(vertex)}, {where} ({tried}){size}"
    way = "higher" if ends[1] > ends[0] else "lower"
    upper = (ends[1] > ends[0]) is table.maximize
    end = f"best at the {'upper' if upper else 'lower'} end of what was tried ({tried}){size}"
    return f"a larger {name.rpartition('.')[2]} goes with a {way} `{table.metric}`; {end}"


def _extreme(table: Table) -> str:
    return "highest" if table.maximize else "lowest"
