"""Sweeps read back from a store: ours, and those that somebody logged by hand."""

import json
import math

import pytest
from mlflow.entities import Param

from cifar_tuning.errors import TrackingError, UserError
from cifar_tuning.tracking import facts
from cifar_tuning.tracking.reading import read_sweep


@pytest.fixture
def by_hand(client):
    """Logs an experiment `study of mine`: a parent with two runs, one with a run of its own, and a run alone."""
    experiment = client.create_experiment("study of mine")

    def log(name, parent=None, metrics=(), **params):
        tags = {"mlflow.parentRunId": parent} if parent else {}
        run = client.create_run(experiment, run_name=name, tags=tags).info.run_id
        for key, value in params.items():
            client.log_param(run, key, value)
        for step, value in enumerate(metrics):
            client.log_metric(run, "accuracy", value, step=step, timestamp=step)
        client.set_terminated(run)
        return run

    parent = log("the parent")
    log("a", parent, [0.1, 0.2], width=8)
    log("c", log("b", parent), [0.3], width=16)
    log("alone")
    return parent


@pytest.mark.parametrize("what", ["name", "id"])
def test_the_runs_below_a_run(by_hand, root, what):
    sweep = read_sweep("the parent" if what == "name" else by_hand, root=root)
    assert sweep.name == "the parent"
    assert sweep.parent.run_id == by_hand
    assert [run.name for run in sweep.runs] == ["a", "c"]
    assert sweep.runs[0].params == {"width": "8"}
    assert sweep.runs[0].state == "complete"
    assert sweep.folder is None


def test_the_last_part_of_a_name_where_nothing_else_is_called_so(client, root):
    """A sweep is called by the last two parts of its folder, which may be anywhere."""
    experiment = client.create_experiment("e")
    for name in ("multirun/wide", "multirun/w_de", "runs/other"):
        parent = client.create_run(experiment, run_name=name).info.run_id
        client.create_run(experiment, tags={"mlflow.parentRunId": parent}, run_name=f"a job of/{name}")
    assert read_sweep("wide", root=root).name == "multirun/wide"
    assert read_sweep("w_de", root=root).name == "multirun/w_de"
    client.create_experiment("other")
    with pytest.raises(UserError, match="this experiment"):
        read_sweep("other", root=root)


def test_an_experiment_is_all_its_runs(by_hand, root):
    sweep = read_sweep("study of mine", root=root)
    assert sweep.parent is None
    assert {run.name for run in sweep.runs} == {"a", "c", "alone"}


def test_a_run_alone_is_a_sweep_of_one(by_hand, root, client):
    (run,) = read_sweep("study of mine", root=root).runs[-1:]
    assert [found.run_id for found in read_sweep(run.run_id, root=root).runs] == [run.run_id]


def test_curves_and_a_step_that_was_logged_twice(by_hand, root, client):
    sweep = read_sweep("the parent", root=root)
    client.log_metric(sweep.runs[0].run_id, "accuracy", 0.9, step=1, timestamp=99)
    assert sweep.curves("accuracy", sweep.runs) == {
        sweep.runs[0].run_id: [(0, 0.1), (1, 0.9)],
        sweep.runs[1].run_id: [(0, 0.3)],
    }
    assert sweep.curves("loss", sweep.runs) == {}


def test_what_the_store_has_for_infinity_is_no_number(by_hand, root, client):
    (run, _) = read_sweep("the parent", root=root).runs
    client.log_metric(run.run_id, "accuracy", math.inf, step=2)
    client.log_metric(run.run_id, "loss", -math.inf, step=2)
    sweep = read_sweep("the parent", root=root)
    assert sweep.runs[0].metrics == {"accuracy": math.inf, "loss": -math.inf}
    assert sweep.curves("accuracy", sweep.runs[:1])[run.run_id][-1] == (2, math.inf)


def test_a_multirun_by_its_folder(started, root, client, tmp_path):
    from cifar_tuning.tracking import sweeps
    from cifar_tuning.tracking.store import locate, open_store

    folder = tmp_path / "sweep"
    parent = sweeps.open_parent(open_store(locate(None, root), "cifar10"), "mine", folder, {}, root)
    tracker = started(sweep_dir=folder, job_num=0, folder=folder / "0", overrides=["a=[1,2]", "b=x"])
    tracker.finish("diverged")
    for name in (str(folder), "mine", parent):
        sweep = read_sweep(name, root=root)
        assert sweep.folder == folder
        (run,) = sweep.runs
        assert run.run_id == tracker.run_id
        assert run.state == "diverged"
        assert run.overrides == ["a=[1,2]", "b=x"]


