"""Options that may be `auto`: precision, memory format and compilation as asked for, measured, or as the run began."""

import logging

import torch

from cifar_tuning.fused.size import example
from cifar_tuning.jobs.prepare import Prepared
from cifar_tuning.training.compilation import resolve_compile
from cifar_tuning.training.precision import has_bf16
from cifar_tuning.training.probe import Formats, resolve_formats
from cifar_tuning.training.recorded import NotRecordedError
from cifar_tuning.training.trainer import JOINT_FIT

log = logging.getLogger(__name__)


def choose_formats(
    prepared: Prepared, device: torch.device, shape: tuple[int, int, int, int], record: bool = False
) -> Formats:
    """Returns a job's precision and memory format.

    Args:
        prepared: the job, its model on the device.
        device: where it is trained.
        shape: N×C×H×W of a training batch.
        record: whether its steps will be replayed as CUDA graphs.
    """
    model, settings, checkpoint = prepared.parts.model, prepared.parts.trainer, prepared.checkpoint
    asked = Formats(settings.precision, settings.memory_format)
    if asked.precision == "bf16" and not has_bf16(device):
        log.warning("trainer.precision=bf16 is only emulated here, and slow; fp32 or auto is faster")
    if checkpoint is not None:  # another measurement must not change a run midway
        began = Formats(checkpoint.precision, checkpoint.memory_format)
        asked = Formats(*(kept if one == "auto" else one for one, kept in zip(asked, began, strict=True)))
    by_itself = JOINT_FIT.get() is None or settings.compile is True or settings.initial_scale < 1
    together = None if "auto" not in asked or by_itself else example(model)
    try:
        return resolve_formats(*asked, model, device, shape, together, record)
    except NotRecordedError:  # nor will it be in training
        return resolve_formats(*asked, model, device, shape, together)


def choose_compile(
    prepared: Prepared,
    device: torch.device,
    formats: Formats,
    shape: tuple[int, int, int, int],
    steps: int,
    record: bool = False,
) -> bool:
    """Returns whether a job's model is compiled.

    Args:
        prepared: the job, its model on the device, in its memory format.
        device: where it is trained.
        formats: what it is computed in.
        shape: N×C×H×W of a training batch.
        steps: of the whole run.
        record: whether they will be replayed as CUDA graphs.
    """
    model, settings, checkpoint = prepared.parts.model, prepared.parts.trainer, prepared.checkpoint
    if settings.compile == "auto" and (JOINT_FIT.get() is not None or settings.initial_scale < 1):
        return False  # stacks are not compiled, and images of other sizes would be compiled for anew
    began = None if checkpoint is None else checkpoint.compile
    try:
        return resolve_compile(settings.compile, model, device, formats, shape, steps, began, record)
    except NotRecordedError:
        return resolve_compile(settings.compile, model, device, formats, shape, steps, began)
