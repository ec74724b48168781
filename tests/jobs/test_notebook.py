"""Training from Python, without a command."""

import logging
import random

import numpy as np
import pytest
import torch
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig

from cifar_tuning.errors import ConfigError, UserError
from cifar_tuning.jobs.build import seed_everything
from cifar_tuning.jobs.notebook import train
from cifar_tuning.jobs.result import JobResult
from cifar_tuning.jobs.run import run
from tests.conftest import TINY


@pytest.fixture(autouse=True)
def _as_in_a_new_process(monkeypatch):
    """No job's configuration from another test."""
    monkeypatch.setattr(HydraConfig.instance(), "cfg", None)


def settings():
    """What of a notebook's own a run uses."""
    flags = torch.backends.cudnn.deterministic, torch.backends.cudnn.benchmark
    draws = torch.get_rng_state().tolist(), random.getstate(), repr(np.random.get_state(legacy=False))
    return torch.get_deterministic_debug_mode(), flags, draws, logging.root.level, logging.root.handlers[:]


@pytest.fixture
def deterministic():
    """As a notebook's first cell may have it."""
    torch.set_deterministic_debug_mode("warn")
    yield
    torch.set_deterministic_debug_mode("default")


def test_a_run_is_the_commands(tmp_path, capsys, deterministic):
    before = settings()
    value = train(*TINY, "trainer.epochs=1", f"hydra.run.dir={tmp_path}/run")
    assert settings() == before
    result = JobResult.read(tmp_path / "run")
    assert (result.state, result.value, "trainer.epochs=1" in result.overrides) == ("complete", value, True)
    assert (tmp_path / "run" / ".hydra" / "overrides.yaml").is_file()
    assert "best validation accuracy" in capsys.readouterr().out
    # The next cell may compose what it likes.
    assert not GlobalHydra.instance().is_initialized()
    assert not HydraConfig.initialized()


@pytest.mark.parametrize("exactly", [True, False])
def test_a_cell_that_had_pytorch_warn_is_no_half_measure(deterministic, exactly):
    seed_everything(0, deterministic=exactly)
    assert torch.get_deterministic_debug_mode() == (2 if exactly else 0)
    seed_everything(0)


@pytest.mark.parametrize("options", [[], ["hydra/job_logging=disabled"]])
def test_a_mistake_is_an_exception(tmp_path, options):
    mine, own = logging.getLogger("mine"), logging.FileHandler(tmp_path / "mine.log", mode="w")
    mine.addHandler(own)
    mine.warning("before")
    with pytest.raises(ConfigError, match=r"optimizer\.lr=-1: must be a number above 0"):
        train(*TINY, "optimizer.lr=-1", f"hydra.run.dir={tmp_path}/run", *options)
    mine.warning("said in another cell")
    mine.removeHandler(own)
    own.close()
    assert (tmp_path / "mine.log").read_text() == "before\nsaid in another cell\n"
    assert options or "another cell" not in (tmp_path / "run" / "train.log").read_text()


def test_a_configuration_alone_is_not_trained(configure):
    with pytest.raises(UserError, match=r"notebook\.train"):
        run(configure())
