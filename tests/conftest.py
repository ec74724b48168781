"""What every room's tests share: the command line's config without the command line, tiny data, real data."""

import locale
import logging
import os
import pickle
import runpy
import shutil
import signal
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache, wraps
from pathlib import Path
from typing import Any

# Before torch is imported: processes that share the cores are ten times slower with threads of their own on each.
if "PYTEST_XDIST_WORKER" in os.environ:
    os.environ.setdefault("OMP_NUM_THREADS", "1")
# cuBLAS reads it once a process; `train.py` sets it at its start, which here comes after other tests.
os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")

import hydra
import pytest
from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.core.singleton import Singleton
from hydra.utils import execution_whitelist
from omegaconf import OmegaConf

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
# What does without real data, servers and patience.
QUICK = "not (slow or services or gpu)"
# A study in one process, so that its trials come in order.
STUDY = [
    "-m",
    "study=simplenn",
    "schedule.decay_epochs=range(1,3)",
    "hydra.sweeper.plots=false",
    "hydra.sweeper.workers=1",
]


def pytest_configure(config: pytest.Config) -> None:
    """Has `pytest` by itself run the quick tests; whoever names files, folders or marks gets what was named."""
    if config.args_source is not pytest.Config.ArgsSource.ARGS and not config.option.markexpr:
        config.option.markexpr = QUICK


@pytest.fixture
def configure() -> Iterator:
    """Composes the real config with overrides, as `python train.py` does, over tiny data unless told otherwise."""
    GlobalHydra.instance().clear()

    def make(*overrides: str, config_name: str = "config"):
        base = TINY if config_name == "config" else []
        return compose(config_name, [*base, *overrides])

    with initialize_config_dir(str(PROJECT_ROOT / "conf")), execution_whitelist(trusted_targets()):
        yield make


@dataclass
class Outcome:
    code: int
    out: str
    err: str

    @property
    def text(self) -> str:
        return self.out + self.err


@pytest.fixture
def pictures() -> None:
    """Asked for by a test that looks at what `command`'s jobs draw."""


