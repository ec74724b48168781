"""What a fit says of a hyperparameter, given its coefficients."""

from types import SimpleNamespace

import numpy as np
import pytest

from cifar_tuning.reporting.shapes import Fit, Term, shape_in_words

X = np.linspace(-3.0, 1.0, 9)
Z = (X - X.mean()) / X.std()


def table(maximize=True):
    return SimpleNamespace(metric="m", maximize=maximize, unit="points", names=["optimizer.lr"])


def fitted(*coefficients, error=1e-3):
    return Fit(np.array(coefficients), np.eye(len(coefficients)) * error**2, 10)


INSIDE = "inside the range that was tried (0.001 to 10); the fit spans 24.0 points there"
BOTH = "and better at both ends of what was tried (0.001 to 10); the fit spans 24.0 points there"


@pytest.mark.parametrize(
    ("line", "square", "maximize", "error", "said"),
    [
        (0.0, -0.1, True, 1e-3, f"`m` is highest near 0.1, {INSIDE}"),
        (0.0, 0.1, False, 1e-3, f"`m` is lowest near 0.1, {INSIDE}"),
        (0.0, 0.1, True, 1e-3, f"`m` is lowest near 0.1, {BOTH}"),
        (0.0, -0.1, False, 1e-3, f"`m` is highest near 0.1, {BOTH}"),
        # A parabola that may be none has no best value.
        (0.05, -0.1, True, 1.0, "a larger lr goes with a higher `m`; best at the upper end of what was tried"),
        # Its top is outside, or so near an end that it is that end.
        (0.5, -0.1, True, 1e-3, "a larger lr goes with a higher `m`; best at the upper end"),
        (0.3, -0.1, True, 1e-3, "a larger lr goes with a higher `m`; best at the upper end"),
        (0.3, 0.0, True, 1e-3, "a larger lr goes with a higher `m`; best at the upper end"),
        (0.3, 0.0, False, 1e-3, "a larger lr goes with a higher `m`; best at the lower end"),
        (-0.3, 0.0, True, 1e-3, "a larger lr goes with a lower `m`; best at the lower end"),
        (-0.3, 0.0, False, 1e-3, "a larger lr goes with a lower `m`; best at the upper end"),
    ],
)
def test_a_number(line, square, maximize, error, said):
    term = Term(0, np.column_stack([Z, Z**2 - 1]), np.ones(9, bool), x=X, logarithmic=True, curved=True)
    assert shape_in_words(table(maximize), term, fitted(line, square, error=error), True).startswith(said)
    without = shape_in_words(table(maximize), term, fitted(line, square, error=error), False)
    assert "points" not in without  # ranks have no sizes


@pytest.mark.parametrize(
    ("coefficients", "maximize", "of_values", "said"),
    [
        ([0.02], True, True, "with b `m` is 2.0 ± 0.2 points higher than with a"),
        ([-0.02], True, True, "with a `m` is 2.0 ± 0.2 points higher than with b"),
        ([0.02], False, True, "with a `m` is 2.0 ± 0.2 points lower than with b"),
        ([0.02, 0.05], True, True, "`m` is highest with c, before b (3.0 points behind), a (5.0 points behind)"),
        ([0.02, 0.05], False, True, "`m` is lowest with a, before b (2.0 points behind), c (5.0 points behind)"),
        ([0.02, 0.05], True, False, "`m` is higher with c than with b or a"),
        ([0.02, 0.05], False, False, "`m` is lower with a than with b or c"),
    ],
)
def test_a_choice(coefficients, maximize, of_values, said):
    term = Term(0, np.zeros((9, len(coefficients))), np.ones(9, bool), ["a", "b", "c"][: len(coefficients) + 1])
    assert shape_in_words(table(maximize), term, fitted(*coefficients), of_values) == said
