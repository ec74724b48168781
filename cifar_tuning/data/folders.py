"""Which images a dataset of one's own has: a folder for each part, and in it one for each class."""

import functools
import logging
import os
import unicodedata
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

log = logging.getLogger(__name__)

# As torchvision has them, and some more; anything else is passed over (.DS_Store, Thumbs.db, notes).
EXTENSIONS = (
    *(".jpg", ".jpeg", ".jfif", ".png", ".ppm", ".bmp", ".pgm", ".tif", ".tiff", ".webp"),
    *(".gif", ".avif", ".jp2"),
)
TRAIN, VAL, TEST = "train", "val", "test"


class Listed(NamedTuple):
    """The images of a part in the order of their paths, and how many other files were passed over, by their ends.

    `groups` has what images must have in common to stay together, such as the patient; it is empty where
    that is unknown.
    """

    labels: tuple[str, ...]
    files: tuple[Path, ...]
    others: Counter[str]
    groups: tuple[str, ...] = ()


@functools.cache  # a job builds its data several times, and a hundred thousand files take a while to list
def listed(root: Path, part: str) -> Listed:
    """Returns the images of a part with the names of their classes; links to folders are followed."""
    labels, files, others = list[str](), list[Path](), Counter[str]()
    for folder in class_folders(root / part):
        images, passed_over = images_in(folder)
        labels += [class_of(folder)] * len(images)
        files += images
        others += passed_over
    return Listed(tuple(labels), tuple(files), others)


def images_in(folder: Path) -> tuple[list[Path], Counter[str]]:
    """Returns the images in a folder and below it, and how many other files were passed over, by their ends."""
    images: list[Path] = []
    others: Counter[str] = Counter()
    for file in _visible_files(folder):
        if file.suffix.lower() in EXTENSIONS:
            images.append(file)
        else:
            others[file.suffix.lower() or file.name] += 1
    return images, others


def class_folders(folder: Path) -> Iterator[Path]:
    """Yields the folders of a part's classes in the order of the classes."""
    if folder.is_dir():
        yield from sorted((one for one in folder.iterdir() if one.is_dir() and _visible(one.name)), key=class_of)


def class_of(folder: Path) -> str:
    """Returns the name of a folder's class: an ä of macOS's, two characters, is that of other systems."""
    return unicodedata.normalize("NFC", folder.name)


def _visible_files(folder: Path) -> Iterator[Path]:
    for inner, folders, names in os.walk(folder, onerror=_warn, followlinks=True):
        # Hidden ones hold copies (.ipynb_checkpoints, .thumbnails); a link to a folder around it would never end.
        here = Path(inner).resolve()
        folders[:] = sorted(
            name for name in folders if _visible(name) and not here.is_relative_to(Path(inner, name).resolve())
        )
        yield from (Path(inner, name) for name in sorted(names) if _visible(name))


def _warn(error: OSError) -> None:
    log.warning("%s can't be looked into, so its images are left out: %s", error.filename, error.strerror)


def _visible(name: str) -> bool:
    return not name.startswith(".")