@pytest.fixture
def command(
    request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> Iterator[Callable[..., Outcome]]:
    """Runs `train.py`, another of the root's programs or one given by its path, with arguments as the shell would.

    A job's two pictures are empty, for drawing them takes as long as its training.
    """
    hook, handlers, singletons = sys.excepthook, logging.root.handlers[:], Singleton._instances
    if "pictures" not in request.fixturenames:
        from cifar_tuning.reporting import plots

        for name in ("learning_curves", "confusion_matrix"):
            monkeypatch.setattr(plots, name, _empty)

    def run(*arguments: str, program: str = "train.py") -> Outcome:
        GlobalHydra.instance().clear()
        capsys.readouterr()
        monkeypatch.setattr(sys, "argv", [str(PROJECT_ROOT / program), *arguments])
        code = 0
        try:
            runpy.run_path(str(PROJECT_ROOT / program), run_name="__main__")
        except SystemExit as stop:
            code = stop.code if isinstance(stop.code, int) else 1
        captured = capsys.readouterr()
        return Outcome(code, captured.out, captured.err)

    yield run
    loky: Any = sys.modules.get("joblib.externals.loky.reusable_executor")
    if loky is not None and loky._executor is not None:
        # Its idle processes would keep this one from ending for five minutes. Whoever asks loky's own function for the
        # executor, and not with joblib's options, waits for them to end and gets another.
        loky._executor.shutdown(wait=True, kill_workers=True)
    sys.excepthook = hook
    # With one process joblib's launcher runs the jobs in this one, and leaves copies of these that lack the plugins.
    Singleton._instances = singletons
    for handler in [h for h in logging.root.handlers if h not in handlers]:
        # Hydra's, whose streams end with the test: every line that follows would bring a traceback.
        logging.root.removeHandler(handler)
        handler.close()
    GlobalHydra.instance().clear()


def _empty(*arguments: Any) -> Path:
    file = arguments[-1]
    file.write_bytes(b"\x89PNG")
    return file


def wait_for(condition: Callable[[], object], seconds: float = 60) -> None:
    """Waits until it holds; fails where it does not in time, of which a busy machine needs much."""
    limit = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < limit, f"it did not happen in {seconds:g} s"
        time.sleep(0.005)


@pytest.fixture
def ctrl_c() -> Iterator[None]:
    """Has Ctrl-C heard as in a terminal: what a shell starts in the background ignores it."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.fixture
def old_locale() -> Iterator[None]:
    """Files are in ASCII unless somebody says otherwise, as in code pages that lack most characters."""
    before = locale.setlocale(locale.LC_CTYPE)
    locale.setlocale(locale.LC_CTYPE, "C")
    yield
    locale.setlocale(locale.LC_CTYPE, before)


@pytest.fixture(autouse=True)
def _own_cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is measured is remembered per user; tests must neither see nor change them."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.getbasetemp() / "cache"))
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    from cifar_tuning.training import measurement_cache

    # Tests run side by side.
    monkeypatch.setattr(measurement_cache.Neighbours, "in_the_way", lambda self: False)
    measurement_cache._provisional.clear()


@pytest.fixture(scope="session", autouse=True)
def _read_once() -> Iterator[None]:
    """The project's and Hydra's config files, which no test changes, are parsed once, not twice a command."""
    load, read = OmegaConf.load, dict[str, bytes]()
    kept = str(PROJECT_ROOT / "conf"), str(Path(hydra.__file__).with_name("conf"))

    def remembered(file: Any) -> Any:
        name = str(getattr(file, "name", ""))
        if not name.startswith(kept):
            return load(file)
        if name not in read:
            read[name] = pickle.dumps(load(file))
        return pickle.loads(read[name])

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(OmegaConf, "load", staticmethod(remembered))
        yield


@pytest.fixture(scope="session", autouse=True)
def _migrations_read_once() -> Iterator[None]:
    """Optuna's ten migration scripts are run once, not three times for each database that is made or opened."""
    from alembic import util

    load = util.load_python_file
    remembered = cache(load)

    def once(folder: Any, name: Any) -> Any:
        # Beside them lies `env.py`, which migrates whenever it is run.
        return (remembered if Path(folder).name == "versions" else load)(folder, name)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(util, "load_python_file", once)
        yield


@pytest.fixture(scope="session", autouse=True)
def _study_tables_made_once(_migrations_read_once: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """A new study's database is a copy of one with Optuna's tables: to make them takes four times as long.

    Who asks how they are made takes the wrapped functions.
    """
    from optuna.storages import RDBStorage

    from cifar_tuning.tuning import storage

    use_wal, open_database = storage._use_wal, RDBStorage.__init__
    template = tmp_path_factory.mktemp("tables") / "optuna.db"
    RDBStorage(f"sqlite:///{template}").engine.dispose()

    def made(file: Path | None) -> None:
        if file is not None and file.parent.is_dir() and not file.exists():
            shutil.copyfile(template, file)

    @wraps(use_wal)
    def in_wal_mode(file: Path) -> None:
        made(file)
        use_wal(file)

    @wraps(open_database)
    def opened(self: RDBStorage, url: str, *arguments: Any, **options: Any) -> None:
        made(storage.sqlite_file(url))
        open_database(self, url, *arguments, **options)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(storage, "_use_wal", in_wal_mode)
        patch.setattr(RDBStorage, "__init__", opened)
        yield


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
    assert database.prepare(file)
    return file


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--picture", help="where the UI test puts its screenshot (it throws it away otherwise)")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Long tests come first, lest one be left to a single process in the end; those marked `gpu` are skipped without.

    The long ones are those marked `services`, or with a time limit of their own.
    """
    import torch

    items.sort(key=lambda item: not (item.get_closest_marker("services") or item.get_closest_marker("timeout")))
    if torch.cuda.is_available():
        return
    for item in items:
        if item.get_closest_marker("gpu"):
            item.add_marker(pytest.mark.skip(reason="no CUDA device"))
