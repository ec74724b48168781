"""Runs whose process was killed, stores that go away, runs that are continued."""

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import time

import pytest
import requests
from mlflow.exceptions import MlflowException

from cifar_tuning.errors import TrackingError
from cifar_tuning.processes import started as started_at
from cifar_tuning.tracking import MLflowTracker, facts, outbox, patience, reaper
from cifar_tuning.tracking.outbox import read_unsent
from cifar_tuning.tracking.store import StoreAwayError, locate
from tests.conftest import wait_for
from tests.tracking.conftest import CONFIG

JOB = """
import sys, time
from pathlib import Path
from cifar_tuning.tracking import MLflowTracker, RunContext
root, folder = sys.argv[1:]
tracker = MLflowTracker(root=root)
tracker.start(RunContext("victim", {}, [], Path(folder), 0))
tracker.log_epoch({"val/acc": 0.5}, 1)
print(tracker.run_id, flush=True)
time.sleep(60)
"""


@contextlib.contextmanager
def job_in_another_process(root, folder):
    process = subprocess.Popen([sys.executable, "-c", JOB, root, folder], stdout=subprocess.PIPE, text=True)
    try:
        yield process, process.stdout.readline().strip()
    finally:
        process.kill()
        process.wait()
        process.stdout.close()


@pytest.mark.slow
def test_a_killed_process_leaves_no_running_run(started, client, root, tmp_path):
    with job_in_another_process(root, tmp_path) as (process, run_id):
        store = MLflowTracker(root=root).open_store()
        assert reaper.reap(store) == []  # alive: not touched
        os.kill(process.pid, signal.SIGKILL)
        # Not waited for yet: a zombie is as dead.
        wait_for(lambda: started_at(process.pid) is None)
        own = started()  # the first start of this process in this store reaps
        run = client.get_run(run_id)
        assert (run.info.status, run.data.tags["state"]) == ("KILLED", "killed")
        assert abs(run.info.end_time / 1000 - (tmp_path / "metrics.jsonl").stat().st_mtime) < 1
        assert client.get_run(own.run_id).info.status == "RUNNING"
    own.finish("complete")


def test_runs_of_other_machines_and_reused_pids(started, client):
    foreign, recycled = started(), started()
    client.set_tag(foreign.run_id, facts.HOST, "elsewhere")
    client.set_tag(foreign.run_id, facts.PID, "999999999")
    client.set_tag(recycled.run_id, facts.PROCESS_STARTED, "1000.00")  # somebody else has this pid now
    assert reaper.reap(foreign.open_store()) == [recycled.run_id]
    foreign.finish("complete")
    recycled.finish("complete")  # had it been wrong, the run's own end corrects it
    assert client.get_run(recycled.run_id).info.status == "FINISHED"


@pytest.mark.parametrize(
    ("installation", "boot", "dead"),
    [
        ("same", "before", True),
        ("same", "now", False),  # a container beside this one, with process ids of its own
        ("another", "before", False),  # another machine of the same host name
        ("", "before", False),  # nobody can tell
    ],
)
def test_what_a_reboot_ended(started, client, monkeypatch, installation, boot, dead):
    monkeypatch.setattr(reaper.processes, "installation", lambda: "same")
    monkeypatch.setattr(reaper.processes, "boot", lambda: "now")
    run = started()
    for tag, value in ((facts.MACHINE, "elsewhere"), (facts.INSTALLATION, installation), (facts.BOOT, boot)):
        client.set_tag(run.run_id, tag, value)
    assert reaper.reap(run.open_store()) == ([run.run_id] if dead else [])
    run.finish("complete")


def flaky(monkeypatch):
    """A store whose calls can be made to fail."""
    from mlflow import MlflowClient

    state = {"down": False}
    for name in ("log_batch", "log_artifact", "set_terminated"):
        original = getattr(MlflowClient, name)

        def call(self, *args, _original=original, **kwargs):
            if state["down"]:
                raise ConnectionError("gone")
            return _original(self, *args, **kwargs)

        monkeypatch.setattr(MlflowClient, name, call)
    return state


def warnings_in(caplog):
    return [record.message for record in caplog.records if record.levelname == "WARNING"]


