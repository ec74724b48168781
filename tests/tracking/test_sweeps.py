"""Parent and child runs of a multirun, through the callback and through Hydra itself."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from mlflow.entities import Param
from mlflow.exceptions import MlflowException
from omegaconf import OmegaConf

from cifar_tuning.targets import STUDY_SWEEPER
from cifar_tuning.tracking import MLflowTracker, groups, patience, sweeps
from cifar_tuning.tracking.callback import SweepRun
from cifar_tuning.tracking.store import Location, locate, open_store


def config_of(root, sweep_dir, **tracking):
    return OmegaConf.create(
        {
            "tracking": {
                "_target_": "cifar_tuning.tracking.MLflowTracker",
                "uri": f"sqlite:///{root / 'mlflow.db'}",
                "log_model": False,
                **tracking,
            },
            "hydra": {
                "sweep": {"dir": str(sweep_dir)},
                "overrides": {"task": ["optimizer.lr=1.0,0.1", "+extra=1"]},
                "runtime": {"choices": {"hydra/sweeper": "basic", "hydra/launcher": "basic", "study": None}},
            },
        }
    )


@pytest.fixture
def sweep_dir(tmp_path):
    folder = tmp_path / "multirun" / "2026-01-01" / "12-00-00"
    folder.mkdir(parents=True)
    return folder


def parents(client):
    experiment = client.get_experiment_by_name("cifar10").experiment_id
    return client.search_runs([experiment], "tags.`cifar_tuning.sweep_dir` LIKE '%'")


def run_jobs(started, sweep_dir, ends):
    """One job for each (state, accuracy)."""
    trackers = []
    for number, (state, accuracy) in enumerate(ends):
        tracker = started(sweep_dir=sweep_dir, job_num=number, folder=sweep_dir / str(number))
        tracker.log_epoch({"val/acc_best": accuracy}, 1)
        tracker.finish(state)
        trackers.append(tracker)
    return trackers


@pytest.mark.parametrize(
    ("study_name", "choices", "name"),
    [
        ("lr_only", {"study": "simplenn"}, "lr_only"),
        (None, {"study": "null", "experiment": "lab2_lr"}, "lab2_lr"),
        (None, {}, "2026-01-01/12-00-00"),
    ],
)
def test_a_sweep_is_called_by_its_study_its_overlay_or_its_folder(root, sweep_dir, client, study_name, choices, name):
    config = config_of(root, sweep_dir)
    config.hydra.sweeper = {"study_name": study_name}
    config.hydra.runtime = {"choices": choices}
    SweepRun().on_multirun_start(config)
    assert [parent.info.run_name for parent in parents(client)] == [name]


def test_jobs_are_nested_under_their_parent(started, client, root, sweep_dir):
    callback, config = SweepRun(), config_of(root, sweep_dir)
    callback.on_multirun_start(config)
    (parent,) = parents(client)
    assert parent.info.status == "RUNNING"
    assert parent.info.run_name == "2026-01-01/12-00-00"
    assert parent.data.params == {
        "optimizer.lr": "1.0,0.1",
        "extra": "1",
        "hydra/sweeper": "basic",
        "hydra/launcher": "basic",
    }
    ends = [("complete", 0.5), ("pruned", 0.9), ("diverged", 0.7), ("failed", 0.1)]
    jobs = run_jobs(started, sweep_dir, ends)
    callback.on_multirun_end(config)
    (parent,) = parents(client)
    assert parent.info.status == "FINISHED"
    assert parent.data.metrics == {
        "jobs/complete": 1,
        "jobs/pruned": 1,
        "jobs/diverged": 1,
        "jobs/failed": 1,
        "val/acc_best": 0.7,  # the pruned one does not compete
    }
    assert parent.data.tags["best.run_id"] == jobs[2].run_id
    assert parent.data.tags["best.job_num"] == "2"
    for number, job in enumerate(jobs):
        tags = client.get_run(job.run_id).data.tags
        assert tags["mlflow.parentRunId"] == parent.info.run_id
        assert tags["cifar_tuning.job_num"] == str(number)


@pytest.mark.parametrize(
    ("winner", "tests", "expected"),
    [
        (0, (0.6, 0.8), {"test/acc": 0.7, "test/acc_std": 0.1 * 2**0.5}),
        (0, (0.6, None), {"test/acc": 0.6}),
        (1, (0.6, 0.8), {}),
    ],
)
def test_what_the_winner_reached_on_the_test_set(client, root, sweep_dir, winner, tests, expected):
    callback, config = SweepRun(), config_of(root, sweep_dir)
    callback.on_multirun_start(config)
    (sweep_dir / "best_values.json").write_text(json.dumps([[winner, 0.7, 1000]]))
    runs = {str(seed): {"value": 0.7, "test": test} for seed, test in enumerate(tests)}
    (sweep_dir / "retrained.json").write_text(json.dumps({"trial": 0, "overrides": [], "runs": runs}))
    callback.on_multirun_end(config)
    (parent,) = parents(client)
    assert {k: v for k, v in parent.data.metrics.items() if k.startswith("test/")} == pytest.approx(expected)


def test_the_best_value_of_a_study_that_began_anew_follows_that_of_the_lost_one(started, client, root, sweep_dir):
    config, jobs = config_of(root, sweep_dir), [("complete", 0.5)]
    for curve in ([[0, 0.5, 1000], [1, 0.7, 2000]], [[0, 0.2, 3000]], [[0, 0.2, 3000], [2, 0.6, 4000]]):
        callback = SweepRun()
        callback.on_multirun_start(config)
        run_jobs(started, sweep_dir, jobs)
        (sweep_dir / "best_values.json").write_text(json.dumps(curve))
        callback.on_multirun_end(config)
    (parent,) = parents(client)
    history = client.get_metric_history(parent.info.run_id, "best_value")
    assert sorted((one.step, one.value) for one in history) == [(0, 0.5), (1, 0.7), (2, 0.2), (3, 0.6)]


def test_another_machines_sweep_in_a_folder_of_the_same_name_is_another(started, client, root, sweep_dir):
    SweepRun().on_multirun_start(config_of(root, sweep_dir))
    (own,) = parents(client)
    client.create_run(own.info.experiment_id, tags={"cifar_tuning.sweep_dir": str(sweep_dir)})  # begun a moment later
    (job,) = run_jobs(started, sweep_dir, [("complete", 0.5)])
    assert client.get_run(job.run_id).data.tags["mlflow.parentRunId"] == own.info.run_id


def test_a_sweep_sums_up_once_its_store_is_back(started, client, root, sweep_dir, monkeypatch):
    callback, config = SweepRun(), config_of(root, sweep_dir)
    callback.on_multirun_start(config)
    (job,) = run_jobs(started, sweep_dir, [("complete", 0.5)])
    answers = iter(["restarting", "restarting"])
    monkeypatch.setattr(Location, "problem", lambda self, timeout: next(answers, None))
    monkeypatch.setattr(patience, "PAUSE", 0.0)
    callback.on_multirun_end(config)
    (parent,) = parents(client)
    assert (parent.info.status, parent.data.tags["best.run_id"]) == ("FINISHED", job.run_id)


def test_a_sweeps_own_run_has_what_its_jobs_share(client, root, sweep_dir):
    config = config_of(root, sweep_dir, tags={"team": "vision", "mlflow": {"runName": "mine"}})
    config.hydra.sweeper = {"params": {"optimizer.lr": "1.0,0.1"}}
    SweepRun().on_multirun_start(config)
    (parent,) = parents(client)
    assert parent.data.params["hydra.sweeper.params.optimizer.lr"] == "1.0,0.1"
    assert "optimizer.lr" not in parent.data.params
    assert parent.data.params["extra"] == "1"
    assert (parent.data.tags["team"], parent.info.run_name) == ("vision", "mine")


def test_the_same_folder_has_one_parent(started, client, root, sweep_dir):
    for accuracy in (0.5, 0.6):
        callback, config = SweepRun(), config_of(root, sweep_dir)
        callback.on_multirun_start(config)
        assert [run.info.status for run in parents(client)] == ["RUNNING"]
        run_jobs(started, sweep_dir, [("complete", accuracy)])
        callback.on_multirun_end(config)
    (parent,) = parents(client)
    assert parent.info.status == "FINISHED"
    assert parent.data.metrics["val/acc_best"] == 0.6
    assert parent.data.metrics["jobs/complete"] == 2


def test_a_sweep_where_another_was_moved_away_is_another(started, client, root, sweep_dir, tmp_path):
    for accuracy in (0.9, 0.4):
        callback, config = SweepRun(), config_of(root, sweep_dir)
        callback.on_multirun_start(config)
        run_jobs(started, sweep_dir, [("complete", accuracy)])
        callback.on_multirun_end(config)
        sweep_dir.rename(tmp_path / f"interrupted-{accuracy}")
    assert sorted(run.data.metrics["val/acc_best"] for run in parents(client)) == [0.4, 0.9]
    assert [run.data.metrics["jobs/complete"] for run in parents(client)] == [1, 1]


@pytest.mark.parametrize(
    ("ends", "error", "status"),
    [
        ([("complete", 0.5)], None, "FINISHED"),
        ([("complete", 0.5), ("failed", 0.1)], None, "FINISHED"),
        ([("failed", 0.1), ("failed", 0.1)], None, "FAILED"),
        ([("complete", 0.5)], RuntimeError("a job failed"), "FAILED"),
        ([("complete", 0.5), ("killed", 0.1)], KeyboardInterrupt(), "KILLED"),
        ([], None, "FINISHED"),
    ],
)
def test_how_a_parent_ends(started, client, root, sweep_dir, ends, error, status):
    callback, config = SweepRun(), config_of(root, sweep_dir)
    callback.on_multirun_start(config)
    run_jobs(started, sweep_dir, ends)

    def as_hydra_does():
        try:
            if error is not None:
                raise error
        finally:
            callback.on_multirun_end(config)

    if error is None:
        as_hydra_does()
    else:
        with pytest.raises(type(error)):
            as_hydra_does()
    assert parents(client)[0].info.status == status


def test_without_a_parent_a_job_stands_alone(started, client, tmp_path, caplog):
    tracker = started(sweep_dir=tmp_path / "unknown", job_num=0)
    tracker.finish("complete")
    assert "mlflow.parentRunId" not in client.get_run(tracker.run_id).data.tags
    assert "No parent run" in caplog.text


def test_other_trackers_have_no_parent(root, sweep_dir, client):
    config = config_of(root, sweep_dir)
    config.tracking = {"_target_": "cifar_tuning.tracking.NoTracker"}
    callback = SweepRun()
    callback.on_multirun_start(config)
    callback.on_multirun_end(config)
    assert client.get_experiment_by_name("cifar10") is None


def test_a_store_that_is_down_stops_a_multirun_before_its_first_job(root, sweep_dir, capsys):
    config = config_of(root, sweep_dir, uri="http://127.0.0.1:9")
    with pytest.raises(SystemExit) as caught:
        SweepRun().on_multirun_start(config)
    assert caught.value.code == 1
    assert "error: tracking.uri=http://127.0.0.1:9" in capsys.readouterr().err


def loaded(folder):
    """Stands for what opens a job's checkpoint."""
    import numpy as np
    from torch import nn

    class Classifier(nn.Module):
        def __init__(self):
            super().__init__()
            self.linear = nn.Linear(32 * 32 * 3, 10)

        def forward(self, images):
            return self.linear(images.float().flatten(1) / 255)

    (Path(folder) / "loaded").touch()
    return Classifier(), np.zeros((4, 32, 32, 3), np.uint8)


