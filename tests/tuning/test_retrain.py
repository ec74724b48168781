"""The winner's further seeds: which are trained, and what is kept of them."""

import json
from types import SimpleNamespace

import optuna
import pytest
from omegaconf import OmegaConf

from cifar_tuning.tuning import retrain


class Launcher:
    """Notes what it is given; each seed's value is a hundredth of it, and an odd one fails where told to."""

    def __init__(self, failing: int | None = None) -> None:
        self.failing, self.calls = failing, []

    def launch(self, jobs, initial_job_idx):
        self.calls.append((initial_job_idx, jobs))
        return [Return(self._seed(job), self.failing) for job in jobs]

    @staticmethod
    def _seed(job) -> int:
        return int(next(o for o in job if o.startswith("seed=")).removeprefix("seed="))


class Return:
    def __init__(self, seed: int, failing: int | None) -> None:
        self.seed, self.failing = seed, failing

    @property
    def return_value(self) -> float:
        if self.seed == self.failing:
            raise RuntimeError("no such luck")
        return self.seed / 100


@pytest.fixture
def best():
    made = optuna.trial.create_trial(value=0.5, system_attrs={"cifar_tuning:overrides": ["optimizer.lr=0.1"]})
    made.number = 3
    return made


@pytest.fixture
def options(tmp_path):
    return SimpleNamespace(
        config=OmegaConf.create({"seed": 4}),
        sweeper=SimpleNamespace(repeats=2, retrain_best=3),
        n_trials=20,
        place=SimpleNamespace(folder=tmp_path),
    )


def test_all_seeds_are_launched_together_and_none_twice(best, options, tmp_path):
    (tmp_path / "best_3/seed_7").mkdir(parents=True)
    (tmp_path / "best_3/seed_7/result.json").write_text('{"test_acc": 0.25}')
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


def test_a_seed_that_fails_costs_only_itself(best, options, caplog):
    retrain._retrain(best, Launcher(failing=6), options)
    assert sorted(retrain.retrained(best, options)) == ["7", "8"]
    assert "seed 6: RuntimeError: no such luck" in caplog.text
    again = Launcher()
    retrain._retrain(best, again, options)
    assert [Launcher._seed(job) for job in again.calls[0][1]] == [6]


def test_another_winner_begins_anew(best, options, tmp_path):
    (tmp_path / retrain.RETRAINED).write_text(json.dumps({"trial": 1, "runs": {"6": {"value": 1, "test": None}}}))
    assert retrain.retrained(best, options) == {}
    retrain._retrain(best, Launcher(), options)
    assert json.loads((tmp_path / retrain.RETRAINED).read_text())["trial"] == 3
