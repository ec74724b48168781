"""Folders made anew beside those whose place they take, so that nobody finds a part of one."""

import logging
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

log = logging.getLogger(__name__)


@contextmanager
def scratch(folder: Path, prefix: str) -> Iterator[Path]:
    """Yields an empty folder, and removes it in the end; whoever calls this holds a lock.

    Args:
        folder: where it is made, because a file or folder can be moved on one disk alone.
        prefix: of its name. What processes that were killed left under such names is removed first.
    """
    for stale in folder.glob(f"{prefix}*"):
        log.info("Removing %s, left by a process that was interrupted", stale)
        shutil.rmtree(stale, ignore_errors=True)
    with tempfile.TemporaryDirectory(prefix=prefix, dir=folder, ignore_cleanup_errors=True) as name:
        yield Path(name)


@contextmanager
def made_anew(folder: Path, prefix: str, mode: int = 0o777) -> Iterator[Path]:
    """Yields an empty folder that takes another's place in the end, unless there is an error; see `scratch`.

    Args:
        folder: whose place it takes; it need not be there.
        prefix: see `scratch`.
        mode: what others may do with it, less the process's umask.
    """
    with scratch(folder.parent, prefix) as place:
        new = place / "new"
        new.mkdir(mode)
        yield new
        if folder.exists():
            folder.rename(place / "replaced")  # whoever has its files mapped keeps them
        new.rename(folder)
