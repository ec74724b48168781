"""Checkpoints of small, hardly trained networks over made-up images; made-up runs of the report's experiments."""

from collections.abc import Iterator

import pytest
import torch
from hydra.utils import execution_whitelist

from cifar_tuning.data import EvalBatches, Synthetic
from cifar_tuning.jobs.process import trusted_targets
from cifar_tuning.lab.results import Results
from cifar_tuning.lab.runs import Run
from cifar_tuning.lab.scale import Scale
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
            generators=checkpoints.generator_states(torch.device("cpu")),
            progress=Progress(),
            config={"model": {"_target_": "cifar_tuning.models.SimpleNN", **options}, "data": data},
        )
        checkpoints.Taken(checkpoint).write(tmp_path / name)
        return tmp_path / name

    with execution_whitelist(trusted_targets()):
        yield make


@pytest.fixture
def make_run():
    """Makes a finished run; options are the row's."""

    def make(experiment, configuration="", seed=0, val_acc=0.5, **options):
        row = {
            "state": "complete",
            "best_epoch": 20,
            "epochs": 30,
            "final_train_acc": 0.75,
            "final_val_acc": val_acc,
            "initial_loss": 2.303,
            "test_acc": None,
            "seconds": 100.0,
            "precision": "fp32",
            "machine": "a laptop, 1 thread",
        }
        return Run(experiment, configuration, seed, val_acc=val_acc, **(row | options))

    return make


@pytest.fixture
def scale(tmp_path) -> Scale:
    """Everything in a folder of the test's own."""
    return Scale(tmp_path / "sweeps", tmp_path / "results.md", tmp_path / "results", tmp_path / "images")


@pytest.fixture
def make_results(scale, make_run):
    """Makes results of (experiment, configuration) → accuracies of seeds 0, 1, …"""

    def make(values, curves=None):
        runs = [
            make_run(*pair, seed, accuracy)
            for pair, accuracies in values.items()
            for seed, accuracy in enumerate(accuracies)
        ]
        return Results(scale, runs, curves or {})

    return make