@pytest.mark.parametrize("by", ["mlflow.runName", "hydra.sweeper.study_name"])
def test_of_several_sweeps_of_one_name_the_newest_and_it_is_said(client, root, by):
    experiment = client.create_experiment("e")
    made = []
    for number, folder in enumerate(("/a/old", None, "/b/new"), start=1):
        tags = {"cifar_tuning.folder": folder} if folder else {}
        name = "twice" if by == "mlflow.runName" else f"sweep {number}"
        run = client.create_run(experiment, number, tags, name).info.run_id
        client.log_param(run, "hydra.sweeper.study_name", "twice")
        client.create_run(experiment, number, {"mlflow.parentRunId": run}, "twice")
        made.append(run)
    sweep = read_sweep("twice", root=root)
    assert sweep.parent.run_id == made[2]
    assert sweep.notes == [
        f"3 sweeps are called `twice`: this is the newest, `/b/new` (run `{made[2]}`); `sweep=` with another's folder "
        f"or run reports that: (run `{made[1]}`), `/a/old` (run `{made[0]}`)."
    ]
    assert read_sweep(made[0], root=root).notes == []


def test_a_seed_of_a_trial_that_was_stopped(client, root):
    """The sweep was stopped too, which says nothing about the jobs that it has."""
    experiment = client.create_experiment("e")

    def log(state, parent=None):
        tags = {"state": state, **({"mlflow.parentRunId": parent} if parent else {})}
        return client.create_run(experiment, run_name=state, tags=tags).info.run_id

    sweep = log("killed")
    expected = {log("complete", sweep): "complete"}
    for of_trial, of_seed, found in (
        ("complete", "complete", "complete"),
        ("diverged", "complete", "complete"),
        ("running", "complete", "complete"),
        ("failed", "complete", "failed"),
        ("killed", "diverged", "killed"),
        ("pruned", "failed", "failed"),
        ("Bavaria", "complete", "complete"),
        ("pruned", "complete", "pruned"),
    ):
        trial = log(of_trial, sweep)
        seed = log(of_seed, trial)
        expected[seed] = found
    for name in (sweep, "e"):
        assert {run.run_id: run.state for run in read_sweep(name, root=root).runs} == expected
    assert {run.run_id: run.state for run in read_sweep(trial, root=root).runs} == {seed: "complete"}


@pytest.mark.parametrize("rows", [1, 100])
def test_published_values_of_any_length(client, root, rows):
    published = [{"optimizer.lr": 1e-5, "variant": f"row {number}", "val/acc_best": 0.5} for number in range(rows)]
    params = facts.published_params(published)
    assert all(len(value) <= facts.MAX_PARAM for value in params.values())
    run = client.create_run(client.create_experiment("e"), run_name="sweep").info.run_id
    client.log_batch(run, params=[Param(key, value) for key, value in params.items()])
    assert read_sweep(run, root=root).published == published


@pytest.mark.parametrize("value", ["not JSON", "3", json.dumps({"a": 1})])
def test_somebody_elses_parameter_called_published(client, root, value):
    run = client.create_run(client.create_experiment("e"), run_name="sweep").info.run_id
    client.log_param(run, "published", value)
    assert read_sweep(run, root=root).published == ([{"a": 1}] if "a" in value else [])


def test_a_tag_called_state_that_is_not_ours(client, root):
    run = client.create_run(client.create_experiment("e"), tags={"state": "Bavaria"}).info.run_id
    client.set_terminated(run, "FAILED")
    assert read_sweep(run, root=root).runs[0].state == "failed"


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("nowhere", r"sweep=nowhere: is neither .* newest sweeps there are the parent; its experiments are .*mine"),
        ("it's", "sweep=it's: is neither"),
        ("FOLDER", "the folder has no mlflow_run_id"),
        ("MARKED", "is not in this store"),
        ("DELETED", "was deleted"),
        ("empty", "has no runs"),
    ],
)
def test_a_sweep_that_is_not_there(by_hand, root, client, tmp_path, name, expected):
    client.create_experiment("empty")
    (tmp_path / "marked").mkdir()
    (tmp_path / "marked/mlflow_run_id").write_text("0123456789abcdef0123456789abcdef\n")
    if name == "DELETED":
        client.delete_run(by_hand)
    given = {"FOLDER": str(tmp_path), "MARKED": str(tmp_path / "marked"), "DELETED": by_hand}.get(name, name)
    with pytest.raises(UserError, match=expected) as error:
        read_sweep(given, root=root)
    assert "tracking=none" not in str(error.value)


@pytest.mark.parametrize(
    ("uri", "expected"),
    [
        ("sqlite:////nowhere/mlflow.db", "/nowhere/mlflow.db does not exist"),
        ("http://127.0.0.1:9", "no MLflow server answers there"),
        ("mlruns", "no longer keeps runs in plain folders"),
    ],
)
def test_a_store_that_is_not_there(root, uri, expected):
    with pytest.raises(TrackingError, match=expected):
        read_sweep("anything", uri, root=root)


def test_files_go_to_the_sweeps_own_run(by_hand, root, client, tmp_path):
    (tmp_path / "report.md").write_text("# Report")
    read_sweep("the parent", root=root).keep([tmp_path / "report.md"], "report")
    assert [item.path for item in client.list_artifacts(by_hand, "report")] == ["report/report.md"]
    read_sweep("study of mine", root=root).keep([tmp_path / "report.md"], "report")
