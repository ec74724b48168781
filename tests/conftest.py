"""What every room's tests share: the command line's config without the command line, tiny data, real data."""

import os
from collections.abc import Iterator
from pathlib import Path

# Before torch is imported: processes that share the cores are ten times slower with threads of their own on each.
if "PYTEST_XDIST_WORKER" in os.environ:
    os.environ.setdefault("OMP_NUM_THREADS", "1")
# cuBLAS reads it once a process; `train.py` sets it at its start, which here comes after other tests.
os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")

import pytest
from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.utils import execution_whitelist

from cifar_tuning import PROJECT_ROOT
from cifar_tuning.jobs.process import trusted_targets

TINY = [
    "data=synthetic",
    "tracking=none",
    "trainer.epochs=2",
    "trainer.device=cpu",
    "trainer.precision=fp32",
    "trainer.memory_format=channels_last",
]
# A study in one process, so that its trials come in order.
STUDY = [
    "-m",
    "study=simplenn",
    "schedule.decay_epochs=range(1,3)",
    "hydra.sweeper.plots=false",
    "hydra.sweeper.workers=1",
]


@pytest.fixture
def configure() -> Iterator:
    """Composes the real config with overrides, as `python train.py` does, over tiny data unless told otherwise."""
    GlobalHydra.instance().clear()

    def make(*overrides: str, config_name: str = "config"):
        base = TINY if config_name == "config" else []
        return compose(config_name, [*base, *overrides])

    with initialize_config_dir(str(PROJECT_ROOT / "conf")), execution_whitelist(trusted_targets()):
        yield make


@pytest.fixture(autouse=True)
def _own_cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is measured is remembered per user; tests must neither see nor change them."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.getbasetemp() / "cache"))


@pytest.fixture(scope="session")
def cifar10() -> Path:
    """The folder of the real data set, brought if it is not there; skips where it can't be had."""
    from cifar_tuning.data import CIFAR10
    from cifar_tuning.errors import DataError

    root = Path(os.environ.get("CIFAR_TUNING_DATA", PROJECT_ROOT / "data"))
    try:
        CIFAR10(root=str(root)).prepare()
    except DataError as error:
        pytest.skip(f"CIFAR-10 can't be had here: {error}")
    return root


@pytest.fixture(scope="session")
def pristine_database(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An empty MLflow database: making one takes seconds, copying it does not."""
    from cifar_tuning.tracking import database

    file = tmp_path_factory.mktemp("store") / "mlflow.db"
    assert database.prepare(file, file.parent / "mlruns")
    return file


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--picture", help="where the UI test puts its screenshot (it throws it away otherwise)")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Tests marked `gpu` skip themselves, with the reason, where there is none."""
    import torch

    if torch.cuda.is_available():
        return
    for item in items:
        if item.get_closest_marker("gpu"):
            item.add_marker(pytest.mark.skip(reason="no CUDA device"))
