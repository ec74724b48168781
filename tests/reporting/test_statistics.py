"""Means, paired and unpaired comparisons, Holm's correction, and what is said of them."""

import math

import pytest

from cifar_tuning.reporting.statistics import Comparison, Summary, compare, holm, p_of_another, summarize
from cifar_tuning.reporting.wording import in_words

SLEEP_A = [0.7, -1.6, -0.2, -1.2, -0.1, 3.4, 3.7, 0.8, 0.0, 2.0]
SLEEP_B = [1.9, 0.8, 1.1, 0.1, -0.1, 4.4, 5.5, 1.6, 4.6, 3.4]


@pytest.mark.parametrize(
    ("values", "expected"),
    [([0.5], Summary(0.5, None, 1)), ([1, 2, 3], Summary(2.0, 1.0, 3)), ([0.1] * 3, Summary(0.1, 0.0, 3))],
)
def test_summarize(values, expected):
    assert summarize(values) == expected


@pytest.mark.parametrize("values", [[], [0.5, math.nan], [math.inf]])
def test_summarize_refuses(values):
    with pytest.raises(ValueError, match="values"):
        summarize(values)


def test_students_own_example_paired():
    """The sleep data of Student's paper, as R's t.test(paired = TRUE) gives it: t = -4.0621, p = 0.002833."""
    result = compare(dict(enumerate(SLEEP_A)), dict(enumerate(SLEEP_B)))
    assert result.paired
    assert result.n == 10
    assert result.difference == pytest.approx(-1.58)
    assert result.p == pytest.approx(0.002833, abs=1e-6)
    assert result.difference + result.half_width == pytest.approx(-0.7001142, abs=1e-6)


def test_students_own_example_unpaired():
    """The same by R's t.test: p = 0.07939, from -3.3654832 to 0.2054832."""
    result = compare(dict(enumerate(SLEEP_A)), {10 + key: value for key, value in enumerate(SLEEP_B)})
    assert not result.paired
    assert result.p == pytest.approx(0.07939, abs=1e-5)
    assert result.difference + result.half_width == pytest.approx(0.2054832, abs=1e-6)


def test_one_group_without_spread(recwarn):
    result = compare({0: 1.0, 1: 1.0}, {2: 0.5, 3: 0.6})
    assert result.p == pytest.approx(0.0704, abs=1e-4)
    assert not recwarn.list


def test_one_pair_among_several_runs_is_no_reason_to_forgo_a_test():
    result = compare({0: 0.7, 1: 0.72, 2: 0.71}, {2: 0.6, 3: 0.61})
    assert (result.n, result.paired) == (2, False)
    assert result.p is not None


def test_only_the_pairs_count():
    result = compare({0: 0.7, 1: 0.72, 2: 0.1}, {1: 0.7, 0: 0.69, 5: 0.9})
    assert (result.n, result.paired) == (2, True)
    assert result.difference == pytest.approx(0.015)


@pytest.mark.parametrize(
    ("a", "b", "expected"),
    [
        # A single pair is compared with itself, not with what else one side has.
        ({0: 0.7}, {0: 0.6}, (0.1, None, None, 1, True)),
        ({0: 0.7, 1: 0.8}, {0: 0.6}, (0.1, None, None, 1, True)),
        ({2: 0.7, 1: 0.8}, {0: 0.6}, (0.15, None, None, 1, False)),
        ({0: 0.1, 1: 0.1}, {0: 0.1, 1: 0.1}, (0.0, 0.0, 1.0, 2, True)),
        # Differences equal but for rounding: 0.3 - 0.2 is not 0.2 - 0.1 in binary.
        ({0: 0.3, 1: 0.2}, {0: 0.2, 1: 0.1}, (0.1, 0.0, None, 2, True)),
        ({0: 0.3, 1: 0.3}, {2: 0.1, 3: 0.1}, (0.2, 0.0, None, 2, False)),
        ({0: 0.0, 1: 0.0}, {2: 0.0, 3: 0.0}, (0.0, 0.0, 1.0, 2, False)),
    ],
)
def test_no_test_where_there_is_no_spread(a, b, expected):
    result = compare(a, b)
    assert (result.difference, result.half_width, result.p, result.n, result.paired) == (
        pytest.approx(expected[0]),
        *expected[1:],
    )


