"""Runs that are trained once alone and once in a stack, in float64, where the two must agree to the last digits."""

from functools import partial

import pytest
import torch

from cifar_tuning.data import EvalBatches, Synthetic, TrainBatches
from cifar_tuning.data.augmentation import CropFlip
from cifar_tuning.models import SimpleNN
from cifar_tuning.training import L2, Schedule, Trainer
from cifar_tuning.training.schedules import constant
from cifar_tuning.training.settings import place
from cifar_tuning.tuning.place import LostTrial
from cifar_tuning.tuning.trial import TrialReporter

SGD = partial(torch.optim.SGD, lr=0.01, momentum=0.9)


class Exact:
    """Batches in float64, of every so manieth pixel."""

    def __init__(self, batches, stride):
        self.batches, self.seed, self.count = batches, getattr(batches, "seed", None), batches.count
        self.stride, self.side = stride, None

    def __len__(self):
        return len(self.batches)

    def __iter__(self):
        return map(self.exact, self.batches)

    def epoch(self, epoch):
        return map(self.exact, self.batches.epoch(epoch))

    def prepare(self, epoch):
        self.batches.prepare(epoch)

    def exact(self, batch):
        images = batch[0][:, :, :: self.stride, :: self.stride].double()
        return images.contiguous(memory_format=torch.channels_last), batch[1]


# As many steps as a hundred and more batches are, of as few images as there can be: half of the time goes with them.
DATA = Synthetic(train_size=16, val_size=16, test_size=16, batch_size=2)


@pytest.fixture(scope="session")
def splits():
    return DATA.load()


@pytest.fixture(scope="session")
def make_run(splits):
    """Builds a run as `jobs.run` does; `model` and `optimizer` are made anew for each."""

    def make(
        *,
        seed=0,
        epochs=7,
        model=SimpleNN,
        optimizer=SGD,
        schedule=constant,
        regularizer=None,
        batch_size=2,
        exact=True,
        stride=1,
        mixup=0.0,
        validate=True,
        memory_format="channels_last",
        **options,
    ) -> Trainer:
        torch.manual_seed(seed)
        built = place(model(), torch.device("cpu"), memory_format)
        common = {"mean": DATA.mean, "std": DATA.std}
        train = TrainBatches(
            splits.train.images,
            splits.train.labels,
            batch_size=batch_size,
            augmentation=CropFlip(),
            seed=seed,
            mixup=mixup,
            classes=10,
            **common,
        )
        val = EvalBatches(splits.val.images, splits.val.labels, batch_size=40, **common)
        if exact:
            built, train, val = built.double(), Exact(train, stride), Exact(val, stride)
        val = val if validate else None
        regularizer = regularizer or L2(1e-4)
        updates = optimizer(regularizer.parameter_groups(built))
        steps = Schedule(schedule, updates, epochs, len(train))
        options |= {"epochs": epochs, "device": torch.device("cpu"), "memory_format": memory_format}
        return Trainer(built, updates, steps, regularizer, train, val, **options)

    return make


@pytest.fixture
def trial_1_lost(monkeypatch):
    """Another process takes up trial 1 in its first epoch."""
    on_epoch = TrialReporter.on_epoch

    def lost(self, metrics):
        if self.trial.number == 1 and metrics.epoch == 1:
            raise LostTrial("Trial 1 has been taken up by another process; this one stops.")
        return on_epoch(self, metrics)

    monkeypatch.setattr(TrialReporter, "on_epoch", lost)
