"""Whose exit it is: a job's own costs its trial, any other ends the process."""

import pickle
import signal
import sys
from pathlib import Path

import pytest

from cifar_tuning import processes
from cifar_tuning.tuning import exits
from cifar_tuning.tuning.exits import ContainedTask, JobExit
from cifar_tuning.tuning.place import LostTrial


def leave(code: object) -> None:
    """Exits as it is told to."""
    sys.exit(code)


@pytest.mark.parametrize(
    ("code", "said"),
    [
        (3, "the job exited with code 3"),
        (0, "the job exited with code 0"),
        (None, "the job exited with code 0"),
        ("no data", "the job exited: no data"),
    ],
)
def test_a_jobs_own_exit_is_its_failure(code, said):
    task = pickle.loads(pickle.dumps(ContainedTask(leave)))  # as launchers send it to other processes
    with pytest.raises(JobExit) as error:
        task(code)
    assert str(error.value) == said


@pytest.mark.parametrize("error", [LostTrial("elsewhere"), SystemExit(128 + signal.SIGTERM), KeyboardInterrupt()])
def test_what_ends_the_process_goes_through(error):
    def task(config):
        raise error

    with pytest.raises(type(error)) as raised:
        ContainedTask(task)(None)
    assert raised.value is error


def test_after_a_signal_any_exit_goes_through(monkeypatch):
    monkeypatch.setattr(exits, "asked_to_stop", lambda: True)
    with pytest.raises(SystemExit):
        ContainedTask(leave)(3)


def test_a_launcher_that_exits_is_a_launcher_error(command, tmp_path, monkeypatch):
    """No job has begun, so no trial is lost."""
    from hydra._internal.core_plugins.basic_launcher import BasicLauncher

    monkeypatch.setattr(BasicLauncher, "launch", lambda *arguments, **options: sys.exit(3))
    program = str(Path(__file__).with_name("sphere.py"))
    study = ["-m", "hydra/sweeper=study", f"hydra.sweep.dir={tmp_path}", "x=interval(-5.0,5.0)"]
    out = command(*study, program=program)
    assert out.code == 1
    assert "hydra/launcher could not start a job: it exited with code 3" in out.text
    assert not processes.asked_to_stop()
