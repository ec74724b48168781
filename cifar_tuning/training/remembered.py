"""Small measurements of this machine that are taken once: a JSON file per kind in the user's cache folder."""

import hashlib
import json
import logging
import os
import platform
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from filelock import FileLock, Timeout
from torch import nn

from cifar_tuning.files import write_text
from cifar_tuning.training.precision import bf16_units

log = logging.getLogger(__name__)

# To be raised when a layer of ours gets faster or slower: what was measured before says nothing then.
LAYERS = 6
# Seconds that a measurement of another process is waited for.
PATIENCE = 60


def cache_file(kind: str) -> Path:
    """Returns where the measurements of a kind are remembered."""
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "cifar_tuning" / f"{kind}.json"


def key_of(model: nn.Module, device: torch.device, batch_shape: tuple[int, int, int, int]) -> str:
    """Names a model's structure, the batch, the processor, the torch version and that of our own layers."""
    if device.type == "cuda":
        processor = torch.cuda.get_device_name(device)
    else:
        # Many have the same name, and the environment may keep PyTorch from using all that they can do.
        name = torch.cpu.get_capabilities().get("cpu_name", platform.processor())
        can_do = torch.backends.cpu.get_cpu_capability(), *bf16_units(), os.environ.get("ONEDNN_MAX_CPU_ISA", "")
        processor = f"{name} {' '.join(can_do).strip()} x{torch.get_num_threads()}"
    # Rates of dropout and batch norm's momentum make no difference; of rate 0 a dropout may be an Identity.
    layers = re.sub(r"\bDropout\(.*?\)", "Identity()", repr(model))
    layers = re.sub(r"\b(p|momentum)=[\d.e+-]+", "", layers)
    structure = hashlib.sha256(layers.encode()).hexdigest()[:16]
    return f"{structure} {batch_shape} {processor} torch {torch.__version__} layers {LAYERS}"


@contextmanager
def one_at_a_time(kind: str) -> Iterator[None]:
    """Lets one process measure at a time, undisturbed by others that were about to; they find its result."""
    lock = FileLock(cache_file(kind).with_suffix(".lock"))
    try:
        cache_file(kind).parent.mkdir(parents=True, exist_ok=True)
        lock.acquire(timeout=PATIENCE)
    except (OSError, Timeout):
        yield  # a folder that can't be written to, or a process that hangs
        return
    try:
        yield
    finally:
        lock.release()


def recall(kind: str) -> dict[str, Any]:
    """Returns all measurements of a kind."""
    try:
        return dict(json.loads(cache_file(kind).read_text()))
    except (OSError, ValueError, TypeError):
        return {}  # absent or damaged: measure again


def remember(kind: str, key: str, value: Any) -> None:
    """Adds a measurement, all or nothing; a folder that can't be written to costs nothing but the next measurement."""
    file = cache_file(kind)
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        # Not the lock of a measurement, which may be held: this one is of a moment.
        with FileLock(file.with_suffix(".writing"), timeout=PATIENCE):
            write_text(file, json.dumps({**recall(kind), key: value}, indent=1))
    except (OSError, Timeout) as error:
        log.debug("the measurement can't be remembered: %s", error)
