"""An image file as an array of a given height and width, eight bits a channel."""

from functools import cache
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

from cifar_tuning.data.folders import EXTENSIONS

# What Pillow calls one channel of more than eight bits.
_DEEP = ("I;16", "I;16L", "I;16B", "I;16N", "I")


def read_image(file: Path, height: int, width: int, white: int) -> tuple[np.ndarray, int]:
    """Reads an image: held upright, scaled, and cropped at its centre.

    Args:
        file: of any kind in `EXTENSIONS`, whatever its name; of several pages it is the first.
        height, width: of the array in pixels.
        white: which number is white in a grey image of sixteen bits.

    Returns:
        uint8 height×width×3, and the largest number in a grey image of sixteen bits, else 0.

    Raises:
        Exception: the file can't be decoded; what Pillow raises depends on its kind.
    """
    with Image.open(file, formats=_kinds()) as image:
        # A JPEG is decoded at a half, quarter or eighth of its sides where that is large enough: six times as fast
        # for a photograph. Which of its sides is the height, only the next line sees.
        image.draft(None, (2 * max(height, width),) * 2)
        ImageOps.exif_transpose(image, in_place=True)
        shallow, brightest = _eight_bits(image, white) if image.mode in (*_DEEP, "F") else (image, 0)
        if shallow.mode == "P":  # Pillow warns where a palette's colours lose their transparency
            shallow = shallow.convert("RGBA")
        fitted = ImageOps.fit(shallow.convert("RGB"), (width, height), Image.Resampling.BICUBIC)
    return np.asarray(fitted), brightest


@cache
def _kinds() -> tuple[str, ...]:
    """Returns the kinds of images that are read: Pillow goes by a file's content, and starts Ghostscript for some."""
    known = Image.registered_extensions()
    return tuple(dict.fromkeys(known[end] for end in EXTENSIONS if end in known))


def _eight_bits(image: Image.Image, white: int) -> tuple[Image.Image, int]:
    """Scales what Pillow would cut off at 255."""
    values = np.asarray(image)
    lowest, highest = values.min(), values.max()
    if image.mode == "F" or lowest < 0 or highest > 65535:
        raise ValueError(f"its numbers have 32 bits, {lowest:g} to {highest:g}; save it with 8 or 16")
    scaled = np.minimum(values.astype(np.float32) * (255 / white), 255)
    return Image.fromarray(np.rint(scaled).astype(np.uint8)), int(highest)