def test_a_store_that_goes_and_comes_back(started, client, tmp_path, monkeypatch, caplog):
    store = flaky(monkeypatch)
    tracker = started()
    (tmp_path / "best.pt").write_bytes(b"weights")
    tracker.log_epoch({"val/acc": 0.1}, 1)
    store["down"] = True
    tracker.log_epoch({"val/acc": 0.2}, 2)
    tracker.log_epoch({"val/acc": 0.3}, 3)
    tracker.log_artifacts({"checkpoints/best.pt": tmp_path / "best.pt"})
    assert len(warnings_in(caplog)) == 1
    assert str(tmp_path / "job" / "metrics.jsonl") in caplog.text
    assert len((tmp_path / "job" / "metrics.jsonl").read_text().splitlines()) == 3
    store["down"] = False
    tracker.finish("complete")
    assert [point.step for point in client.get_metric_history(tracker.run_id, "val/acc")] == [1, 2, 3]
    assert [item.path for item in client.list_artifacts(tracker.run_id, "checkpoints")] == ["checkpoints/best.pt"]
    assert client.get_run(tracker.run_id).info.status == "FINISHED"


def test_a_store_that_stays_away_gets_everything_later(started, client, tmp_path, monkeypatch):
    store = flaky(monkeypatch)
    tracker = started()
    store["down"] = True
    tracker.log_epoch({"val/acc": 0.2}, 1)
    tracker.finish("diverged")  # doesn't raise
    assert read_unsent(tmp_path / "job").status == "FINISHED"
    store["down"] = False
    assert client.get_run(tracker.run_id).info.status == "RUNNING"
    client.set_tag(tracker.run_id, facts.PROCESS_STARTED, "1000.00")  # as if that process were gone
    with monkeypatch.context() as somebody_else:  # could be made to send files of theirs that are none of the run's
        somebody_else.setattr(reaper.os, "getuid", lambda: -1)
        assert reaper.reap(tracker.open_store()) == []
    assert reaper.reap(tracker.open_store()) == [tracker.run_id]
    run = client.get_run(tracker.run_id)
    assert (run.info.status, run.data.tags["state"]) == ("FINISHED", "diverged")
    assert run.data.metrics == {"val/acc": 0.2}
    assert read_unsent(tmp_path / "job") is None


def test_what_a_run_could_not_send_is_sent_before_the_next_one_of_its_process(started, client, tmp_path, monkeypatch):
    store = flaky(monkeypatch)
    first = started()
    store["down"] = True
    first.log_epoch({"val/acc": 0.2}, 1)
    first.finish("complete")
    store["down"] = False
    second = started(folder=tmp_path / "second")
    run = client.get_run(first.run_id)
    assert (run.info.status, run.data.metrics, read_unsent(tmp_path / "job")) == ("FINISHED", {"val/acc": 0.2}, None)
    second.finish("complete")


@pytest.mark.parametrize("failing", ["create_run", "log_batch"])
@pytest.mark.parametrize("in_sweep", [True, False])
def test_a_sweeps_job_waits_for_a_store_that_is_away(started, client, tmp_path, monkeypatch, caplog, failing, in_sweep):
    from mlflow import MlflowClient

    original, calls = getattr(MlflowClient, failing), []

    def away_twice(self, *args, **kwargs):
        calls.append(args)
        if len(calls) <= 2:
            raise MlflowException("503")
        return original(self, *args, **kwargs)

    monkeypatch.setattr(MlflowClient, failing, away_twice)
    monkeypatch.setattr(patience, "PAUSE", 0.0)
    if in_sweep:
        started(sweep_dir=tmp_path).finish("complete")
        assert [record.message.count("this job of a sweep waits") for record in caplog.records].count(1) == 1
    else:
        with pytest.raises(TrackingError, match="503"):
            started()
    runs = client.search_runs([client.get_experiment_by_name("cifar10").experiment_id])
    ended = "complete" if in_sweep else "failed"
    assert [run.data.tags["state"] for run in runs] == ([] if (failing, in_sweep) == ("create_run", False) else [ended])


