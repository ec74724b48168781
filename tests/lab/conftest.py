"""Checkpoints of small, hardly trained networks over made-up images."""

from collections.abc import Iterator

import pytest
import torch
from hydra.utils import execution_whitelist

from cifar_tuning.data import EvalBatches, Synthetic
from cifar_tuning.jobs.process import trusted_targets
from cifar_tuning.models import SimpleNN
from cifar_tuning.training import checkpoint as checkpoints
from cifar_tuning.training.events import Progress


@pytest.fixture
def batches() -> EvalBatches:
    data = Synthetic(train_size=96, val_size=32, test_size=32)
    train = data.load().train
    return EvalBatches(train.images, train.labels, batch_size=40, mean=data.mean, std=data.std)


@pytest.fixture
def make_checkpoint(tmp_path) -> Iterator:
    """Writes a run's best.pt of a SimpleNN, without training it; options are the model's."""

    def make(name="best.pt", **options):
        torch.manual_seed(0)
        model = SimpleNN(**options)
        data = {"_target_": "cifar_tuning.data.Synthetic", "train_size": 96, "val_size": 32, "test_size": 32}
        checkpoint = checkpoints.Checkpoint(
            model=model.state_dict(),
            optimizer={},
            schedule={},
            generators=checkpoints.generator_states(),
            progress=Progress(),
            config={"model": {"_target_": "cifar_tuning.models.SimpleNN", **options}, "data": data},
        )
        checkpoints.save(checkpoint, tmp_path / name)
        return tmp_path / name

    with execution_whitelist(trusted_targets()):
        yield make
