import copy
import json
import math
import time
from functools import partial
from threading import Thread

import pytest
import torch
from torch import nn

from cifar_tuning.models import ResNet, SimpleNN
from cifar_tuning.training import probe
from cifar_tuning.training.measurement_cache import cache_file, key_of
from cifar_tuning.training.precision import has_bf16
from cifar_tuning.training.probe import Formats, Workload, resolve_formats
from cifar_tuning.training.settings import place
from tests.training.conftest import assert_same

CPU = torch.device("cpu")
SHAPE = (8, 3, 32, 32)
WORK = Workload(nn.Linear(2, 2), CPU, SHAPE)
LAST, FIRST = "channels_last", "contiguous_format"


class Delayed(nn.Module):
    """Takes longer in one precision, so that the probe has something to find."""

    def __init__(self, slow: torch.dtype) -> None:
        super().__init__()
        self.layer, self.slow = nn.Linear(3 * 32 * 32, 10), slow

    def forward(self, x):
        y = self.layer(x.flatten(1))
        if y.dtype == self.slow:
            time.sleep(0.02)
        return y


class Strided(Delayed):
    """Takes longer in one memory format of its images."""

    def forward(self, x):
        if x.is_contiguous(memory_format=getattr(torch, self.slow)):
            time.sleep(0.02)
        return self.layer(x.flatten(1))


class Viewing(Strided):
    """Runs in one memory format of its images, as many a model from a tutorial does."""

    def forward(self, x):
        return self.layer(x.view(len(x), -1))


@pytest.fixture(autouse=True)
def _bf16(monkeypatch):
    """The processor computes in bf16."""
    monkeypatch.setattr(probe, "has_bf16", lambda device: True)


@pytest.fixture
def seconds(monkeypatch):
    """Has a training step take the seconds that a test says, by precision and memory format; returns what was timed."""
    said, timed = {}, []

    def step(formats, work):
        timed.append(formats)
        return said[formats]

    monkeypatch.setattr(probe, "measure_step", step)
    return said, timed


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("memory_format", [LAST, FIRST])
def test_what_is_asked_for_is_taken(precision, memory_format):
    assert resolve_formats(precision, memory_format, Workload(nn.Identity(), CPU, SHAPE)) == (precision, memory_format)


# Milliseconds of a step: fp32 in channels_last and contiguous_format, bf16 likewise.
MACHINES = {
    "fast bf16": (12.0, 17.0, 9.0, 24.0, ("bf16", LAST)),
    "bf16 hardware, but a torch with slow bf16 convolutions": (12.0, 17.0, 30.0, 31.0, ("fp32", LAST)),
    "bf16 that gains too little to tell": (12.0, 17.0, 11.6, 17.0, ("fp32", LAST)),
    "faster contiguous, slow bf16": (12.0, 9.0, 30.0, 31.0, ("fp32", FIRST)),
    "bf16 that is fast in one memory format only": (12.0, 12.0, 30.0, 8.0, ("bf16", FIRST)),
    "contiguous that gains too little to tell": (12.0, 11.6, 30.0, 30.0, ("fp32", LAST)),
    "no bf16": (12.0, 17.0, None, None, ("fp32", LAST)),
    "no bf16, faster contiguous": (12.0, 9.0, None, None, ("fp32", FIRST)),
}


@pytest.mark.parametrize("machine", MACHINES)
def test_auto_takes_the_fastest_that_the_hardware_has(monkeypatch, seconds, machine):
    said, timed = seconds
    *times, expected = MACHINES[machine]
    said |= zip(ALL, times, strict=True)
    monkeypatch.setattr(probe, "has_bf16", lambda device: None not in times)
    assert resolve_formats("auto", "auto", WORK) == expected
    assert set(timed) == {one for one in ALL if said[one] is not None}
    # In turn; nothing that is hopeless twice, and what is rather slow not a third time.
    assert timed[: len(set(timed))] == list(dict.fromkeys(timed))
    for looks, times in enumerate(probe.HOPELESS, 1):
        slow = [one for one in set(timed) if said[one] > times * min(map(said.get, timed))]
        assert all(timed.count(one) <= looks for one in slow)


