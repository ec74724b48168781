"""A real MLflow store per test: built once a session (it takes seconds), then copied."""

import shutil
from pathlib import Path

import pytest

from cifar_tuning.tracking import MLflowTracker, RunContext

CONFIG = {
    "model": {"_target_": "cifar_tuning.models.SimpleNN", "activation": "relu", "widths": [8, 16]},
    "optimizer": {"lr": 0.1, "nesterov": False},
    "schedule": None,
    "seed": 7,
}


@pytest.fixture
def root(tmp_path, pristine_database):
    """A project folder with an empty default store."""
    folder = tmp_path / "project"
    folder.mkdir()
    shutil.copy(pristine_database, folder / "mlflow.db")
    return folder


@pytest.fixture
def context(tmp_path):
    """Builds the context of a job; keywords replace its fields."""

    def build(**changes):
        folder = Path(changes.pop("folder", tmp_path / "job"))
        folder.mkdir(parents=True, exist_ok=True)
        fields = {
            "name": "simplenn-sgd",
            "config": CONFIG,
            "overrides": ["optimizer.lr=0.1"],
            "folder": folder,
            "seed": 7,
        }
        return RunContext(**{**fields, **changes})

    return build


@pytest.fixture
def started(root, context):
    """Starts a tracker on the default store; keywords go to the context."""

    def start(**changes):
        tracker = MLflowTracker(root=root)
        tracker.start(context(**changes))
        return tracker

    return start


@pytest.fixture
def client(root):
    """Reads the store independently of the tracker's own paths."""
    from mlflow import MlflowClient

    return MlflowClient(f"sqlite:///{root / 'mlflow.db'}")


@pytest.fixture(autouse=True)
def impatient(monkeypatch):
    """Has every epoch told at once, as those are that take their time."""
    from cifar_tuning.tracking import outbox

    monkeypatch.setattr(outbox, "LATEST", 0.0)
