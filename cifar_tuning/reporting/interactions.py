"""Interactions in a grid: whether the effect of one hyperparameter depends on the value of another."""

import itertools
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from cifar_tuning.reporting.factors import Factor
from cifar_tuning.reporting.statistics import CONFIDENCE, ROUNDING
from cifar_tuning.reporting.table import Table, value_in_words
from cifar_tuning.reporting.wording import p_in_words, size_in_words

# Settings up to which the model is computed; of more it would take minutes.
MOST_CELLS = 500
# Least residual degrees of freedom.
FEWEST_LEFT = 2
# Relative size of singular values and sums of squares that are rounding errors.
NOTHING_LEFT = 1e-9


@dataclass(frozen=True)
class Interaction:
    """Two hyperparameters, and whether the difference between values of one is another at values of the other.

    Attributes:
        option: both.
        options: each.
        p: corrected for the number of pairs of hyperparameters.
        text: where that is sure, what differs, as a sentence.
    """

    option: str
    options: tuple[str, str]
    p: float | None
    text: str = ""

    @property
    def sure(self) -> bool:
        """Whether the difference is another."""
        return self.p is not None and self.p < 1 - CONFIDENCE


def find_interactions(table: Table, factors: Sequence[Factor]) -> list[Interaction]:
    """Tests each pair of a grid's hyperparameters that met in all their values: an analysis of variance.

    The noise is what the seeds of one setting differ in, seeds being blocks; with a single seed it is what more than
    two hyperparameters do together.

    Args:
        table: the configurations.
        factors: of the grid.

    Returns:
        With p values that are not corrected yet; none where there are too few runs to tell, or all are equal.
    """
    columns = list(zip(*(c.values for c in table.configurations), strict=True))
    if len(factors) < 2 or len(table.configurations) > MOST_CELLS:
        return []
    cells = [(place, seed, run) for place, c in enumerate(table.configurations) for seed, run in c.runs.items()]
    y = np.array([run.metrics[table.metric] for *_, run in cells])
    if np.ptp(y) <= ROUNDING * np.abs(y).max():  # what is left of equal values is rounding, and has p values too
        return []
    where = [place for place, *_ in cells]
    seeds = [seed for _, seed, _ in cells]
    common = Counter(seeds)
    block = _levels([seed if common[seed] > 1 else None for seed in seeds])
    main = {f.place: _levels([columns[f.place][place] for place in where]) for f in factors}
    others = [_levels([values[place] for place in where]) for p, values in enumerate(columns) if p not in main]
    pairs = [
        pair for pair in itertools.combinations(factors, 2) if _whole(columns[pair[0].place], columns[pair[1].place])
    ]
    both = {(a.place, b.place): _products(main[a.place], main[b.place]) for a, b in pairs}
    shared = [np.ones((len(y), 1)), block, *main.values(), *others]
    full = basis_of([*shared, *both.values()])
    noise, left = _rest(y, basis_of([np.ones((len(y), 1)), block, _levels(where)]))
    if left < FEWEST_LEFT:
        noise, left = _rest(y, full)
    if left < FEWEST_LEFT or noise <= NOTHING_LEFT * float(((y - y.mean()) ** 2).sum()):
        return []
    found = []
    for a, b in pairs:
        reduced = basis_of([*shared, *(product for pair, product in both.items() if pair != (a.place, b.place))])
        p = _f_test(y, full, reduced, noise / left, left)
        if p is not None:
            options = a.option(table), b.option(table)
            found.append(Interaction(" and ".join(options), options, p, _in_words(table, a, b)))
    return found


def unsure_in_words(interactions: Sequence[Interaction]) -> str:
    """Returns a sentence about pairs of hyperparameters of which nothing can be told."""
    pairs = ", ".join(f"{i.option} ({p_in_words(i.p)})" for i in interactions)
    return f"That what one does depends on the other can't be told of {pairs}."


def _whole(a: Sequence[str], b: Sequence[str]) -> bool:
    return len(set(zip(a, b, strict=True))) == len(set(a)) * len(set(b))


def _levels(values: Sequence[object]) -> np.ndarray:
    """Returns a column for each level but the first."""
    levels = list(dict.fromkeys(values))
    return np.array([[float(value == level) for level in levels[1:]] for value in values])


def _products(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    return np.asarray((a[:, :, None] * b[:, None, :]).reshape(len(a), -1))


def basis_of(parts: Sequence[np.ndarray]) -> np.ndarray:
    """Returns an orthonormal basis of the columns of all parts, each n × k."""
    from scipy.linalg import orth

    return np.asarray(orth(np.column_stack(parts), rcond=NOTHING_LEFT))


def _rest(y: np.ndarray, basis: np.ndarray) -> tuple[float, int]:
    """Returns the sum of squares that a basis leaves, and its degrees of freedom."""
    return float(((y - basis @ (basis.T @ y)) ** 2).sum()), len(y) - basis.shape[1]


def _f_test(y: np.ndarray, full: np.ndarray, reduced: np.ndarray, variance: float, left: int) -> float | None:
    from scipy.stats import f

    more = full.shape[1] - reduced.shape[1]
    if not more:
        return None
    gained = _rest(y, reduced)[0] - _rest(y, full)[0]
    return float(f.sf(gained / more / variance, more, left))


def _in_words(table: Table, a: Factor, b: Factor) -> str:
    """Returns the two values whose difference changes most, and where it is the largest and the smallest."""
    sums: dict[tuple[str, str], list[float]] = {}
    for c in table.configurations:
        pair = c.values[a.place], c.values[b.place]
        sums.setdefault(pair, []).extend(run.metrics[table.metric] for run in c.runs.values())
    means = {pair: sum(values) / len(values) for pair, values in sums.items()}
    values_a, values_b = (sorted({pair[side] for pair in means}) for side in (0, 1))

    found, b_name = [], table.names[b.place]
    for one, other in itertools.combinations(values_a, 2):
        differences = {at: means[one, at] - means[other, at] for at in values_b}
        high, low = max(differences, key=differences.__getitem__), min(differences, key=differences.__getitem__)
        extremes = [f"{_signed(differences[at], table.unit)} at {value_in_words(b_name, at)}" for at in (high, low)]
        names = [value_in_words(table.names[a.place], value) for value in (one, other)]
        sentence = f"{' − '.join(names)} is {', but '.join(extremes)}"
        found.append((differences[high] - differences[low], sentence))
    return max(found, key=lambda entry: entry[0])[1]


def _signed(difference: float, unit: str) -> str:
    return ("−" if difference < 0 else "+") + size_in_words(abs(difference), None, unit)