def test_another_run_is_less_certain_than_the_mean():
    # By hand: t = 3 / sqrt(1 + 1/4) = 2.683 on 3 degrees of freedom.
    assert p_of_another(Summary(0.5, 0.01, 4), 0.53) == pytest.approx(0.0749, abs=1e-4)
    assert p_of_another(Summary(0.5, 0.01, 4), 0.47) == pytest.approx(0.0749, abs=1e-4)
    assert p_of_another(Summary(0.5, None, 1), 0.6) is None
    assert p_of_another(Summary(0.5, 0.0, 3), 0.6) is None


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ([], []),
        ([0.03], [0.03]),
        ([0.01, 0.04, 0.03, 0.005], [0.03, 0.06, 0.06, 0.02]),  # Wikipedia's and R's p.adjust example
        ([None, 0.01, None, 0.04], [None, 0.02, None, 0.04]),
        ([0.9, 0.8], [1.0, 1.0]),
    ],
)
def test_holm(given, expected):
    assert holm(given) == pytest.approx(expected)


def test_holm_counts_what_the_shown_ones_were_picked_from():
    assert holm([0.01, None, 0.002], tests=6) == pytest.approx([0.05, None, 0.012])
    assert holm([0.01, 0.002], tests=1) == pytest.approx([0.01, 0.004])


@pytest.mark.parametrize(
    ("comparison", "options", "expected"),
    [
        (Comparison(0.009, 0.004, 0.01, 5, True), {}, "Swish beats ReLU by 0.9 ± 0.4 points (p = 0.01, n = 5)"),
        (Comparison(-0.009, 0.004, 1e-5, 5, True), {}, "ReLU beats Swish by 0.9 ± 0.4 points (p < 0.001, n = 5)"),
        (
            Comparison(0.001, 0.004, 0.6, 5, True),
            {},
            "no difference between Swish and ReLU can be told: 0.1 ± 0.4 points, p = 0.6, n = 5",
        ),
        (
            Comparison(0.266, 2.297, 0.38, 2, False),
            {},
            "no difference between Swish and ReLU can be told: 27 ± over 100 points, p = 0.38, n = 2",
        ),
        (
            Comparison(0.009, 0.008, 0.03, 5, True),
            {"p": 0.12},
            "Swish is ahead of ReLU by 0.9 ± 0.8 points (p = 0.12, n = 5), which may be chance among so many tests",
        ),
        (
            Comparison(0.009, None, None, 1, False),
            {},
            "Swish is ahead of ReLU by 0.9 points in a single comparison, which may be chance (n = 1)",
        ),
        (Comparison(0.0, 0.0, 1.0, 3, True), {}, "Swish and ReLU do not differ at all (n = 3)"),
        (Comparison(0.0, None, None, 1, False), {}, "Swish and ReLU do not differ in a single comparison (n = 1)"),
        (
            Comparison(0.002, 0.0, None, 3, True),
            {},
            "Swish is ahead of ReLU by 0.2 points in every pair; without a spread there is no test (n = 3)",
        ),
        (
            Comparison(-0.03, 0.01, 0.01, 5, True),
            {"quantity": "gap"},
            "ReLU has a larger gap than Swish by 3.0 ± 1.0 points (p = 0.01, n = 5)",
        ),
        (
            Comparison(0.03, 0.04, 0.2, 5, True),
            {"quantity": "gap"},
            "no difference in gap between Swish and ReLU can be told: 3.0 ± 4.0 points, p = 0.2, n = 5",
        ),
        (Comparison(0.0009, 0.0004, 0.01, 5, True), {}, "Swish beats ReLU by 0.09 ± 0.04 points (p = 0.01, n = 5)"),
        (
            Comparison(-0.123, 0.0456, 0.01, 5, True),
            {"unit": "", "maximize": False},
            "Swish beats ReLU by 0.123 ± 0.046 (p = 0.01, n = 5)",
        ),
        (
            Comparison(1234.5, 222.0, 0.01, 5, True),
            {"unit": "images/s"},
            "Swish beats ReLU by 1234 ± 222 images/s (p = 0.01, n = 5)",
        ),
        (
            Comparison(1.005e30, 6.35e28, 0.01, 5, True),
            {"unit": ""},
            "Swish beats ReLU by 1.01e+30 ± 6.35e+28 (p = 0.01, n = 5)",
        ),
    ],
)
def test_in_words(comparison, options, expected):
    assert in_words("Swish", "ReLU", comparison, **options) == expected
