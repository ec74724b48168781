"""The commands themselves, run in this process: what a user types, what a user sees."""

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
def predicting(command) -> Callable[..., Outcome]:
    return lambda *arguments: command(*arguments, program="predict.py")


@pytest.fixture
def reporting(command) -> Callable[..., Outcome]:
    return lambda *arguments: command(*arguments, program="report.py")
