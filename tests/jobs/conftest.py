"""The commands themselves, run in this process: what a user types, what a user sees."""

import shutil
from collections.abc import Callable

import pytest

from tests.conftest import TINY, Outcome


@pytest.fixture
def tiny(command, tmp_path) -> Callable[..., Outcome]:
    """`train.py` over tiny data, its folder in tmp_path/run or, for a multirun, tmp_path/sweep."""

    def run(*arguments: str) -> Outcome:
        multirun = "-m" in arguments
        folder = f"hydra.sweep.dir={tmp_path}/sweep" if multirun else f"hydra.run.dir={tmp_path}/run"
        return command(*TINY, folder, *arguments)

    return run


@pytest.fixture
def store(pristine_database, tmp_path) -> list[str]:
    """Overrides for a store of the test's own, tmp_path/mlflow.db, without models: to export one takes seconds."""
    shutil.copy(pristine_database, tmp_path / "mlflow.db")
    return ["tracking=mlflow", f"tracking.uri=sqlite:///{tmp_path}/mlflow.db", "tracking.log_model=false"]


@pytest.fixture
def predicting(command) -> Callable[..., Outcome]:
    return lambda *arguments: command(*arguments, program="predict.py")


@pytest.fixture
def reporting(command) -> Callable[..., Outcome]:
    return lambda *arguments: command(*arguments, program="report.py")
