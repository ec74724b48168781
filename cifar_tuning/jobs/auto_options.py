"""Options that may be `auto`: precision, memory format and compilation as asked for, measured, or as the run began."""

import logging

from cifar_tuning.fused.size import example
from cifar_tuning.jobs.prepare import Prepared
from cifar_tuning.training.compilation import resolve_compile
from cifar_tuning.training.cuda_graphs import NotRecordedError
from cifar_tuning.training.precision import has_bf16
from cifar_tuning.training.probe import Formats, Workload, resolve_formats
from cifar_tuning.training.trainer import JOINT_FIT

log = logging.getLogger(__name__)


def choose_formats(prepared: Prepared, work: Workload) -> Formats:
    """Returns a job's precision and memory format, given its training steps."""
    settings, checkpoint = prepared.parts.trainer, prepared.checkpoint
    asked = Formats(settings.precision, settings.memory_format)
    if asked.precision == "bf16" and not has_bf16(work.device):
        log.warning("trainer.precision=bf16 is only emulated here, and slow; fp32 or auto is faster")
    if checkpoint is not None:  # another measurement must not change a run midway
        began = Formats(checkpoint.precision, checkpoint.memory_format)
        asked = Formats(*(kept if one == "auto" else one for one, kept in zip(asked, began, strict=True)))
    by_itself = JOINT_FIT.get() is None or settings.compile is True or settings.initial_scale < 1
    together = None if "auto" not in asked or by_itself else example(work.model)
    try:
        return resolve_formats(*asked, work, together)
    except NotRecordedError:  # nor will it be in training
        return resolve_formats(*asked, work._replace(record=False), together)


def choose_compile(prepared: Prepared, work: Workload, formats: Formats, steps: int) -> bool:
    """Returns whether a job's model is compiled.

    Args:
        prepared: the job.
        work: its training steps, the model in its memory format.
        formats: what it is computed in.
        steps: of the whole run.
    """
    settings, checkpoint = prepared.parts.trainer, prepared.checkpoint
    if settings.compile == "auto" and (JOINT_FIT.get() is not None or settings.initial_scale < 1):
        return False  # stacks are not compiled, and images of other sizes would be compiled for anew
    began = None if checkpoint is None else checkpoint.compile
    try:
        return resolve_compile(settings.compile, work, formats, steps, began)
    except NotRecordedError:
        return resolve_compile(settings.compile, work._replace(record=False), formats, steps, began)
