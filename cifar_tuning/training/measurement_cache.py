"""Small measurements of this machine that are taken once: a JSON file per kind in the user's cache folder.

What was measured while others used the processor is this process's alone, and its sweep's: the next command measures
again, but all jobs of a sweep go by one answer, in whichever process and whenever they are trained.
"""

import hashlib
import json
import logging
import os
import platform
import re
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from contextvars import ContextVar
from pathlib import Path
from typing import Any

import torch
from filelock import FileLock, Timeout
from torch import nn

from cifar_tuning.files import cache_folder, read_json, write_text
from cifar_tuning.training.precision import bf16_units

log = logging.getLogger(__name__)

# Version of our own layers. Raise it when one gets faster or slower: older measurements are then ignored.
LAYERS = 6
# Seconds to wait for another process's measurement.
PATIENCE = 60
# Cores that other processes may use during a measurement, and the shortest time in seconds over which that is known.
ALLOWED, SHORTEST = 0.3, 0.1
# psutil's names for the seconds in which a core was in use.
BUSY = ("user", "nice", "system", "irq", "softirq", "steal")
# A folder in a sweep's folder; hidden, because visible ones are jobs.
SWEEPS_OWN = ".measured"
_provisional: dict[tuple[str, str], Any] = {}
_sweep: ContextVar[Path | None] = ContextVar("sweep", default=None)


def cache_file(kind: str) -> Path:
    """Returns where the measurements of a kind are remembered."""
    return cache_folder() / f"{kind}.json"


@contextmanager
def of_sweep(folder: Path) -> Iterator[None]:
    """Has the jobs of the sweep in a folder go by one measurement, the first."""
    token = _sweep.set(folder)
    try:
        yield
    finally:
        _sweep.reset(token)


def _sweeps_file(kind: str) -> Path | None:
    folder = _sweep.get()
    return None if folder is None else folder / SWEEPS_OWN / f"{kind}.json"


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
    # A backward pass leaves out what is frozen.
    layers += "".join(name for name, value in model.named_parameters() if not value.requires_grad)
    structure = hashlib.sha256(layers.encode()).hexdigest()[:16]
    return f"{structure} {batch_shape} {processor} torch {torch.__version__} layers {LAYERS}"


@contextmanager
def one_at_a_time(kind: str) -> Iterator[None]:
    """Lets one process measure at a time, undisturbed by others that were about to; they find its result."""
    file = cache_file(kind)
    with ExitStack() as held:
        with suppress(OSError, Timeout):  # a folder that can't be written to, or a process that hangs
            file.parent.mkdir(parents=True, exist_ok=True)
            held.enter_context(FileLock(file.with_suffix(".lock"), timeout=PATIENCE))
        yield


def measured_once(kind: str, key: str, device: torch.device, measure: Callable[[], Any]) -> Any:
    """Returns what is known, or else measures it while no other process does, and remembers it.

    Args:
        kind: of measurement.
        key: what is measured.
        device: where; other programs disturb what is measured on the processor.
        measure: returns what JSON can hold; None is not remembered.
    """
    if (known := recall(kind).get(key)) is not None:
        return known
    with one_at_a_time(kind):
        if (known := recall(kind).get(key)) is not None:  # by who was measuring just now
            return known
        neighbours = Neighbours() if device.type == "cpu" else None
        if (found := measure()) is not None:
            remember(kind, key, found, neighbours)
    return found


class Neighbours:
    """What other processes use of the processor while something is measured, from the object's making on."""

    def __init__(self) -> None:
        self._before = self._times()

    def in_the_way(self) -> bool:
        """Whether they left this process fewer cores than it has threads, of those that it may run on."""
        busy, own, seconds = (now - before for now, before in zip(self._times(), self._before, strict=True))
        if seconds < SHORTEST:
            return False
        others = (busy - own) / seconds
        return others + torch.get_num_threads() > len(self._cores()) + ALLOWED

    @classmethod
    def _times(cls) -> tuple[float, float, float]:
        # A guest's time is in the user's.
        busy = sum(getattr(core, name, 0.0) for core in cls._cores() for name in BUSY)
        return busy, time.process_time(), time.monotonic()

    @staticmethod
    def _cores() -> list[Any]:
        """Returns the times of the cores that this process may run on; of all where their numbers are not known."""
        import psutil

        times = psutil.cpu_times(percpu=True)
        mine = os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else set(range(len(times)))
        return [times[number] for number in sorted(mine)] if max(mine) < len(times) else times


def recall(kind: str) -> dict[str, Any]:
    """Returns all measurements of a kind: the sweep's before this process's, and these before the user's."""
    own = {key: value for (of, key), value in _provisional.items() if of == kind}
    file = _sweeps_file(kind)
    return _read(cache_file(kind)) | own | ({} if file is None else _read(file))


def _read(file: Path) -> dict[str, Any]:
    known = read_json(file)
    return known if isinstance(known, dict) else {}  # absent or damaged: measure again


def remember(kind: str, key: str, value: Any, beside: Neighbours | None = None) -> None:
    """Adds a measurement, all or nothing; a folder that can't be written to costs nothing but the next measurement.

    Args:
        kind: of measurement.
        key: what was measured.
        value: what came of it.
        beside: who was there when the processor was measured; if in the way, nobody but the sweep is told.
    """
    if (file := _sweeps_file(kind)) is not None:
        _add(file, key, value)
    if beside is not None and beside.in_the_way():
        if (kind, key) not in _provisional:
            log.info("other programs were running meanwhile: the next command measures again")
        _provisional[kind, key] = value
        return
    _provisional.pop((kind, key), None)
    _add(cache_file(kind), key, value)


def _add(file: Path, key: str, value: Any) -> None:
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        # Not the lock of a measurement, which may be held: this one is of a moment.
        with FileLock(file.with_suffix(".writing"), timeout=PATIENCE):
            write_text(file, json.dumps({**_read(file), key: value}, indent=1))
    except (OSError, Timeout) as error:
        log.debug("the measurement can't be remembered: %s", error)
