"""What becomes of stacked jobs when something fails, and when the command is typed again."""

import json
import math
import shutil
import sqlite3

import pytest
import torch

from cifar_tuning import devices
from cifar_tuning.fused import plan
from cifar_tuning.fused.stack import Stack
from cifar_tuning.jobs.training import EpochTracking
from cifar_tuning.training import Schedule, Trainer
from cifar_tuning.training import checkpoint as checkpoints
from tests.fused.sweeps import FUSED, curves, curves_agree, results

pytest_plugins = ["tests.jobs.conftest"]


@pytest.mark.slow
def test_too_little_memory_halves_the_stack(tiny, tmp_path, monkeypatch):
    train = Stack.train

    def hungry(self, epochs, *given):
        if len(self.runs) > 2 and epochs[0] > 1:
            raise torch.cuda.OutOfMemoryError("out of memory")
        return train(self, epochs, *given)

    monkeypatch.setattr(Stack, "train", hungry)
    outcome = tiny(*FUSED, "hydra.launcher.stack=4", "optimizer.lr=0.1,0.05,0.02,0.01", "model.dropout=0.3")
    assert outcome.code == 0, outcome.err
    assert "4 runs do not fit" in outcome.text
    found = results(tmp_path / "sweep").values()
    assert [(r["state"], r["epochs"]) for r in found] == [("complete", 2)] * 4
    expected = tiny("-m", "optimizer.lr=0.1,0.05,0.02,0.01", "model.dropout=0.3", f"hydra.sweep.dir={tmp_path}/basic")
    assert expected.code == 0
    assert curves_agree(curves(tmp_path / "sweep"), curves(tmp_path / "basic"))


@pytest.mark.slow
def test_the_next_stacks_have_the_size_that_fits(tiny, tmp_path, monkeypatch):
    train, sizes = Stack.train, []

    def hungry(self, epochs, *given):
        sizes.append(len(self.runs))
        if len(self.runs) > 2:
            raise torch.cuda.OutOfMemoryError("out of memory")
        return train(self, epochs, *given)

    monkeypatch.setattr(Stack, "train", hungry)
    rates = "optimizer.lr=" + ",".join(f"0.0{n}" for n in range(1, 9))
    outcome = tiny(*FUSED, "hydra.launcher.stack=4", rates, "trainer.epochs=1")
    assert outcome.code == 0, outcome.err
    assert sizes == [4, 2, 2, 2, 2]
    assert outcome.text.count("runs do not fit") == 1
    assert [r["state"] for r in results(tmp_path / "sweep").values()] == ["complete"] * 8


@pytest.mark.slow
def test_ctrl_c_leaves_no_job_open_nor_one_that_waits_for_another_stack(tiny, tmp_path, monkeypatch, store):
    """Two can be stacked, and one that began between them is ready for a stack of another kind."""
    train = Stack.train

    def interrupted(self, epochs, *given):
        if epochs[0] == 2:
            raise KeyboardInterrupt
        return train(self, epochs, *given)

    monkeypatch.setattr(Stack, "train", interrupted)
    monkeypatch.setattr(plan, "stack_key", lambda run: (f"decays {run.optimizer.param_groups[0]['weight_decay']}",))
    varied = ["optimizer.lr=0.1,0.01", "regularizer.strength=1e-4,1e-3"]
    with pytest.raises(KeyboardInterrupt):
        tiny(*FUSED, "hydra.launcher.stack=2", *varied, *store)
    # The fourth has not begun.
    assert [r["state"] for r in results(tmp_path / "sweep").values()] == ["killed", "killed", "killed"]
    with sqlite3.connect(tmp_path / "mlflow.db") as database:
        states = dict(database.execute("select status, count(*) from runs group by status").fetchall())
    assert states.pop("KILLED") >= 3
    assert set(states) <= {"RUNNING"}  # the sweep's own, which its next start marks


@pytest.mark.slow
def test_a_stack_that_fails_goes_on_one_by_one(tiny, tmp_path, monkeypatch):
    after_step, failed = Schedule.after_step, []

    def broken(self):
        if self.scheduler.base_lrs == [0.01] and self.scheduler.last_epoch == 1 and not failed:
            failed.append(self)
            raise RuntimeError("no such rate")
        after_step(self)

    monkeypatch.setattr(Schedule, "after_step", broken)
    outcome = tiny(*FUSED, "hydra.launcher.stack=2", "optimizer.lr=0.1,0.01")
    assert outcome.code == 0, outcome.err
    assert "The stack failed in #1's part, its jobs go on one by one: RuntimeError: no such rate" in outcome.text
    assert [(r["state"], r["epochs"]) for r in results(tmp_path / "sweep").values()] == [("complete", 2)] * 2


