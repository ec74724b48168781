"""Figures and differences in words, which say no more than is known."""

import math

from cifar_tuning.reporting.statistics import CONFIDENCE, Comparison, Summary

# From here on four decimals would be more than anybody reads.
LARGE = 100
# From here on digits are not counted at a glance.
HUGE = 1e15


def in_words(
    a_name: str,
    b_name: str,
    comparison: Comparison,
    p: float | None = None,
    unit: str = "points",
    maximize: bool = True,
    quantity: str = "",
) -> str:
    """Returns a comparison as a sentence.

    Args:
        a_name: the first group.
        b_name: the second.
        comparison: of the first with the second.
        p: the corrected p value; None takes the comparison's own.
        unit: `points` shows a difference of fractions in percentage points; any other word, also none, shows it as
            it is.
        maximize: whether more is better.
        quantity: what is compared, where more of it is no success: it is `larger`, and nobody `beats` anybody.
    """
    p = comparison.p if p is None else p
    if (comparison.difference < 0) is maximize:
        a_name, b_name = b_name, a_name
    difference, half = abs(comparison.difference), comparison.half_width
    beats, leads = ("beats", "is ahead of") if not quantity else (f"has a larger {quantity} than",) * 2
    of_it = f" in {quantity}" if quantity else ""
    size, n = size_in_words(difference, half, unit), f"n = {comparison.n}"
    if half is None and difference == 0:
        return f"{a_name} and {b_name} do not differ{of_it} in a single comparison ({n})"
    if half is None:
        return f"{a_name} {leads} {b_name} by {size} in a single comparison, which may be chance ({n})"
    if half == 0 and difference == 0:
        return f"{a_name} and {b_name} do not differ{of_it} at all ({n})"
    if half == 0:
        which = "every pair" if comparison.paired else "every run"
        return f"{a_name} {leads} {b_name} by {size} in {which}; without a spread there is no test ({n})"
    if difference <= half:
        return f"no difference{of_it} between {a_name} and {b_name} can be told: {size}, {p_in_words(p)}, {n}"
    if p is not None and p >= 1 - CONFIDENCE:
        facts = f"{size} ({p_in_words(p)}, {n})"
        return f"{a_name} {leads} {b_name} by {facts}, which may be chance among so many tests"
    return f"{a_name} {beats} {b_name} by {size} ({p_in_words(p)}, {n})"


def mean_and_std(summary: Summary) -> str:
    """Returns `0.7056 ± 0.0072`, or the mean alone of a single run."""
    if summary.std is None:
        return number(summary.mean)
    if max(abs(summary.mean), summary.std) >= HUGE:
        return f"{summary.mean:.4g} ± {summary.std:.4g}"
    if abs(summary.mean) >= LARGE:
        # To the place of the spread's second digit.
        decimals = max(0, 1 - math.floor(math.log10(summary.std))) if summary.std else 0
        return f"{summary.mean:,.{min(4, decimals)}f} ± {summary.std:,.{min(4, decimals)}f}"
    return f"{number(summary.mean)} ± {number(summary.std, beside=summary.mean)}"


def number(value: float, beside: float | None = None) -> str:
    """Returns a metric's value with four decimals, whole, or with four digits that count, by how large it is.

    Args:
        value: to be shown.
        beside: the value whose spread it is, which says whether it is small.
    """
    if 0 < abs(value if beside is None else beside) < 0.01:
        return f"{value:.4g}"
    if abs(value) < LARGE:
        return f"{value:.4f}"
    return f"{value:,.0f}" if 9999.5 <= abs(value) < HUGE else f"{value:,.4g}"  # which writes 9,999.5 as 1e+04


def signed(value: float, form: str) -> str:
    """Returns a number in a format of Python's, with a minus sign that is as wide as a plus."""
    return f"{value:{form}}".replace("-", "−", value < 0)


def p_in_words(p: float | None) -> str:
    """Returns `p = 0.01`, with two digits that count."""
    if p is None:
        return "no test"
    return "p < 0.001" if p < 0.001 else f"p = {p:.2g}"


def size_in_words(difference: float, half: float | None, unit: str) -> str:
    """Returns `0.9 ± 0.4 points`, with as many decimals as the interval has to tell.

    Of an interval that is wider than the scale no figure is given: accuracies can't differ by more than 100 points.

    Args:
        difference: in the metric's own unit, not negative.
        half: the interval's half width, if it has one.
        unit: `points` shows fractions in percentage points.
    """
    scale = 100 if unit == "points" else 1
    if unit == "points" and half is not None and half > 1:
        return f"{difference * scale:.0f} ± over 100 points"
    leading = (half or difference) * scale
    if unit == "points":
        decimals = 1 if leading >= 0.1 else 2
    else:
        decimals = min(6, max(0, 1 - math.floor(math.log10(leading)))) if leading > 0 else 0
    form = f".{decimals}f" if max(difference, half or 0) < HUGE else ".3g"
    numbers = f"{difference * scale:{form}}" + (f" ± {half * scale:{form}}" if half else "")
    return f"{numbers} {unit}".strip()
