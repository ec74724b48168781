"""How a trial ends, given what its jobs left in it or returned."""

import math

import numpy as np
import optuna
import pytest
from hydra.core.utils import JobReturn, JobStatus
from optuna.trial import TrialState

from cifar_tuning.errors import ConfigError
from cifar_tuning.tuning.endings import Endings, objective
from cifar_tuning.tuning.place import OVERRIDES, SAME_AS, TRAINED_BY
from cifar_tuning.tuning.storage import open_storage
from cifar_tuning.tuning.trial import Outcome, outcome_key

COMPLETE, PRUNED, FAIL, RUNNING = TrialState.COMPLETE, TrialState.PRUNED, TrialState.FAIL, TrialState.RUNNING


@pytest.fixture(scope="module")
def storage(tmp_path_factory):
    return open_storage(f"sqlite:///{tmp_path_factory.mktemp('study')}/optuna.db")


@pytest.fixture
def make(storage, tmp_path):
    """Makes what ends the trials of a new study, which has one in training."""

    def make(repeats=1, objectives=1):
        study = optuna.create_study(storage=storage, directions=["maximize"] * objectives)
        storage.create_new_trial(study._study_id)
        return Endings(study, storage, tmp_path, repeats, objectives)

    return make


def leave(endings, *ended):
    """Leaves outcomes in the trial, as its jobs do."""
    for repeat, (state, value) in enumerate(ended):
        trial_id = endings.storage.trial_id(endings.study, 0)
        endings.storage.set_trial_system_attr(trial_id, outcome_key(repeat), vars(Outcome(state, value)))


@pytest.mark.parametrize(
    ("ended", "state", "values", "attributes"),
    [
        ([("complete", 0.4), ("complete", 0.6)], COMPLETE, [0.5], {}),
        ([("diverged", 0.1), ("complete", 0.5)], COMPLETE, [0.3], {"state": "diverged"}),
        ([("complete", [0.4, 10.0]), ("complete", [0.6, 20.0])], COMPLETE, [0.5, 15.0], {}),
        ([("complete", 0.4), ("pruned", None)], PRUNED, None, {}),
        ([("complete", 0.4), ("failed", "no memory")], FAIL, None, {"error": "no memory", "state": "failed"}),
        ([("pruned", None)], PRUNED, None, {}),
        ([("failed", "why")], FAIL, None, {"error": "why", "state": "failed"}),
        # The second seed is still to be trained.
        ([("complete", 0.4)], RUNNING, None, {}),
        ([("diverged", 0.4)], RUNNING, None, {}),
        ([], RUNNING, None, {}),
    ],
)
def test_a_trial_of_two_seeds(make, tmp_path, ended, state, values, attributes):
    endings = make(repeats=2, objectives=len(values or [0]))
    leave(endings, *ended)
    assert endings.settle(0) == (state != RUNNING)
    (trial,) = endings.study.get_trials()
    assert (trial.state, trial.user_attrs) == (state, attributes)
    if values:
        assert trial.values == pytest.approx(values)
    said = tmp_path / "0/traceback.txt"
    assert (said.read_text() if said.exists() else None) == (f"{attributes['error']}\n" if state == FAIL else None)
    assert endings.settle(0) == (state != RUNNING)  # once more it is left as it is


@pytest.mark.parametrize(
    ("returned", "expected"),
    [
        (0.7, Outcome("complete", 0.7)),
        (math.nan, Outcome("failed", "The job returned nan, which can't be compared.")),
        (None, Outcome("failed", "The job returned None, which is no number.")),
        (optuna.TrialPruned(), Outcome("pruned", None)),
        (ValueError("no http://me:secret@host"), Outcome("failed", "ValueError: no http://me:***@host")),
        (ConfigError(["x=1: too much", "y: odd"]), Outcome("failed", "ConfigError: x=1: too much; y: odd")),
    ],
)
def test_what_a_job_returned(make, tmp_path, returned, expected):
    failed = isinstance(returned, Exception)
    result = JobReturn(status=JobStatus.FAILED if failed else JobStatus.COMPLETED, _return_value=returned)
    endings = make()
    assert endings.outcome(0, result, 0) == expected
    traceback = tmp_path / "0/traceback.txt"
    assert traceback.exists() == isinstance(returned, ValueError | ConfigError)
    assert not traceback.exists() or "secret" not in traceback.read_text()