@pytest.mark.slow
def test_a_stack_that_fails_costs_only_the_jobs_without_a_checkpoint(tiny, tmp_path, monkeypatch):
    """Job 1's can't be read; job 2 had no finite loss before training, so that its folder has an older experiment's."""
    train, before_training = Stack.train, Trainer.before_training

    def broken(self, epochs, *given):
        if epochs[0] == 1:
            (tmp_path / "sweep/1/last.pt").write_bytes(b"damaged")
            raise RuntimeError("no kernel for this")
        return train(self, epochs, *given)

    def not_finite(self, loss, accuracy, val):
        return before_training(self, math.nan if self.lr == 0.02 else loss, accuracy, val)

    grid = ["hydra.launcher.stack=4", "optimizer.lr=0.1,0.05,0.02,0.01"]
    assert tiny(*FUSED, *grid, "trainer.epochs=1").code == 0
    monkeypatch.setattr(Stack, "train", broken)
    monkeypatch.setattr(Trainer, "before_training", not_finite)
    outcome = tiny(*FUSED, *grid)
    assert outcome.code == 1
    found = results(tmp_path / "sweep")
    assert [r["state"] for r in found.values()] == ["complete", "failed", "failed", "complete"]
    assert "last.pt can't be read as a checkpoint" in found[1]["error"]
    assert "no checkpoint of this run" in found[2]["error"]
    assert [found[n]["epochs"] for n in (0, 3)] == [2, 2]


@pytest.mark.slow
def test_runs_resumed_from_elsewhere_go_back_there_when_their_stack_fails(tiny, tmp_path, monkeypatch):
    assert tiny(f"hydra.run.dir={tmp_path}/first").code == 0

    def broken(self, epochs, *given):
        raise RuntimeError("no kernel for this")

    monkeypatch.setattr(Stack, "train", broken)
    more = [f"resume={tmp_path}/first", "trainer.epochs=3,4"]
    outcome = tiny(*FUSED, "hydra.launcher.stack=2", *more)
    assert outcome.code == 0, outcome.err
    assert [(r["state"], r["epochs"]) for r in results(tmp_path / "sweep").values()] == [
        ("complete", 3),
        ("complete", 4),
    ]


@pytest.mark.slow
def test_runs_resumed_from_elsewhere_go_on_from_their_own_checkpoints_when_interrupted(tiny, tmp_path, monkeypatch):
    """Not from where they began, over newer work; unless another beginning is asked for."""
    assert tiny(f"hydra.run.dir={tmp_path}/first").code == 0
    train, called = Stack.train, []

    def interrupted(self, epochs, *given):
        if called:
            raise KeyboardInterrupt
        called.append(epochs)
        return train(self, epochs, *given)

    command = [*FUSED, "hydra.launcher.stack=2", f"resume={tmp_path}/first", "trainer.epochs=4,5"]
    with monkeypatch.context() as patched:
        patched.setattr(Stack, "train", interrupted)
        with pytest.raises(KeyboardInterrupt):
            tiny(*command)
    assert [r["epochs"] for r in results(tmp_path / "sweep").values()] == [3, 3]
    shutil.copytree(tmp_path / "sweep", tmp_path / "other")
    again = tiny(*command)
    assert again.code == 0, again.err
    assert [r["epochs"] for r in results(tmp_path / "sweep").values()] == [4, 5]
    assert "resuming after epoch 3 of" in again.text
    assert "resuming after epoch 2 of" not in again.text
    other = tiny(*command, f"resume={tmp_path}/first/last.pt", f"hydra.sweep.dir={tmp_path}/other")
    assert "resuming after epoch 2 of" in other.text


