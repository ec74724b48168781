import json
import math
from functools import partial

import pytest
import torch
from torch import nn

from cifar_tuning.errors import UserError
from cifar_tuning.models import SimpleNN
from cifar_tuning.training import compilation, probe
from cifar_tuning.training.compilation import resolve_compile
from cifar_tuning.training.measurement_cache import cache_file
from cifar_tuning.training.probe import Formats, Workload
from cifar_tuning.training.settings import place
from tests.training.conftest import assert_same

CPU = torch.device("cpu")
FORMATS = Formats("fp32", "channels_last")
resolve = partial(resolve_compile, "auto", Workload(nn.Linear(2, 2), CPU, (1, 1, 2, 2)), FORMATS)
# Of eager steps that take a second each.
LONG = round(compilation.EXPECTED / compilation.SHARE) + 1


@pytest.fixture
def machine(monkeypatch):
    """Says what a compilation and a compiled step take where an eager one takes a second; returns what was timed."""
    monkeypatch.setattr(compilation, "missing_compiler", lambda: None)
    timed = []

    def make(cost, compiled):
        def step(self):
            first = "compiled" not in timed
            timed.append("compiled" if self.model is made else "eager")
            return 1.0 if self.model is not made else cost if first else compiled

        made = nn.Identity()
        monkeypatch.setattr(torch, "compile", lambda model: made)
        monkeypatch.setattr(probe.Probe, "step", step)
        return timed

    return make


@pytest.mark.parametrize("asked", [True, False])
def test_what_is_asked_for_is_taken(monkeypatch, asked):
    monkeypatch.setattr(compilation, "missing_compiler", lambda: "g++")
    device = torch.device("cuda") if asked else CPU
    assert resolve_compile(asked, Workload(nn.Identity(), device, (1, 1, 2, 2)), FORMATS, 10**9) is asked


def test_asked_for_without_a_compiler_it_is_an_error(monkeypatch):
    monkeypatch.setattr(compilation, "missing_compiler", lambda: "g++ or clang++")
    with pytest.raises(UserError, match=r"trainer.compile=true: .* needs a C\+\+ compiler"):
        resolve_compile(True, Workload(nn.Identity(), CPU, (1, 1, 2, 2)), FORMATS, 10**9)


@pytest.mark.parametrize(
    ("cost", "compiled", "steps", "expected"),
    [
        (30, 0.5, LONG, True),
        (30, 0.97, LONG, False),  # too little to tell
        (30, 1.5, LONG, False),
        (LONG, 0.5, LONG, False),  # the compilation takes what it saves
        (LONG, 0.5, 10 * LONG, True),
    ],
)
def test_it_compiles_where_that_makes_the_run_shorter(machine, cost, compiled, steps, expected):
    timed = machine(cost, compiled)
    assert resolve(steps) is expected
    assert set(timed) == {"compiled", "eager"}
    (found,) = json.loads(cache_file("compile").read_text()).values()
    assert found == {"compilation": cost, "compiled": compiled, "eager": 1.0}


def test_what_is_known_is_used_for_runs_of_any_length(machine):
    timed = machine(30, 0.5)
    assert resolve(LONG)
    timed.clear()
    assert resolve(100)
    assert not resolve(60)
    assert timed == []


def test_a_short_run_does_not_find_out(machine, caplog):
    timed = machine(30, 0.5)
    with caplog.at_level("INFO"):
        assert resolve(LONG // 2) is False
    assert "compiled" not in timed
    assert "too short to find out" in caplog.text
    assert not cache_file("compile").exists()


def test_without_a_compiler_it_goes_on_in_eager_mode(monkeypatch, caplog):
    monkeypatch.setenv("PATH", "/nowhere")
    monkeypatch.delenv("CXX", raising=False)
    monkeypatch.setattr(torch, "compile", lambda model: pytest.fail("compiled"))
    for began in (None, True):
        caplog.clear()
        with caplog.at_level("INFO"):
            assert resolve(10**9, began) is False
        assert caplog.messages == ["not compiled: there is no C++ compiler (g++ or clang++) here"]
    monkeypatch.setenv("CXX", "no-such-compiler")
    assert compilation.missing_compiler() == "no-such-compiler"


def test_a_compilation_that_fails_is_no_error(monkeypatch, caplog):
    monkeypatch.setattr(compilation, "missing_compiler", lambda: None)

    class Broken(nn.Module):
        def forward(self, x):
            raise RuntimeError("no such kernel\nand more")

    monkeypatch.setattr(torch, "compile", lambda model: Broken())
    model = nn.Sequential(nn.Flatten(), nn.Linear(4, 2))
    with caplog.at_level("INFO"):
        assert resolve_compile("auto", Workload(model, CPU, (1, 1, 2, 2)), FORMATS, 10**12) is False
    (line,) = [message for message in caplog.messages if "failed" in message]
    assert line == "not compiled: that failed (RuntimeError: no such kernel)"
    assert not cache_file("compile").exists()  # it may be mended


@pytest.mark.parametrize("began", [True, False])
def test_a_resumed_run_keeps_what_it_began_with(machine, began):
    assert machine(30, 0.5) == []
    assert resolve(LONG, began) is began


def test_only_whole_training_batches_are_compiled(monkeypatch, make_trainer):
    """Evaluation, and an epoch's smaller last batch, would each be compiled by itself."""
    seen = []

    def compiled(model):
        def run(images):
            seen.append((model.training, torch.is_grad_enabled(), len(images)))
            return model(images)

        return run

    monkeypatch.setattr(torch, "compile", compiled)
    run, reference = make_trainer(compile=True, epochs=1), make_trainer(epochs=1)
    run.fit()
    assert seen == [(True, True, 48)] * 5  # of 256 images
    reference.fit()
    assert_same(run.model.state_dict(), reference.model.state_dict())


@pytest.mark.gpu
@pytest.mark.parametrize("memory_format", ["channels_last", "contiguous_format"])
def test_on_a_gpu_a_compiled_step_is_the_eager_one(memory_format):
    device, formats = torch.device("cuda"), Formats("fp32", memory_format)
    torch.manual_seed(0)
    model = place(SimpleNN(batch_norm=True), device, memory_format)
    answer = resolve_compile("auto", Workload(model, device, (64, 3, 32, 32)), formats, 10**9)
    (found,) = json.loads(cache_file("compile").read_text()).values()
    assert all(0 < value < math.inf for value in found.values())
    assert answer == (found["eager"] > probe.NEEDED_GAIN * (found["compiled"] + found["compilation"] / 10**9))
    images = torch.randn(64, 3, 32, 32, device=device).contiguous(memory_format=getattr(torch, memory_format))
    torch.testing.assert_close(torch.compile(model)(images), model(images), rtol=1e-3, atol=1e-3)
