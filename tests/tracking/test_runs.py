"""What one run leaves in the store, and how it ends there."""

import json
import math
import subprocess
import sys
from weakref import WeakSet

import numpy as np
import pytest
from hydra.utils import instantiate
from omegaconf import OmegaConf

from cifar_tuning import PROJECT_ROOT
from cifar_tuning.errors import TrackingError
from cifar_tuning.tracking import MLflowTracker, NoTracker, facts, outbox
from tests.conftest import wait_for


def lines_of(folder):
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def artifacts(client, run_id, path=None):
    found = set()
    for item in client.list_artifacts(run_id, path):
        found |= artifacts(client, run_id, item.path) if item.is_dir else {item.path}
    return found


def test_a_run_carries_its_configuration_and_origin(started, client, tmp_path):
    tracker = started(tags={"purpose": "test"})
    run = client.get_run(tracker.run_id)
    assert run.data.params == {
        "model._target_": "cifar_tuning.models.SimpleNN",
        "model.activation": "relu",
        "model.widths": "[8, 16]",
        "optimizer.lr": "0.1",
        "optimizer.nesterov": "false",
        "schedule": "null",
        "seed": "7",
    }
    assert run.info.status == "RUNNING"
    assert run.info.run_name == "simplenn-sgd"
    tags = run.data.tags
    assert tags["cifar_tuning.overrides"] == "optimizer.lr=0.1"
    assert tags["seed"] == "7"
    assert tags["purpose"] == "test"
    assert tags["cifar_tuning.folder"] == str(tmp_path / "job")
    assert {"python", "torch", "mlflow"} <= set(json.loads(tags["cifar_tuning.versions"]))
    assert {"mlflow.user", "mlflow.source.name", "cifar_tuning.host", "cifar_tuning.pid"} <= set(tags)
    assert artifacts(client, tracker.run_id) == {"config.yaml", "overrides.yaml"}
    tracker.finish("complete")


def test_more_than_a_hundred_parameters_and_long_values(started, client):
    config = {f"key{number}": number for number in range(230)} | {"long": "x" * 9000, "odd@key": 1}
    tracker = started(config=config, overrides=["a=" + "y" * 9000])
    params = client.get_run(tracker.run_id).data.params
    assert len(params) == 233  # with the seed
    assert len(params["long"]) == 6000
    assert params["odd_key"] == "1"
    tracker.finish("complete")


def test_metrics_facts_and_files(started, client, tmp_path):
    tracker = started()
    for step in range(3):
        tracker.log_epoch({"val/acc": 0.1 * step, "train/loss": 2.3 - step}, step)
    tracker.log_facts({"model/parameters": 82_000, "model/macs": 651_720.0, "device": "cpu"})
    files = {}
    for name, local in {"checkpoints/best.pt": "best.pt", "learning_curves.png": "curves.png"}.items():
        files[name] = tmp_path / local
        files[name].write_bytes(b"content")
    tracker.log_artifacts(files)
    tracker.finish("complete")

    run = client.get_run(tracker.run_id)
    assert run.data.metrics["model/parameters"] == 82_000
    assert run.data.tags["device"] == "cpu"
    history = client.get_metric_history(tracker.run_id, "val/acc")
    assert [(point.step, round(point.value, 3)) for point in history] == [(0, 0.0), (1, 0.1), (2, 0.2)]
    assert {"checkpoints/best.pt", "learning_curves.png"} <= artifacts(client, tracker.run_id)
    assert [line["step"] for line in lines_of(tmp_path / "job")] == [0, 1, 2]


def test_an_epoch_is_one_call(started, monkeypatch):
    tracker = started()
    store_client = tracker.open_store().client
    calls = []
    monkeypatch.setattr(type(store_client), "log_batch", lambda self, *a, **k: calls.append((a, k)))
    tracker.log_epoch({"val/acc": 0.5, "lr": 0.1, "train/loss": 1.0}, 4)
    assert len(calls) == 1
    assert {(m.key, m.step) for m in calls[0][1]["metrics"]} == {("val/acc", 4), ("lr", 4), ("train/loss", 4)}
    monkeypatch.undo()
    tracker.finish("complete")


