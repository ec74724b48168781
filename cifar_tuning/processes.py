"""Which process on which machine has something, and whether it still lives."""

import os
import socket
from functools import lru_cache
from pathlib import Path

# Start times are derived from the clock, which a machine may correct while a process lives.
TOLERANCE_SECONDS = 5.0


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
