"""`hydra/launcher=fused`: what the basic launcher gives, and what becomes of jobs that can't share a stack."""

import gc
import sqlite3

import pytest
import torch
import yaml
from hydra.core.plugins import Plugins
from hydra.plugins.sweeper import Sweeper
from optuna.trial import TrialState

from cifar_tuning.fused import launch
from cifar_tuning.training import Trainer
from cifar_tuning.tuning.trial import TrialReporter
from tests.fused.sweeps import FUSED, curves, curves_agree, results

pytest_plugins = ["tests.jobs.conftest"]


@pytest.mark.slow
@pytest.mark.usefixtures("pictures")
def test_an_ended_jobs_memory_is_not_left_to_the_garbage_collector(tiny, monkeypatch):
    """It comes by rarely, and on a GPU it is not told when the memory runs out."""
    alive = []
    begin = launch.Launch._begin

    def begun(self, *arguments):
        alive.append(sum(isinstance(thing, Trainer) for thing in gc.get_objects()))
        return begin(self, *arguments)

    monkeypatch.setattr(launch.Launch, "_begin", begun)
    gc.collect()
    gc.disable()
    try:
        done = tiny(*FUSED, "hydra.launcher.stack=2", "optimizer.lr=0.1,0.01", "model.activation=relu,swish,elu")
    finally:
        gc.enable()
    assert done.code == 0, done.err
    assert alive == [0, 1] * 3  # the first of a stack, when its second begins


def test_the_same_as_the_basic_launcher(tiny, tmp_path, store):
    """One folder, configuration, log, checkpoint, MLflow run and value for each job, in job order."""
    grid = ["optimizer.lr=0.1,0.01", "model.batch_norm=true", "model.dropout=0.2", *store]
    basic = tiny("-m", *grid, f"hydra.sweep.dir={tmp_path}/basic")
    fused = tiny(*FUSED, "hydra.launcher.stack=2", *grid, f"hydra.sweep.dir={tmp_path}/fused")
    assert (basic.code, fused.code) == (0, 0), fused.err
    assert "#0, #1 as one model" in fused.text
    one, other = results(tmp_path / "basic"), results(tmp_path / "fused")
    assert list(other) == [0, 1]
    for number, result in other.items():
        assert {k: result[k] for k in ("state", "value", "best_epoch", "epochs", "overrides")} == {
            k: one[number][k] for k in ("state", "value", "best_epoch", "epochs", "overrides")
        }
        files = {
            str(f.relative_to(tmp_path / "basic" / str(number)))
            for f in (tmp_path / "basic" / str(number)).rglob("*")
            if f.is_file()
        }
        folder = tmp_path / "fused" / str(number)
        assert {str(f.relative_to(folder)) for f in folder.rglob("*") if f.is_file()} == files
        assert yaml.safe_load((folder / ".hydra/hydra.yaml").read_text())["hydra"]["job"]["num"] == number
        assert "epoch 2/2  train loss" in (folder / "train.log").read_text()
        assert f"complete: best validation accuracy {result['value']:.4f}" in (folder / "train.log").read_text()
        checkpoint = torch.load(folder / "last.pt", weights_only=True)
        expected = torch.load(tmp_path / "basic" / str(number) / "last.pt", weights_only=True)
        for name, value in expected["model"].items():
            torch.testing.assert_close(checkpoint["model"][name], value, rtol=0, atol=1e-3)
            assert checkpoint["model"][name].untyped_storage().nbytes() == value.untyped_storage().nbytes()
        assert torch.equal(checkpoint["generators"]["cpu"], expected["generators"]["cpu"])
    with sqlite3.connect(tmp_path / "mlflow.db") as db:
        parents = db.execute(
            "select value, count(*) from tags where key='mlflow.parentRunId' group by value"
        ).fetchall()
        states = db.execute("select status, count(*) from runs group by status").fetchall()
        points = db.execute("select count(*) from metrics where key='val/acc' group by run_uuid").fetchall()
    assert sorted(count for _, count in parents) == [2, 2]
    assert states == [("FINISHED", 6)]
    assert points == [(3,)] * 4


