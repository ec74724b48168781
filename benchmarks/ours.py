"""Runs of this project, built as a job builds them, for benchmarks to train."""

from pathlib import Path

import torch
from hydra import compose, initialize_config_dir
from hydra.utils import execution_whitelist

from cifar_tuning import PROJECT_ROOT
from cifar_tuning.fused.size import example
from cifar_tuning.jobs.batches import make_batches
from cifar_tuning.jobs.build import Parts, build, make_optimizer, seed_everything
from cifar_tuning.jobs.process import trusted_targets
from cifar_tuning.training.events import Listener
from cifar_tuning.training.loop import Trainer
from cifar_tuning.training.memory import keep_freed_memory
from cifar_tuning.training.precision import resolve_precision
from cifar_tuning.training.schedules import Schedule
from cifar_tuning.training.settings import place

# A benchmark trains as many as it needs.
EPOCHS = 1000


def make_parts(*overrides: str) -> Parts:
    """Builds what `python train.py` with these overrides would, seed 0, crop and flip, untracked."""
    with initialize_config_dir(str(PROJECT_ROOT / "conf")), execution_whitelist(trusted_targets()):
        seed_everything(0)
        return build(compose("config", [*overrides, "augmentation=crop_flip", "tracking=none"]))


def make_run(
    parts: Parts,
    device: torch.device,
    compile: bool = False,
    folder: Path | None = None,
    listeners: tuple[Listener, ...] = (),
    together: bool = False,
) -> Trainer:
    """Makes a run of the parts, ready to train on the device; `together`: in the precision it has in a stack."""
    if device.type == "cpu":
        keep_freed_memory()
    model = place(parts.model, device)
    train, val = make_batches(parts, seed=0, device=device)
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
        precision=resolve_precision(
            "auto", model, device, (parts.data.batch_size, 3, 32, 32), example(model) if together else None
        ),
        compile=compile,
        folder=folder,
        listeners=listeners,
    )