def test_a_burst_of_other_work_does_not_decide(monkeypatch):
    """The faster precision takes nearly twice as long in the first round, and now and then later on."""
    said, timed = dict(zip(ALL, (12.0, 20.0, 9.0, 11.0), strict=True)), []

    def step(formats, work):
        timed.append(formats)
        busy = formats.precision == "bf16" and (len(timed) <= 4 or len(timed) % 3 == 0)
        return said[formats] * (1.9 if busy else 1.0)

    monkeypatch.setattr(probe, "measure_step", step)
    assert resolve_formats("auto", "auto", WORK) == ("bf16", LAST)


ALL = [Formats(precision, memory_format) for precision in ("fp32", "bf16") for memory_format in (LAST, FIRST)]


@pytest.mark.parametrize(
    ("precision", "memory_format", "expected"),
    [("auto", FIRST, ("bf16", FIRST)), ("auto", LAST, ("fp32", LAST)), ("bf16", "auto", ("bf16", FIRST))],
)
def test_what_is_asked_for_is_not_measured(seconds, precision, memory_format, expected):
    said, timed = seconds
    said |= zip(ALL, (3.0, 4.0, 5.0, 1.0), strict=True)
    assert resolve_formats(precision, memory_format, WORK) == expected
    assert {one.precision for one in timed} == ({"fp32", "bf16"} if precision == "auto" else {precision})
    assert {one.memory_format for one in timed} == ({LAST, FIRST} if memory_format == "auto" else {memory_format})
    # Another question has an answer of its own.
    assert resolve_formats("fp32", "auto", WORK) == ("fp32", LAST)


@pytest.mark.parametrize(
    ("model", "expected"),
    [
        (Delayed(torch.float32), ("bf16", LAST)),
        (Delayed(torch.bfloat16), ("fp32", LAST)),
        (Strided(LAST), ("fp32", FIRST)),
        (Strided(FIRST), ("fp32", LAST)),
        (Viewing(LAST), ("fp32", FIRST)),
    ],
    ids=["slow fp32", "slow bf16", "slow channels_last", "slow contiguous", "contiguous alone"],
)
def test_real_steps_are_timed(model, expected):
    # What makes no difference to a model may come out either way on a busy machine.
    found = resolve_formats("auto", "auto", Workload(model, CPU, SHAPE))
    assert [one for one, other in zip(found, expected, strict=True) if one == other]
    decides = 0 if isinstance(model.slow, torch.dtype) else 1
    assert found[decides] == expected[decides]


def test_what_runs_in_no_format_says_why():
    with pytest.raises(RuntimeError, match="mat1 and mat2"):
        resolve_formats("fp32", "auto", Workload(nn.Linear(1, 1), CPU, SHAPE))


def test_the_measurement_is_made_once(seconds):
    said, timed = seconds
    said |= zip(ALL, (3.0, 4.0, 5.0, 1.0), strict=True)
    first = resolve_formats("auto", "auto", WORK)
    timed.clear()
    assert resolve_formats("auto", "auto", WORK) == first == ("bf16", FIRST)
    assert timed == []
    assert list(json.loads(cache_file("precision").read_text()).values()) == ["bf16 contiguous_format"]


def test_dropout_makes_another_model_of_none():
    """A rate of 0 may be an Identity; the time of the draws is no part of the measurement."""
    names = [key_of(nn.Sequential(layer), CPU, SHAPE) for layer in (nn.Identity(), nn.Dropout(0.2), nn.Dropout(5e-1))]
    assert len(set(names)) == 1
    assert key_of(nn.Sequential(nn.Dropout2d(0.2)), CPU, SHAPE) != names[0]


def test_a_frozen_model_is_measured_by_itself():
    assert key_of(nn.Linear(3, 3), CPU, SHAPE) != key_of(nn.Linear(3, 3).requires_grad_(False), CPU, SHAPE)


def test_a_stack_that_does_not_run_leaves_the_decision_to_one_model():
    """A model of the user's whose code is not for features side by side: why it is not stacked is said elsewhere."""
    broken = probe.StackProbe(nn.Linear(1, 1), 4, 1.1)
    assert resolve_formats("auto", LAST, Workload(Delayed(torch.float32), CPU, SHAPE), broken) == ("bf16", LAST)