class Loading(SweepRun):
    def load_classifier(self, folder):
        return loaded(folder)


class Broken(SweepRun):
    def load_classifier(self, folder):
        raise OSError("no such checkpoint")


def test_only_the_winner_becomes_a_model(started, client, root, sweep_dir, capsys):
    callback = Loading()
    config = config_of(root, sweep_dir, log_model="auto")
    config.hydra.sweeper = {"_target_": STUDY_SWEEPER}
    callback.on_multirun_start(config)
    jobs = run_jobs(started, sweep_dir, [("complete", 0.5), ("complete", 0.8), ("complete", 0.6)])
    callback.on_multirun_end(config)
    models = [client.get_run(job.run_id).outputs.model_outputs for job in jobs]
    assert [len(outputs) for outputs in models] == [0, 1, 0]
    assert (sweep_dir / "1" / "loaded").exists()
    assert client.get_logged_model(models[1][0].model_id).status == "READY"
    # One more line of what a study's end lists.
    assert capsys.readouterr().out == f"  models:/{models[1][0].model_id}  # the best trial's model, in MLflow\n"


def test_a_model_of_another_job_in_the_winners_folder_is_not_the_winners(started, client, root, sweep_dir):
    """An interrupted grid logged none; another grid in its folder puts aside what the winner left."""
    callback, config = Loading(), config_of(root, sweep_dir, log_model="auto")
    callback.on_multirun_start(config)
    (winner,) = run_jobs(started, sweep_dir, [("complete", 0.8)])
    (later,) = run_jobs(started, sweep_dir, [("complete", 0.5)])
    (sweep_dir / "0" / "result.json").write_text(json.dumps({"run_id": later.run_id}))
    callback.on_multirun_end(config)
    assert parents(client)[0].data.tags["best.run_id"] == winner.run_id
    assert not client.get_run(winner.run_id).outputs.model_outputs


