"""The precision that stacked jobs are computed in."""

import pytest
import torch

from cifar_tuning.fused import plan
from cifar_tuning.fused.size import Stacking
from cifar_tuning.training import probe
from tests.fused.sweeps import FUSED

pytest_plugins = ["tests.jobs.conftest"]


@pytest.fixture
def steps(monkeypatch, tmp_path):
    """Has a training step take the seconds that a test says, by precision and kind of layer; returns what was timed."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(probe, "has_bf16", lambda device: True)
    seconds, timed = {}, []

    def step(formats, work):
        layer = work.model.fc1 if hasattr(work.model, "fc1") else work.model.fc
        timed.append((formats.precision, type(layer).__name__))
        return seconds[timed[-1]]

    monkeypatch.setattr(probe, "measure_step", step)
    return seconds, timed


ALONE = {("fp32", "Linear"): 1.0, ("bf16", "Linear"): 1.0}


AUTO = ["trainer.precision=auto", "trainer.epochs=1"]


def precisions(folder) -> dict[int, str]:
    files = sorted(folder.glob("*/last.pt"))
    return {int(f.parent.name): torch.load(f, weights_only=True)["precision"] for f in files}


@pytest.mark.slow
def test_the_precision_of_a_stack_is_measured_on_a_stack(tiny, tmp_path, steps):
    seconds, timed = steps
    seconds |= ALONE | {("fp32", "StackedLinear"): 2.0, ("bf16", "StackedLinear"): 1.0}
    outcome = tiny(*FUSED, "hydra.launcher.stack=2", *AUTO, "optimizer.lr=0.1,0.01")
    assert outcome.code == 0, outcome.err
    assert list(dict.fromkeys(timed)) == list(seconds)
    assert precisions(tmp_path / "sweep") == {0: "bf16", 1: "bf16"}
    timed.clear()
    assert tiny("-m", *AUTO, "optimizer.lr=0.1,0.01", f"hydra.sweep.dir={tmp_path}/basic").code == 0
    assert list(dict.fromkeys(timed)) == list(ALONE)
    assert precisions(tmp_path / "basic") == {0: "fp32", 1: "fp32"}


@pytest.mark.slow
def test_jobs_with_and_without_dropout_have_one_precision(tiny, tmp_path, steps):
    """They share a stack, so whichever is measured stands for the other."""
    seconds, timed = steps
    seconds |= ALONE | {("fp32", "StackedLinear"): 2.0, ("bf16", "StackedLinear"): 1.0}
    outcome = tiny(*FUSED, "hydra.launcher.stack=3", *AUTO, "model.dropout=0.5,0,0.2")
    assert outcome.code == 0, outcome.err
    assert list(dict.fromkeys(timed)) == list(seconds)
    assert precisions(tmp_path / "sweep") == dict.fromkeys(range(3), "bf16")
    assert "#0, #1, #2 as one model" in outcome.text


@pytest.mark.slow
@pytest.mark.parametrize(("of_four", "expected"), [(3.7, "fp32"), (3.5, "bf16")], ids=["too_slow", "fast_enough"])
def test_jobs_that_are_trained_one_by_one_have_the_precision_of_one(
    tiny, tmp_path, monkeypatch, steps, of_four, expected
):
    """Four models as one must be a tenth faster than one after the other: only then are they stacked."""
    seconds, _ = steps
    seconds |= ALONE | {("fp32", "StackedLinear"): 8.0, ("bf16", "StackedLinear"): of_four}
    monkeypatch.setattr(plan, "choose", lambda *a: Stacking(1))
    outcome = tiny(*FUSED, *AUTO, "optimizer.lr=0.1,0.01")
    assert outcome.code == 0, outcome.err
    assert precisions(tmp_path / "sweep") == {0: expected, 1: expected}


@pytest.mark.slow
@pytest.mark.parametrize(
    "options",
    [["trainer.initial_scale=0.5", "model=resnet20", "model.depth=8"], ["trainer.compile=true"]],
    ids=["resized", "compiled"],
)
def test_the_precision_of_what_is_not_stacked_is_that_of_one(tiny, monkeypatch, steps, options):
    seconds, timed = steps
    seconds |= ALONE
    monkeypatch.setattr(torch, "compile", lambda model, **options: model)
    outcome = tiny(*FUSED, *AUTO, "optimizer.lr=0.1,0.01", "data.train_size=128", *options)
    assert outcome.code == 0, outcome.err
    assert list(dict.fromkeys(timed)) == list(ALONE)
