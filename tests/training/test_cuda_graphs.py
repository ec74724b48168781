import gc
from functools import partial

import pytest
import torch
from torch import nn

from cifar_tuning.fused.stack import Stack
from cifar_tuning.models import ResNet, SimpleNN
from cifar_tuning.torchvision_compat import torchvision
from cifar_tuning.training import L1, Schedule, cuda_graphs
from cifar_tuning.training.averaging import WeightAverage
from cifar_tuning.training.computation import Computation
from cifar_tuning.training.cuda_graphs import NotRecordedError, Recorded, resolve_recording
from cifar_tuning.training.display import Display
from cifar_tuning.training.loop import run_epochs
from cifar_tuning.training.schedules import step
from cifar_tuning.training.settings import place
from tests.training.conftest import assert_same, moved


class OwnModel(nn.Module):
    pass


class Ramp(L1):
    """Its strength depends on the step; a recording would keep the first one's."""


def hooked():
    model = SimpleNN()
    model.fc1.register_forward_hook(lambda *args: None)
    return model


def patched():
    model = SimpleNN()
    model.fc1.forward = lambda x: x
    return model


@pytest.mark.parametrize(
    ("asked", "model", "regularizer", "device", "expected"),
    [
        ("auto", SimpleNN(), L1(1e-4), "cuda", True),
        ("auto", ResNet(), L1(1e-4), "cuda", True),
        ("auto", nn.Sequential(nn.Flatten(), OwnModel()), L1(1e-4), "cuda", False),
        ("auto", SimpleNN(), Ramp(1e-4), "cuda", False),
        ("auto", hooked(), L1(1e-4), "cuda", False),
        (
            "auto",
            nn.Sequential(torchvision.transforms.v2.RandomHorizontalFlip(), nn.Flatten()),
            L1(1e-4),
            "cuda",
            False,
        ),
        ("auto", nn.Sequential(nn.BatchNorm2d(3, momentum=None)), L1(1e-4), "cuda", False),
        ("auto", patched(), L1(1e-4), "cuda", False),
        (True, OwnModel(), Ramp(1e-4), "cuda", True),
        (False, SimpleNN(), L1(1e-4), "cuda", False),
        (True, SimpleNN(), L1(1e-4), "cpu", False),
    ],
)
def test_what_is_recorded(asked, model, regularizer, device, expected, caplog):
    with caplog.at_level("INFO"):
        assert resolve_recording(asked, model, regularizer, torch.device(device)) is expected
    assert ("has code of its own" in caplog.text) == (asked == "auto" and not expected)


@pytest.mark.parametrize("refused", [0, 1])
def test_a_stack_is_recorded_only_if_all_its_runs_may_be(make_trainer, refused):
    stack = Stack([make_trainer(record=number != refused) for number in range(2)])
    assert (stack.learning, stack.updating, stack.logits.recorded) == (None, None, None)


def broken_off(graph):
    raise RuntimeError("broken off")


def test_what_was_recorded_before_and_is_gone_keeps_nothing_from_being_recorded(without_gpu, caplog):
    for _ in range(2):
        assert cuda_graphs.seconds_when_recorded(lambda: None, without_gpu) > 0
    one = Recorded(without_gpu)
    for count in (2, 3):  # images of another size
        for _ in range(5):
            one(lambda x: None, torch.zeros(count))
    assert one.recording == 2
    assert not caplog.records


def test_no_time_is_taken_of_what_could_not_be_recorded(without_gpu, monkeypatch, caplog):
    monkeypatch.setattr(torch.cuda.CUDAGraph, "capture_end", broken_off)
    with pytest.raises(NotRecordedError):
        cuda_graphs.seconds_when_recorded(lambda: None, without_gpu)
    assert "could not be recorded (broken off)" in caplog.text


def test_other_work_is_tried_again(without_gpu, monkeypatch):
    one = Recorded(without_gpu)
    with monkeypatch.context() as patch:
        patch.setattr(torch.cuda.CUDAGraph, "capture_end", broken_off)
        for _ in range(6):
            one(lambda x: None, torch.zeros(2))
        assert one.recording is None
    for _ in range(6):
        one(lambda x: None, torch.zeros(3))
    assert one.recording == 1


@pytest.fixture
def deterministic():
    torch.use_deterministic_algorithms(True, warn_only=True)
    torch.backends.cudnn.benchmark = False
    yield
    torch.use_deterministic_algorithms(False)


def on_gpu(trainer, record, schedule=step, **numbers):
    """Moves a trainer made for the CPU to the GPU."""
    device = torch.device("cuda")
    place(trainer.model, device)
    trainer.train = moved(trainer.train, device)
    images, labels = (torch.cat(parts).to(device).split(20) for parts in zip(*trainer.val, strict=True))
    trainer.val = list(zip(images, labels, strict=True))  # the last one is smaller
    trainer.device, trainer.record = device, record
    if trainer.class_weights is not None:
        trainer.class_weights = trainer.class_weights.to(device)
    if trainer.average is not None:
        trainer.average = WeightAverage(trainer.model, trainer.average.decay)
    groups = trainer.regularizer.parameter_groups(trainer.model)
    optimizer = type(trainer.optimizer)(groups, **numbers)
    kept = {"decay_epochs": 2, "decay": 0.5} if schedule is step else {}
    trainer.optimizer = optimizer
    trainer.schedule = Schedule(lambda o: schedule(o, **kept), optimizer, trainer.epochs, len(trainer.train))
    return trainer


