"""Training from Python, without a command."""

import logging

import pytest
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig

from cifar_tuning.errors import ConfigError, UserError
from cifar_tuning.jobs.notebook import train
from cifar_tuning.jobs.result import JobResult
from cifar_tuning.jobs.run import run
from tests.conftest import TINY


@pytest.fixture(autouse=True)
def _as_in_a_new_process(monkeypatch):
    """No job's configuration from another test; and Hydra's handlers, whose streams end with the test, go with it."""
    monkeypatch.setattr(HydraConfig.instance(), "cfg", None)
    before = logging.root.handlers[:]
    yield
    for handler in [one for one in logging.root.handlers if one not in before]:
        logging.root.removeHandler(handler)
        handler.close()


def test_a_run_is_the_commands(tmp_path, capsys):
    value = train(*TINY, "trainer.epochs=1", f"hydra.run.dir={tmp_path}/run")
    result = JobResult.read(tmp_path / "run")
    assert (result.state, result.value, "trainer.epochs=1" in result.overrides) == ("complete", value, True)
    assert (tmp_path / "run" / ".hydra" / "overrides.yaml").is_file()
    assert "best validation accuracy" in capsys.readouterr().out
    # The next cell may compose what it likes.
    assert not GlobalHydra.instance().is_initialized()
    assert not HydraConfig.initialized()


def test_a_mistake_is_an_exception(tmp_path):
    with pytest.raises(ConfigError, match=r"optimizer\.lr=-1: must be a number above 0"):
        train(*TINY, "optimizer.lr=-1", f"hydra.run.dir={tmp_path}/run")


def test_a_configuration_alone_is_not_trained(configure):
    with pytest.raises(UserError, match=r"notebook\.train"):
        run(configure())
