"""A study under the fused launcher: whenever a trial ends, another one takes its place."""

import json
import sqlite3

import optuna
import pytest
import torch
import torch.nn.functional as F
from optuna.trial import TrialState
from torch import nn

from cifar_tuning import devices
from cifar_tuning.fused import flow, layers
from cifar_tuning.fused.launch import Launch
from cifar_tuning.fused.layers import Given, StackedConv2d
from cifar_tuning.fused.stack import Stack
from cifar_tuning.training import checkpoint as checkpoints
from cifar_tuning.tuning.claims import Claims
from cifar_tuning.tuning.engine import Engine
from tests.conftest import TINY
from tests.fused.sweeps import curve

pytest_plugins = ["tests.jobs.conftest"]
STUDY = ("-m", "hydra/launcher=fused", "hydra/sweeper=study", "hydra/sweeper/pruner=none", "hydra.sweeper.plots=false")


@pytest.fixture
def study(command, tmp_path):
    """A study over tiny data, its folder in tmp_path/sweep, whose space may have the number of epochs in it."""
    tiny = [option for option in TINY if not option.startswith("trainer.epochs")]
    return lambda *arguments: command(*tiny, f"hydra.sweep.dir={tmp_path}/sweep", *STUDY, *arguments)


def interrupt(monkeypatch) -> None:
    """Has Ctrl-C come before the fourth epoch of a process."""
    one_epoch, count = flow.one_epoch, iter(range(100))

    def interrupted(*arguments):
        if next(count) == 3:
            raise KeyboardInterrupt
        return one_epoch(*arguments)

    monkeypatch.setattr(flow, "one_epoch", interrupted)


def results(folder) -> dict[str, dict]:
    return {str(f.parent.relative_to(folder)): json.loads(f.read_text()) for f in sorted(folder.rglob("result.json"))}


def trials(folder) -> list[optuna.trial.FrozenTrial]:
    return optuna.load_study(study_name=None, storage=f"sqlite:///{folder}/optuna.db").trials


def enqueue(*entries: str) -> list[str]:
    return [f"hydra.sweeper.enqueue=[{','.join(f'{{{entry}}}' for entry in entries)}]"]


@pytest.mark.slow
def test_nobody_waits_for_the_slowest(tiny, study, tmp_path):
    """Four short trials end, one after the other, beside a long one; each is what it is alone."""
    long, short = "trainer.epochs:6,optimizer.lr:0.003", [f"trainer.epochs:1,optimizer.lr:0.0{n}" for n in (1, 2, 3, 4)]
    space = ["trainer.epochs=choice(1,6)", "optimizer.lr=choice(0.003,0.01,0.02,0.03,0.04)", "model.dropout=0.2"]
    budget = ["hydra.sweeper.n_trials=5", "hydra.sweeper.n_jobs=2", "hydra.launcher.stack=2"]
    outcome = study(*space, *budget, *enqueue(long, *short))
    assert outcome.code == 0, outcome.err
    ends = [trial.datetime_complete for trial in trials(tmp_path / "sweep")]
    assert sorted(range(5), key=lambda n: ends[n]) == [1, 2, 3, 4, 0]
    assert "Training jobs #0, #1 as one model" in outcome.text
    assert "Training jobs #0, #2 as one model" in outcome.text
    found = results(tmp_path / "sweep")
    for number, entry in enumerate([long, *short]):
        alone = tiny(*entry.replace(":", "=").split(","), "model.dropout=0.2", f"hydra.run.dir={tmp_path}/{number}")
        assert alone.code == 0, alone.err
        expected = results(tmp_path)[str(number)]
        assert found[str(number)]["epochs"] == expected["epochs"]
        for got, wanted in zip(curve(tmp_path / f"sweep/{number}"), curve(tmp_path / str(number)), strict=True):
            assert got == pytest.approx(wanted, abs=5e-3)


@pytest.mark.slow
def test_runs_of_two_structures_by_themselves_draw_their_own_random_numbers(tiny, tmp_path):
    """Epoch by epoch in turn, and yet bit by bit what each is alone."""
    space = ["model.activation=choice(relu,swish)", "model.dropout=0.3", "trainer.epochs=3"]
    budget = ["hydra.sweeper.n_trials=2", "hydra.sweeper.n_jobs=2", "hydra.launcher.stack=2"]
    outcome = tiny(*STUDY, *space, *budget, *enqueue("model.activation:relu", "model.activation:swish"))
    assert outcome.code == 0, outcome.err
    assert "as one model" not in outcome.text
    for number, activation in enumerate(("relu", "swish")):
        options = [f"model.activation={activation}", *space[1:], f"hydra.run.dir={tmp_path}/{number}"]
        assert tiny(*options).code == 0
        assert curve(tmp_path / f"sweep/{number}") == curve(tmp_path / str(number))


