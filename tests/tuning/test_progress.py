"""How far a study is, in words and figures."""

import itertools

import optuna
import pytest

from cifar_tuning.reporting.study import best_values
from cifar_tuning.tracking.sweeps import winner
from cifar_tuning.tuning import progress
from cifar_tuning.tuning.progress import StudyProgress
from tests.tuning.watching import COMPLETE, FAIL, INF, NAN, PRUNED, RUNNING, make, watched


@pytest.mark.parametrize(
    ("values", "width", "drawn"),
    [
        ([], 5, ""),
        ([0, 1, 2, 3, 4, 5, 6, 7], 8, "▁▂▃▄▅▆▇█"),
        ([7, 0], 8, "█▁"),
        ([0.3, 0.3], 8, "▄▄"),
        ([0.0, NAN, None, INF, 1.0], 8, "▁···█"),
        ([NAN, -INF], 8, "··"),
        ([-1.7e308, 1.7e308], 8, "▄▄"),
        ([0, 5e-324], 8, "▁█"),
        (list(range(100)), 4, "▁▃▆█"),
        ([*[0.0] * 99, 1.0], 4, "▁▁▁█"),  # the last value is always there
    ],
)
def test_a_sparkline_spans_the_finite_values_and_ends_with_the_last(values, width, drawn):
    assert progress.sparkline(values, width) == drawn


@pytest.mark.parametrize(
    ("remaining", "ended", "elapsed", "limit", "seconds"),
    [
        (30, 10, 100.0, None, 300.0),
        (30, 0, 100.0, None, None),
        (30, 0, 100.0, 50.0, None),
        (30, 10, 100.0, 50.0, 50.0),
        (30, 10, 100.0, 500.0, 300.0),
        (30, 10, 100.0, -5.0, 0.0),
        (30, 10, 0.0, None, None),
        (30, 10, -3.0, None, None),  # the clock was set back
        (0, 0, 100.0, None, 0.0),
        (-2, 5, 100.0, None, 0.0),
    ],
)
def test_the_time_left_follows_the_rate_of_ended_trials_up_to_the_limit(remaining, ended, elapsed, limit, seconds):
    assert progress.time_left(remaining, ended, elapsed, limit) == seconds


@pytest.mark.parametrize(
    ("step", "epochs", "text"),
    [
        (None, 15, "-"),
        (None, None, "-"),
        (0, 15, "0/15"),
        (3, 15, "3/15"),
        (15, 15, "15/15"),
        (16, 15, "1/15 (repeat 2)"),
        (30, 15, "15/15 (repeat 2)"),
        (31, 15, "1/15 (repeat 3)"),
        (31, None, "31"),
        (3, 0, "3"),
    ],
)
def test_an_epoch_never_exceeds_the_epochs(step, epochs, text):
    assert progress.epoch_text(step, epochs) == text


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, "-"),
        (0.721, "0.7210"),
        (0, "0.0000"),
        (-2.5, "-2.5000"),
        (0.00012345, "0.0001234"),
        (123456.0, "1.235e+05"),
        (NAN, "nan"),
        (INF, "inf"),
        (-INF, "-inf"),
    ],
)
def test_a_metric_is_readable_at_any_scale(value, text):
    assert progress.number(value) == text


@pytest.mark.parametrize(
    ("seconds", "text"), [(None, "?"), (0.0, "0 s"), (45.2, "45 s"), (720.0, "12 min"), (9000.0, "2.5 h")]
)
def test_a_duration_is_as_precise_as_an_estimate(seconds, text):
    assert progress.duration(seconds) == text


@pytest.mark.parametrize(
    ("params", "text"),
    [
        ({}, ""),
        ({"lr": 0.0123456, "batch": 16384}, "lr=0.01235 batch=16384"),
        ({"optimizer": "sgd", "nesterov": True, "decay": None}, "optimizer=sgd nesterov=True decay=None"),
        ({"layers": "[64,\n  128]"}, "layers=[64, 128]"),
        ({"a.lr": 1, "b.lr": 2, "b.c.d": 3}, "a.lr=1 b.lr=2 d=3"),
    ],
)
def test_parameters_fit_in_one_line(params, text):
    assert progress.parameters(make(0, params=params), progress.short_keys(params)) == text