def test_a_store_is_waited_for_in_vain_once(monkeypatch):
    calls = []

    def call():
        calls.append(None)
        raise StoreAwayError("gone")

    monkeypatch.setattr(patience, "PATIENCE", -1.0)
    monkeypatch.setattr(patience, "PAUSE", 0.0)
    monkeypatch.setattr(patience, "_given_up", set())
    for expected in (2, 3):
        with pytest.raises(StoreAwayError):
            patience.patiently(call, locate("http://127.0.0.1:1", None))
        assert len(calls) == expected


def test_a_file_that_the_store_will_not_have_does_not_hold_the_run_up(started, client, tmp_path, monkeypatch, caplog):
    from mlflow import MlflowClient

    original = MlflowClient.log_artifact

    def too_large(self, run_id, path, folder=None):
        if path.endswith(".pt"):
            raise requests.HTTPError("413 Too Large", response=type("Response", (), {"status_code": 413})())
        original(self, run_id, path, folder)

    tracker = started()
    monkeypatch.setattr(MlflowClient, "log_artifact", too_large)
    for name in ("best.pt", "curves.png"):
        (tmp_path / name).write_bytes(b"content")
    tracker.log_artifacts({"checkpoints/best.pt": tmp_path / "best.pt", "curves.png": tmp_path / "curves.png"})
    tracker.finish("complete")
    assert client.get_run(tracker.run_id).info.status == "FINISHED"
    assert "curves.png" in [item.path for item in client.list_artifacts(tracker.run_id)]
    assert len(warnings_in(caplog)) == 1
    assert f"413 Too Large); it stays in {tmp_path / 'best.pt'}" in caplog.text


@pytest.mark.parametrize(
    ("left", "when", "ended"),
    [
        (None, None, ("KILLED", "killed")),
        ('{"state": "diverged", "run_id": "RUN"}', 1001, ("FINISHED", "diverged")),  # it was killed behind its end
        ('{"state": "complete", "run_id": "RUN"}', 900, ("KILLED", "killed")),  # of a process that it went on from
        ('{"state": "complete", "run_id": "another"}', 1001, ("KILLED", "killed")),
        ('{"state": [], "run_id": "RUN"}', 1001, ("KILLED", "killed")),
        ("[]", 1001, ("KILLED", "killed")),
    ],
)
def test_what_a_killed_process_had_not_told_is_told_for_it(started, client, tmp_path, monkeypatch, left, when, ended):
    monkeypatch.setattr(outbox, "LATEST", 1000.0)
    monkeypatch.setattr(outbox, "PART", 10**6)
    tracker = started()
    for step in range(4):
        tracker.log_epoch({"val/acc": step / 10, "val/loss": float("nan") if step == 2 else 1.0}, step)
    with (tmp_path / "job" / "metrics.jsonl").open("a") as file:
        file.write('{"step": 4, "val/a')  # it was killed while it wrote
    assert [point.step for point in client.get_metric_history(tracker.run_id, "val/acc")] == [0]
    client.set_tag(tracker.run_id, facts.PROCESS_STARTED, "1000.00")  # as if that process were gone
    if left is not None:
        (tmp_path / "job" / "result.json").write_text(left.replace("RUN", tracker.run_id))
        os.utime(tmp_path / "job" / "result.json", (when, when))
    tracker.abandon()
    assert reaper.reap(tracker.open_store()) == [tracker.run_id]
    history = client.get_metric_history(tracker.run_id, "val/acc")
    assert [(point.step, point.value) for point in history] == [(0, 0.0), (1, 0.1), (2, 0.2), (3, 0.3)]
    assert [point.step for point in client.get_metric_history(tracker.run_id, "val/loss")] == [0, 1, 3]
    run = client.get_run(tracker.run_id)
    assert (run.info.status, run.data.tags["state"]) == ended


def test_a_vanished_database_is_noticed(started, root, caplog):
    tracker = started()
    (root / "mlflow.db").rename(root / "moved.db")
    tracker.log_epoch({"val/acc": 0.2}, 1)
    assert "does not exist" in warnings_in(caplog)[0]
    (root / "moved.db").rename(root / "mlflow.db")
    tracker.finish("complete")