@pytest.mark.slow
def test_seeds_of_a_trial_follow_each_other(tiny, tmp_path):
    budget = ["hydra.sweeper.n_trials=3", "hydra.sweeper.n_jobs=2", "hydra.launcher.stack=2", "hydra.sweeper.repeats=2"]
    outcome = tiny(*STUDY, "optimizer.lr=interval(0.01,0.1)", "trainer.epochs=2", *budget)
    assert outcome.code == 0, outcome.err
    found = results(tmp_path / "sweep")
    assert list(found) == [f"{number}/seed_{seed}" for number in range(3) for seed in range(2)]
    for trial in trials(tmp_path / "sweep"):
        values = [found[f"{trial.number}/seed_{seed}"]["value"] for seed in range(2)]
        assert trial.value == pytest.approx(sum(values) / 2)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("error", "sizes"),
    [(RuntimeError("broken"), [3, 3]), (torch.cuda.OutOfMemoryError("too much"), [3, 3, 2, 2, 2, 2])],
    ids=["error", "memory"],
)
def test_a_stack_that_fails_costs_no_trial(tiny, tmp_path, monkeypatch, error, sizes):
    """And no later one is as large, or any at all where it is not for want of memory."""
    train, seen = Stack.train, []

    def broken(self, epochs, *given):
        seen.append(len(self.runs))
        if len(self.runs) > 2 and max(epochs) == 2:
            raise error
        return train(self, epochs, *given)

    monkeypatch.setattr(Stack, "train", broken)
    budget = ["hydra.sweeper.n_trials=5", "hydra.sweeper.n_jobs=3", "hydra.launcher.stack=3"]
    outcome = tiny(*STUDY, "optimizer.lr=interval(0.01,0.1)", "trainer.epochs=3", *budget)
    assert outcome.code == 0, outcome.err
    memory = isinstance(error, torch.cuda.OutOfMemoryError)
    assert outcome.text.count("do not fit into the device's memory") == memory
    assert outcome.text.count("Further jobs like these are trained one by one.") == (not memory)
    assert seen[: len(sizes)] == sizes
    assert max(seen[2:], default=1) <= (2 if memory else 1)
    assert {n: (r["state"], r["epochs"]) for n, r in results(tmp_path / "sweep").items()} == {
        str(n): ("complete", 3) for n in range(5)
    }


@pytest.mark.slow
def test_it_goes_on_after_ctrl_c(study, tmp_path, monkeypatch, store):
    """Every trial that was begun keeps its number, its epochs and its MLflow run."""
    budget = ["hydra.sweeper.n_trials=4", "hydra.sweeper.n_jobs=2", "hydra.launcher.stack=2"]
    command = ["optimizer.lr=interval(0.01,0.1)", "trainer.epochs=choice(2,3)", *budget, *store]
    interrupt(monkeypatch)
    assert study(*command).code == 130
    assert TrialState.RUNNING not in {trial.state for trial in trials(tmp_path / "sweep")}
    monkeypatch.undo()
    again = study(*command)
    assert again.code == 0, again.err
    assert [trial.state for trial in trials(tmp_path / "sweep")] == [TrialState.COMPLETE] * 4
    for trial in trials(tmp_path / "sweep"):
        assert list(trial.intermediate_values) == list(range(trial.params["trainer.epochs"] + 1))
    with sqlite3.connect(tmp_path / "mlflow.db") as database:
        assert database.execute("select status, count(*) from runs group by status").fetchall() == [("FINISHED", 5)]


@pytest.mark.slow
def test_what_was_put_off_is_written_when_a_study_is_stopped(study, tmp_path, monkeypatch):
    monkeypatch.setattr(devices, "QUEUES", ("cpu",))  # as if it were a GPU
    budget = ["hydra.sweeper.n_trials=2", "hydra.sweeper.n_jobs=2", "hydra.launcher.stack=2", "trainer.epochs=5"]
    interrupt(monkeypatch)
    assert study("optimizer.lr=interval(0.01,0.1)", *budget).code == 130
    found = {file: checkpoints.load(file).progress.epoch for file in (tmp_path / "sweep").rglob("last.pt")}
    told = {file: json.loads((file.parent / "metrics.jsonl").read_text().splitlines()[-1])["step"] for file in found}
    assert len(found) == 2
    assert found == told
    assert min(found.values()) >= 2


@pytest.mark.slow
def test_a_study_whose_trials_fail_ends_when_those_in_training_have(tiny, tmp_path, monkeypatch):
    compose = Launch._compose

    def broken(self, number, overrides):
        if number in (1, 2):
            raise ValueError("no such option")
        return compose(self, number, overrides)

    monkeypatch.setattr(Launch, "_compose", broken)
    budget = ["hydra.sweeper.n_trials=5", "hydra.sweeper.n_jobs=2", "hydra.launcher.stack=2"]
    outcome = tiny(*STUDY, "optimizer.lr=interval(0.01,0.1)", *budget, "hydra.sweeper.max_failure_rate=0.2")
    assert outcome.code == 1
    assert "2 of 5 trials failed" in outcome.err
    assert "no such option" in outcome.err
    states = [trial.state for trial in trials(tmp_path / "sweep")]
    assert states == [TrialState.COMPLETE, TrialState.FAIL, TrialState.FAIL]