@pytest.mark.parametrize("maximize", [True, False])
@pytest.mark.parametrize("values", [[0.2, 0.8, 0.8], [0.2, 0.1, 0.8], [0.2]])
@pytest.mark.parametrize("violations", [(), (-1.0, 1.0, 0.0)])
def test_the_best_trial_is_optunas(maximize, values, violations):
    study = optuna.create_study(direction="maximize" if maximize else "minimize")
    for trial in [make(0, PRUNED, steps=[0.9]), make(0, FAIL), make(0, RUNNING, steps=[0.1])]:
        study.add_trial(trial)
    for value, violation in itertools.zip_longest(values, violations[: len(values)]):
        trial = make(0, COMPLETE, [value])
        trial.system_attrs = {} if violation is None else {"constraints": [violation]}
        study.add_trial(trial)
    found = progress.best_trial(reversed(study.get_trials()), maximize)
    assert found is not None
    assert found.number == study.best_trial.number


@pytest.mark.parametrize("maximize", [True, False])
@pytest.mark.parametrize(
    ("values", "ends", "found"),
    [
        ([0.5, -INF, 0.4], (1, 2, 3), {True: 0, False: 2}),
        ([0.5, INF, 0.6], (1, 2, 3), {True: 2, False: 0}),
        ([0.5, 0.5, 0.5], (3, 1, 2), {True: 1, False: 1}),  # two at a time: the first that reached it
        ([INF, -INF], (1, 2), {True: None, False: None}),
    ],
)
def test_a_study_has_one_winner(maximize, values, ends, found):
    """The one that it shows and keeps is the one that its file names to `predict.py` and to MLflow."""
    study = optuna.create_study(direction="maximize" if maximize else "minimize")
    study.add_trials(make(0, COMPLETE, [value], ended=end) for value, end in zip(values, ends, strict=True))
    best = progress.best_trial(study.get_trials(), maximize)
    assert (None if best is None else best.number) == winner(best_values(study)) == found[maximize]


def test_what_has_no_value_or_violates_a_constraint_is_not_the_best():
    odd, violating = make(0, COMPLETE, [0.5]), make(1, COMPLETE, [0.5])
    odd.values = [NAN]
    violating.system_attrs = {"constraints": [1.0]}
    assert progress.best_trial([odd, violating, make(2, PRUNED, steps=[0.1])], maximize=True) is None


@pytest.mark.parametrize(
    ("trial", "text"),
    [
        (make(7, PRUNED, steps=[0.1, 0.2, 0.4512]), "trial 7 pruned after epoch 3 at 0.4512"),
        (make(7, PRUNED), "trial 7 pruned"),
        (make(7, PRUNED, steps=[0.1, NAN]), "trial 7 pruned after epoch 2 at nan"),
        (make(7, COMPLETE, [0.6], steps=[0.1]), "trial 7 complete after epoch 1 at 0.6000"),
        (make(7, COMPLETE, [0.6], steps={5: 0.1, 19: 0.2}), "trial 7 complete after epoch 4 (repeat 2) at 0.6000"),
        (make(7, PRUNED, steps={16: 0.1}, params={"trainer.epochs": 20}), "trial 7 pruned after epoch 16 at 0.1000"),
        (make(7, FAIL, steps=[0.1]), "trial 7 failed"),
        (make(7, FAIL, attrs={"state": "odd"}), "trial 7 failed"),
        (make(7, FAIL, attrs={"error": "ValueError: no\nTraceback"}), "trial 7 failed: ValueError: no"),
        (make(7, FAIL, attrs={"error": "x" * 200}), f"trial 7 failed: {'x' * 99}…"),
    ],
)
def test_a_line_says_how_a_trial_ended(trial, text):
    trials = [make(4, COMPLETE, [0.721]), trial]
    so_far = StudyProgress(trials, watched(n_trials=8), now=120.0)
    assert progress.line(trial, so_far) == f"{text}  (best 0.7210, trial 4)  2/8 ended, about 6 min left"


def test_the_last_line_of_a_study_has_no_time_left():
    trials = [make(0, FAIL), make(1, FAIL)]
    assert progress.line(trials[1], StudyProgress(trials, watched(n_trials=2), 60.0)) == "trial 1 failed  2/2 ended"
    assert progress.line(trials[1], StudyProgress(trials, watched(n_trials=1), 60.0)) == "trial 1 failed  2 ended"


def test_nothing_is_left_beyond_the_deadline():
    trials = [make(0, FAIL)]
    assert StudyProgress(trials, watched(deadline=100.0), 60.0).left == 40.0
    assert StudyProgress([], watched(deadline=100.0), 60.0).left is None
