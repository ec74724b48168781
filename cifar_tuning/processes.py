"""What this process may use; which process on which machine has something, and whether it still lives."""

import os
import shutil
import signal
import socket
import subprocess
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import Any

# Start times are derived from the clock, which a machine may correct while a process lives.
TOLERANCE_SECONDS = 5.0
# Set in the environment of a study's workers: the process id of their supervisor, which does what is done once.
WORKER_VARIABLE = "CIFAR_TUNING_WORKER"

CGROUP = Path("/sys/fs/cgroup")

_stop = threading.Event()


def stop(number: int, frame: object) -> None:
    """Ends this process at a signal, as Ctrl-C would.

    Raises:
        SystemExit: always. Python drops it where a destructor happens to run, and libraries rename it: hence
            `asked_to_stop`.
    """
    _stop.set()
    raise SystemExit(128 + number)


@contextmanager
def undisturbed() -> Iterator[None]:
    """Puts Ctrl-C and SIGTERM off until a block ends; a second one stops the block at once.

    What a signal's handler raises, it raises between any two instructions: SQLAlchemy does not survive that in a
    statement, and what a database has been told is not yet known here. Only the main thread hears signals; in others
    this does nothing.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    came: list[tuple[int, object]] = []
    handlers: dict[int, Callable[[int, Any], object]] = {}

    def put_off(number: int, frame: object) -> None:
        if came:
            handlers[number](number, frame)
        came.append((number, frame))

    for number in (signal.SIGINT, signal.SIGTERM):
        handler = signal.getsignal(number)
        if callable(handler):
            handlers[number] = handler
            signal.signal(number, put_off)
    try:
        yield
    finally:
        for known, handler in handlers.items():
            signal.signal(known, handler)
        if came:
            first, frame = came[0]
            handlers[first](first, frame)


def asked_to_stop() -> bool:
    """Whether a signal asked this process to stop."""
    return _stop.is_set()


def is_worker() -> bool:
    """Whether this process was started by a study's supervisor."""
    return WORKER_VARIABLE in os.environ


def cores() -> int:
    """Returns the processor cores that this process may use: its affinity, and its container's quota."""
    count = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    quota, _, period = _limit("cpu.max").partition(" ")
    return max(1, min(count, int(quota) // int(period))) if quota.isdecimal() and period.isdecimal() else count


def free_memory() -> int:
    """Returns the bytes of memory that are free, on the machine and in this process's container."""
    import psutil

    free = int(psutil.virtual_memory().available)
    most, used = _limit("memory.max"), _limit("memory.current")
    return min(free, int(most) - int(used)) if most.isdecimal() and used.isdecimal() else free


def free_gpu_memory(device: str) -> int | None:
    """Returns a GPU's free memory in MiB, as nvidia-smi tells it; None without one.

    Asking PyTorch would take half a gigabyte of it for a CUDA context.

    Args:
        device: `auto`, `cuda` or `cuda:N`, counted among those that CUDA_VISIBLE_DEVICES leaves visible.
    """
    if (program := shutil.which("nvidia-smi")) is None or os.environ.get("CUDA_VISIBLE_DEVICES") == "":
        return None
    index = int(device.partition(":")[2] or 0)
    visible = [name.strip() for name in os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",") if name.strip()]
    name = visible[index] if index < len(visible) else str(index)
    query = [program, f"--id={name}", "--query-gpu=memory.free", "--format=csv,noheader,nounits"]
    answer = subprocess.run(query, capture_output=True, text=True, check=False).stdout.strip()
    return int(answer) if answer.isdecimal() else None


def _limit(name: str) -> str:
    """Returns what the second version of Linux's control groups says; nothing where there are none."""
    try:
        return (CGROUP / name).read_text().strip()
    except OSError:
        return ""


@lru_cache(maxsize=1)
def host() -> str:
    """Names this machine, or container: process ids mean the same only within one PID namespace and boot."""
    parts = [socket.gethostname()]
    for file in ("/proc/sys/kernel/random/boot_id", "/proc/self/ns/pid"):
        try:
            parts.append(os.readlink(file) if "/ns/" in file else Path(file).read_text().strip())  # noqa: PTH115
        except OSError:
            continue
    return " ".join(parts)


def started(pid: int) -> str | None:
    """Tells when a process started, as text; None if there is no such process (a zombie counts as none)."""
    import psutil

    try:
        process = psutil.Process(pid)
        return None if process.status() == psutil.STATUS_ZOMBIE else f"{process.create_time():.2f}"
    except psutil.NoSuchProcess:
        return None


def lives(pid: int, start: str) -> bool:
    """Whether the process that started then still runs; another one may have got its id since."""
    now = started(pid)
    return now is not None and abs(float(now) - float(start)) < TOLERANCE_SECONDS
