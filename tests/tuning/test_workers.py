"""How many worker processes a study starts where it is left to the machine."""

from types import SimpleNamespace

import pytest
from omegaconf import OmegaConf

from cifar_tuning.tuning import workers

FUSED = {"_target_": "cifar_tuning.fused.launcher.FusedLauncher", "stack": None}
BASIC = {"_target_": "hydra._internal.core_plugins.basic_launcher.BasicLauncher"}

JOBLIB = {"_target_": "hydra_plugins.hydra_joblib_launcher.joblib_launcher.JoblibLauncher", "n_jobs": 2}


def options(given=None, device="cpu", launcher=BASIC, n_jobs=2, n_trials=20):
    config = OmegaConf.create({"trainer": {"device": device}, "hydra": {"launcher": launcher}})
    return SimpleNamespace(sweeper=SimpleNamespace(workers=given, n_jobs=n_jobs), config=config, n_trials=n_trials)


@pytest.mark.parametrize(
    ("asked", "gpu", "count"),
    [
        ({}, None, 4),
        ({"given": 3}, None, 3),
        ({"n_trials": 12}, None, 2),
        ({"n_trials": 2}, None, 1),
        ({"device": "auto"}, None, 4),
        ({"device": "auto"}, 80000, 1),
        ({"device": "cuda:0"}, 80000, 1),
        ({"device": "cpu"}, 80000, 4),
        ({"launcher": JOBLIB, "n_jobs": 8}, None, 1),
        ({"launcher": FUSED, "n_jobs": 8}, None, 2),
        ({"launcher": FUSED, "n_jobs": 3}, None, 1),
        ({"launcher": {**FUSED, "stack": 2}, "n_jobs": 8}, None, 4),
        ({"launcher": {**FUSED, "stack": 8}, "n_jobs": 8}, None, 1),
    ],
)
def test_as_many_as_pay(monkeypatch, asked, gpu, count):
    monkeypatch.setattr(workers, "_cores", lambda: 4)
    monkeypatch.setattr(workers, "script", lambda: ["python", "train.py"])
    monkeypatch.setattr(workers, "free_gpu_memory", lambda device: gpu)
    assert workers.workers_of(options(**asked)) == count


def test_not_more_than_memory_has_room_for(monkeypatch):
    monkeypatch.setattr(workers, "_cores", lambda: 64)
    monkeypatch.setattr(workers, "script", lambda: ["python", "train.py"])
    monkeypatch.setattr(workers.psutil, "virtual_memory", lambda: SimpleNamespace(available=5 * 2**30))
    assert workers.workers_of(options()) == 2


def test_one_where_the_command_can_not_be_repeated(monkeypatch):
    monkeypatch.setattr(workers, "script", lambda: None)
    assert workers.workers_of(options()) == 1


def test_a_worker_knows_how_many_there_are(monkeypatch):
    monkeypatch.setenv(workers.WORKER_VARIABLE, "1")
    monkeypatch.setenv(workers.COUNT_VARIABLE, "5")
    assert workers.workers_of(options()) == 5