@pytest.mark.parametrize("pays", [True, False])
def test_a_stack_is_measured_in_channels_last_alone(monkeypatch, pays):
    """There it is faster; one by one its models may be faster in the other."""
    monkeypatch.setattr(probe, "has_bf16", lambda device: False)
    alone, stack, timed = nn.Linear(2, 2), nn.Linear(2, 8), []

    def step(formats, work):
        timed.append((work.model is stack, formats.memory_format))
        return {LAST: 2.0, FIRST: 1.0}[formats.memory_format] if work.model is alone else (3.0 if pays else 3.9)

    monkeypatch.setattr(probe, "measure_step", step)
    found = resolve_formats("auto", "auto", Workload(alone, CPU, SHAPE), probe.StackProbe(stack, 4, 1.1))
    assert found == ("fp32", LAST if pays else FIRST)
    assert set(timed) == {(False, LAST), (False, FIRST), (True, LAST)}


@pytest.mark.parametrize("formats", ALL, ids=str)
def test_the_probe_leaves_model_and_generators_alone(formats):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Dropout(), nn.Flatten(), nn.LazyLinear(10))
    model(torch.zeros(SHAPE))
    before = copy.deepcopy(model.state_dict())
    state = torch.get_rng_state()
    probe.measure_step(formats, Workload(model, CPU, SHAPE))
    assert torch.equal(state, torch.get_rng_state())
    assert_same(before, model.state_dict())
    assert all(p.grad is None for p in model.parameters())
    assert model[0].weight.is_contiguous()


@pytest.mark.parametrize("memory_format", [LAST, FIRST])
def test_what_is_timed_is_what_a_run_computes(memory_format):
    """Given images in channels_last, a model would compute in channels_last whatever its weights."""
    seen = []
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 10))
    model[0].register_forward_hook(lambda layer, images, y: seen.extend([images[0], layer.weight, y]))
    probe.measure_step(Formats("fp32", memory_format), Workload(place(model, CPU), CPU, SHAPE))
    assert seen
    assert all(x.is_contiguous(memory_format=getattr(torch, memory_format)) for x in seen)


@pytest.mark.gpu
@pytest.mark.parametrize("make", [partial(SimpleNN, batch_norm=True), ResNet])
def test_on_a_gpu_all_are_measured_and_one_is_found(monkeypatch, make):
    monkeypatch.setattr(probe, "has_bf16", has_bf16)
    device, timed = torch.device("cuda"), {}
    measure, waited, synchronize = probe.measure_step, [], torch.cuda.synchronize

    def step(formats, work):
        timed[formats] = min(timed.get(formats, math.inf), measure(formats, work))
        return timed[formats]

    monkeypatch.setattr(probe, "measure_step", step)
    monkeypatch.setattr(torch.cuda, "synchronize", lambda *a: waited.append(1) or synchronize(*a))
    found = resolve_formats("auto", "auto", Workload(place(make(), device), device, (128, 3, 32, 32)))
    assert set(timed) == {one for one in ALL if one.precision == "fp32" or has_bf16(device)}
    assert found in timed
    assert timed[found] <= probe.NEEDED_GAIN * min(timed.values())
    assert len(waited) >= 2 * len(timed)


def test_two_processes_do_not_measure_at_once(monkeypatch):
    """They would disturb each other, and might find different precisions for the trials of one study."""
    at_once, most, found = [], [], []

    def slowly(formats, work):
        at_once.append(formats)
        most.append(len(at_once))
        time.sleep(0.05)
        at_once.pop()
        return {"fp32": 1.2, "bf16": 1.0}[formats.precision]

    monkeypatch.setattr(probe, "measure_step", slowly)
    resolve = partial(resolve_formats, "auto", LAST, WORK)
    threads = [Thread(target=lambda: found.append(resolve())) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [("bf16", LAST)] * 2
    assert max(most) == 1
    assert len(most) == 2 * probe.ROUNDS