def test_a_broken_loader_costs_a_warning(started, client, root, sweep_dir, caplog):
    callback = Broken()
    config = config_of(root, sweep_dir, log_model="auto")
    callback.on_multirun_start(config)
    run_jobs(started, sweep_dir, [("complete", 0.5)])
    callback.on_multirun_end(config)
    assert "The best run's model was not logged" in caplog.text
    assert parents(client)[0].info.status == "FINISHED"


APP = """
import hydra
from pathlib import Path
from hydra.core.hydra_config import HydraConfig
from hydra.utils import instantiate
from omegaconf import OmegaConf
from cifar_tuning.tracking import RunContext

@hydra.main(config_path=".", config_name="config", execution_whitelist=["cifar_tuning.*"])
def main(config):
    job = HydraConfig.get()
    tracker = instantiate(config.tracking)
    tracker.start(RunContext(
        job.job.override_dirname, OmegaConf.to_container(config), list(job.overrides.task),
        Path(job.runtime.output_dir), 0, Path(job.sweep.dir).resolve(), job.job.num))
    try:
        if config.lr == 8:
            raise KeyboardInterrupt
        tracker.log_epoch({"val/acc_best": 1 - config.lr}, 1)
    except BaseException as error:
        tracker.fail(error)
        raise
    tracker.finish("complete")

main()
"""


