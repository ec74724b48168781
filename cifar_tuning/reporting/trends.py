"""Rank correlation of a metric with a number that was drawn from a range, over configurations."""

import math
from dataclasses import dataclass

import numpy as np

from cifar_tuning.reporting.factors import FEWEST_FOR_TREND
from cifar_tuning.reporting.statistics import CONFIDENCE
from cifar_tuning.reporting.table import Table
from cifar_tuning.reporting.varying import MISSING, as_number
from cifar_tuning.reporting.wording import p_in_words, signed

# Permutations of a test; the smallest possible p value is one over them.
PERMUTATIONS = 9999
PEAK = "with so few, a best value in between was not looked for"
# Length of a vector of ranks, per configuration, that is a rounding error.
NOTHING_LEFT = 1e-9


@dataclass(frozen=True)
class Trend:
    """How the metric goes with a hyperparameter whose values were drawn from a range.

    Attributes:
        option: the hyperparameter.
        rho: Spearman's rank correlation with the metric, a study's partial, see `find_trend`.
        low: lower end of its 95 % interval.
        high: upper end.
        n: configurations that have the hyperparameter.
        p: corrected for the number of comparisons in the report.
        text: the result as a sentence.
    """

    option: str
    rho: float
    low: float
    high: float
    n: int
    p: float | None = None
    text: str = ""


def find_trend(table: Table, place: int, of_study: bool = False) -> Trend | None:
    """Returns the trend of a configuration's mean with its value of a hyperparameter; None where there are too few.

    What a study's sampler learns makes later trials better, and draws all hyperparameters ever closer to the best
    trials' values: those that have no influence seem to go with the metric. So a study's correlation is partial, the
    order in which the configurations began held constant. The p value is that of permutations, because Student's
    distribution is far off where a few configurations happen to be in order.

    Args:
        table: the configurations.
        place: the hyperparameter's in the table's names.
        of_study: whether a sampler chose them; a grid's order is that of its values.
    """
    from scipy.stats import norm, rankdata

    there = [c for c in table.configurations if c.values[place] != MISSING]
    numbers = [as_number(c.values[place]) for c in there]
    metrics = [c.summary.mean for c in there]
    begun = [c.began for c in there]
    n = len(there)
    if n < FEWEST_FOR_TREND or len(set(metrics)) < 2:
        return None
    ranks = [rankdata(column) for column in (numbers, metrics, begun)]
    known = 1 if of_study and len(set(begun)) > 1 else 0
    x, y = (_without(column, ranks[2]) if known else column - column.mean() for column in ranks[:2])
    if min(np.linalg.norm(x), np.linalg.norm(y)) < NOTHING_LEFT * n:  # it rose or fell from trial to trial
        return None
    x, y = x / np.linalg.norm(x), y / np.linalg.norm(y)
    rho = float(x @ y)
    # Bonett and Wright, Psychometrika 65 (2000): the standard error of Fisher's z of a rank correlation. A variable
    # that is held constant costs a degree of freedom.
    z, error = math.atanh(max(-0.9999, min(0.9999, rho))), math.sqrt((1 + rho**2 / 2) / (n - 3 - known))
    width = float(norm.ppf((1 + CONFIDENCE) / 2)) * error
    low, high = min(rho, math.tanh(z - width)), max(rho, math.tanh(z + width))
    generator = np.random.default_rng(0)
    shuffled = generator.permuted(np.tile(x, (PERMUTATIONS, 1)), axis=1) @ y
    as_far = int((np.abs(shuffled) >= abs(rho) - 1e-12).sum())
    return Trend(table.names[place], rho, low, high, n, (as_far + 1) / (PERMUTATIONS + 1))


def _without(ranks: np.ndarray, order: np.ndarray) -> np.ndarray:
    """Returns what is left of ranks, mean 0, when the straight line over others is taken away."""
    centred, line = ranks - ranks.mean(), order - order.mean()
    left: np.ndarray = centred - (centred @ line) / (line @ line) * line
    return left


def trend_in_words(trend: Trend, p: float | None, metric: str) -> str:
    """Returns a trend of a metric as a sentence, given its corrected p value."""
    rho, low, high = (signed(value, "+.2f") for value in (trend.rho, trend.low, trend.high))
    facts = f"rank correlation {rho}, {low} to {high}, {p_in_words(p)}, n = {trend.n}"
    if trend.low <= 0 <= trend.high:
        return f"No rising or falling trend of {metric} with {trend.option} can be told ({facts}); {PEAK}."
    way = "higher" if (trend.rho > 0) else "lower"
    doubt = ", which may be chance among so many tests" if p is not None and p >= 1 - CONFIDENCE else ""
    return f"A larger {trend.option} goes with a {way} {metric} ({facts}){doubt}; {PEAK}."
