"""How sure a difference between runs is: means over seeds, paired comparisons, many of them at once.

Runs of one seed share their initial weights' and their batches' random numbers, so a difference is taken seed by seed
where that can be done: what a seed does to both runs drops out (Bouthillier et al., "Accounting for Variance in Machine
Learning Benchmarks", MLSys 2021). All runs are judged on the same images: an interval speaks of other seeds, not of
other images.
"""

import math
import statistics
import warnings
from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

Key = TypeVar("Key", bound=Hashable)

CONFIDENCE = 0.95
# Differences that agree to this share of the values are equal: the rest is rounding of binary fractions.
ROUNDING = 1e-9


@dataclass(frozen=True)
class Summary:
    """Several runs of one configuration.

    Attributes:
        mean: their mean.
        std: the sample's standard deviation (divided by n - 1); None for one run.
        n: how many.
    """

    mean: float
    std: float | None
    n: int


@dataclass(frozen=True)
class Comparison:
    """A difference between two configurations a and b.

    Attributes:
        difference: mean of a minus mean of b, in the metric's own unit (accuracies: fractions, not points).
        half_width: of the 95 % interval around the difference; None where it can't be had (n = 1), 0 where all
            differences are the same.
        p: two-sided, Student's paired t or Welch's; 1 where all differences are zero; None for n = 1, and where all
            differences are the same but not zero: a spread of zero says that runs are few or accuracies coarse, not
            that chance had no part, and the test would divide by it.
        n: pairs, or the smaller group's size.
        paired: whether the difference was taken pair by pair.
    """

    difference: float
    half_width: float | None
    p: float | None
    n: int
    paired: bool


def summarize(values: Iterable[float]) -> Summary:
    """Returns mean, standard deviation and number.

    Raises:
        ValueError: there is no value, or one that is not finite.
    """
    found = _checked(values)
    std = statistics.stdev(found) if len(found) > 1 else None
    return Summary(statistics.mean(found), std, len(found))


def compare(a: Mapping[Key, float], b: Mapping[Key, float]) -> Comparison:
    """Compares two groups of runs.

    Where at least two keys are common the pairs alone count: Student's paired t-test (Biometrika 6, 1908). Otherwise
    Welch's test, which does not take the groups' spreads to be equal (Biometrika 34, 1947). It wants two runs on either
    side: with fewer a single common key is the fairest comparison that there is, though without a test.

    Args:
        a: a value for each key: the seed, or the seed with everything else that both runs have in common.
        b: the same for the other group.

    Raises:
        ValueError: a group is empty, or a value is not finite.
    """
    common = [key for key in a if key in b]
    if len(common) >= 2 or (common and min(len(a), len(b)) == 1):
        return _tested(_checked(a[key] for key in common), _checked(b[key] for key in common), paired=True)
    return _tested(_checked(a.values()), _checked(b.values()), paired=False)


def p_of_another(ours: Summary, value: float) -> float | None:
    """Returns how likely one more run would lie at least as far from the mean of ours as a value does.

    Student's t of a prediction interval: that one run differs from our mean for its own chance and for our mean's.

    Args:
        ours: runs of one configuration.
        value: somebody's single run.

    Returns:
        two-sided p on n - 1 degrees of freedom; None where ours have no spread to judge by.
    """
    from scipy.stats import t

    if not ours.std:
        return None
    distance = abs(value - ours.mean) / (ours.std * math.sqrt(1 + 1 / ours.n))
    return float(2 * t.sf(distance, ours.n - 1))


def holm(p_values: Sequence[float | None], tests: int = 0) -> list[float | None]:
    """Corrects p values for their number, so that the chance of any false alarm among them stays below 5 %.

    Holm's step-down method (Scandinavian Journal of Statistics 6, 1979): as safe as Bonferroni's, and it finds more.
    It holds for comparisons that were chosen without a look at the results. Where some were picked by them, as those of
    the best value are, all from which they were picked count.

    Args:
        p_values: of all comparisons that are read together; None for one without a test, which does not count.
        tests: how many they were picked from, if from more; the others are taken to have larger p values, which is the
            safe side.

    Returns:
        The corrected values in the same order, at most 1.
    """
    order = sorted((p, place) for place, p in enumerate(p_values) if p is not None)
    corrected: list[float | None] = [None] * len(p_values)
    count, largest = max(tests, len(order)), 0.0
    for rank, (p, place) in enumerate(order):
        largest = max(largest, min(1.0, (count - rank) * p))
        corrected[place] = largest
    return corrected


def _tested(a: list[float], b: list[float], *, paired: bool) -> Comparison:
    from scipy.stats import ttest_ind, ttest_rel

    n, largest = min(len(a), len(b)), max(map(abs, a + b))
    if paired:
        differences = [x - y for x, y in zip(a, b, strict=True)]
        mean, spread = math.fsum(differences) / n, max(differences) - min(differences)
    else:
        mean = math.fsum(a) / len(a) - math.fsum(b) / len(b)
        spread = max(max(a) - min(a), max(b) - min(b))
    if n < 2:
        return Comparison(mean, None, None, n, paired)
    if spread <= ROUNDING * largest:
        equal = abs(mean) <= ROUNDING * largest
        return Comparison(0.0 if equal else mean, 0.0, 1.0 if equal else None, n, paired)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # one group may have no spread; Welch's test can do with that
        test = ttest_rel(a, b) if paired else ttest_ind(a, b, equal_var=False)
    interval = test.confidence_interval(CONFIDENCE)
    return Comparison(mean, float(interval.high - interval.low) / 2, float(test.pvalue), n, paired)


def _checked(values: Iterable[float]) -> list[float]:
    found = [float(value) for value in values]
    if not found:
        raise ValueError("no values: at least one is needed")
    if wrong := [value for value in found if not math.isfinite(value)]:
        raise ValueError(f"{wrong[0]} among the values: they must be finite; leave such runs out and say so")
    return found
