"""What a GPU would refuse or wait for, found without one: on PyTorch's `meta` device, whose tensors are shapes only."""

import traceback
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

import cifar_tuning
from cifar_tuning import devices
from cifar_tuning.fused.stack import computation_of
from cifar_tuning.models import ResNet
from cifar_tuning.training import L1, ElasticNet, computation, evaluation
from cifar_tuning.training.checkpoint import Checkpoint, generator_states
from cifar_tuning.training.computation import Computation
from cifar_tuning.training.display import Display
from cifar_tuning.training.events import Progress
from cifar_tuning.training.host_copy import OnHost
from cifar_tuning.training.loop import before_training, one_epoch
from cifar_tuning.training.schedules import warmup_cosine
from tests.training.conftest import SGD

OURS = str(Path(cifar_tuning.__file__).parent)
aten = torch.ops.aten
# Answers for what has no numbers, where the host would wait for them.
ANSWERS: dict[Any, Any] = {
    aten._local_scalar_dense.default: lambda x: True if x.dtype == torch.bool else 0.0,
    aten.equal.default: lambda one, other: True,
    aten.bincount.default: lambda x, weights=None, minlength=0: x.new_zeros(minlength),
}


class PretendGPU(TorchDispatchMode):
    """Has `meta` tensors behave as a GPU's: none of another device beside them, and what waits for them is noted.

    Attributes:
        reads: where the host read one, which waits for all that the device was given to do.
        sent: where a step copied something to the device that the device can't fetch by itself.
    """

    def __init__(self) -> None:
        super().__init__()
        self.reads: list[str] = []
        self.sent: list[str] = []
        self.in_step = False

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        given = [one for one in tree_leaves((args, kwargs)) if isinstance(one, Tensor)]
        if func in ANSWERS and given[0].is_meta:
            self.reads.append(place())
            return ANSWERS[func](*args, **kwargs)
        if func in (aten._to_copy.default, aten.copy_.default):
            return self._copied(func, args, kwargs)
        if len({one.device for one in given}) > 1:
            raise AssertionError(f"{func} has tensors on two devices, in {place()}")
        return func(*args, **kwargs)

    def _copied(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        source, within = (args[1], args[0].device) if func is aten.copy_.default else (args[0], kwargs.get("device"))
        if within is None or source.is_meta == (within.type == "meta"):
            return func(*args, **kwargs)
        if source.is_meta:
            self.reads.append(place())
            empty = torch.zeros(source.shape, dtype=kwargs.get("dtype") or source.dtype)
            return args[0].copy_(empty) if func is aten.copy_.default else empty
        if self.in_step and not kwargs.get("non_blocking"):
            self.sent.append(place())
        return func(*args, **kwargs)


def place() -> str:
    """The innermost function of the package that is being called."""
    frames = [one for one in traceback.extract_stack() if one.filename.startswith(OURS) and one.name[0] != "<"]
    return f"{Path(frames[-1].filename).stem}.{frames[-1].name}" if frames else "a test"


@pytest.fixture
def gpu(monkeypatch):
    """A device without numbers, which queues what it is given to do."""
    pretended = PretendGPU()
    monkeypatch.setattr(devices, "QUEUES", ("meta",))
    for module in (computation, evaluation):
        monkeypatch.setattr(module, "autocast", lambda device, precision: nullcontext())
    step, tensor = Computation.train_batch, torch.tensor

    def train_batch(*args: Any) -> None:
        pretended.in_step = True
        step(*args)
        pretended.in_step = False

    def made(*args: Any, **options: Any) -> Tensor:
        if pretended.in_step and torch.device(options.get("device") or "cpu").type == "meta":
            pretended.sent.append(place())
        return tensor(*args, **options)

    monkeypatch.setattr(Computation, "train_batch", train_batch)
    monkeypatch.setattr(torch, "tensor", made)
    with pretended:
        yield pretended


def frozen():
    model = ResNet(8, activation="swish", shortcut="B")
    for name, value in model.named_parameters():
        value.requires_grad_(name.startswith("fc"))
    return model


def each_step(optimizer):
    return warmup_cosine(optimizer, 3, 2, 0.2, 0.0)


def plateau(optimizer):
    return torch.optim.lr_scheduler.ReduceLROnPlateau(optimizer, patience=0)


CASES: dict[str, dict[str, Any]] = {
    "sgd": {"dropout": 0.4, "label_smoothing": 0.1, "max_grad_norm": 0.5, "ema_decay": 0.9, "schedule": plateau},
    "nadam": {"optimizer": torch.optim.NAdam, "mixup": 0.3, "max_grad_norm": 1.0, "regularizer": ElasticNet(1e-4)},
    "rmsprop": {"optimizer": torch.optim.RMSprop, "regularizer": L1(1e-4), "validate": False, "schedule": each_step}
    | {"class_weights": torch.ones(10, device="meta")},
    "frozen": {"model": frozen, "ema_decay": 0.9, "max_grad_norm": 1.0, "regularizer": L1(1e-4), "patience": 3},
}
# Losses and right answers of an epoch; confusion (counted, then fetched) and losses of an evaluation.
AN_EPOCH, AN_EVALUATION = ["computation.train"] * 2, ["evaluation.evaluate"] * 3


def runs_of(make_trainer, count, model=None, **options):
    """Some runs on the device; an epoch has a whole batch and a smaller one."""
    made = []
    for seed in range(count):
        given = {"model": model()} if model is not None else {}
        made.append(make_trainer(seed=seed // 2, batch_size=144, device="meta", **given, **options))
        made[-1].generator = torch.Generator() if count > 1 else None  # a device without numbers has none
    return made


@pytest.mark.parametrize("count", [1, 3], ids=["alone", "stacked"])
@pytest.mark.parametrize("case", CASES)
def test_no_step_waits_for_the_device(gpu, make_trainer, case, count):
    runs = runs_of(make_trainer, count, **CASES[case])
    computation = computation_of(runs)
    with Display(256) as display:
        assert before_training(computation, display, lambda run: nullcontext()) == {}
        gpu.reads.clear()
        assert one_epoch(computation, display) == {}
    weights_looked_at = ["trainer._is_sound"] * 2 * count
    assert gpu.reads == AN_EPOCH + (weights_looked_at if runs[0].val is None else AN_EVALUATION)
    assert gpu.sent == []


@pytest.mark.parametrize("optimizer", [SGD, torch.optim.NAdam], ids=["sgd", "nadam"])
def test_no_step_of_a_run_that_goes_on_waits_for_the_device(gpu, make_trainer, optimizer):
    first, second = runs_of(make_trainer, 2, optimizer=optimizer)
    computation = Computation([first], first.model)
    with Display(256) as display:
        computation.train([1], display)
        gpu.reads.clear()
        state = OnHost({"optimizer": first.optimizer.state_dict()}).copied()["optimizer"]
        assert gpu.reads == ["host_copy.__init__"]  # all tensors of one type together
        others = first.schedule.state_dict(), generator_states(torch.device("cpu")), Progress(), {}
        second.resume(Checkpoint(first.model.state_dict(), state, *others))
        gpu.reads.clear()
        Computation([second], second.model).train([2], display)
    assert gpu.reads == AN_EPOCH
    assert gpu.sent == []


def read(x):
    return float(x)


def mixed(x):
    return x + torch.ones(2)


def sent(x):
    return x + torch.tensor([1.0, 2.0], device="meta")


@pytest.mark.parametrize("work", [read, mixed, sent])
def test_what_a_gpu_would_wait_for_or_refuse_is_noticed(gpu, make_trainer, work):
    (run,) = runs_of(make_trainer, 1)
    run.schedule.after_step = lambda: work(torch.ones(2 if work is not read else (), device="meta"))
    with Display(256) as display, pytest.raises(AssertionError) if work is mixed else nullcontext():
        Computation([run], run.model).train([1], display)
    assert len(gpu.reads) == {read: 4, mixed: 0, sent: 2}[work]
    assert len(gpu.sent) == {read: 0, mixed: 0, sent: 2}[work]