@pytest.mark.slow
@pytest.mark.parametrize("where", ["finish_epoch", "while_waiting"])
def test_an_error_of_one_run_is_its_own(tiny, tmp_path, monkeypatch, where):
    """Its checkpoint can't be written, say; its neighbours don't notice."""
    monkeypatch.setattr(devices, "QUEUES", ("cpu",))  # as if it were a GPU
    done = getattr(Trainer, where)

    def failing(self, *given):
        if self.lr == 0.05 and self.progress.epoch == 1:
            raise OSError("no space left on device")
        return done(self, *given)

    monkeypatch.setattr(Trainer, where, failing)
    outcome = tiny(*FUSED, "hydra.launcher.stack=3", "optimizer.lr=0.1,0.05,0.01", "regularizer=none")
    assert outcome.code == 1
    found = results(tmp_path / "sweep")
    assert [r["state"] for r in found.values()] == ["complete", "failed", "complete"]
    assert found[1]["error"] == "OSError: no space left on device"


@pytest.mark.slow
def test_a_run_that_fails_in_a_stack_keeps_its_last_epoch(tiny, tmp_path, monkeypatch):
    monkeypatch.setattr(devices, "QUEUES", ("cpu",))  # as if it were a GPU
    done = EpochTracking.on_epoch

    def failing(self, metrics):
        if metrics.lr == 0.05 and metrics.epoch == 2:
            raise ValueError("a listener's mistake")
        return done(self, metrics)

    monkeypatch.setattr(EpochTracking, "on_epoch", failing)
    options = ["hydra.launcher.stack=2", "optimizer.lr=0.1,0.05", "trainer.epochs=4", "regularizer=none"]
    outcome = tiny(*FUSED, *options)
    assert outcome.code == 1
    found = results(tmp_path / "sweep")
    assert [r["state"] for r in found.values()] == ["complete", "failed"]
    assert [checkpoints.load(tmp_path / "sweep" / str(job)).progress.epoch for job in (0, 1)] == [4, 2]


@pytest.mark.slow
def test_another_experiment_in_the_same_folder_begins_anew(tiny, tmp_path):
    grid = [*FUSED, "hydra.launcher.stack=2", "optimizer.lr=0.1,0.01"]
    assert tiny(*grid, "trainer.epochs=3").code == 0
    shorter = tiny(*grid, "trainer.epochs=1")
    assert shorter.code == 0, shorter.err
    assert f"was in {tmp_path}/sweep/1: it had trainer.epochs=3, this one has trainer.epochs=1" in shorter.text
    kept = tmp_path / "sweep/1/earlier/1"
    assert json.loads((kept / "result.json").read_text())["epochs"] == 3
    assert {"best.pt", "last.pt", "metrics.jsonl"} <= {file.name for file in kept.iterdir()}
    assert [r["epochs"] for r in results(tmp_path / "sweep").values()] == [1, 1]
    again = tiny(*grid, "trainer.epochs=1")
    assert "finished already" in again.text
    assert not (tmp_path / "sweep/1/earlier/2").exists()
    assert "2 jobs, best first" in again.text


@pytest.mark.slow
def test_the_command_goes_on_after_it_was_killed(tiny, tmp_path, monkeypatch):
    """Finished jobs are not trained again, the others go on from their last checkpoints."""
    grid = ["optimizer.lr=0.1,0.01", "trainer.epochs=1,3"]
    assert tiny("-m", *grid, f"hydra.sweep.dir={tmp_path}/whole").code == 0
    train = Stack.train

    def killed(self, epochs, *given):
        if epochs[-1] == 2:
            raise KeyboardInterrupt
        return train(self, epochs, *given)

    monkeypatch.setattr(Stack, "train", killed)
    with pytest.raises(KeyboardInterrupt):
        tiny(*FUSED, "hydra.launcher.stack=4", *grid)
    before = results(tmp_path / "sweep")
    assert [r["state"] for r in before.values()] == ["complete", "complete", "killed", "killed"]
    monkeypatch.undo()
    again = tiny(*FUSED, "hydra.launcher.stack=4", *grid)
    assert again.code == 0, again.err
    after = results(tmp_path / "sweep")
    assert [after[n] for n in (0, 1)] == [before[n] for n in (0, 1)]
    assert [after[n]["epochs"] for n in (2, 3)] == [3, 3]
    assert "resuming after epoch 1 of 3" in again.text
    whole = results(tmp_path / "whole")
    assert {n: r["value"] for n, r in after.items()} == pytest.approx(
        {n: r["value"] for n, r in whole.items()}, abs=0.02
    )
