"""One rule says which of a sweep's jobs is the best."""

import math
from types import SimpleNamespace

import pytest

from cifar_tuning.ranking import BEST_ACCURACY, can_win, competes, merit, rank
from cifar_tuning.tracking import facts, sweeps


@pytest.mark.parametrize(
    ("jobs", "order"),
    [
        ({"0": ("complete", 0.5), "1": ("complete", 0.7)}, "10"),
        ({"0": ("killed", 0.9), "1": ("pruned", 0.8), "2": ("failed", 0.95), "3": ("diverged", 0.1)}, "3201"),
        ({"0": ("complete", None), "1": ("killed", 0.9), "2": ("complete", 0.1)}, "201"),
        # Losses, as their merit.
        ({"0": ("complete", -0.5), "1": ("complete", -0.2), "2": ("complete", None)}, "102"),
        ({"10": ("complete", 0.5), "9": ("complete", 0.5), "lr=1": ("complete", 0.5)}, ["9", "10", "lr=1"]),
    ],
)
def test_the_best_first(jobs, order):
    assert sorted(jobs, key=lambda job: rank(*jobs[job], job)) == list(order)


@pytest.mark.parametrize(
    ("state", "value", "expected"),
    [("complete", 0.0, True), ("diverged", 0.1, True), ("killed", 0.9, False), ("complete", None, False)],
)
def test_who_competes(state, value, expected):
    assert competes(state, value) == expected


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        ("val/acc_best", 0.7, 0.7),
        ("val/loss", 0.7, -0.7),
        ("epoch_seconds", 2.0, -2.0),
        ("images_per_second", 2.0, 2.0),
        ("model/macs", None, None),
        ("val/acc", None, None),
    ],
)
def test_the_merit_is_largest_where_a_figure_is_best(name, value, expected):
    assert merit(name, value) == expected


@pytest.mark.parametrize(
    ("values", "violations", "expected"),
    [
        ([0.5], [], True),
        ([0.5, -3.0], [0.0, -1.0], True),
        ([0.5], [-1.0, 1e-9], False),
        ([math.inf], [], False),
        ([0.5, -math.inf], [], False),
        ([0.5, math.nan], [], False),
        ([None, 0.5], [], False),
        ([], [], False),
        (None, [], False),
    ],
)
def test_what_can_win_a_study(values, violations, expected):
    assert can_win(values, violations) is expected


def test_mlflow_has_the_same_best():
    """Whatever the order in which it lists the runs."""
    ends = [("killed", 0.9, "0"), ("complete", 0.5, "10"), ("complete", 0.5, "9"), ("failed", None, "1")]
    runs = [
        SimpleNamespace(
            data=SimpleNamespace(
                tags={facts.STATE: state, facts.JOB_NUM: job},
                metrics={} if value is None else {BEST_ACCURACY: value},
                params={},
            )
        )
        for state, value, job in ends
    ]
    for children in (runs, runs[::-1]):
        assert sweeps.best_of(children).data.tags[facts.JOB_NUM] == "9"
    assert sweeps.best_of([runs[0], runs[3]]) is None


def test_of_two_runs_of_a_trial_the_one_that_ended_is_meant():
    """It was interrupted, and then repeated with several seeds; or it is of a study whose database was lost."""
    killed, earlier, ended, other = (
        SimpleNamespace(
            data=SimpleNamespace(tags={facts.STATE: state, facts.JOB_NUM: job}), info=SimpleNamespace(start_time=start)
        )
        for start, (state, job) in enumerate((("killed", "3"), ("complete", "3"), ("complete", "3"), ("complete", "4")))
    )
    for children in ([killed, earlier, ended, other], [other, ended, earlier, killed]):
        assert sweeps.of_number(children, 3) is ended
    assert sweeps.of_number([killed, other], 3) is killed
    assert sweeps.of_number([other], 3) is None
