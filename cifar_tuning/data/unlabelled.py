"""Images whose classes nobody has said, to be predicted."""

from pathlib import Path

import numpy as np

from cifar_tuning.data.decoded import Decoded
from cifar_tuning.data.folders import EXTENSIONS, images_in
from cifar_tuning.text import counted


class Unlabelled:
    """A folder's images and those below it, in the order of their paths, or one file; found at once, decoded later.

    Args:
        place: the folder, or the file.

    Raises:
        ValueError: there is no such place, or no image in it; the message does not name it.
        OSError: it may not be looked at.
        RuntimeError: it begins with the ~ of nobody.
    """

    def __init__(self, place: str | Path) -> None:
        if not str(place).strip():  # a shell's variable that is not set; the folder of the command is no answer to that
            raise ValueError("must be a folder of images, or one")
        self.place = Path(place).expanduser().absolute()
        if self.place.is_file():
            self.folder, self.files = self.place.parent, [self.place]
            self._text = str(self.place)
            return
        if not self.place.is_dir():
            raise ValueError("there is no such folder or file")
        self.folder = self.place
        self.files, others = images_in(self.place)
        if not self.files:
            raise ValueError(f"there is no image in it (of the kinds {', '.join(EXTENSIONS)})")
        self._text = f"{self.place}: {counted(len(self.files), 'image')}"
        if others:
            self._text += f"; passed over: {', '.join(f'{count:,} {end}' for end, count in others.most_common(5))}"

    def __str__(self) -> str:
        return self._text

    @property
    def names(self) -> list[str]:
        """The files' paths below the folder, as roses/17.jpg."""
        return [file.relative_to(self.folder).as_posix() for file in self.files]

    def arrays(self, size: tuple[int, int], white: int) -> np.ndarray:
        """Returns the images, uint8 N×H×W×3, decoded into memory.

        Args:
            size: height and width in pixels; each image is scaled, and cropped at its centre.
            white: which number is white in a grey image of sixteen bits.

        Raises:
            DataError: files can't be decoded, and says which; or memory is too small.
        """
        return Decoded(self.folder, self.files, size, white).in_memory("predict a part of them at a time")
