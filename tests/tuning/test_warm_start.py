"""What a new study takes over from an older one."""

import optuna
import pytest
from hydra import compose
from omegaconf import OmegaConf
from optuna.distributions import FloatDistribution
from optuna.trial import TrialState, create_trial

from cifar_tuning.job_folders import STUDY_FILE
from cifar_tuning.tuning.budget import enough
from cifar_tuning.tuning.options import StudyOptions
from cifar_tuning.tuning.place import OVERRIDES, SAME_AS
from cifar_tuning.tuning.study import open_study, study_problems
from cifar_tuning.tuning.warm_start import older_trials

COMPLETE, PRUNED, FAIL = TrialState.COMPLETE, TrialState.PRUNED, TrialState.FAIL
LR = "optimizer.lr"


@pytest.fixture(scope="module")
def older(tmp_path_factory):
    """A study of another learning rate and momentum, of which two trials were trained to their end."""
    folder = tmp_path_factory.mktemp("multirun") / "old"
    folder.mkdir()
    study = optuna.create_study(study_name="old", storage=f"sqlite:///{folder}/optuna.db", direction="maximize")
    study.set_user_attr("configuration", {"optimizer.momentum": "0.9", "trainer.epochs": "30", "trainer.mixup": "0.3"})
    range_ = {LR: FloatDistribution(0.01, 1.0)}
    for lr, state in ((0.1, COMPLETE), (0.5, COMPLETE), (0.2, PRUNED), (0.3, FAIL)):
        value = {"value": lr} if state == COMPLETE else {}
        study.add_trial(create_trial(state=state, params={LR: lr}, distributions=range_, **value))
    # One that was not trained: its number means nothing elsewhere.
    skipped = {"params": {LR: 0.1}, "distributions": range_, "user_attrs": {SAME_AS: 0}}
    study.add_trial(create_trial(value=0.1, **skipped))
    OmegaConf.save({"study_name": "old", "storage": "sqlite:///optuna.db"}, folder / STUDY_FILE)
    return folder


@pytest.fixture
def options(configure, older, tmp_path):
    def make(*space, warm_start=older, n_trials=9):
        given = [one for one in space if one.startswith(("hydra.", "hydra/"))]
        given += [f"hydra.sweep.dir={tmp_path}/new", "hydra.sweeper.workers=1", f"hydra.sweeper.n_trials={n_trials}"]
        given = ["hydra/sweeper=study", *given, f"hydra.sweeper.warm_start={warm_start}"]
        config = compose("config", given, return_hydra_config=True)
        return StudyOptions.parse(config, [one for one in space if not one.startswith(("hydra.", "hydra/"))])

    return make


@pytest.mark.parametrize(
    ("space", "taken"),
    [
        (["optimizer.lr=interval(0.05,1)"], [{LR: 0.1}, {LR: 0.5}, {LR: 0.2}]),
        (["optimizer.lr=interval(0.05,0.3)"], [{LR: 0.1}, {LR: 0.2}]),
        (["optimizer.lr=0.5,0.7"], [{LR: 0.5}]),
        # What was fixed then is searched now, and the other way round.
        (["optimizer.lr=0.5,0.7", "optimizer.momentum=0.8,0.9"], [{LR: 0.5, "optimizer.momentum": 0.9}]),
        (["optimizer.lr=0.5,0.7", "optimizer.momentum=0.1,0.2"], []),
        (["optimizer.lr=0.5", "trainer.epochs=range(20,40)"], [{"trainer.epochs": 30}]),
        (["optimizer.lr=0.5,0.7", "model.dropout=0,0.5"], []),  # of which the older study says nothing
        (
            [
                "optimizer.lr=0.5,0.7",
                "model.dropout=0,0.5",
                'hydra.sweeper.conditions={model.dropout:"model=resnet20"}',
            ],
            [{LR: 0.5}],
        ),
    ],
)
def test_trials_are_taken_that_this_study_may_have_had(options, space, taken):
    asked = options(*space)
    found = older_trials(asked)
    assert [trial.params for trial in found] == taken
    assert all(trial.distributions[name] == asked.space.distributions[name] for trial in found for name in trial.params)


def test_a_new_study_begins_with_them_once(options, capsys, caplog):
    study = open_study(options("optimizer.lr=interval(0.05,0.3)"))
    first, second = study.get_trials()
    assert (first.state, first.value, second.state) == (COMPLETE, 0.1, PRUNED)
    assert (first.user_attrs["trained_by"], first.system_attrs[OVERRIDES]) == ("old/0", ["optimizer.lr=0.1"])
    assert "begins with 2 of 3 trials of the study old" in capsys.readouterr().out
    assert "trained with another configuration: trainer.mixup: 0.3 before, 0.0 now\n" in caplog.text
    assert enough(study, options("optimizer.lr=interval(0.05,0.3)", "hydra.sweeper.patience=1").sweeper) is None
    assert len(open_study(options("optimizer.lr=interval(0.05,0.3)")).get_trials()) == 2
    assert "of no effect" not in caplog.text


def test_a_command_that_was_killed_amid_them_takes_the_others_next_time(options, monkeypatch):
    asked = options("optimizer.lr=interval(0.05,0.3)")
    with monkeypatch.context() as patch:
        patch.setattr(optuna.Study, "add_trials", lambda study, trials: study.add_trial(trials[0]))
        patch.setattr("cifar_tuning.tuning.study.to_enqueue", lambda *_: [])
        assert len(open_study(asked).get_trials()) == 1
    assert [trial.params[LR] for trial in open_study(asked).get_trials()] == [0.1, 0.2]


def test_a_study_that_has_trials_does_not_begin_with_others(options, caplog):
    open_study(
        options("optimizer.lr=interval(0.05,0.3)", "hydra.sweeper.enqueue=[{optimizer.lr:0.2}]", warm_start="null")
    )
    assert len(open_study(options("optimizer.lr=interval(0.05,0.3)")).get_trials()) == 1
    assert "hydra.sweeper.warm_start: of no effect, as the study" in caplog.text


@pytest.mark.parametrize(
    ("given", "problem"),
    [
        ({"warm_start": "nowhere"}, "hydra.sweeper.warm_start=nowhere: is no study's folder"),
        ({"n_trials": 3}, "hydra.sweeper.n_trials=3: 3 of them are those of the study old"),
        ({"space": ["optimizer.lr=0.7,0.8"]}, "no trial of the study old fits this search space"),
        ({"space": ["hydra.sweeper.direction=minimize"]}, "has the direction maximize, not minimize"),
        ({"space": ["hydra/sweeper/sampler=grid", "optimizer.lr=0.1,0.5"]}, "GridSampler knows no trials of another"),
    ],
)
def test_what_can_not_be_taken_over_is_said_before_anything_is_written(options, tmp_path, given, problem):
    space = ["optimizer.lr=interval(0.05,1)", *given.pop("space", [])]
    (said,) = study_problems(options(*space, **given))
    assert problem in said
    assert not (tmp_path / "new" / "optuna.db").exists()