def test_what_a_job_left_is_more_exact_than_what_it_returned(make):
    endings = make(repeats=3)
    leave(endings, ("complete", 0.1), ("diverged", 0.2))
    result = JobReturn(status=JobStatus.COMPLETED, _return_value=0.5)
    states = [endings.outcome(0, result, repeat) for repeat in range(3)]
    assert states == [Outcome("complete", 0.1), Outcome("diverged", 0.2), Outcome("complete", 0.5)]


def test_a_jobs_own_traceback_stays(make, tmp_path):
    (tmp_path / "0/seed_1").mkdir(parents=True)
    (tmp_path / "0/seed_1/traceback.txt").write_text("its own")
    make().fail(0, "another")
    assert [file.read_text() for file in tmp_path.rglob("traceback.txt")] == ["its own"]


@pytest.mark.parametrize(
    ("value", "count", "expected"),
    [
        (1, 1, 1.0),
        ("0.5", 1, 0.5),
        (np.float32(0.5), 1, 0.5),
        ([0.5, 1], 2, [0.5, 1.0]),
        (np.array([0.5, 1]), 2, [0.5, 1.0]),
        (math.inf, 1, math.inf),
        ([0.5], 1, r"returned \[0.5\], which is no number\."),
        ((0.5, 8), 1, r"which is no number; 2 objectives need as many in hydra.sweeper.direction=\[…\]"),
        (0.5, 2, "has 2 objectives, so it needs 2 numbers"),
        ([0.5, 1, 2], 2, "has 2 objectives, so it needs 2 numbers"),
        ("ab", 2, "has 2 objectives, so it needs 2 numbers"),
        ({"a": 1, "b": 2}, 2, "has 2 objectives, so it needs 2 numbers"),
        (np.array(0.5), 2, "has 2 objectives, so it needs 2 numbers"),
        ([0.5, math.nan], 2, "can't be compared"),
    ],
)
def test_what_counts_as_a_number(value, count, expected):
    if isinstance(expected, str):
        with pytest.raises(ValueError, match=expected):
            objective(value, count)
    else:
        assert objective(value, count) == expected


@pytest.mark.parametrize("objectives", [1, 2])
def test_a_configuration_that_was_complete_ends_as_it_did(make, objectives):
    endings = make(objectives=objectives)
    value = [0.4, 10.0] if objectives == 2 else 0.4
    first = optuna.trial.Trial(endings.study, endings.storage.trial_id(endings.study, 0))
    other, again = endings.study.ask(), endings.study.ask()
    endings.storage.set_trial_system_attr(first._trial_id, OVERRIDES, ["x=1", "y=1"])
    assert not endings.repeat(other, ["x=1", "y=1"])  # the first is in training
    first.set_user_attr("folder", "study/0")
    first.set_constraint("memory", 2.0)
    endings.tell(0, "diverged", value)
    assert not endings.repeat(other, ["x=2"])
    assert endings.repeat(again, ["y=1", "x=1"])
    before, _, ended = endings.study.get_trials()
    assert (ended.state, ended.values, ended.constraints) == (COMPLETE, before.values, {"memory": 2.0})
    assert ended.user_attrs == {"folder": "study/0", "state": "diverged", SAME_AS: 0}


def test_what_another_study_trained_is_trained_here_too(make):
    endings = make()
    elsewhere = {"user_attrs": {TRAINED_BY: "old/3"}, "system_attrs": {OVERRIDES: ["x=1"]}}
    endings.study.add_trial(optuna.trial.create_trial(value=0.4, **elsewhere))
    assert not endings.repeat(endings.study.ask(), ["x=1"])