def test_non_finite_metrics_are_kept(started, client, tmp_path):
    tracker = started()
    tracker.log_epoch({"train/loss": float("nan"), "val/loss": float("inf")}, 1)
    tracker.finish("diverged")
    assert math.isnan(client.get_run(tracker.run_id).data.metrics["train/loss"])
    assert lines_of(tmp_path / "job") == [{"step": 1, "train/loss": None, "val/loss": None}]


def test_states(started, client):
    ends = {"complete": "FINISHED", "diverged": "FINISHED", "pruned": "KILLED", "killed": "KILLED", "failed": "FAILED"}
    for state, status in ends.items():
        tracker = started()
        tracker.finish(state)
        tracker.finish("complete")  # the first word stands
        run = client.get_run(tracker.run_id)
        assert (run.info.status, run.data.tags["state"]) == (status, state)
        assert run.info.end_time is not None


@pytest.mark.parametrize(
    ("error", "status", "state"),
    [
        (ValueError("bad shape at http://me:secret@host/x\nmore"), "FAILED", "failed"),
        (KeyboardInterrupt(), "KILLED", "killed"),
        (SystemExit(143), "KILLED", "killed"),
    ],
)
def test_an_exception_closes_the_run(started, client, tmp_path, error, status, state):
    tracker = started()
    tracker.fail(error)
    run = client.get_run(tracker.run_id)
    assert (run.info.status, run.data.tags["state"]) == (status, state)
    assert run.data.tags["error"].startswith(type(error).__name__)
    assert "traceback.txt" in artifacts(client, tracker.run_id)
    traceback = (tmp_path / "job" / "traceback.txt").read_text()
    assert type(error).__name__ in traceback
    assert "secret" not in run.data.tags["error"] + traceback


