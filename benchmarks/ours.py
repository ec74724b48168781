"""Runs of this project, built as a job builds them, for benchmarks to train."""

from contextlib import ExitStack
from pathlib import Path

import torch
from hydra import compose, initialize_config_dir
from hydra.utils import execution_whitelist

from cifar_tuning import PROJECT_ROOT
from cifar_tuning.fused.size import example
from cifar_tuning.jobs.batches import make_batches
from cifar_tuning.jobs.parts import Parts, make_optimizer
from cifar_tuning.jobs.prepare import prepare
from cifar_tuning.jobs.process import trusted_targets
from cifar_tuning.jobs.training import EpochTracking
from cifar_tuning.tracking import MLflowTracker, RunContext
from cifar_tuning.training.computation import Computation
from cifar_tuning.training.cuda_graphs import resolve_recording
from cifar_tuning.training.display import Display
from cifar_tuning.training.loop import one_epoch
from cifar_tuning.training.memory import keep_freed_memory
from cifar_tuning.training.probe import Workload, resolve_formats
from cifar_tuning.training.schedules import Schedule
from cifar_tuning.training.settings import place
from cifar_tuning.training.trainer import Trainer

# A benchmark trains as many as it needs.
EPOCHS = 1000
NETWORKS = {
    "simplenn_bn": ["model=simplenn", "model.batch_norm=true"],
    "simplenn": ["model=simplenn"],
    "resnet20": ["model=resnet20"],
}
NAMES = {"simplenn_bn": "SimpleNN, batch norm", "simplenn": "SimpleNN", "resnet20": "ResNet-20"}


def make_parts(*overrides: str, seed: int = 0) -> Parts:
    """Builds what `python train.py` with these overrides would, crop and flip, untracked."""
    with initialize_config_dir(str(PROJECT_ROOT / "conf")), execution_whitelist(trusted_targets()):
        return prepare(compose("config", [*overrides, "augmentation=crop_flip", "tracking=none", f"seed={seed}"])).parts


def limits(images: tuple[int, int]) -> list[str]:
    """Returns the overrides that leave so many training and validation images."""
    return [f"data.train_limit={images[0]}", f"data.val_size={images[1]}"]


def tracked_run(
    network: str,
    lr: float,
    device: torch.device,
    folder: Path | None = None,
    ending: ExitStack | None = None,
    images: tuple[int, int] = (9000, 1000),
    together: bool = False,
    seed: int = 0,
) -> Trainer:
    """Makes a run of a network; with a folder and `ending` one that is tracked and keeps checkpoints, as a job's.

    Args:
        network: a key of `NETWORKS`.
        lr: learning rate.
        device: where to train.
        folder: of the run; it must not be there yet, the tracking store lies beside it.
        ending: finishes the run in the store.
        images: for training and for validation.
        together: in the formats that the run has in a stack.
        seed: of weights, order and augmentation.
    """
    parts = make_parts(*NETWORKS[network], *limits(images), f"optimizer.lr={lr}", seed=seed)
    listeners = []
    if folder is not None and ending is not None:
        folder.mkdir()
        tracker = MLflowTracker(root=folder.parent)
        tracker.start(RunContext(folder.name, {"optimizer": {"lr": lr}}, [], folder, seed=seed))
        ending.callback(tracker.finish, "complete")
        listeners.append(EpochTracking(tracker))
    if device.type == "cpu":
        keep_freed_memory()
    model = place(parts.model, device)
    record = resolve_recording("auto", model, parts.regularizer, device)
    work = Workload(model, device, (parts.data.batch_size, 3, 32, 32), record)
    formats = resolve_formats("auto", "auto", work, example(model) if together else None)
    model = place(model, device, formats.memory_format)
    train, val = make_batches(parts, seed, device)
    optimizer = make_optimizer(parts)
    return Trainer(
        model,
        optimizer,
        Schedule(parts.schedule, optimizer, EPOCHS, len(train)),
        parts.regularizer,
        train,
        val,
        epochs=EPOCHS,
        device=device,
        precision=formats.precision,
        memory_format=formats.memory_format,
        record=record,
        folder=folder,
        listeners=listeners,
    )


def whole_epoch(computation: Computation) -> int:
    """Trains and evaluates an epoch of each run, with what its listeners and checkpoints cost; returns model-images."""
    runs = computation.runs
    images = len(runs) * runs[0].train.count
    one_epoch(computation, Display(images))
    return images
