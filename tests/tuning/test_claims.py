"""Taking trials, seen from inside: what an interruption at a bad moment leaves."""

import optuna
import pytest
from optuna.trial import TrialState

from cifar_tuning.tuning.claims import Claims
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