@pytest.mark.slow
def test_a_run_nobody_closed_is_closed_at_exit(root, tmp_path, client):
    script = f"""
from pathlib import Path
from cifar_tuning.tracking import MLflowTracker, RunContext
tracker = MLflowTracker(root={str(root)!r})
tracker.start(RunContext("run", {{}}, [], Path({str(tmp_path)!r}), 0))
print(tracker.run_id)
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert client.get_run(done.stdout.strip()).info.status == "KILLED"
    assert done.stderr == ""


def test_two_runs_are_open_at_once(started, client, tmp_path):
    first, second = started(folder=tmp_path / "0"), started(folder=tmp_path / "1")
    first.log_epoch({"val/acc": 0.1}, 1)
    second.log_epoch({"val/acc": 0.2}, 1)
    first.finish("complete")
    second.finish("complete")
    assert client.get_run(first.run_id).data.metrics == {"val/acc": 0.1}
    assert client.get_run(second.run_id).data.metrics == {"val/acc": 0.2}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"log_model": "maybe"}, "tracking.log_model=maybe: must be auto, true or false"),
        ({"experiment": " "}, "tracking.experiment=' ': must be a name"),
        ({"tags": "vision"}, "tracking.tags=vision: must be names with values"),
    ],
)
def test_bad_arguments_are_echoed(arguments, message):
    with pytest.raises(ValueError, match=message):
        MLflowTracker(**arguments)


@pytest.mark.parametrize(
    ("policy", "worth_keeping", "wanted"),
    [
        ("auto", True, True),
        ("auto", False, False),
        (True, False, True),
        (False, True, False),
    ],
)
def test_when_the_job_logs_its_model(policy, worth_keeping, wanted):
    assert MLflowTracker(log_model=policy).wants_model(worth_keeping) is wanted


def test_a_deleted_experiment_is_named(root, context, client, started):
    started().finish("complete")
    client.delete_experiment(client.get_experiment_by_name("cifar10").experiment_id)
    from cifar_tuning.tracking.store import _open

    _open.cache_clear()
    with pytest.raises(TrackingError, match="experiment was deleted"):
        MLflowTracker(root=root).start(context())


def test_no_tracker_keeps_the_metrics_file(context, tmp_path):
    tracker = NoTracker()
    tracker.start(context())
    for step in (0, 1, 2):
        tracker.log_epoch({"val/acc": 0.5}, step)
    again = NoTracker()  # the job is resumed from epoch 1, in the same folder
    again.start(context())
    again.log_epoch({"val/acc": 0.75}, 2)
    again.finish("complete")
    assert [(line["step"], line["val/acc"]) for line in lines_of(tmp_path / "job")] == [
        (0, 0.5),
        (1, 0.5),
        (2, 0.75),
    ]
    assert again.run_id is None


@pytest.mark.parametrize("name", ["mlflow", "none"])
def test_the_configs_build(name, monkeypatch):
    monkeypatch.setenv("MLFLOW_EXPERIMENT_NAME", "ours")
    config = OmegaConf.load(PROJECT_ROOT / "conf" / "tracking" / f"{name}.yaml")
    tracker = instantiate(config, _execution_whitelist_=["cifar_tuning.*"])
    assert isinstance(tracker, {"mlflow": MLflowTracker, "none": NoTracker}[name])
    assert tracker.run_id is None
    assert getattr(tracker, "experiment", "ours") == "ours"


def test_importing_the_room_imports_neither_mlflow_nor_torch():
    script = (
        "import sys, cifar_tuning.tracking.callback;"
        "print({'mlflow', 'torch', 'sqlalchemy', 'psutil', 'numpy'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"


@pytest.mark.parametrize(
    ("config", "params"),
    [
        ({"a": {"b": {"c": 1}}}, {"a.b.c": "1"}),
        (
            {"a": {}, "b": [], "c": None, "d": True, "e": 1e-5},
            {"a": "{}", "b": "[]", "c": "null", "d": "true", "e": "1e-05"},
        ),
        ({"a": [{"b": 1}]}, {"a": '[{"b": 1}]'}),
        # One number, one spelling; text is none.
        (
            {"a": 1, "b": 1.0, "c": -10.0, "d": 1.5, "e": 1e20, "f": "1.0", "g": float("nan")},
            {"a": "1", "b": "1", "c": "-10", "d": "1.5", "e": "1e+20", "f": "1.0", "g": "nan"},
        ),
    ],
)
def test_flattening(config, params):
    assert facts.as_params(config) == params


def test_epochs_that_are_short_for_it_are_told_several_at_once(started, client, tmp_path, monkeypatch):
    monkeypatch.setattr(outbox, "LATEST", 1e12)
    monkeypatch.setattr(outbox, "PART", 10**6)
    monkeypatch.setattr(outbox, "IDLE_PART", 10**6)
    tracker = started()

    def told():
        return [metric.step for metric in client.get_metric_history(tracker.run_id, "val/acc")]

    for step in range(5):
        tracker.log_epoch({"val/acc": step / 10}, step)
    assert told() == [0]
    assert len(lines_of(tmp_path / "job")) == 5
    tracker._outbox._called = -1e9  # its time has come
    tracker.log_epoch({"val/acc": 0.9}, 5)
    assert told() == list(range(6))
    tracker.log_epoch({"val/acc": 0.9}, 6)
    assert told() == list(range(6))
    tracker.deliver()  # a GPU computes meanwhile, but not for so long
    assert told() == list(range(6))
    monkeypatch.setattr(outbox, "IDLE_PART", 0)
    tracker.deliver()
    assert told() == list(range(7))
    tracker.log_epoch({"val/acc": 0.9}, 7)
    assert told() == list(range(7))
    tracker.finish("complete")
    assert told() == list(range(8))


@pytest.mark.parametrize("restored", [False, True])
def test_a_run_that_is_deleted_while_it_trains_is_asked_for_in_the_end(started, client, tmp_path, caplog, restored):
    tracker = started()
    tracker.log_epoch({"val/acc": 0.1}, 0)
    client.delete_run(tracker.run_id)
    for step in range(1, 4):
        tracker.log_epoch({"val/acc": step / 10}, step)
    assert tracker.log_model(None, np.zeros((2, 32, 32, 3), np.uint8)) is None
    if restored:
        client.restore_run(tracker.run_id)
    tracker.finish("complete")
    assert caplog.text.count("refuses run") == 1
    assert "does not answer" not in caplog.text
    assert len(lines_of(tmp_path / "job")) == 4
    assert not (tmp_path / "job" / outbox.UNSENT).exists()
    run = client.get_run(tracker.run_id)
    assert client.search_logged_models([run.info.experiment_id]) == []
    told = len(client.get_metric_history(tracker.run_id, "val/acc"))
    assert (run.data.tags["state"], told) == (("complete", 4) if restored else ("running", 1))


@pytest.mark.parametrize(
    ("in_sweep", "run_name", "name"),
    [
        (False, None, "mine"),
        (True, None, "0: simplenn-sgd"),
        (False, "swish", "swish"),
        (True, "swish", "0: swish"),
    ],
)
def test_tags_and_names_of_ones_own(root, context, client, tmp_path, in_sweep, run_name, name):
    own = {"team": "vision", "nested": {"on": True}, "state": "mine", "mlflow.runName": "mine"}
    tracker = MLflowTracker(root=root, tags=own, run_name=run_name)
    place = {"sweep_dir": tmp_path, "group_dir": tmp_path / "0", "job_num": 0, "name": "0: simplenn-sgd"}
    place = place if in_sweep else {}
    tracker.start(context(**place))
    run = client.get_run(tracker.run_id)
    tags = run.data.tags
    assert (tags["team"], tags["nested.on"], tags["state"]) == ("vision", "true", "running")
    assert run.info.run_name == name  # a sweep's jobs are told apart by theirs
    if in_sweep:
        trial = client.get_run(tags["mlflow.parentRunId"])
        assert (trial.info.run_name, trial.data.tags["team"]) == ("trial 0", "vision")
    tracker.finish("complete")


def test_a_run_says_what_images_it_was_trained_on(started, client):
    data = {"_target_": "cifar_tuning.data.CIFAR10", "root": "data", "batch_size": 128, "split_seed": 0}
    mine = {"_target_": "cifar_tuning.data.ImageFolder"}
    digits = {"_target_": "cifar_tuning.data.TorchvisionData", "dataset": "MNIST"}
    nested = {"_target_": "mine.Data", "dataset": {"folder": "f" * 600}}  # too long for a name in MLflow
    changes = ({}, {"root": "/mnt", "batch_size": 1}, {"split_seed": 1}, mine, {**mine, "root": "/mnt"}, digits, nested)
    trackers = [started(config={"data": data | more}) for more in changes]
    inputs = [client.get_run(one.run_id).inputs.dataset_inputs for one in trackers]
    first, elsewhere, split, own, other, mnist, part = [of_run[0].dataset for of_run in inputs]
    assert (first.name, own.name, mnist.name, part.name) == ("CIFAR10", "ImageFolder", "MNIST", "Data")
    assert first.digest == elsewhere.digest != split.digest
    assert own.digest != other.digest  # two folders with the same classes
    assert [(tag.key, tag.value) for tag in inputs[0][0].tags] == [("mlflow.data.context", "training")]
    for tracker in trackers:
        tracker.finish("complete")


def test_the_machines_load_is_kept_where_mlflows_variable_asks_for_it(started, client, monkeypatch):
    monkeypatch.setenv("MLFLOW_ENABLE_SYSTEM_METRICS_LOGGING", "true")
    monkeypatch.setenv("MLFLOW_SYSTEM_METRICS_SAMPLING_INTERVAL", "0.01")
    tracker = started()
    wait_for(lambda: tracker._monitor._logging_step > 0)
    tracker.finish("complete")
    assert "system/cpu_utilization_percentage" in client.get_run(tracker.run_id).data.metrics


@pytest.mark.parametrize(("idle", "share"), [(False, 1 / 20), (True, 1 / 10)])
def test_many_runs_wait_for_each_others_calls(started, tmp_path, monkeypatch, idle, share):
    """So much of the time goes into calls, however many runs there are; more of it where a GPU computes meanwhile."""
    monkeypatch.setattr(outbox, "LATEST", 1000.0)
    monkeypatch.setattr(outbox.Outbox, "_open", WeakSet())
    clock = [0.0]
    monkeypatch.setattr(outbox.time, "monotonic", lambda: clock[0])
    trackers = [started(folder=tmp_path / str(i)) for i in range(3)]
    calls = []
    for number, tracker in enumerate(trackers):
        monkeypatch.setattr(
            tracker._outbox, "_send", lambda last, n=number: (calls.append(n), clock.__setitem__(0, clock[0] + 0.1))
        )
    began = clock[0]
    for step in range(300):
        for tracker in trackers:
            tracker.log_epoch({"val/acc": 0.5}, step)
            if idle:
                tracker.deliver()
        clock[0] += 0.1
    assert 0.7 * share < 0.1 * len(calls) / (clock[0] - began) < 1.3 * share
    assert max(map(calls.count, range(3))) <= min(map(calls.count, range(3))) + 1