def train(computation):
    with Display(256) as display:
        runs = [run for run, state in run_epochs(computation, display)]
    weights = [value.detach().cpu() for run in runs for value in run.model.state_dict().values()]
    epochs = [epoch.named() for run in runs for epoch in run.progress.history]
    figures = [[value for name, value in named.items() if "/" in name] for named in epochs]
    return [*weights, torch.tensor(figures)]


MOMENTUM = {"momentum": 0.9, "nesterov": True}
CASES = {
    "sgd": {},
    "momentum": {"numbers": MOMENTUM},
    "dropout": {"dropout": 0.4},
    "mixup": {"mixup": 0.3},
    "smoothing": {"label_smoothing": 0.1},
    "weighted": {"class_weights": torch.linspace(0.5, 1.5, 10)},
    "clipped": {"max_grad_norm": 0.5},
    "l1": {"regularizer": L1(1e-4)},
    "average": {"ema_decay": 0.9},
    "adam": {"optimizer": torch.optim.Adam},
    "nadam": {"optimizer": torch.optim.NAdam},
    "bf16": {"precision": "bf16"},
}


@pytest.mark.gpu
@pytest.mark.parametrize("options", CASES.values(), ids=CASES)
def test_recorded_steps_are_the_others_to_the_bit(make_trainer, deterministic, options):
    made, numbers = [], options.get("numbers", {})
    options = {name: value for name, value in options.items() if name != "numbers"}
    for record in (False, True):
        trainer = on_gpu(make_trainer(epochs=4, **options), record, lr=0.01, **numbers)
        torch.manual_seed(1)
        computation = Computation([trainer], trainer.model)
        made.append(train(computation))
        if record:
            assert computation.learning.recordings == 1
            assert computation.logits.recorded.recordings == 1
            if "optimizer" in options:
                assert computation.updating is None
            else:
                assert computation.updating.recordings == 2  # the rate decays once
    assert_same(*made)


ONE_CYCLE = partial(torch.optim.lr_scheduler.OneCycleLR, max_lr=0.02, total_steps=60)


@pytest.mark.gpu
@pytest.mark.parametrize("schedule", [step, ONE_CYCLE], ids=["step", "one_cycle"])
@pytest.mark.parametrize("seeds", [(0, 0, 0), (0, 0, 1), (0, 1, 2)], ids=str)
def test_a_recorded_stack_is_the_other_to_the_bit(make_trainer, deterministic, seeds, schedule):
    made = []
    for record in (False, True):
        runs = [
            on_gpu(
                make_trainer(seed=seed, epochs=4 + i, dropout=0.1 * i), record, schedule, lr=0.01 * (i + 1), **MOMENTUM
            )
            for i, seed in enumerate(seeds)
        ]
        torch.manual_seed(1)
        made.append(train(Stack(runs)))
    assert_same(*made)


@pytest.mark.gpu
def test_images_of_another_size_are_recorded_anew(make_trainer, deterministic):
    made = []
    for record in (False, True):
        torch.manual_seed(0)
        trainer = make_trainer(epochs=4, model=ResNet(depth=8))
        trainer.train.side = lambda epoch: (16, 16) if epoch < 3 else (32, 32)
        on_gpu(trainer, record, lr=0.01)
        computation = Computation([trainer], trainer.model)
        made.append(train(computation))
    assert computation.learning.recordings == 2
    assert_same(*made)


@pytest.mark.gpu
def test_what_can_not_be_recorded_is_done_as_it_is(caplog):
    device = torch.device("cuda")
    total = torch.zeros(2, device=device)

    def work(x):
        assert x.sum().item() == 2  # waits for the device
        total.add_(x)

    recorded = Recorded(device)
    for _ in range(6):
        recorded(work, torch.ones(2, device=device))
    assert total.tolist() == [6, 6]
    assert "could not be recorded" in caplog.text
    torch.nn.functional.dropout(torch.ones(4, device=device))  # the generator is sound
    torch.cuda.empty_cache()  # and so is the allocator
    again = Recorded(device)
    for _ in range(6):
        again(lambda x: total.add_(x), torch.ones(2, device=device))
    assert again.recording == 1
    assert total.tolist() == [12, 12]


@pytest.mark.gpu
def test_memory_is_free_when_a_run_has_ended(make_trainer):
    def once():
        trainer = on_gpu(make_trainer(epochs=2), True, lr=0.01)
        train(Computation([trainer], trainer.model))

    once()
    gc.collect()
    before = torch.cuda.memory_allocated(), torch.cuda.memory_reserved()
    gc.disable()
    try:
        for _ in range(3):
            once()
    finally:
        gc.enable()
    assert torch.cuda.memory_allocated() <= before[0] + 2**20
    assert torch.cuda.memory_reserved() <= before[1] + 2**25
