"""The commands themselves, run in this process: what a user types, what a user sees."""

import logging
import runpy
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import pytest
from hydra.core.global_hydra import GlobalHydra

from cifar_tuning import PROJECT_ROOT
from tests.conftest import TINY


@dataclass
class Outcome:
    code: int
    out: str
    err: str

    @property
    def text(self) -> str:
        return self.out + self.err


@pytest.fixture
def command(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture) -> Iterator[Callable[..., Outcome]]:
    """Runs `train.py`, `predict.py` or `report.py` with arguments, as the shell would."""
    hook, handlers = sys.excepthook, logging.root.handlers[:]

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
    if (loky := sys.modules.get("joblib.externals.loky")) is not None:
        # Its idle processes would keep this one from ending for five minutes.
        loky.get_reusable_executor().shutdown(wait=True, kill_workers=True)
    sys.excepthook = hook
    for handler in [h for h in logging.root.handlers if h not in handlers]:
        # Hydra's, whose streams end with the test: every line that follows would bring a traceback.
        logging.root.removeHandler(handler)
        handler.close()
    GlobalHydra.instance().clear()


@pytest.fixture
def tiny(command, tmp_path) -> Callable[..., Outcome]:
    """`train.py` over tiny data, its folder in tmp_path/run or, for a multirun, tmp_path/sweep."""

    def run(*arguments: str) -> Outcome:
        multirun = "-m" in arguments
        folder = f"hydra.sweep.dir={tmp_path}/sweep" if multirun else f"hydra.run.dir={tmp_path}/run"
        return command(*TINY, folder, *arguments)

    return run


@pytest.fixture
def predicting(command) -> Callable[..., Outcome]:
    return lambda *arguments: command(*arguments, program="predict.py")


@pytest.fixture
def reporting(command) -> Callable[..., Outcome]:
    return lambda *arguments: command(*arguments, program="report.py")
