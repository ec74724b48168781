"""Assembles a job's training: model and batches on the device, precision, optimizer, checkpoint to resume from."""

import json
import logging
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch.optim import Optimizer
from torch.optim.lr_scheduler import OneCycleLR

from cifar_tuning.data.batches import EvalBatches, TrainBatches
from cifar_tuning.errors import ConfigError
from cifar_tuning.jobs.auto_options import choose_compile, choose_formats
from cifar_tuning.jobs.batches import make_batches
from cifar_tuning.jobs.fitting import last_batch_problem
from cifar_tuning.jobs.parts import Parts, make_optimizer
from cifar_tuning.jobs.prepare import Prepared
from cifar_tuning.models.facts import count_macs, count_parameters
from cifar_tuning.tracking.base import Tracker
from cifar_tuning.training import checkpoint as checkpoints
from cifar_tuning.training.cuda_graphs import resolve_recording
from cifar_tuning.training.display import describe_device, memory_in_use
from cifar_tuning.training.events import EpochMetrics, Listener, Result
from cifar_tuning.training.losses import balanced_weights
from cifar_tuning.training.memory import keep_freed_memory
from cifar_tuning.training.probe import Formats, Workload
from cifar_tuning.training.schedules import Schedule
from cifar_tuning.training.settings import place, resolve_device
from cifar_tuning.training.trainer import Trainer

log = logging.getLogger(__name__)


class EpochTracking(Listener):
    """Hands every epoch to the tracker, in one call."""

    def __init__(self, tracker: Tracker) -> None:
        self.tracker = tracker

    def on_epoch(self, metrics: EpochMetrics) -> bool:
        """Logs the epoch's figures; what is no number (a diverged epoch's) is left out."""
        named = {name: value for name, value in metrics.named().items() if math.isfinite(value)}
        self.tracker.log_epoch(named, metrics.epoch)
        return False

    def while_waiting(self) -> None:
        """Flushes the metrics that are queued for the store."""
        if deliver := getattr(self.tracker, "deliver", None):  # a tracker of the user's own may lack it
            deliver()

    def on_end(self, result: Result) -> None:
        """Says of a run that is complete before its last epoch why it is."""
        if result.stopped is not None:
            self.tracker.log_facts({"stopped": result.stopped})


def make_trainer(prepared: Prepared, folder: Path, listeners: Sequence[Listener]) -> tuple[Trainer, dict[str, float]]:
    """Returns the trainer of a job, as far as its checkpoint had come, and the figures of its model.

    Args:
        prepared: the job; its run in the tracker has begun.
        folder: the job's, for its checkpoints.
        listeners: hear of each epoch before the tracker does, of those in the checkpoint as well.

    Raises:
        ConfigError: the last batch of an epoch is too small for the model, or its schedule too short for the run.
        DataError: the dataset can't be had.
    """
    parts = prepared.parts
    device = resolve_device(parts.trainer.device)
    if device.type == "cpu":
        keep_freed_memory()
    before = memory_in_use(device)
    train, val = _make_batches(prepared, device)
    model = place(parts.model, device)
    height, width, channels = train.image_shape
    record = resolve_recording(parts.trainer.cuda_graphs, model, parts.regularizer, device)
    work = Workload(model, device, (parts.data.batch_size, channels, height, width), record)
    formats = choose_formats(prepared, work)
    model = place(model, device, formats.memory_format)
    figures = _log_facts(parts, (channels, height, width), device, formats)
    log.info(describe_device(device, *formats, before))
    compile = choose_compile(prepared, work, formats, parts.trainer.epochs * len(train))
    optimizer = make_optimizer(parts)
    _warn_of_decay(optimizer, parts, prepared.config)
    schedule = Schedule(parts.schedule, optimizer, parts.trainer.epochs, len(train))
    _refuse_short_cycle(schedule, parts.trainer.epochs * (len(train) if schedule.every_step else 1))
    trainer = Trainer(
        model,
        optimizer,
        schedule,
        parts.regularizer,
        train,
        val,
        epochs=parts.trainer.epochs,
        device=device,
        precision=formats.precision,
        memory_format=formats.memory_format,
        compile=compile,
        record=record,
        label_smoothing=parts.trainer.label_smoothing,
        class_weights=balanced_weights(train.labels, len(parts.data.classes)) if parts.trainer.class_weights else None,
        max_grad_norm=parts.trainer.max_grad_norm,
        patience=parts.trainer.patience,
        ema_decay=parts.trainer.ema_decay,
        folder=folder,
        config=prepared.config,
        run_id=parts.tracking.run_id,
        listeners=[*listeners, EpochTracking(parts.tracking)],
    )
    _resume(trainer, prepared, folder)
    return trainer, figures


def _make_batches(prepared: Prepared, device: torch.device) -> tuple[TrainBatches, EvalBatches | None]:
    """Returns training and validation batches, while the model is still on the CPU, where the last one is tried."""
    same_data = json.dumps(prepared.config["data"], default=str)
    train, val = make_batches(prepared.parts, prepared.config["seed"], device, same_data)
    if (problem := last_batch_problem(prepared.parts, train.count)) is not None:
        raise ConfigError([problem])
    return train, val


def _refuse_short_cycle(schedule: Schedule, steps: int) -> None:
    """Refuses a cycle of a given number of steps that is shorter than the run: beyond its end it raises an error."""
    if isinstance(schedule.scheduler, OneCycleLR) and (end := schedule.scheduler.total_steps) < steps:
        raise ConfigError([f"schedule.total_steps={end}: OneCycleLR ends before the run, which steps it {steps} times"])


def _warn_of_decay(optimizer: Optimizer, parts: Parts, config: dict[str, Any]) -> None:
    """An optimizer that decays weights by its own default, as PyTorch's AdamW does, would go unnoticed."""
    decay = optimizer.defaults.get("weight_decay")
    if not decay or "weight_decay" in config["optimizer"]:
        return
    if not any("weight_decay" in group for group in parts.regularizer.parameter_groups(parts.model)):
        kind = type(optimizer).__name__
        log.warning("%s decays weights by %g, its own default: optimizer.weight_decay=0 does not", kind, decay)


def _resume(trainer: Trainer, prepared: Prepared, folder: Path) -> None:
    if prepared.checkpoint is None or prepared.checkpoint_file is None:
        return
    trainer.resume(prepared.checkpoint, prepared.checkpoint_file)
    checkpoints.adopt_best(prepared.checkpoint_file, prepared.checkpoint, folder)
    # A new run gets the curves from their beginning, a continued one what nobody was told when its process was killed
    # behind a checkpoint; tracker and reporter know what their stores have.
    for metrics in prepared.checkpoint.progress.history:
        for listener in trainer.listeners:
            listener.on_epoch(metrics)
    log.info("resuming after epoch %d of %d", prepared.checkpoint.progress.epoch, trainer.epochs)


def _log_facts(parts: Parts, shape: tuple[int, int, int], device: torch.device, formats: Formats) -> dict[str, float]:
    parameters, macs = count_parameters(parts.model), count_macs(parts.model, shape)
    facts: dict[str, float | str] = {"model/parameters": parameters, "model/macs": macs, "device": str(device)}
    parts.tracking.log_facts(facts | formats._asdict())
    frozen = sum(parameter.numel() for parameter in parts.model.parameters()) - parameters
    beside = f" to train and {frozen:,} frozen ones" if frozen else ""
    name = type(parts.model).__name__
    log.info("%s: %s parameters%s, %s MACs per image", name, f"{parameters:,}", beside, f"{macs:,}")
    return {"model/parameters": float(parameters), "model/macs": float(macs)}