@pytest.mark.slow
def test_a_real_grid_that_is_interrupted(client, root, tmp_path):
    (tmp_path / "app.py").write_text(APP)
    config = {
        "lr": 0.1,
        "tracking": {
            "_target_": "cifar_tuning.tracking.MLflowTracker",
            "uri": f"sqlite:///{root / 'mlflow.db'}",
            "log_model": False,
        },
        "hydra": {"callbacks": {"tracking": {"_target_": "cifar_tuning.tracking.callback.SweepRun"}}},
    }
    (tmp_path / "config.yaml").write_text(OmegaConf.to_yaml(config))
    subprocess.run([sys.executable, "app.py", "-m", "lr=0.5,8,0.25"], cwd=tmp_path, capture_output=True, check=False)
    (parent,) = parents(client)
    assert parent.info.status == "KILLED"
    experiment = parent.info.experiment_id
    children = client.search_runs([experiment], f"tags.mlflow.parentRunId = '{parent.info.run_id}'")
    assert sorted(run.data.tags["state"] for run in children) == ["complete", "killed"]
    assert MLflowTracker(root=root).location().uri == f"sqlite:///{root / 'mlflow.db'}"


def test_two_machines_that_open_a_sweep_together_share_its_run(client, root, sweep_dir, monkeypatch):
    """The other logs its parameters between this one's look at the run and its own parameters."""
    store = open_store(locate(None, root), "cifar10")
    log_batch, calls = store.client.log_batch, []

    def other_is_faster(run_id, metrics=(), params=(), tags=(), **options):
        if params and not calls:
            calls.append(run_id)
            log_batch(run_id, params=[Param("optimizer.lr", "0.5")])
        return log_batch(run_id, metrics=metrics, params=params, tags=tags, **options)

    monkeypatch.setattr(store.client, "log_batch", other_is_faster)
    params = {"optimizer.lr": "1.0,0.1", "extra": "1"}
    parent = sweeps.open_parent(store, "mine", sweep_dir, params, root, key="a study")
    assert calls == [parent]
    assert client.get_run(parent).data.params == {"optimizer.lr": "0.5", "extra": "1"}


def test_parameters_that_the_store_refuses_are_an_error(root, sweep_dir):
    """Nothing is tried again that another machine did not log."""
    store = open_store(locate(None, root), "cifar10")
    with pytest.raises(MlflowException, match="Invalid"):
        sweeps.open_parent(store, "mine", sweep_dir, {"no such:;name\n": "1"}, root)


@pytest.mark.parametrize(("accuracies", "spread"), [([0.5], None), ([0.5, 0.7], pytest.approx(0.02**0.5))])
def test_the_spread_of_a_trial_s_seeds_is_there_if_there_are_several(root, client, sweep_dir, accuracies, spread):
    store = open_store(locate(f"sqlite:///{root / 'mlflow.db'}", root), "cifar10")
    group = groups.open_group(store, sweep_dir / "0", None, 0, [])
    for accuracy in accuracies:
        run = client.create_run(store.experiment_id, tags={"mlflow.parentRunId": group}).info.run_id
        client.log_metric(run, "val/acc_best", accuracy)
    groups.close_group(store, group, "complete")
    assert client.get_run(group).data.metrics.get("val/acc_best_std") == spread


def test_a_trial_of_another_configuration_is_another(root, client, sweep_dir):
    """A study's database was lost, or its study deleted: its trials begin anew with the same numbers."""
    store = open_store(locate(f"sqlite:///{root / 'mlflow.db'}", root), "cifar10")
    found = []
    for lr, seed in ((0.1, 0), (0.1, 1), (0.2, 0), (0.2, 1)):
        overrides = [f"optimizer.lr={lr}", "objective=[val/acc_best,model/macs]", f"seed={seed}", f"data.root={seed}"]
        found.append(groups.open_group(store, sweep_dir / "0", None, 0, overrides))
        tags = {"mlflow.parentRunId": found[-1], "cifar_tuning.overrides": ",".join(overrides)}
        client.create_run(store.experiment_id, tags=tags)
        groups.close_group(store, found[-1], "complete")
    assert found[0] == found[1] != found[2] == found[3]