@pytest.mark.slow
def test_jobs_that_differ_in_structure_are_grouped(tiny, tmp_path):
    outcome = tiny(*FUSED, "hydra.launcher.stack=2", "model.activation=relu,swish", "optimizer.lr=0.1,0.01")
    assert outcome.code == 0, outcome.err
    assert "2 groups" in outcome.text
    assert "#0, #1 : model.activation='relu'" in outcome.text
    assert "#2, #3 as one model" in outcome.text
    assert [r["state"] for r in results(tmp_path / "sweep").values()] == ["complete"] * 4


@pytest.mark.slow
def test_only_what_is_wrong_fails(tiny, tmp_path):
    outcome = tiny(*FUSED, "hydra.launcher.stack=3", "optimizer.lr=0.1,-1,0.01")
    assert outcome.code == 1
    assert "optimizer.lr=-1: must be a number above 0" in outcome.text
    assert {n: r["state"] for n, r in results(tmp_path / "sweep").items()} == {
        0: "complete",
        1: "failed",
        2: "complete",
    }
    assert "#0, #2 as one model" in outcome.text


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["hydra.launcher.stack=0"], "hydra.launcher.stack=0: must be a whole number, 1 or above"),
        (["hydra.launcher.stack=x"], "hydra.launcher.stack=x: must be a whole number"),
        (["hydra.launcher.stack=3"], "hydra.launcher.stack=3: the sweep has 2 jobs"),
        (["hydra.launcher.stack=8", "hydra/sweeper=study", "hydra.sweeper.n_jobs=4"], "give hydra.sweeper.n_jobs=8"),
        (["hydra.launcher.stack=2", "optimizer.lr=0.1"], "stack=2: the sweep has 1 job; give 1, or null"),
        (["hydra.launcher.stack=2", "hydra/sweeper=study", "hydra.sweeper.n_jobs=1"], "launches 1 job at a time"),
        (["hydra.launcher.stack=2", "hydra.sweeper.max_batch_size=1"], "give hydra.sweeper.max_batch_size=2"),
    ],
)
def test_a_stack_size_that_cannot_be(mistakes, options, message):
    assert message in mistakes(*FUSED, "optimizer.lr=0.1,0.01", *options)


def test_the_jobs_that_will_fail_are_named_only_if_others_are_trained(tiny, tmp_path):
    outcome = tiny(*FUSED, "optimizer.lr=0.1,-1", "trainer.epochs=1,2", "hydra.launcher.stack=9")
    assert "optimizer.lr=-1: must be a number above 0, such as 0.01  (jobs 1, 3)" in outcome.err
    assert "hydra.launcher.stack=9: the sweep has 4 jobs" in outcome.err
    assert "the others are trained" not in outcome.text
    assert not results(tmp_path / "sweep")


class Doubling(Sweeper):
    """Somebody's sweeper: its jobs are not known before it launches them, and it has no n_jobs."""

    def __init__(self, **options):
        pass

    def setup(self, *, hydra_context, task_function, config):
        self.launcher = Plugins.instance().instantiate_launcher(
            hydra_context=hydra_context, task_function=task_function, config=config
        )

    def sweep(self, arguments):
        return self.launcher.launch([[*arguments, f"seed={seed}"] for seed in (0, 1)], initial_job_idx=0)


@pytest.mark.slow
def test_a_stack_under_another_sweeper(tiny, tmp_path, monkeypatch):
    monkeypatch.setitem(Plugins.instance().class_name_to_class, f"{__name__}.Doubling", Doubling)
    outcome = tiny(*FUSED, "hydra.launcher.stack=2", f"hydra.sweeper._target_={__name__}.Doubling")
    assert outcome.code == 0, outcome.err
    assert "#0, #1 as one model" in outcome.text
    assert [r["state"] for r in results(tmp_path / "sweep").values()] == ["complete"] * 2


