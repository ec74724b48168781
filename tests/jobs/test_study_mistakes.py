"""What is refused before a study begins."""

import pytest

from tests.conftest import STUDY
from tests.jobs.spaces import MOMENTUM, SEVERAL

pytestmark = pytest.mark.usefixtures("trusted")

BAD = [
    (["hydra.sweeper.workers=0"], "hydra.sweeper.workers=0: must be a whole number, 1 or above"),
    (["hydra.sweeper.n_trials=0"], "hydra.sweeper.n_trials=0"),
    (["hydra.sweeper.patience=0"], "hydra.sweeper.patience=0: must be a number, 1 or above, or null"),
    (["hydra.sweeper.timeout=-1"], "hydra.sweeper.timeout=-1.0: must be a number, 0 or above, or null"),
    (["hydra.sweeper.max_failure_rate=2"], "max_failure_rate=2.0: must be a number from 0 to 1"),
    (["hydra.sweeper.direction=up"], "must be minimize or maximize"),
    (["hydra.sweeper.pruner.n_startup_trials=-1"], "hydra/sweeper/pruner: Number of startup trials"),
    (["optimizer.lrr=0.1,0.2"], "Did you mean: 'lr'"),
    (["optimizer.lr=interval(-1,1)"], "optimizer.lr=-1.0: must be a number above 0"),
    (["hydra.sweeper.enqueue=[{a:1}]"], "a is not in the search space"),
    (["hydra.sweeper.enqueue=[{optimizer.lr:5}]"], "optimizer.lr=5: must be in its range, interval 0.001 to 0.3"),
    (["hydra.sweeper.enqueue=[{optimizer.momentum:3}]", *MOMENTUM], "optimizer.momentum=3: must be in its range"),
    (
        ["hydra.sweeper.custom_search_space=tests.jobs.spaces.misspelt"],
        "custom_search_space=tests.jobs.spaces.misspelt: ConfigAttributeError: Key 'epoch'",
    ),
    (
        ["hydra.sweeper.custom_search_space=tests.jobs.spaces.branching"],
        "spaces.branching: Could not override 'trainer.epoch'",
    ),
    (["hydra.sweeper.storage=sqlite:///:memory:"], "can't be in memory"),
    (["hydra.sweeper.storage=journal:///tmp/study.log"], "must be the address of an SQL database"),
    (["hydra.sweeper.storage=optuna.db"], "must be the address of an SQL database"),
    (["hydra.sweeper.study_name=../x"], "hydra.sweeper.study_name=../x: names a folder below multirun/"),
    (["hydra.sweeper.storage=mysql://127.0.0.1:9/x"], "hydra.sweeper.storage=mysql://127.0.0.1:9/x"),
    (["model.activation=relu,swisch"], "model.activation=swisch"),
    (["objective=val/accc"], "objective=val/accc: must be one of train/loss"),
    (["objective=[val/acc_best,model/macs]"], "objective=val/acc_best,model/macs needs 2 of them"),
    (["objective=3"], "objective=3: must be one of train/loss"),
    (["+model.num_classes=12"], "model: SimpleNN returns N×12, not a number for each of the 10 classes"),
    ([*SEVERAL, "hydra.sweeper.target=1"], "hydra.sweeper.target=1.0: several objectives have no single best trial"),
    ([*SEVERAL, "hydra.sweeper.retrain_best=2"], "retrain_best=2: several objectives have no single winner"),
    (["hydra.sweep.subdir=t${hydra.job.num}_seed${seed}"], "subdir=t${hydra.job.num}_seed${seed}: must be ${hydra.job"),
    (
        ["hydra.sweeper.custom_search_space=tests.nope"],
        "custom_search_space=tests.nope: InstantiationException: Error locating target 'tests.nope' (No module named",
    ),
    (["seed=1,2", "hydra.sweeper.repeats=2"], "seed: is swept"),
    (["seed=1,2"], "seed=0 hydra.sweeper.repeats=3 makes a trial the mean over three seeds"),
    (["hydra.sweeper.pruner=median"], "hydra.sweeper.pruner=median: is no pruner; write hydra/sweeper/pruner=median"),
    (["hydra.sweeper.sampler=tpe"], "hydra.sweeper.sampler=tpe: is no sampler; write hydra/sweeper/sampler=tpe"),
]


@pytest.mark.slow
@pytest.mark.parametrize(("options", "message"), BAD, ids=[bad[0][0] for bad in BAD])
def test_bad_input_is_refused_before_anything_is_written(mistakes, tmp_path, options, message):
    said = mistakes(*STUDY, *options)
    assert message in said
    assert said.count("hydra.sweeper.custom_search_space=") <= 1  # found by two checks, said once
    assert not (tmp_path / "sweep" / "optuna.db").exists()


@pytest.mark.slow
@pytest.mark.parametrize(("part", "known"), [("pruner", "hyperband"), ("sampler", "cmaes")])
def test_a_part_that_there_is_not_is_answered_with_those_that_there_are(tiny, part, known):
    outcome = tiny(*STUDY, f"hydra/sweeper/{part}=nope")
    assert outcome.code == 1
    assert known in outcome.err
    assert "Traceback" not in outcome.err


def test_a_refused_study_ends_with_its_error(tiny, tracked):
    outcome = tiny(*STUDY, *tracked.overrides, "hydra.sweeper.n_trials=0")
    assert outcome.code == 1
    assert "hydra.sweeper.n_trials=0: " in outcome.err
    assert "Traceback" not in outcome.err
    assert "compares all runs" not in outcome.text
    assert tracked() == []
