"""Arrays made of files once: they lie in the user's cache folder, and every process maps them."""

import errno
import hashlib
import logging
import os
import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from weakref import WeakValueDictionary

import numpy as np
from filelock import FileLock, Timeout

from cifar_tuning.data.scratch import made_anew
from cifar_tuning.errors import DataError
from cifar_tuning.files import cache_folder
from cifar_tuning.locked import locked

log = logging.getLogger(__name__)

_KEY = "key"
# What no command has used for so long is removed by the next one that decodes.
_UNUSED_DAYS = 30
# What a process could not keep, while one of its runs needs it.
_unkept: WeakValueDictionary[tuple[Path, str, str], np.ndarray] = WeakValueDictionary()


class Kept:
    """Arrays of some files, which are made anew where a file has changed since.

    Args:
        which: says which arrays replace which: those of the same text.
        key: changes with any of the files; see `key_of_files`.
        source: where the files are, for messages.
        names: of the arrays.
        needed: bytes that they take.
    """

    def __init__(self, which: str, key: str, source: Path, names: Sequence[str], needed: int) -> None:
        self.path = cache_folder() / "images" / hashlib.sha256(which.encode()).hexdigest()[:16]
        self.key, self.source, self.names, self.needed = key, source, names, needed

    def open(
        self, write: Callable[[Path], None], in_memory: Callable[[], Mapping[str, np.ndarray]]
    ) -> Mapping[str, np.ndarray]:
        """Returns the arrays by their names, mapped copy-on-write; makes them where that was not done.

        Args:
            write: makes the arrays and writes NAME.npy for each into a folder.
            in_memory: makes them for this process alone, where nothing can be kept.

        Raises:
            DataError: from these two.
        """
        if (known := self._map()) is not None:
            return known
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with locked(Path(f"{self.path}.lock"), f"Another process is decoding {self.source}; waiting for it"):
                if (known := self._map()) is None:  # another process may have been decoding while we waited
                    self._fill(write)
                    known = self._map()
        except OSError as error:
            return self._for_this_process(in_memory, error)
        assert known is not None
        return known

    def _for_this_process(
        self, in_memory: Callable[[], Mapping[str, np.ndarray]], error: OSError
    ) -> Mapping[str, np.ndarray]:
        known = {name: _unkept.get((self.path, self.key, name)) for name in self.names}
        found = {name: array for name, array in known.items() if array is not None}
        if len(found) == len(self.names):
            return found
        log.warning("The decoded images can't be kept in %s (%s): each command decodes anew", self.path, error)
        made = in_memory()
        for name in self.names:
            _unkept[self.path, self.key, name] = made[name]
        return made

    def _map(self) -> dict[str, np.ndarray] | None:
        try:
            if (self.path / _KEY).read_text() != self.key:
                return None
            arrays = {
                name: np.load(self.path / f"{name}.npy", mmap_mode="c", allow_pickle=False) for name in self.names
            }
        except (OSError, ValueError, EOFError):
            return None
        with suppress(OSError):  # on a disk that is read only
            os.utime(self.path / _KEY)  # its time is when they were last used
        return arrays

    def _fill(self, write: Callable[[Path], None]) -> None:
        if self.path.exists():
            log.warning("Images in %s came, went or changed since they were last used", self.source)
        _remove_unused(self.path.parent)
        # Nobody else may see them, who may not see the files perhaps.
        with made_anew(self.path, f".{self.path.name}-", mode=0o700) as new:
            free = shutil.disk_usage(new).free
            if self.needed > free:
                raise OSError(errno.ENOSPC, f"{gigabytes(self.needed)} are needed, {gigabytes(free)} are free")
            write(new)
            (new / _KEY).write_text(self.key)


def key_of_files(folder: Path, files: Sequence[Path]) -> str:
    """Returns what changes with any of the files below a folder, or with their list.

    Raises:
        DataError: one is not there.
    """
    content = hashlib.sha256()
    for file in files:
        try:
            found = file.stat()
        except OSError as error:  # taken away since it was listed, or a link that leads nowhere
            raise DataError(f"{file} can't be read: {error.strerror}.") from error
        content.update(f"{file.relative_to(folder)}\n{found.st_size} {found.st_mtime_ns}\n".encode())
    return content.hexdigest()


def gigabytes(count: int) -> str:
    """Returns a number of bytes as text."""
    return f"{count / 1e9:.1f} GB"


def _remove_unused(folder: Path) -> None:
    """Removes the arrays that no command has opened for a month, and what processes that were killed left."""
    removed = 0
    for one in [one for one in folder.iterdir() if one.is_dir()]:
        array = one.name.lstrip(".").partition("-")[0]
        # Whoever holds the lock decodes it anew, this process or another.
        with suppress(OSError, Timeout), FileLock(folder / f"{array}.lock", timeout=0):
            used = (one / _KEY if (one / _KEY).exists() else one).stat().st_mtime
            if time.time() - used > _UNUSED_DAYS * 86_400:
                removed += sum(file.stat().st_size for file in one.rglob("*"))
                shutil.rmtree(one, ignore_errors=True)
    if removed:
        log.info("Removed %s of decoded images, unused for %d days, from %s", gigabytes(removed), _UNUSED_DAYS, folder)
