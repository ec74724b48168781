"""The commands themselves, run in this process: what a user types, what a user sees."""

import shutil
from collections.abc import Callable, Iterator

import pytest
from hydra import initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.types import RunMode
from hydra.utils import execution_whitelist
from mlflow import MlflowClient
from mlflow.entities import Run

from cifar_tuning import PROJECT_ROOT
from cifar_tuning.errors import ConfigError
from cifar_tuning.jobs.process import trusted_targets
from cifar_tuning.jobs.sweep_checks import sweep_problems
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
def trusted(monkeypatch) -> None:
    """Has configurations call what is beside the tests."""
    monkeypatch.setenv("CIFAR_TUNING_TRUST", "tests.*")


@pytest.fixture
def mistakes(tmp_path) -> Iterator[Callable[..., str]]:
    """What the command says of a sweep over tiny data that is refused before its first job; nothing is run."""

    def find(*arguments: str) -> str:
        given = [*TINY, f"hydra.sweep.dir={tmp_path}/sweep", *(one for one in arguments if one != "-m")]
        loader = GlobalHydra.instance().config_loader()
        config = loader.load_configuration("config", given, run_mode=RunMode.MULTIRUN)
        return f"{ConfigError(sweep_problems(config))}\n"

    GlobalHydra.instance().clear()
    with initialize_config_dir(str(PROJECT_ROOT / "conf")), execution_whitelist(trusted_targets()):
        yield find


@pytest.fixture
def store(pristine_database, tmp_path) -> list[str]:
    """Overrides for a store of the test's own, tmp_path/mlflow.db, without models: to export one takes seconds."""
    shutil.copy(pristine_database, tmp_path / "mlflow.db")
    return ["tracking=mlflow", f"tracking.uri=sqlite:///{tmp_path}/mlflow.db", "tracking.log_model=false"]


@pytest.fixture
def tracked(store):
    """Overrides for the test's own store, and what reads its runs."""

    def client() -> MlflowClient:
        return MlflowClient(store[1].removeprefix("tracking.uri="))

    def runs() -> list[Run]:
        return client().search_runs([experiment.experiment_id for experiment in client().search_experiments()])

    runs.overrides, runs.client = store, client
    return runs


@pytest.fixture
def predicting(command) -> Callable[..., Outcome]:
    return lambda *arguments: command(*arguments, program="predict.py")


@pytest.fixture
def reporting(command) -> Callable[..., Outcome]:
    return lambda *arguments: command(*arguments, program="report.py")
