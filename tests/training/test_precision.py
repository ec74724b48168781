import json
import time
from functools import partial
from threading import Thread

import pytest
import torch
from torch import nn

from cifar_tuning.training import precision
from cifar_tuning.training.remembered import cache_file, key_of

CPU = torch.device("cpu")
SHAPE = (8, 3, 32, 32)


class Delayed(nn.Module):
    """Takes longer in one precision, so that the probe has something to find."""

    def __init__(self, slow: torch.dtype) -> None:
        super().__init__()
        self.layer, self.slow, self.calls = nn.Linear(3 * 32 * 32, 10), slow, 0

    def forward(self, x):
        y = self.layer(x.flatten(1))
        if y.dtype == self.slow:
            time.sleep(0.02)
        return y


@pytest.mark.parametrize("asked", ["fp32", "bf16"])
def test_what_is_asked_for_is_taken(asked):
    assert precision.resolve_precision(asked, nn.Identity(), CPU, SHAPE) == asked


@pytest.mark.parametrize(
    ("hardware", "slow", "expected"),
    [(True, torch.float32, "bf16"), (True, torch.bfloat16, "fp32"), (False, torch.float32, "fp32")],
)
def test_auto_takes_the_faster_where_the_hardware_has_it(monkeypatch, tmp_path, hardware, slow, expected):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(precision, "has_bf16", lambda device: hardware)
    assert precision.resolve_precision("auto", Delayed(slow), CPU, SHAPE) == expected


def test_the_measurement_is_made_once(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(precision, "has_bf16", lambda device: True)
    first = precision.resolve_precision("auto", Delayed(torch.bfloat16), CPU, SHAPE)
    monkeypatch.setattr(precision, "measure_step", lambda *a: pytest.fail("measured again"))
    assert precision.resolve_precision("auto", Delayed(torch.bfloat16), CPU, SHAPE) == first
    assert list(json.loads(cache_file("precision").read_text()).values()) == [first]


def test_dropout_makes_another_model_of_none():
    """A rate of 0 may be an Identity; the time of the draws is no part of the measurement."""
    names = [key_of(nn.Sequential(layer), CPU, SHAPE) for layer in (nn.Identity(), nn.Dropout(0.2), nn.Dropout(5e-1))]
    assert len(set(names)) == 1
    assert key_of(nn.Sequential(nn.Dropout2d(0.2)), CPU, SHAPE) != names[0]


def test_a_stack_that_does_not_run_leaves_the_decision_to_one_model(monkeypatch, tmp_path):
    """A model of the user's whose code is not for features side by side: why it is not stacked is said elsewhere."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(precision, "has_bf16", lambda device: True)
    broken = precision.Together(nn.Linear(1, 1), 4, 1.1)
    assert precision.resolve_precision("auto", Delayed(torch.float32), CPU, SHAPE, broken) == "bf16"


@pytest.mark.parametrize("content", ["", "{", "[1]"])
def test_a_damaged_cache_is_measured_anew(monkeypatch, tmp_path, content):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(precision, "has_bf16", lambda device: True)
    cache_file("precision").parent.mkdir(parents=True)
    cache_file("precision").write_text(content)
    assert precision.resolve_precision("auto", Delayed(torch.bfloat16), CPU, SHAPE) == "fp32"


def test_the_probe_leaves_model_and_generators_alone():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Dropout(), nn.Flatten(), nn.LazyLinear(10))
    model(torch.zeros(SHAPE))
    before = {k: v.clone() for k, v in model.state_dict().items()}
    state = torch.get_rng_state()
    precision.measure_step("fp32", model, CPU, SHAPE)
    assert torch.equal(state, torch.get_rng_state())
    assert all(torch.equal(before[k], v) for k, v in model.state_dict().items())
    assert all(p.grad is None for p in model.parameters())


def test_two_processes_do_not_measure_at_once(monkeypatch, tmp_path):
    """They would disturb each other, and might find different precisions for the trials of one study."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    at_once, most, found = [], [], []

    def slowly(name, model, device, shape):
        at_once.append(name)
        most.append(len(at_once))
        time.sleep(0.05)
        at_once.pop()
        return {"fp32": 2.0, "bf16": 1.0}[name]

    monkeypatch.setattr(precision, "has_bf16", lambda device: True)
    monkeypatch.setattr(precision, "measure_step", slowly)
    model = torch.nn.Linear(2, 2)
    resolve = partial(precision.resolve_precision, "auto", model, torch.device("cpu"), (1, 1, 2, 2))
    threads = [Thread(target=lambda: found.append(resolve())) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == ["bf16", "bf16"]
    assert max(most) == 1
    assert len(most) == 2 * precision.ROUNDS
