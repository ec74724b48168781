"""Image files decoded once: an array in the user's cache folder, which every process maps."""

import logging
import math
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

from cifar_tuning.data.bars import bar
from cifar_tuning.data.kept import Kept, gigabytes, key_of_files
from cifar_tuning.data.pictures import read_image
from cifar_tuning.errors import DataError
from cifar_tuning.processes import cores, free_memory

log = logging.getLogger(__name__)

_IMAGES = "images"
_AT_ONCE = 256
# Bad files that are named before decoding ends.
_MOST_BAD = 10


class Decoded:
    """The images of a list of files, all of one size.

    Args:
        folder: of the files; with the others but `files` it says which array replaces which.
        files: in the order of the array.
        size: height and width of the images in pixels.
        white: which number is white in a grey image of sixteen bits.
        key: tells an array from others of the same folder, size and white.
    """

    def __init__(self, folder: Path, files: Sequence[Path], size: tuple[int, int], white: int, key: str = "") -> None:
        self.folder, self.files, self.size, self.white, self._key = folder, files, size, white, key
        self._shape = (len(files), *size, 3)

    def open(self) -> np.ndarray:
        """Returns the images, uint8 N×H×W×3; decodes them where that was not done, or a file has changed since.

        Raises:
            DataError: files can't be decoded; says which.
        """
        which = f"{self.folder}\n{self.size}\n{self.white}{self._key}"
        key, needed = key_of_files(self.folder, self.files), math.prod(self._shape)
        return Kept(which, key, self.folder, [_IMAGES], needed).open(self._write, self._unkept)[_IMAGES]

    def _unkept(self) -> dict[str, np.ndarray]:
        return {_IMAGES: self.in_memory("name a larger folder by XDG_CACHE_HOME, or take a smaller data.size")}

    def in_memory(self, otherwise: str) -> np.ndarray:
        """Decodes the images, uint8 N×H×W×3, and keeps them nowhere.

        Args:
            otherwise: what to do where memory is too small, for the message.

        Raises:
            DataError: files can't be decoded, and says which; or the images take more memory than is free.
        """
        if (needed := math.prod(self._shape)) > (free := free_memory()):
            raise DataError(
                f"The decoded images take {gigabytes(needed)}, and {gigabytes(free)} of memory are free: {otherwise}."
            )
        images = np.empty(self._shape, np.uint8)
        for place, image in enumerate(self._decode()):
            images[place] = image
        return images

    def _write(self, folder: Path) -> None:
        with (folder / f"{_IMAGES}.npy").open("wb") as file:  # page by page in a mapped one, a full disk would kill us
            header = {"descr": "|u1", "fortran_order": False, "shape": self._shape}
            np.lib.format.write_array_header_1_0(file, header)
            for image in self._decode():
                file.write(image.tobytes())

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