def test_a_run_is_continued(started, client, tmp_path):
    # As an older release spelled a number.
    first = started(config=merged(CONFIG, {"optimizer": {"momentum": "1.0"}}))
    for step in range(4):
        first.log_epoch({"val/acc": step / 10}, step)
    first.fail(KeyboardInterrupt())
    # Another machine may have the images elsewhere, and another device.
    config = merged(CONFIG, {"optimizer": {"momentum": 1.0}})
    config = merged(config, {"resume": "last.pt", "data": {"root": "/mnt"}, "trainer": {"device": "cpu"}})
    config = merged(config, {"trainer": {"patience": None}})  # an option that the older release did not have
    second = started(run_id=first.run_id, config=config, folder=tmp_path / "second")
    assert second.continued
    assert second.run_id == first.run_id
    assert client.get_run(first.run_id).info.status == "RUNNING"
    assert "error" not in client.get_run(first.run_id).data.tags  # of the process before
    for step in (2, 3, 4, 5):  # the checkpoint was older than the last logged epoch
        second.log_epoch({"val/acc": step / 10}, step)
    second.finish("complete")
    run = client.get_run(first.run_id)
    assert (run.info.status, run.data.tags["state"]) == ("FINISHED", "complete")
    history = client.get_metric_history(first.run_id, "val/acc")
    assert [point.step for point in history] == [0, 1, 2, 3, 4, 5]


@pytest.mark.parametrize("case", ["another configuration", "an option more", "unknown run"])
def test_a_run_that_cannot_be_continued_becomes_a_new_one(started, client, case):
    first = started()
    first.finish("complete")
    if case == "unknown run":
        run_id, config = "0" * 32, CONFIG
    else:
        changed = {"optimizer": {"lr": 0.5}} if case == "another configuration" else {"trainer": {"patience": 3}}
        run_id, config = first.run_id, merged(CONFIG, changed)
    second = started(run_id=run_id, config=config)
    assert not second.continued
    assert second.run_id != first.run_id
    assert client.get_run(second.run_id).data.tags["resumed_from"] == run_id
    second.finish("complete")


def merged(config, other):
    return config | {k: config.get(k, {}) | v if isinstance(v, dict) else v for k, v in other.items()}


@contextlib.contextmanager
def server(root, port):
    process = subprocess.Popen(
        [
            *(sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(port)),
            *("--backend-store-uri", f"sqlite:///{root / 'mlflow.db'}", "--workers", "1"),
            *("--artifacts-destination", str(root / "served")),
        ],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        env=os.environ | {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"},
        start_new_session=True,
    )
    location = locate(f"http://127.0.0.1:{port}", root)
    try:
        deadline = time.monotonic() + 60
        while location.problem(timeout=1) is not None:
            assert process.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.1)
        yield location.uri
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)  # its own session: it and its worker
        process.wait()


@pytest.mark.services
def test_a_server_that_dies_while_training(root, context, tmp_path, caplog):
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    with server(root, port) as uri:
        tracker = MLflowTracker(uri=uri)
        tracker.start(context())
        tracker.log_epoch({"val/acc": 0.1}, 1)
    slowest = 0.0
    for step in range(2, 7):
        started = time.monotonic()
        tracker.log_epoch({"val/acc": step / 10}, step)
        slowest = max(slowest, time.monotonic() - started)
    assert slowest < 5
    assert len(warnings_in(caplog)) == 1
    lines = (tmp_path / "job" / "metrics.jsonl").read_text().splitlines()
    assert [json.loads(line)["step"] for line in lines] == [1, 2, 3, 4, 5, 6]
    (tmp_path / "curves.png").write_bytes(b"png")
    tracker.log_artifacts({"learning_curves.png": tmp_path / "curves.png"})
    with server(root, port):
        tracker.finish("complete")
        client = tracker.open_store().client
        run = client.get_run(tracker.run_id)
        assert (run.info.status, run.data.tags["state"]) == ("FINISHED", "complete")
        history = client.get_metric_history(tracker.run_id, "val/acc")
        assert [point.step for point in history] == [1, 2, 3, 4, 5, 6]
        assert "learning_curves.png" in [item.path for item in client.list_artifacts(tracker.run_id)]
