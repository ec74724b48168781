"""Taking trials, seen from inside: what an interruption at a bad moment leaves."""

import json

import optuna
import pytest
from optuna.trial import TrialState

from cifar_tuning.tuning.claims import OWNER, RETRIES, Claims
from cifar_tuning.tuning.storage import open_storage


@pytest.fixture
def claims(tmp_path):
    study = optuna.create_study(storage=open_storage(f"sqlite:///{tmp_path}/optuna.db"), study_name="s")
    return Claims(study, tmp_path, n_trials=4, max_retry=3)


@pytest.mark.parametrize("moment", ["suggest", "ask"])
@pytest.mark.parametrize("kind", [SystemExit, KeyboardInterrupt])
def test_a_trial_that_is_half_taken_is_given_back(claims, monkeypatch, moment, kind):
    """Ctrl-C and SIGTERM reach a worker also while it takes its next trials."""
    taken = []

    def interrupt(trial):
        taken.append(trial.number)
        if len(taken) == 2:
            raise kind
        return True

    if moment == "ask":
        monkeypatch.setattr(claims.backend, "record_heartbeat", lambda trial_id: (_ for _ in ()).throw(kind))
    with pytest.raises(kind):
        claims.take(3, interrupt)
    states = [trial.state for trial in claims.study.get_trials()]
    assert states == [TrialState.WAITING] * (2 if moment == "suggest" else 1)
    monkeypatch.undo()
    assert [trial.number for trial in claims.take(4, lambda trial: True)] == [0, 1, 2, 3]


def test_an_interrupted_take_leaves_what_is_in_training(claims):
    """Under the fused launcher a process takes trials while it trains others."""
    (training,) = claims.take(1, lambda trial: True)

    def interrupt(trial):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        claims.take(2, interrupt)
    states = [trial.state for trial in claims.study.get_trials()]
    assert states[training.number] == TrialState.RUNNING
    assert states[1:] == [TrialState.WAITING]


def test_own_trials_that_are_silent_are_not_dead(claims, monkeypatch):
    """The machine has slept: the heartbeats are old, the process lives."""
    (training,) = claims.take(1, lambda trial: True)
    monkeypatch.setattr(claims.backend, "_get_stale_trial_ids", lambda study_id: [training._trial_id])
    assert [trial.number for trial in claims.take(2, lambda trial: True)] == [1, 2]
    assert RETRIES not in claims.study.get_trials()[0].system_attrs


@pytest.mark.parametrize(
    ("settles", "state"), [(True, TrialState.COMPLETE), (False, TrialState.WAITING)], ids=["outcome_left", "none_left"]
)
def test_a_dead_process_may_have_left_its_trials_outcome(claims, settles, state):
    """What was trained to its end is not trained again, nor does it count as a death."""

    def settle(number):
        if settles:
            claims.study.tell(number, 0.9)
        return settles

    claims.settle = settle
    (trial,) = claims.take(1, lambda trial: True)
    owner = {**json.loads(claims.token), "pid": 2**22 + 1}
    claims.backend.set_trial_system_attr(trial._trial_id, OWNER, json.dumps(owner))
    (after,) = claims.take_up_dead()
    assert after.state == state
    assert after.system_attrs.get(RETRIES, 0) == (0 if settles else 1)
