"""A trainer over tiny synthetic data, made without Hydra: the training room knows nothing of it."""

import itertools
from contextlib import nullcontext
from functools import partial
from typing import ClassVar
from unittest.mock import MagicMock

import pytest
import torch

from cifar_tuning.data import CropFlip, EvalBatches, Synthetic, TrainBatches
from cifar_tuning.models import SimpleNN
from cifar_tuning.training import L2, Schedule, Trainer, cuda_graphs
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
        batch_size=48,
        device="cpu",
        **options,
    ) -> Trainer:
        data = Synthetic(train_size=256, val_size=64, test_size=64)
        torch.manual_seed(seed)
        model = model or SimpleNN(batch_norm=True, dropout=dropout)
        model = model.to(device=device, memory_format=torch.channels_last)
        regularizer = regularizer or L2(1e-4)
        common = {"mean": data.mean, "std": data.std, "device": device}
        train = TrainBatches(
            splits.train.images,
            splits.train.labels,
            batch_size=batch_size,
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
            device=torch.device(device),
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


class Graph:
    """Stands in for a CUDA graph, with PyTorch's rule for memory: a pool is none any more when its last graph is gone.

    The rule is that of `CachingHostAllocator.h` in PyTorch 2.13.
    """

    users: ClassVar[dict[object, int]] = {}

    def capture_begin(self, pool, capture_error_mode):
        if self.users.get(pool, 1) < 1:
            raise RuntimeError("use_count > 0 INTERNAL ASSERT FAILED")
        self.users[pool] = self.users.get(pool, 0) + 1
        self.pool = pool

    def capture_end(self):
        pass

    def replay(self):
        pass

    def __del__(self):
        self.users[self.pool] -= 1


@pytest.fixture
def without_gpu(monkeypatch):
    """Lets recordings be made on a machine without a GPU, of work that does nothing there."""
    handles = itertools.count()
    monkeypatch.setattr(Graph, "users", {})
    monkeypatch.setattr(cuda_graphs, "_streams", {})
    fakes = {
        "CUDAGraph": Graph,
        "graph_pool_handle": lambda: (0, next(handles)),
        "Stream": lambda index: MagicMock(device_index=index),
        "current_stream": lambda device: MagicMock(),
        "stream": lambda stream: nullcontext(),
        "device": lambda device: nullcontext(),
        "synchronize": lambda device: None,
        "empty_cache": lambda: None,
        "default_generators": [torch.Generator()],
    }
    for name, value in fakes.items():
        monkeypatch.setattr(torch.cuda, name, value)
    monkeypatch.setattr(torch._C, "_cuda_endAllocateToPool", lambda *a: None, raising=False)
    monkeypatch.setattr(torch._C, "_cuda_releasePool", lambda *a: None, raising=False)
    return torch.device("cuda", 0)
