"""Images of one's own: a folder for each class, as torchvision's `ImageFolder` has them."""

import functools
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import torch

from cifar_tuning.data.base import MAX_SEED, ImageData, Splits, array_set
from cifar_tuning.data.decoded import Decoded
from cifar_tuning.data.split import stratified_subset
from cifar_tuning.errors import DataError
from cifar_tuning.numeric import is_number, is_whole

# As torchvision has them; anything else is no image (.DS_Store, Thumbs.db, notes).
EXTENSIONS = (".jpg", ".jpeg", ".png", ".ppm", ".bmp", ".pgm", ".tif", ".tiff", ".webp")
TRAIN, VAL, TEST = "train", "val", "test"
LEAST_SIDE, MOST_SIDE = 8, 512
# Of the training images, where no folder and no option says which validate.
VAL_SHARE = 0.1

Files = tuple[tuple[str, Path], ...]


class ImageFolder(ImageData):
    """Images in `root/train/CLASS/`, and for the end in `root/test/CLASS/`; `conf/data/image_folder.yaml`.

    Each is scaled and cropped at the centre to a square. They are decoded once and kept as arrays in the user's cache
    folder, which all processes map; where an image comes, goes or changes, they are decoded again.

    Args:
        root: the folder. A class is a folder in `train`, its name the class's; images may lie in folders below it.
        size: side of the square in pixels, 8 … 512.
        val_size: of the training images, so many validate, or such a share of them, stratified by class; 0: none. None:
            the images in `root/val/CLASS/`, if there are any, else a tenth.
        split_seed: decides, alone, which they are.
        train_limit: use only so many training images, stratified; None for all.
        batch_size: images in a training batch.
        mean, std: of each channel, on the scale 0..1; the default is ImageNet's, as torchvision's weights want it.

    Raises:
        ValueError: every problem that `check` finds.
    """

    name = "image_folder"

    def __init__(
        self,
        root: str | Path,
        *,
        size: int = 32,
        val_size: float | None = None,
        split_seed: int = 0,
        train_limit: int | None = None,
        batch_size: int = 128,
        mean: Sequence[float] = (0.485, 0.456, 0.406),
        std: Sequence[float] = (0.229, 0.224, 0.225),
    ) -> None:
        problems = self.check(
            root=root,
            size=size,
            val_size=val_size,
            split_seed=split_seed,
            train_limit=train_limit,
            batch_size=batch_size,
            mean=mean,
            std=std,
        )
        if problems:
            raise ValueError("; ".join(problems))
        self.root = Path(root).expanduser().absolute()
        self.image_shape = (size, size, 3)
        self.split_seed, self.train_limit, self.batch_size = split_seed, train_limit, batch_size
        self.mean, self.std = ((float(r), float(g), float(b)) for r, g, b in (mean, std))
        self.classes = _classes(self.root)
        self._val_folder = val_size is None and bool(_files(self.root, VAL))
        self.val_size = _val_count(self.root, val_size)

    @staticmethod
    def check(
        *,
        root: object,
        size: object,
        val_size: object,
        split_seed: object,
        train_limit: object,
        batch_size: object,
        mean: object,
        std: object,
    ) -> list[str]:
        """Problems of the given settings, one line each; an empty list when the constructor takes them."""
        problems = []
        if not is_whole(size, LEAST_SIDE, MOST_SIDE):
            problems.append(f"data.size={size}: must be a whole number from {LEAST_SIDE} to {MOST_SIDE} (pixels)")
        for name, value in (("mean", mean), ("std", std)):
            if not _three_shares(value) or (name == "std" and 0 in value):  # type: ignore[operator]
                problems.append(f"data.{name}={value}: must be a number for each of three channels, on the scale 0..1")
        if not is_whole(split_seed, 0, MAX_SEED):
            problems.append(f"data.split_seed={split_seed}: must be a whole number between 0 and {MAX_SEED}")
        if not isinstance(root, str | Path) or not str(root).strip():
            return [*problems, f"data.root={root}: must be the path of a folder"]
        folder = Path(root).expanduser().absolute()
        if wrong := _without_classes(folder):
            return [*problems, f"data.root={root}: {wrong}"]
        return problems + _counted_problems(folder, val_size, train_limit, batch_size)

    def load(self) -> Splits:
        """The training and validation images, decoded when needed; doesn't open the test set.

        Raises:
            DataError: an image can't be read; says which.
        """
        if not self._val_folder:
            return super().load()
        (train, labels), (val, val_labels) = self.arrays(TRAIN), self.arrays(VAL)
        limit = len(labels) if self.train_limit is None else self.train_limit
        rows = stratified_subset(labels, limit, self.split_seed)
        validating = array_set(torch.from_numpy(val), val_labels, np.arange(len(val_labels)))
        return Splits(array_set(torch.from_numpy(train), labels, rows), validating)

    def arrays(self, part: str) -> tuple[np.ndarray, np.ndarray]:
        """Memory-mapped uint8 images N×size×size×3 and int64 labels N of "train", "val" or "test"."""
        files = _files(self.root, part)
        if not files:
            raise DataError(
                f"data.root={self.root}: there is no image in {part}/CLASS/, so nothing to be tested on; put labelled "
                f"ones there, in folders called {_some(self.classes)}."
            )
        known = {name: label for label, name in enumerate(self.classes)}
        labels = np.array([known[name] for name, _ in files], np.int64)
        decoded = Decoded(self.root / part, [file for _, file in files], self.image_shape[0])
        return decoded.open(), labels

    def prepare(self) -> str:
        """Decode whatever was not yet; returns where the images are."""
        for part in (TRAIN, VAL, TEST):
            if _files(self.root, part):
                self.arrays(part)
        return str(self.root)


