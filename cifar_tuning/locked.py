"""One process at a time; the others say what they wait for."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

log = logging.getLogger(__name__)


@contextmanager
def locked(file: Path, busy: str) -> Iterator[None]:
    """Holds a lock meanwhile.

    Args:
        file: of the lock; its folder is there.
        busy: what to say where another process holds it.
    """
    lock = FileLock(file)
    try:
        held = lock.acquire(timeout=0)
    except Timeout:
        log.warning(busy)
        held = lock.acquire()
    with held:
        yield
