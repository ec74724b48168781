"""How a metric goes with a number that was drawn from a range: a rank correlation over configurations."""

import math
from dataclasses import dataclass

from cifar_tuning.reporting.factors import FEWEST_FOR_TREND
from cifar_tuning.reporting.statistics import CONFIDENCE, p_in_words
from cifar_tuning.reporting.table import Table
from cifar_tuning.reporting.varying import MISSING, as_number


@dataclass(frozen=True)
class Trend:
    """How the metric goes with a hyperparameter whose values were drawn from a range.

    Attributes:
        option: the hyperparameter.
        rho: Spearman's rank correlation with the metric.
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


def find_trend(table: Table, place: int) -> Trend | None:
    """Returns the trend of a configuration's mean with its value of a hyperparameter; None where there are too few."""
    from scipy.stats import norm, spearmanr

    found = [(as_number(c.values[place]), c.summary.mean) for c in table.configurations if c.values[place] != MISSING]
    numbers, metrics = [number for number, _ in found], [metric for _, metric in found]
    n = len(found)
    if n < FEWEST_FOR_TREND or len(set(metrics)) < 2:
        return None
    result = spearmanr(numbers, metrics)
    rho = float(result.statistic)
    # Bonett and Wright, Psychometrika 65 (2000): the standard error of Fisher's z of a rank correlation.
    z, error = math.atanh(max(-0.9999, min(0.9999, rho))), math.sqrt((1 + rho**2 / 2) / (n - 3))
    width = float(norm.ppf((1 + CONFIDENCE) / 2)) * error
    low, high = min(rho, math.tanh(z - width)), max(rho, math.tanh(z + width))
    return Trend(table.names[place], rho, low, high, n, float(result.pvalue))


def trend_in_words(trend: Trend, p: float | None, metric: str) -> str:
    """Returns a trend as a sentence.

    Args:
        trend: the trend.
        p: its corrected p value.
        metric: what goes with the hyperparameter.
    """
    facts = f"rank correlation {trend.rho:+.2f}, {trend.low:+.2f} to {trend.high:+.2f}, {p_in_words(p)}, n = {trend.n}"
    if trend.low <= 0 <= trend.high:
        return f"No rising or falling trend of {metric} with {trend.option} can be told ({facts})."
    way = "higher" if (trend.rho > 0) else "lower"
    doubt = ", which may be chance among so many tests" if p is not None and p >= 1 - CONFIDENCE else ""
    return f"A larger {trend.option} goes with a {way} {metric} ({facts}){doubt}."