@pytest.mark.slow
def test_a_diverging_run_leaves_and_harms_nobody(tiny, tmp_path):
    outcome = tiny(*FUSED, "hydra.launcher.stack=3", "optimizer.lr=0.01,1e12,0.02", "trainer.epochs=3")
    assert outcome.code == 0, outcome.err
    found = results(tmp_path / "sweep")
    assert [r["state"] for r in found.values()] == ["complete", "diverged", "complete"]
    assert "#1: The loss is no longer finite" in outcome.text
    assert "#1: " not in (tmp_path / "sweep" / "1" / "train.log").read_text()
    basic = tiny("-m", "optimizer.lr=0.01,1e12,0.02", "trainer.epochs=3", f"hydra.sweep.dir={tmp_path}/basic")
    assert basic.code == 0
    for number, result in results(tmp_path / "basic").items():
        assert found[number]["value"] == pytest.approx(result["value"], abs=0.02)


@pytest.mark.slow
def test_runs_of_different_lengths_come_and_go(tiny, tmp_path, store):
    grid = ["trainer.epochs=1,4", "trainer.patience=2,null", "optimizer.lr=1e-9"]
    outcome = tiny(*FUSED, "hydra.launcher.stack=4", *grid, *store)
    assert outcome.code == 0, outcome.err
    found = results(tmp_path / "sweep")
    assert [(r["epochs"], r["state"]) for r in found.values()] == [(e, "complete") for e in (1, 1, 2, 4)]
    assert "4 runs side by side" in outcome.text
    assert "2 runs side by side" in outcome.text
    assert "epoch 4/4  1 run  best accuracy " in outcome.text
    reason = "after epoch 2: no better validation accuracy since epoch 0 (trainer.patience=2)"
    assert outcome.text.count(f"stopped {reason}\n") == 1
    assert [r["stopped"] for r in found.values()] == [None, None, reason, None]
    with sqlite3.connect(tmp_path / "mlflow.db") as db:
        told = db.execute("select run_uuid, value from tags where key = 'stopped'").fetchall()
    assert told == [(found[2]["run_id"], reason)]
    assert "1 of 4 jobs ended before the last epoch: no better validation accuracy (trainer.patience)" in outcome.out


@pytest.mark.slow
def test_an_optimizer_of_the_users_own_is_trained_by_itself(tiny, tmp_path, monkeypatch):
    monkeypatch.setenv("CIFAR_TUNING_TRUST", "tests.*")
    outcome = tiny(*FUSED, "hydra.launcher.stack=2", "seed=0,1", "optimizer._target_=tests.fused.odd.Rebinding")
    assert outcome.code == 0, outcome.err
    assert "is no optimizer of PyTorch's" in outcome.text
    alone = tiny("-m", "seed=0,1", "optimizer._target_=tests.fused.odd.Rebinding", f"hydra.sweep.dir={tmp_path}/basic")
    assert alone.code == 0, alone.err
    assert curves_agree(curves(tmp_path / "sweep"), curves(tmp_path / "basic"))


ODD = {
    "a schedule that draws": ["~schedule", "+schedule={_target_:tests.fused.odd.Drawn,_partial_:true}"],
    "a schedule that freezes": ["~schedule", "+schedule={_target_:tests.fused.odd.Freezing,_partial_:true}"],
    "an augmentation that draws": ["~augmentation", "+augmentation={_target_:tests.fused.odd.Noisy}"],
    "a regularizer that draws": ["~regularizer", "+regularizer={_target_:tests.fused.odd.NoisyPenalty}"],
    "a model that draws with some rates": ["~model", "+model={_target_:tests.fused.odd.DroppedElsewhere,dropout:0.0}"],
}


