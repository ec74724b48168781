import gc

import pytest
import torch
from torch import nn

from cifar_tuning.data import TrainBatches
from cifar_tuning.fused.stack import Stack
from cifar_tuning.models import ResNet, SimpleNN
from cifar_tuning.training import L1, Schedule
from cifar_tuning.training.averaging import WeightAverage
from cifar_tuning.training.computation import Computation
from cifar_tuning.training.display import Display
from cifar_tuning.training.loop import run_epochs
from cifar_tuning.training.recorded import Recorded, resolve_recording
from cifar_tuning.training.schedules import step
from cifar_tuning.training.settings import place


class OwnModel(nn.Module):
    pass


@pytest.mark.parametrize(
    ("asked", "model", "device", "expected"),
    [
        ("auto", SimpleNN(), "cuda", True),
        ("auto", ResNet(), "cuda", True),
        ("auto", nn.Sequential(nn.Flatten(), OwnModel()), "cuda", False),
        (True, OwnModel(), "cuda", True),
        (False, SimpleNN(), "cuda", False),
        (True, SimpleNN(), "cpu", False),
    ],
)
def test_what_is_recorded(asked, model, device, expected):
    assert resolve_recording(asked, model, torch.device(device)) is expected


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
    source = trainer.train
    trainer.train = TrainBatches(
        source._images.view(-1, *source.image_shape).cpu(),
        source._labels.cpu(),
        batch_size=48,
        augmentation=source.augmentation,
        mean=(0.5,) * 3,
        std=(0.25,) * 3,
        seed=source.seed,
        device=device,
        mixup=source.mixup,
        classes=10,
        side=source.side,
    )
    trainer.val = None
    trainer.device, trainer.record = device, record
    if trainer.average is not None:
        trainer.average = WeightAverage(trainer.model, trainer.average.decay)
    groups = trainer.regularizer.parameter_groups(trainer.model)
    optimizer = type(trainer.optimizer)(groups, **numbers)
    kept = {"decay_epochs": 2, "decay": 0.5} if schedule is step else {}
    trainer.optimizer = optimizer
    trainer.schedule = Schedule(lambda o: schedule(o, **kept), optimizer, trainer.epochs, len(trainer.train))
    return trainer


def train(computation):
    with Display(1, 256) as display:
        runs = [run for run, state in run_epochs(computation, display)]
    return [value.detach().cpu() for run in runs for value in run.model.state_dict().values()]


CASES = {
    "sgd": {},
    "dropout": {"dropout": 0.4},
    "mixup": {"mixup": 0.3},
    "smoothing": {"label_smoothing": 0.1},
    "l1": {"regularizer": L1(1e-4)},
    "average": {"ema_decay": 0.9},
    "adam": {"optimizer": torch.optim.Adam},
    "bf16": {"precision": "bf16"},
}


@pytest.mark.gpu
@pytest.mark.parametrize("options", CASES.values(), ids=CASES)
def test_recorded_steps_are_the_others_to_the_bit(make_trainer, deterministic, options):
    made = []
    for record in (False, True):
        trainer = on_gpu(make_trainer(epochs=4, **options), record, lr=0.01)
        torch.manual_seed(1)
        computation = Computation([trainer], trainer.model)
        made.append(train(computation))
        if record:
            assert computation.learning.recordings == 1
            assert (computation.updating is None) == (options.get("optimizer") is torch.optim.Adam)
    for one, other in zip(*made, strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=0)


@pytest.mark.gpu
@pytest.mark.parametrize("seeds", [(0, 0, 0), (0, 0, 1), (0, 1, 2)], ids=str)
def test_a_recorded_stack_is_the_other_to_the_bit(make_trainer, deterministic, seeds):
    made = []
    for record in (False, True):
        runs = [
            on_gpu(make_trainer(seed=seed, epochs=4 + i, dropout=0.1 * i), record, lr=0.01 * (i + 1))
            for i, seed in enumerate(seeds)
        ]
        torch.manual_seed(1)
        made.append(train(Stack(runs)))
    for one, other in zip(*made, strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=0)


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
    for one, other in zip(*made, strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=0)


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


@pytest.mark.gpu
def test_memory_is_free_when_a_run_has_ended(make_trainer):
    def once():
        trainer = on_gpu(make_trainer(epochs=2), True, lr=0.01)
        train(Computation([trainer], trainer.model))

    once()
    gc.collect()
    before = torch.cuda.memory_allocated()
    gc.disable()
    try:
        for _ in range(3):
            once()
    finally:
        gc.enable()
    assert torch.cuda.memory_allocated() <= before + 2**20
