"""What Ctrl-C and SIGTERM leave of a sweep or a run, and what is said of how to go on."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from unittest.mock import MagicMock

import pytest

from cifar_tuning import PROJECT_ROOT, processes
from cifar_tuning.training import Trainer
from tests.conftest import TINY


@pytest.fixture
def signals(monkeypatch):
    """Has signals heard as in a process of its own, and forgotten after the test."""
    monkeypatch.setattr(processes, "_stop", threading.Event())
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    signal.signal(signal.SIGINT, signal.default_int_handler)  # what a shell starts in the background ignores it
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.mark.slow
def test_a_job_that_was_stopped_before_its_first_checkpoint_keeps_its_run(tiny, tracked):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("cifar_tuning.jobs.training.make_batches", MagicMock(side_effect=KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            tiny("-m", "seed=0", *tracked.overrides)
    assert [run.info.status for run in tracked()] == ["KILLED"] * 2
    assert tiny("-m", "seed=0", *tracked.overrides).code == 0
    assert [run.info.status for run in tracked()] == ["FINISHED"] * 2


STOPPED = "Stopped. The same command with {} trains what is missing."


@pytest.mark.slow
@pytest.mark.parametrize("launcher", ["fused", "basic"])
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_sweep_that_was_stopped_says_how_to_go_on(tiny, tmp_path, monkeypatch, capsys, signals, launcher, number):
    """Once, whichever launcher it is."""
    finished = Trainer.finish_epoch

    def finish(*arguments):
        ended = finished(*arguments)
        signal.raise_signal(number)
        return ended

    monkeypatch.setattr(Trainer, "finish_epoch", finish)
    grid = ["-m", "seed=0,1", f"hydra/launcher={launcher}"]
    if number == signal.SIGINT:
        with pytest.raises(KeyboardInterrupt):
            tiny(*grid)
        out = "".join(capsys.readouterr())
    else:
        outcome = tiny(*grid)
        out = outcome.text
        assert outcome.code == 128 + number
    assert out.count("trains what is missing") == 1, out
    if launcher != "fused":  # its line is fused/launch.py's
        assert STOPPED.format(f"hydra.sweep.dir={tmp_path}/sweep") in out


def begun(command, folder, **options) -> subprocess.Popen:
    """Starts a command that Ctrl-C ends: a job in a shell's background ignores it, and so would this child of it."""
    return subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        cwd=folder,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL) and None,
        **options,
    )


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_sweep_that_was_stopped_in_other_processes_says_so_once(tmp_path, number):
    command = [sys.executable, str(PROJECT_ROOT / "train.py"), "-m", *TINY, "seed=0,1", "trainer.epochs=100000"]
    command += ["hydra/launcher=joblib", "hydra.launcher.n_jobs=2", "hydra.sweep.dir='my sweep'"]
    process = begun(command, tmp_path, start_new_session=True)
    try:
        deadline = time.monotonic() + 120
        while not list(tmp_path.glob("my sweep/*/last.pt")) and time.monotonic() < deadline:
            time.sleep(0.1)
        if number == signal.SIGINT:  # a terminal sends it to all of the command's processes
            os.killpg(process.pid, number)
        else:
            process.send_signal(number)
        out, _ = process.communicate(timeout=60)
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
    assert out.count("trains what is missing") == 1, out
    assert STOPPED.format("'hydra.sweep.dir=\"my sweep\"'") in out


@pytest.mark.slow
@pytest.mark.parametrize(("signal_number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, -signal.SIGINT)])
def test_a_stopped_run_is_not_left_running(tmp_path, tracked, signal_number, code):
    """SIGTERM, as schedulers send it, and Ctrl-C end the run as killed, without a screenful of traceback."""
    command = [sys.executable, str(PROJECT_ROOT / "train.py"), *TINY, "trainer.epochs=100000", *tracked.overrides]
    command += [f"hydra.run.dir={tmp_path}/run"]
    process = begun(command, tmp_path)
    assert process.stdout is not None
    for line in process.stdout:
        if "epoch " in line and " 2/" in line.replace("     ", ""):
            break
    process.send_signal(signal_number)
    rest = process.stdout.read()
    assert process.wait(60) == code
    assert "go on with the same command and resume=" in rest
    assert "Traceback" not in rest
    (run,) = tracked()
    assert (run.data.tags["state"], run.info.status) == ("killed", "KILLED")
    result = json.loads((tmp_path / "run/result.json").read_text())
    assert result["state"] == "killed"
    assert result["epochs"] >= 2