@pytest.mark.slow
@pytest.mark.parametrize("parts", ODD.values(), ids=ODD)
def test_parts_of_the_users_own_compute_what_they_do_alone(tiny, tmp_path, monkeypatch, parts):
    monkeypatch.setenv("CIFAR_TUNING_TRUST", "tests.fused.odd.*")
    rates = ["model.dropout=0.0,0.5"] if "model" in parts[0] else []
    jobs = ["seed=0,1", *parts, *rates, "trainer.epochs=3", "data.train_limit=256"]
    fused = tiny(*FUSED, "hydra.launcher.stack=2", *jobs)
    assert fused.code == 0, fused.err
    assert "one by one" in fused.text or "as one model" in fused.text
    alone = tiny("-m", *jobs, f"hydra.sweep.dir={tmp_path}/basic")
    assert alone.code == 0, alone.err
    one, other = curves(tmp_path / "sweep"), curves(tmp_path / "basic")
    for job, lines in one.items():
        for line, expected in zip(lines, other[job], strict=True):
            assert line == pytest.approx(expected, rel=1e-3, abs=1e-2)
            assert line["lr"] == pytest.approx(expected["lr"], rel=1e-9)
    if rates:  # what can be stacked is, what can't is not, and the log tells them apart
        assert "#1 can't share a stack with those before: the models' own attributes differ" in fused.text
        assert "Training jobs #0, #2 as one model" in fused.text
        assert "DroppedElsewhere draws random numbers outside of nn.Dropout" in fused.text


@pytest.mark.slow
def test_a_study_prunes_inside_a_stack(tiny, tmp_path):
    outcome = tiny(
        *FUSED,
        "hydra/sweeper=study",
        "optimizer.lr=tag(log,interval(1e-6,1e-1))",
        "trainer.epochs=6",
        "hydra.sweeper.n_trials=12",
        "hydra.sweeper.n_jobs=6",
        "hydra.launcher.stack=6",
        "hydra.sweeper.plots=false",
        "hydra.sweeper.pruner.n_last_steps=null",
        "hydra.sweeper.sampler.seed=0",
    )
    assert outcome.code == 0, outcome.err
    found = results(tmp_path / "sweep")
    assert list(found) == list(range(12))
    states = [r["state"] for r in found.values()]
    assert states.count("pruned") >= 2, states
    assert all(r["epochs"] < 6 for r in found.values() if r["state"] == "pruned")


@pytest.mark.slow
def test_a_trial_that_leaves_the_stack_is_told_at_once(tiny, tmp_path, monkeypatch):
    """The pruner judges by complete trials, and one that diverges is complete while its neighbour trains on."""
    states, on_epoch = [], TrialReporter.on_epoch

    def seen(self, metrics):
        if self.trial.number == 1 and metrics.epoch == 3:
            states.extend(trial.state for trial in self.trial.study.get_trials(deepcopy=False))
        return on_epoch(self, metrics)

    monkeypatch.setattr(TrialReporter, "on_epoch", seen)
    study = ["hydra/sweeper=study", "optimizer.lr=choice(1e12,0.05)", "hydra/sweeper/pruner=none", "trainer.epochs=3"]
    study += ["hydra.sweeper.enqueue=[{optimizer.lr:1e12},{optimizer.lr:0.05}]", "hydra.sweeper.n_trials=2"]
    outcome = tiny(*FUSED, "hydra.launcher.stack=2", *study, "hydra.sweeper.plots=false")
    assert outcome.code == 0, outcome.err
    assert states == [TrialState.COMPLETE, TrialState.RUNNING]


@pytest.mark.slow
@pytest.mark.usefixtures("trial_1_lost")
def test_a_trial_lost_to_another_process_stops_no_neighbour(tiny, tmp_path):
    study = ["hydra/sweeper=study", "optimizer.lr=interval(0.01,0.1)", "hydra/sweeper/pruner=none"]
    budget = ["hydra.sweeper.n_trials=3", "hydra.sweeper.n_jobs=3", "hydra.sweeper.plots=false"]
    outcome = tiny(*FUSED, "hydra.launcher.stack=3", *study, *budget)
    assert outcome.code == 0, outcome.err
    assert "Trial 1 has been taken up by another process" in outcome.text
    assert {n: r["state"] for n, r in results(tmp_path / "sweep").items()} == {0: "complete", 2: "complete"}