@pytest.mark.slow
@pytest.mark.parametrize("name", ["take", "failed"])
def test_a_study_that_is_away_costs_no_epoch(tiny, tmp_path, monkeypatch, name):
    """What is in training is trained to its end; then the command goes on if the study is back."""
    owner, method = {"take": (Claims, "take"), "failed": (Engine, "_failed")}[name]
    original, count = getattr(owner, method), iter(range(100))

    def away(self, *arguments):
        if next(count) == 2:
            raise OSError("connection lost")
        return original(self, *arguments)

    monkeypatch.setattr(owner, method, away)
    budget = ["hydra.sweeper.n_trials=4", "hydra.sweeper.n_jobs=2", "hydra.launcher.stack=2"]
    outcome = tiny(*STUDY, "optimizer.lr=interval(0.01,0.1)", *budget)
    assert outcome.code == 0, outcome.err
    assert "OSError: connection lost" in outcome.text
    assert [trial.state for trial in trials(tmp_path / "sweep")] == [TrialState.COMPLETE] * 4


@pytest.mark.slow
@pytest.mark.usefixtures("trial_1_lost")
def test_a_trial_lost_while_it_trains_alone_stops_no_crew(tiny, tmp_path, monkeypatch):
    """It can't be stacked, its neighbours can; another process has taken it up."""
    monkeypatch.setattr("cifar_tuning.fused.plan.has_own_optimizer", lambda job: job.number == 1)
    budget = ["hydra.sweeper.n_trials=4", "hydra.sweeper.n_jobs=2", "hydra.launcher.stack=2"]
    outcome = tiny(*STUDY, "optimizer.lr=interval(0.01,0.1)", *budget)
    assert outcome.code == 0, outcome.err
    assert "Trial 1 has been taken up by another process" in outcome.text
    assert "Stopped." not in outcome.text
    assert {n: r["state"] for n, r in results(tmp_path / "sweep").items()} == dict.fromkeys("023", "complete")


@pytest.mark.slow
def test_one_by_one_where_stacking_does_not_pay(tiny, tmp_path, monkeypatch):
    monkeypatch.setattr("cifar_tuning.fused.plan.choose", lambda *a: flow.Stacking(1))
    budget = ["hydra.sweeper.n_trials=3", "hydra.sweeper.n_jobs=3"]
    outcome = tiny(*STUDY, "optimizer.lr=interval(0.01,0.1)", *budget)
    assert outcome.code == 0, outcome.err
    begins = [trial.datetime_start for trial in trials(tmp_path / "sweep")]
    ends = [trial.datetime_complete for trial in trials(tmp_path / "sweep")]
    assert all(end <= begin for end, begin in zip(ends, begins[1:], strict=False))


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize(
    ("sharing", "in_bf16", "calls"),
    [((2, 1), False, 2), ((1, 2), True, 2), ((1, 1, 1), False, 1), ((1, 1, 1), True, 3), ((3,), True, 1)],
)
def test_images_that_some_models_share(monkeypatch, sharing, in_bf16, calls, bias):
    """Forward and backward, against each model's own convolution of its images."""
    monkeypatch.setattr(layers, "_in_bf16", lambda x: in_bf16)
    torch.manual_seed(0)
    convolutions = [nn.Conv2d(3, 4, 3, bias=bias).double() for _ in range(3)]
    in_order = {"memory_format": torch.channels_last}
    different = [torch.randn(2, 3, 6, 6, dtype=torch.float64).contiguous(**in_order) for _ in sharing]
    own = [images for images, models in zip(different, sharing, strict=True) for _ in range(models)]
    expected = torch.cat([conv(images) for conv, images in zip(convolutions, own, strict=True)], 1)
    expected.square().sum().backward()
    gradients = [p.grad.clone() for conv in convolutions for p in conv.parameters()]
    stacked = StackedConv2d(convolutions)
    images = torch.cat(own, 1).contiguous(**in_order)
    stacked.given = Given(images, sharing, different if in_bf16 else ())
    convolve, seen = F.conv2d, []
    monkeypatch.setattr(F, "conv2d", lambda x, *args, **options: seen.append(x) or convolve(x, *args, **options))
    outputs = stacked(images)
    assert len(seen) == calls
    torch.testing.assert_close(outputs, expected)
    outputs.square().sum().backward()
    for got, wanted in zip([p.grad for conv in convolutions for p in conv.parameters()], gradients, strict=True):
        torch.testing.assert_close(got, wanted)
