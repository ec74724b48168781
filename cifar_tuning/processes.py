"""Processes: the cores and memory that this one may use, deferred signals, and whether another one is alive."""

import hashlib
import os
import signal
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import lru_cache
from pathlib import Path
from typing import Any, ClassVar

# Start times are derived from the clock, which a machine may correct while a process lives.
TOLERANCE_SECONDS = 5.0
# Environment variable of a study's workers: their supervisor's process id.
WORKER_VARIABLE = "CIFAR_TUNING_WORKER"

CGROUP, OWN_CGROUP = Path("/sys/fs/cgroup"), Path("/proc/self/cgroup")

_stop = threading.Event()


def stop(number: int, frame: object) -> None:
    """Ends this process at a signal, as Ctrl-C would.

    Raises:
        SystemExit: always. Python drops it where a destructor happens to run, and libraries rename it: hence
            `asked_to_stop`.
    """
    _stop.set()
    raise SystemExit(128 + number)


class _PutOff:
    """The handler of Ctrl-C and SIGTERM since they were first deferred; the main thread's alone.

    It stays: a signal that comes while handlers are exchanged would find the wrong one.
    """

    depth = 0
    # Numbers of the signals that came during a block.
    came: ClassVar[list[int]] = []
    # What hears them elsewhere.
    usual: ClassVar[dict[int, Callable[[int, Any], object]]] = {}

    @classmethod
    def install(cls) -> None:
        for number in (signal.SIGINT, signal.SIGTERM):
            handler = signal.getsignal(number)
            if callable(handler) and handler is not _hear:  # the default of SIGTERM ends the process at once
                cls.usual[number] = handler
                signal.signal(number, _hear)


def _hear(number: int, frame: object) -> None:
    if _PutOff.depth and not (number == signal.SIGINT and number in _PutOff.came):
        _PutOff.came.append(number)
    else:
        _PutOff.usual[number](number, frame)


@contextmanager
def deferred_signals() -> Iterator[None]:
    """Puts Ctrl-C and SIGTERM off until a block ends; a second Ctrl-C stops it at once.

    What a signal's handler raises, it raises between any two instructions: SQLAlchemy does not survive that in a
    statement, and what a database has been told is not yet known here. (SIGTERM comes twice where a cluster's scheduler
    sends it to a supervisor and its workers.) Python runs handlers in the main thread; in others this does nothing.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    outer = _PutOff.depth
    if not outer:
        _PutOff.came.clear()
        _PutOff.install()
    try:
        _PutOff.depth = outer + 1
        yield
    finally:
        _PutOff.depth = outer
        if not outer and _PutOff.came:
            number = _PutOff.came[0]
            _PutOff.came.clear()
            _PutOff.usual[number](number, None)


@contextmanager
def terminable() -> Iterator[None]:
    """Has SIGTERM end this process as Ctrl-C does, in order, where nobody has said otherwise."""
    own = threading.current_thread() is threading.main_thread() and signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
    if own:
        signal.signal(signal.SIGTERM, stop)
    try:
        yield
    finally:
        if own:
            signal.signal(signal.SIGTERM, signal.SIG_DFL)


def asked_to_stop() -> bool:
    """Whether a signal asked this process to stop."""
    return _stop.is_set()


def is_worker() -> bool:
    """Whether this process was started by a study's supervisor."""
    return WORKER_VARIABLE in os.environ


def cores() -> int:
    """Returns the processor cores that this process may use: its affinity, and its container's quota."""
    count = visible_cores()
    for group in _groups():
        quota, _, period = _said(group / "cpu.max").partition(" ")
        quota, period = quota or _said(group / "cpu.cfs_quota_us"), period or _said(group / "cpu.cfs_period_us")
        if quota.isdecimal() and period.isdecimal():
            count = min(count, int(quota) // int(period))
    return max(1, count)


def visible_cores() -> int:
    """Returns the processor cores that this process may run on, as libraries count them: without a quota."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def free_memory() -> int:
    """Returns the bytes of memory that are free, on the machine and in this process's container.

    What a container's limit counts as used includes files that were read, which the kernel forgets when it needs room.
    """
    import psutil

    free = int(psutil.virtual_memory().available)
    for group in _groups():
        most = _said(group / "memory.max") or _said(group / "memory.limit_in_bytes")
        used = _said(group / "memory.current") or _said(group / "memory.usage_in_bytes")
        if most.isdecimal() and used.isdecimal():
            statistics = dict(line.split() for line in _said(group / "memory.stat").splitlines())
            files = statistics.get("total_inactive_file") or statistics.get("inactive_file", "0")
            free = min(free, int(most) - int(used) + int(files))
    return max(0, free)


def _groups() -> list[Path]:
    """Returns the control groups that this process is in, each of which may have limits.

    Linux's first version, still that of older clusters, has a tree for each kind of limit, under the kind's name.
    """
    groups = list[Path]()
    for line in _said(OWN_CGROUP).splitlines() or ["0::/"]:
        kind, _, path = line.partition(":")[2].partition(":")
        own = CGROUP / kind / path.removeprefix("/")
        groups += [own, *(folder for folder in own.parents if folder.is_relative_to(CGROUP))]
    return groups


def _said(file: Path) -> str:
    """Returns what Linux says in one of its files; nothing where there is none."""
    try:
        return file.read_text().strip()
    except OSError:
        return ""


@lru_cache(maxsize=1)
def host() -> str:
    """Names this machine, or container: process ids mean the same only within one PID namespace and boot."""
    parts = [socket.gethostname(), boot()]
    with suppress(OSError):
        parts.append(os.readlink("/proc/self/ns/pid"))  # noqa: PTH115
    return " ".join(filter(None, parts))


def boot() -> str:
    """Names the time since this machine was started; empty where that has no name."""
    return _said(Path("/proc/sys/kernel/random/boot_id"))


@lru_cache(maxsize=1)
def installation() -> str:
    """Names this machine whenever it is started, unlike any other of its host name; empty where that can't be told.

    The machine's own id is not for others to know, says systemd's manual page machine-id(5): hence the digest.
    """
    known = _said(Path("/etc/machine-id"))
    return hashlib.sha256(f"cifar_tuning {known}".encode()).hexdigest()[:16] if known else ""


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
