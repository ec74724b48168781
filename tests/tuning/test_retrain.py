"""The winner's further seeds: which are trained, and what is kept of them."""

import json
from functools import partial
from types import SimpleNamespace

import optuna
import pytest
from omegaconf import OmegaConf

from cifar_tuning.tuning import retrain
from cifar_tuning.tuning.options import StudyOptions


class Launcher:
    """Notes what it is given; each seed's value is a hundredth of it, or None, and one fails where told to."""

    def __init__(self, failing: int | None = None, valued: bool = True) -> None:
        self.failing, self.valued, self.calls = failing, valued, []

    def launch(self, jobs, initial_job_idx):
        self.calls.append((initial_job_idx, jobs))
        return [Return(self._seed(job), self.failing, self.valued) for job in jobs]

    @staticmethod
    def _seed(job) -> int:
        return int(next(o for o in job if o.startswith("seed=")).removeprefix("seed="))


class Return:
    def __init__(self, seed: int, failing: int | None, valued: bool) -> None:
        self.seed, self.failing, self.valued = seed, failing, valued

    @property
    def return_value(self) -> float | None:
        if self.seed == self.failing:
            raise RuntimeError("no such luck")
        return self.seed / 100 if self.valued else None


@pytest.fixture
def best():
    made = optuna.trial.create_trial(value=0.5, system_attrs={"cifar_tuning:overrides": ["optimizer.lr=0.1"]})
    made.number = 3
    return made


@pytest.fixture
def options(tmp_path):
    made = SimpleNamespace(
        config=OmegaConf.create({"seed": 4}),
        sweeper=SimpleNamespace(repeats=2, retrain_best=3, retrain_overrides=[]),
        n_trials=20,
        place=SimpleNamespace(folder=tmp_path),
    )
    made.retrain_overrides = partial(StudyOptions.retrain_overrides, made)
    return made


def test_all_seeds_are_launched_together_and_none_twice(best, options, tmp_path):
    (tmp_path / "best_3/seed_7").mkdir(parents=True)
    (tmp_path / "best_3/seed_7/result.json").write_text('{"test_acc": 0.25}')
    (tmp_path / "retrained.json").touch()  # as a power cut may leave it
    launcher = Launcher()
    retrain._retrain(best, launcher, options)
    ((number, jobs),) = launcher.calls
    assert number == 20
    assert [job[:3] for job in jobs] == [
        ["optimizer.lr=0.1", f"seed={seed}", f"hydra.sweep.subdir=best_3/seed_{seed}"] for seed in (6, 7, 8)
    ]
    runs = retrain.retrained(best, options)
    assert runs["7"] == {"value": 0.07, "test": 0.25}
    retrain._retrain(best, launcher, options)
    assert len(launcher.calls) == 1
    options.sweeper.retrain_best = 5
    retrain._retrain(best, launcher, options)
    assert launcher.calls[1][0] == 23
    assert [Launcher._seed(job) for job in launcher.calls[1][1]] == [9, 10]
    assert sorted(retrain.retrained(best, options), key=int) == ["6", "7", "8", "9", "10"]


def test_a_seed_that_fails_costs_only_itself(best, options):
    assert retrain._retrain(best, Launcher(failing=6), options) == ["seed 6: RuntimeError: no such luck"]
    assert sorted(retrain.retrained(best, options)) == ["7", "8"]
    again = Launcher()
    retrain._retrain(best, again, options)
    assert [Launcher._seed(job) for job in again.calls[0][1]] == [6]


def test_without_validation_the_accuracy_on_the_test_set_is_all_there_is(best, options, tmp_path):
    (tmp_path / "best_3/seed_7").mkdir(parents=True)
    (tmp_path / "best_3/seed_7/result.json").write_text('{"test_acc": 0.25}')
    failures = retrain._retrain(best, Launcher(valued=False), options)
    assert retrain.retrained(best, options) == {"7": {"value": None, "test": 0.25}}
    # Neither a value nor a test: that was no retraining.
    assert [failure.partition(": float")[0] for failure in failures] == ["seed 6: TypeError", "seed 8: TypeError"]


def test_other_overrides_begin_anew(best, options, tmp_path):
    retrain._retrain(best, Launcher(), options)
    options.sweeper.retrain_overrides = ["optimizer.lr=0.3", "data.val_size=0"]
    assert retrain.retrained(best, options) == {}
    again = Launcher()
    retrain._retrain(best, again, options)
    ((_, jobs),) = again.calls
    assert [job[:4] for job in jobs] == [
        ["optimizer.lr=0.1", "optimizer.lr=0.3", "data.val_size=0", f"seed={seed}"] for seed in (6, 7, 8)
    ]
    assert sorted(retrain.retrained(best, options)) == ["6", "7", "8"]


def test_what_an_older_release_remembers_had_no_overrides(best, options, tmp_path):
    (tmp_path / retrain.RETRAINED).write_text(json.dumps({"trial": 3, "runs": {"6": {"value": 1, "test": None}}}))
    assert sorted(retrain.retrained(best, options)) == ["6"]


def test_another_winner_begins_anew(best, options, tmp_path):
    (tmp_path / retrain.RETRAINED).write_text(json.dumps({"trial": 1, "runs": {"6": {"value": 1, "test": None}}}))
    assert retrain.retrained(best, options) == {}
    retrain._retrain(best, Launcher(), options)
    assert json.loads((tmp_path / retrain.RETRAINED).read_text())["trial"] == 3
