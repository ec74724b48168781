"""Recorded steps without a GPU: a stand-in for a CUDA graph calls again what was called while it was recorded."""

from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from cifar_tuning import devices, kernels
from cifar_tuning.fused.stack import Stack
from cifar_tuning.training import L1, cuda_graphs
from cifar_tuning.training.computation import Computation
from cifar_tuning.training.schedules import step
from tests.training.test_cuda_graphs import MOMENTUM, ONE_CYCLE, train

aten = torch.ops.aten
# What waits for a tensor's numbers; CUDA forbids that in a recording.
READS = (aten._local_scalar_dense.default, aten.equal.default, aten.nonzero.default, aten.masked_select.default)


class GraphOnCPU(TorchDispatchMode):
    """A CUDA graph's rules on a CPU: nothing is computed while it is recorded, and its numbers and memory stay.

    It keeps each kernel that is called, below autograd and autocast, with the numbers and tensors that it is given.
    """

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[tuple[Any, tuple[Any, ...], dict[str, Any], Any]] = []
        self.generators = [torch.default_generator]
        # By its address: memory that others made, with what it held; memory that is the recording's own.
        self.before: dict[int, tuple[Tensor, Tensor]] = {}
        self.made: set[int] = set()

    def register_generator_state(self, generator: torch.Generator) -> None:
        self.generators.append(generator)

    def capture_begin(self, pool: object, capture_error_mode: str) -> None:
        self.states = [generator.get_state() for generator in self.generators]
        self.__enter__()

    def capture_end(self) -> None:
        self.__exit__(None, None, None)
        with torch.no_grad():
            for memory, held in self.before.values():
                memory.copy_(held)
        for generator, state in zip(self.generators, self.states, strict=True):
            generator.set_state(state)

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        if func in READS:
            raise RuntimeError(f"{func} waits, which is not permitted when a stream is capturing")
        kwargs = kwargs or {}
        for one in tensors_in((args, kwargs)):
            if address(one) not in self.made and address(one) not in self.before:
                numbers = one.untyped_storage().nbytes() // one.element_size()
                memory = one.detach().as_strided((numbers,), (1,), 0)
                self.before[address(one)] = memory, memory.clone()
        result = func(*args, **kwargs)
        self.made.update(address(one) for one in tensors_in(result) if address(one) not in self.before)
        if not func.is_view:
            self.calls.append((func, args, kwargs, result))
        return result

    @torch.no_grad()
    def replay(self) -> None:
        for func, args, kwargs, result in self.calls:
            again = func(*args, **kwargs)
            for one, new in zip(tensors_in(result), tensors_in(again), strict=True):
                if one is not new:
                    one.copy_(new)


def tensors_in(values: object) -> list[Tensor]:
    return [one for one in tree_leaves(values) if isinstance(one, Tensor)]


def address(tensor: Tensor) -> int:
    return tensor.untyped_storage().data_ptr()


@pytest.fixture(autouse=True)
def replaying(without_gpu, monkeypatch):
    """Has the processor stand in for a GPU: it queues, and replays what was recorded."""
    monkeypatch.setattr(torch.cuda, "CUDAGraph", GraphOnCPU)
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 0)
    monkeypatch.setattr(devices, "QUEUES", ("cpu",))
    monkeypatch.setattr(cuda_graphs, "WARM_UP", 1)
    monkeypatch.setenv(kernels.SWITCH, "0")  # none of the ways that are a processor's only


class Thawing(torch.optim.lr_scheduler.LRScheduler):
    """Trains the first layer from the second epoch on."""

    def get_lr(self):
        for value in self.optimizer.param_groups[0]["params"][:2]:
            value.requires_grad_(self.last_epoch > 0)
        return self.base_lrs


def plateau(optimizer):
    return torch.optim.lr_scheduler.ReduceLROnPlateau(optimizer, patience=0, threshold=2.0)


SGD = partial(torch.optim.SGD, **MOMENTUM)
STEP = partial(step, decay_epochs=2, decay=0.5)
# Options, recordings of the gradients and of the update; the latter is recorded for SGD only.
CASES: dict[str, tuple[dict[str, Any], int, int | None]] = {
    "all at once": ({"dropout": 0.4, "mixup": 0.3, "ema_decay": 0.9, "max_grad_norm": 0.5, "schedule": STEP}, 1, 2),
    "plateau": ({"schedule": plateau, "label_smoothing": 0.1, "regularizer": L1(1e-4)}, 1, 3),
    "nadam": ({"optimizer": torch.optim.NAdam, "precision": "bf16", "validate": False}, 1, None),
    "thawing": ({"schedule": Thawing, "ema_decay": 0.9}, 2, 2),
}


def assert_equal(made):
    for one, other in zip(*made, strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=0)


@pytest.mark.parametrize("case", CASES)
def test_replayed_steps_are_the_others_to_the_bit(make_trainer, case):
    options, gradients, updates = CASES[case]
    made = []
    for record in (False, True):
        run = make_trainer(**{"optimizer": SGD, "batch_size": 100, "record": record} | options)
        computation = Computation([run], run.model)
        torch.manual_seed(1)
        made.append(train(computation))
    assert computation.learning.recordings == gradients
    assert computation.logits.recorded.recordings == (run.val is not None)
    assert (None if computation.updating is None else computation.updating.recordings) == updates
    assert_equal(made)


@pytest.mark.parametrize(("seeds", "schedule"), [((0, 0, 0), STEP), ((0, 0, 1), ONE_CYCLE)], ids=["step", "one cycle"])
def test_a_replayed_stack_is_the_other_to_the_bit(make_trainer, seeds, schedule):
    made = []
    for record in (False, True):
        given = {"optimizer": SGD, "schedule": schedule, "batch_size": 100, "max_grad_norm": 0.5, "record": record}
        runs = [
            make_trainer(seed=seed, lr=0.01 * (i + 1), epochs=2 + (i > 0), dropout=0.1 * i, **given)
            for i, seed in enumerate(seeds)
        ]
        torch.manual_seed(1)
        stack = Stack(runs)
        made.append(train(stack))
    assert stack.learning.recordings == stack.updating.recordings == 1
    assert_equal(made)
