"""Image files decoded once: an array in the user's cache folder, which every process maps."""

import hashlib
import logging
import os
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from filelock import FileLock
from PIL import Image, ImageOps

from cifar_tuning.data.bars import bar
from cifar_tuning.errors import DataError

log = logging.getLogger(__name__)

_IMAGES, _KEY = "images.npy", "key"
_AT_ONCE = 256


class Decoded:
    """Square images of a list of files.

    Args:
        folder: of the files; with `size` it says which array replaces which.
        files: in the order of the array.
        size: side of the images in pixels.
    """

    def __init__(self, folder: Path, files: Sequence[Path], size: int) -> None:
        self.folder, self.files, self.size = folder, files, size
        base = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
        name = hashlib.sha256(f"{folder}\n{size}".encode()).hexdigest()[:16]
        self.path = base / "cifar_tuning" / "images" / name

    def open(self) -> np.ndarray:
        """Returns the images, uint8 N×size×size×3; decodes them where that was not done, or a file has changed since.

        Raises:
            DataError: a file can't be decoded; says which.
        """
        key = self._key()
        if (known := self._map(key)) is not None:
            return known
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with FileLock(f"{self.path}.lock"):
                if (known := self._map(key)) is None:  # another process may have been decoding while we waited
                    self._fill(key)
                    known = self._map(key)
        except OSError as error:
            log.warning("The decoded images can't be kept in %s (%s): each command decodes anew", self.path, error)
            return np.stack(list(self._decode()))
        assert known is not None
        return known

    def _key(self) -> str:
        """Returns what changes with any of the files, or with their list."""
        content = hashlib.sha256()
        for file in self.files:
            found = file.stat()
            content.update(f"{file.relative_to(self.folder)}\n{found.st_size} {found.st_mtime_ns}\n".encode())
        return content.hexdigest()

    def _map(self, key: str) -> np.ndarray | None:
        try:
            if (self.path / _KEY).read_text() != key:
                return None
            return np.load(self.path / _IMAGES, mmap_mode="c", allow_pickle=False)
        except (OSError, ValueError):
            return None

    def _fill(self, key: str) -> None:
        """Decodes into a folder beside the one for the array, which it then replaces."""
        scratch = Path(tempfile.mkdtemp(dir=self.path.parent, prefix=f".{self.path.name}-"))
        try:
            with (scratch / _IMAGES).open("wb") as file:  # page by page in a mapped one, a full disk would kill us
                shape = (len(self.files), self.size, self.size, 3)
                header = {"descr": "|u1", "fortran_order": False, "shape": shape}
                np.lib.format.write_array_header_1_0(file, header)
                for image in self._decode():
                    file.write(image.tobytes())
            (scratch / _KEY).write_text(key)
            if self.path.exists():
                self.path.rename(scratch / "replaced")  # whoever has it mapped keeps it
            scratch.joinpath("new").mkdir()
            for name in (_IMAGES, _KEY):
                (scratch / name).rename(scratch / "new" / name)
            (scratch / "new").rename(self.path)
        finally:
            shutil.rmtree(scratch, ignore_errors=True)

    def _decode(self) -> Iterator[np.ndarray]:
        """Yields the images in their order; Pillow decodes several at once."""
        shown = bar(total=len(self.files), desc=f"Decoding {self.folder}", unit="image")
        with shown, ThreadPoolExecutor(os.cpu_count()) as pool:
            for begin in range(0, len(self.files), _AT_ONCE):  # a file that is bad ends it soon
                for image in pool.map(self._square, self.files[begin : begin + _AT_ONCE]):
                    shown.update()
                    yield image

    def _square(self, file: Path) -> np.ndarray:
        try:
            with Image.open(file) as image:
                upright = ImageOps.exif_transpose(image).convert("RGB")
                return np.asarray(ImageOps.fit(upright, (self.size, self.size), Image.Resampling.BICUBIC))
        except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
            raise DataError(f"{file} can't be decoded as an image ({error}); mend it or take it away.") from error