@functools.cache  # a job builds its data several times, and a hundred thousand files take a while to list
def _files(root: Path, part: str) -> Files:
    """Returns the images of a part with the names of their classes, in the order of their paths."""
    return tuple(
        (folder.name, file)
        for folder in _folders(root / part)
        for file in sorted(folder.rglob("*"))
        if file.suffix.lower() in EXTENSIONS and not file.name.startswith(".") and file.is_file()
    )


def _folders(folder: Path) -> Iterator[Path]:
    if folder.is_dir():
        yield from sorted(inner for inner in folder.iterdir() if inner.is_dir() and not inner.name.startswith("."))


def _classes(root: Path) -> tuple[str, ...]:
    return tuple(dict.fromkeys(name for name, _ in _files(root, TRAIN)))


def _without_classes(root: Path) -> str | None:
    """Returns what keeps a folder from being a dataset."""
    wanted = f"put each image into {TRAIN}/CLASS/, a folder for each of at least two classes"
    if not root.is_dir():
        return "there is no such folder"
    if not (root / TRAIN).is_dir():
        return f"has no folder {TRAIN}/; {wanted}"
    classes = _classes(root)
    if empty := [folder.name for folder in _folders(root / TRAIN) if folder.name not in classes]:
        return f"there is no image in {TRAIN}/{empty[0]} (of the kinds {', '.join(EXTENSIONS)})"
    if len(classes) < 2:
        return f"has {len(classes)} classes with images in {TRAIN}/; {wanted}"
    for part in (VAL, TEST):
        unknown = dict.fromkeys(name for name, _ in _files(root, part) if name not in classes)
        if unknown:
            return f"{part}/{next(iter(unknown))} is no class of {TRAIN}/, which has {_some(classes)}"
    return None


def _some(names: Sequence[str], most: int = 5) -> str:
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more


def _counted_problems(root: Path, val_size: object, train_limit: object, batch_size: object) -> list[str]:
    """Returns what the numbers of images do not allow."""
    images = len(_files(root, TRAIN))
    there = f"{images:,} images in {TRAIN}/"
    share = is_number(val_size) and 0 < val_size < 1
    if val_size is not None and not share and not is_whole(val_size, 0, images - 1):
        return [
            f"data.val_size={val_size}: must be a number of images up to {images - 1} ({there}), a share of them such "
            f"as 0.2, or null, for those in {VAL}/ or else a tenth"
        ]
    if val_size not in (None, 0) and _files(root, VAL):
        return [f"data.val_size={val_size}: the images in {VAL}/ validate; leave it null (or 0, for no validation)"]
    apart = 0 if _files(root, VAL) else _val_count(root, val_size)  # type: ignore[arg-type]
    problems, left = [], images - apart
    if apart:
        there += f", {apart} of which validate"
    if train_limit is not None and not is_whole(train_limit, 1, left):
        problems.append(f"data.train_limit={train_limit}: must be between 1 and {left} ({there}), or null")
    elif isinstance(train_limit, int):
        left, there = train_limit, f"data.train_limit={train_limit}"
    if not is_whole(batch_size, 1, left):
        problems.append(f"data.batch_size={batch_size}: must be between 1 and {left} ({there})")
    return problems


def _val_count(root: Path, val_size: float | None) -> int:
    """Returns how many images validate."""
    if val_size is None and (given := _files(root, VAL)):
        return len(given)
    share = VAL_SHARE if val_size is None else val_size
    return round(share * len(_files(root, TRAIN))) if 0 < share < 1 else int(share)


def _three_shares(value: object) -> bool:
    return (
        isinstance(value, list | tuple) and len(value) == 3 and all(is_number(one) and 0 <= one <= 1 for one in value)
    )
