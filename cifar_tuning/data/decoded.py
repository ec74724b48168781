"""Image files decoded once: an array in the user's cache folder, which every process maps."""

import errno
import hashlib
import logging
import math
import os
import shutil
import tempfile
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from weakref import WeakValueDictionary

import numpy as np
from filelock import FileLock, Timeout

from cifar_tuning.data.bars import bar
from cifar_tuning.data.pictures import read_image
from cifar_tuning.errors import DataError
from cifar_tuning.files import cache_folder
from cifar_tuning.locked import locked
from cifar_tuning.processes import cores, free_memory

log = logging.getLogger(__name__)

_IMAGES, _KEY = "images.npy", "key"
_AT_ONCE = 256
# Bad files that are named before decoding ends.
_MOST_BAD = 10
# What no command has used for so long is removed by the next one that decodes.
_UNUSED_DAYS = 30
# What a process could not keep, while one of its runs needs it.
_unkept: WeakValueDictionary[tuple[Path, str], np.ndarray] = WeakValueDictionary()


class Decoded:
    """The images of a list of files, all of one size.

    Args:
        folder: of the files; with the others but `files` it says which array replaces which.
        files: in the order of the array.
        size: height and width of the images in pixels.
        white: which number is white in a grey image of sixteen bits.
    """

    def __init__(self, folder: Path, files: Sequence[Path], size: tuple[int, int], white: int) -> None:
        self.folder, self.files, self.size, self.white = folder, files, size, white
        name = hashlib.sha256(f"{folder}\n{size}\n{white}".encode()).hexdigest()[:16]
        self.path = cache_folder() / "images" / name
        self._shape = (len(files), *size, 3)

    def open(self) -> np.ndarray:
        """Returns the images, uint8 N×H×W×3; decodes them where that was not done, or a file has changed since.

        Raises:
            DataError: files can't be decoded; says which.
        """
        key = self._key()
        if (known := self._map(key)) is not None:
            return known
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with locked(Path(f"{self.path}.lock"), f"Another process is decoding {self.folder}; waiting for it"):
                if (known := self._map(key)) is None:  # another process may have been decoding while we waited
                    self._fill(key)
                    known = self._map(key)
        except OSError as error:
            return self._in_memory(key, error)
        assert known is not None
        return known

    def _in_memory(self, key: str, error: OSError) -> np.ndarray:
        if (known := _unkept.get((self.path, key))) is not None:
            return known
        log.warning("The decoded images can't be kept in %s (%s): each command decodes anew", self.path, error)
        images = _unkept[self.path, key] = self.in_memory(
            "name a larger folder by XDG_CACHE_HOME, or take a smaller data.size"
        )
        return images

    def in_memory(self, otherwise: str) -> np.ndarray:
        """Decodes the images, uint8 N×H×W×3, and keeps them nowhere.

        Args:
            otherwise: what to do where memory is too small, for the message.

        Raises:
            DataError: files can't be decoded, and says which; or the images take more memory than is free.
        """
        if (needed := math.prod(self._shape)) > (free := free_memory()):
            raise DataError(
                f"The decoded images take {_gigabytes(needed)}, and {_gigabytes(free)} of memory are free: {otherwise}."
            )
        images = np.empty(self._shape, np.uint8)
        for place, image in enumerate(self._decode()):
            images[place] = image
        return images

    def _key(self) -> str:
        """Returns what changes with any of the files, or with their list."""
        content = hashlib.sha256()
        for file in self.files:
            try:
                found = file.stat()
            except OSError as error:  # taken away since it was listed, or a link that leads nowhere
                raise DataError(f"{file} can't be read: {error.strerror}.") from error
            content.update(f"{file.relative_to(self.folder)}\n{found.st_size} {found.st_mtime_ns}\n".encode())
        return content.hexdigest()

    def _map(self, key: str) -> np.ndarray | None:
        try:
            if (self.path / _KEY).read_text() != key:
                return None
            images: np.ndarray = np.load(self.path / _IMAGES, mmap_mode="c", allow_pickle=False)
        except (OSError, ValueError, EOFError):
            return None
        with suppress(OSError):  # on a disk that is read only
            os.utime(self.path / _KEY)  # its time is when they were last used
        return images

    def _fill(self, key: str) -> None:
        """Decodes into a folder beside the one for the array, which it then replaces."""
        if self.path.exists():
            log.warning("Images in %s came, went or changed since they were last used", self.folder)
        for stale in self.path.parent.glob(f".{self.path.name}-*"):  # left by a process that was killed
            shutil.rmtree(stale, ignore_errors=True)
        _remove_unused(self.path.parent)
        needed, free = math.prod(self._shape), shutil.disk_usage(self.path.parent).free
        if needed > free:
            raise OSError(errno.ENOSPC, f"{_gigabytes(needed)} are needed, {_gigabytes(free)} are free")
        scratch = Path(tempfile.mkdtemp(dir=self.path.parent, prefix=f".{self.path.name}-"))
        try:
            with (scratch / _IMAGES).open("wb") as file:  # page by page in a mapped one, a full disk would kill us
                header = {"descr": "|u1", "fortran_order": False, "shape": self._shape}
                np.lib.format.write_array_header_1_0(file, header)
                for image in self._decode():
                    file.write(image.tobytes())
            (scratch / _KEY).write_text(key)
            if self.path.exists():
                self.path.rename(scratch / "replaced")  # whoever has it mapped keeps it
            scratch.joinpath("new").mkdir(mode=0o700)  # nobody else may see them, who may not see the files perhaps
            for name in (_IMAGES, _KEY):
                (scratch / name).rename(scratch / "new" / name)
            (scratch / "new").rename(self.path)
        finally:
            shutil.rmtree(scratch, ignore_errors=True)

    def _decode(self) -> Iterator[np.ndarray]:
        """Yields the images in their order; Pillow decodes several at once."""
        bad: list[str] = []
        brightest = 0
        shown = bar(total=len(self.files), desc=f"Decoding {self.folder}", unit="image")
        with shown, ThreadPoolExecutor(cores()) as pool:
            for begin in range(0, len(self.files), _AT_ONCE):
                for found in pool.map(self._read, self.files[begin : begin + _AT_ONCE]):
                    shown.update()
                    if isinstance(found, str):
                        bad.append(found)
                        continue
                    brightest = max(brightest, found[1])
                    yield found[0]
                if len(bad) >= _MOST_BAD:
                    break
        if bad:
            lines = "".join(f"\n  {line}" for line in bad[:_MOST_BAD])
            raise DataError(f"Not every file can be decoded as an image; mend these or take them away:{lines}")
        if 0 < 2 * brightest < self.white:
            log.warning(
                "Grey images of 16 bits in %s have %d as their largest number and are dark, as %d is white: "
                "data=image_folder can be trained with another data.white, such as 4095 for a camera of 12 bits",
                *(self.folder, brightest, self.white),
            )

    def _read(self, file: Path) -> tuple[np.ndarray, int] | str:
        try:
            return read_image(file, *self.size, self.white)
        except Exception as error:  # a damaged file can raise anything
            return f"{file}: {str(error) or type(error).__name__}"


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
        log.info("Removed %s of decoded images, unused for %d days, from %s", _gigabytes(removed), _UNUSED_DAYS, folder)


def _gigabytes(count: int) -> str:
    return f"{count / 1e9:.1f} GB"
