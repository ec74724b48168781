"""A trainer over tiny synthetic data, made without Hydra: the training room knows nothing of it."""

from functools import partial

import pytest
import torch

from cifar_tuning.data import CropFlip, EvalBatches, Synthetic, TrainBatches
from cifar_tuning.models import SimpleNN
from cifar_tuning.training import L2, Schedule, Trainer
from cifar_tuning.training.schedules import constant

SGD = partial(torch.optim.SGD, momentum=0.9)
ONE_CYCLE = partial(torch.optim.lr_scheduler.OneCycleLR, max_lr=0.1)
COSINE = partial(torch.optim.lr_scheduler.CosineAnnealingLR, T_max=4)
PLATEAU = partial(torch.optim.lr_scheduler.ReduceLROnPlateau, patience=0)
EXPONENTIAL = partial(torch.optim.lr_scheduler.ExponentialLR, gamma=0.5)
# Tensors, or what may hold some, are equal to the bit.
assert_same = partial(torch.testing.assert_close, rtol=0, atol=0)


@pytest.fixture(autouse=True)
def _empty_cache(tmp_path, monkeypatch):
    """Nothing has been measured."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))


@pytest.fixture(scope="session")
def splits():
    return Synthetic(train_size=256, val_size=64, test_size=64).load()


@pytest.fixture
def make_trainer(splits):
    """Builds a trainer from a seed; every argument can be replaced."""

    def make(
        *,
        seed=0,
        epochs=3,
        lr=0.05,
        dropout=0.0,
        model=None,
        optimizer=SGD,
        schedule=constant,
        regularizer=None,
        dtype=torch.float32,
        mixup=0.0,
        validate=True,
        **options,
    ) -> Trainer:
        data = Synthetic(train_size=256, val_size=64, test_size=64)
        torch.manual_seed(seed)
        model = model or SimpleNN(batch_norm=True, dropout=dropout)
        model = model.to(memory_format=torch.channels_last)
        regularizer = regularizer or L2(1e-4)
        common = {"mean": data.mean, "std": data.std}
        train = TrainBatches(
            splits.train.images,
            splits.train.labels,
            batch_size=48,
            augmentation=CropFlip(),
            seed=seed,
            mixup=mixup,
            classes=len(data.classes),
            **common,
        )
        val = EvalBatches(splits.val.images, splits.val.labels, batch_size=40, **common)
        built = optimizer(regularizer.parameter_groups(model), lr=lr)
        return Trainer(
            model,
            built,
            Schedule(schedule, built, epochs, len(train)),
            regularizer,
            train,
            val if validate else None,
            epochs=epochs,
            device=torch.device("cpu"),
            **options,
        )

    return make


def moved(source, device):
    """Returns the training batches of a trainer of `make_trainer` on another device."""
    return TrainBatches(
        source._images.view(-1, *source.image_shape).cpu(),
        source.labels.cpu(),
        batch_size=source.batch_size,
        augmentation=source.augmentation,
        mean=(0.5,) * 3,
        std=(0.25,) * 3,
        seed=source.seed,
        device=device,
        mixup=source.mixup,
        classes=source.classes,
        side=source.side,
    )
