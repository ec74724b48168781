"""Images of one's own: a folder for each class, as torchvision's `ImageFolder` has them."""

import functools
import logging
import os
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from cifar_tuning.data.base import ImageData, Splits, array_set, check_root, check_shared
from cifar_tuning.data.decoded import Decoded
from cifar_tuning.data.folders import EXTENSIONS, TEST, TRAIN, VAL, class_folders, class_of, classes_in, listed
from cifar_tuning.data.split import stratified_subset
from cifar_tuning.errors import DataError
from cifar_tuning.numeric import is_number, is_whole
from cifar_tuning.option_rules import UP_TO_ONE, Rule, broken, raise_all

log = logging.getLogger(__name__)

SIDES = 8, 512  # the smallest and the largest
# Of the training images, where no folder and no option says which validate.
VAL_SHARE = 0.1
MOST_WHITE = 65535


def _are_names(classes: Any) -> bool:
    are_texts = isinstance(classes, list | tuple) and all(isinstance(one, str) for one in classes)
    return are_texts and len(set(classes)) == len(classes)


def _three_shares(value: object) -> bool:
    return isinstance(value, list | tuple) and len(value) == 3 and all(map(UP_TO_ONE.holds, value))


_SHARES = "a number for each of three channels, on the scale 0..1"
RULES = {
    "size": Rule(lambda value: is_whole(value, *SIDES), f"a whole number from {SIDES[0]} to {SIDES[1]} (pixels)"),
    "white": Rule(lambda value: is_whole(value, 255, MOST_WHITE), f"a whole number from 255 to {MOST_WHITE}"),
    "mean": Rule(_three_shares, _SHARES),
    "std": Rule(lambda value: _three_shares(value) and 0 not in value, _SHARES),
    "classes": Rule(lambda value: value is None or _are_names(value), "a list of different names, or null"),
}


class ImageFolder(ImageData):
    """Images in `root/train/CLASS/`, and for the end in `root/test/CLASS/`; `conf/data/image_folder.yaml`.

    Each is scaled and cropped at the centre to a square. They are decoded once and kept as arrays in the user's cache
    folder, which all processes map; where an image comes, goes or changes, they are decoded again.

    Args:
        root: the folder. A class is a folder in `train`, its name the class's; images may lie in folders below it.
            None, beside `classes`: it has no images, and says what a network is to be shown.
        classes: their names in the order of a network's outputs; None: those of the folders in `train`. With them, a
            folder will do that has images in `test` alone.
        size: side of the square in pixels, 8 … 512.
        white: which number is white in a grey image of sixteen bits, 255 … 65535.
        val_size: number or share of the training images. None: those in `root/val/CLASS/` validate, if there are any,
            else a tenth.
        split_seed, train_limit, batch_size: see `ImageData`.
        mean, std: of each channel, on the scale 0..1; the default is ImageNet's, as torchvision's weights want it.

    Raises:
        ValueError: every problem that `check` finds.
    """

    name = "image_folder"

    def __init__(
        self,
        root: str | Path | None,
        *,
        classes: Sequence[str] | None = None,
        size: int = 32,
        white: int = MOST_WHITE,
        val_size: float | None = None,
        split_seed: int = 0,
        train_limit: int | None = None,
        batch_size: int = 128,
        mean: Sequence[float] = (0.485, 0.456, 0.406),
        std: Sequence[float] = (0.229, 0.224, 0.225),
    ) -> None:
        raise_all(ImageFolder.check(**locals()))
        self.root = Path(root or os.devnull).expanduser().absolute()
        self.image_shape, self.white = (size, size, 3), white
        self.split_seed, self.train_limit, self.batch_size = split_seed, train_limit, batch_size
        self.mean, self.std = tuple(map(float, mean)), tuple(map(float, std))
        self.classes = tuple(classes or classes_in(self.root) or ())
        self._val_folder = val_size is None and bool(listed(self.root, VAL).files)
        self.val_size = _val_count(self.root, val_size)

    @staticmethod
    def check(**options: Any) -> list[str]:
        """Problems of the given settings, one line each; an empty list when the constructor takes them."""
        problems, root, classes = broken("data", RULES, options), options["root"], options["classes"]
        if not RULES["classes"].holds(classes) or (root is None and classes):
            return problems
        if wrong := check_root(root):
            return problems + wrong
        folder = Path(root).expanduser().absolute()
        if problem := _folder_problem(folder, classes_in(folder) if classes is None else classes):
            return [*problems, f"data.root={root}: {problem}"]
        if not listed(folder, TRAIN).files:  # for predictions
            return problems
        return problems + _counted_problems(folder, options)

    def load(self) -> Splits:
        """The training and validation images, decoded when needed; doesn't open the test set.

        Raises:
            DataError: an image can't be read; says which.
        """
        if not self._val_folder:
            splits = super().load()
        else:
            (train, labels), (val, val_labels) = self.arrays(TRAIN), self.arrays(VAL)
            limit = len(labels) if self.train_limit is None else self.train_limit
            rows = stratified_subset(labels, limit, self.split_seed)
            validating = array_set(torch.from_numpy(val), val_labels, np.arange(len(val_labels)))
            splits = Splits(array_set(torch.from_numpy(train), labels, rows), validating)
        self._say(splits)
        return splits

    def _say(self, splits: Splits) -> None:
        """Says what was found, and which classes too few images leave out."""
        counts = Counter(listed(self.root, TRAIN).labels)
        text = (
            f"{self.root}: {len(splits.train):,} images of {len(self.classes)} classes ({min(counts.values()):,} to "
            f"{max(counts.values()):,} of each in {TRAIN}/) are trained on, {len(splits.val):,} validate"
        )
        if others := listed(self.root, TRAIN).others + listed(self.root, VAL).others:
            text += f"; passed over: {_some([f'{count:,} {end}' for end, count in others.most_common()])}"
        _once(logging.INFO, text)
        for chosen, what in ((splits.train, "is trained on"), (splits.val, "validates")):
            there = set(chosen.labels.tolist())
            absent = [name for label, name in enumerate(self.classes) if label not in there]
            if absent and there:
                _once(logging.WARNING, f"{self.root}: no image of {_some(absent)} {what}")

    def arrays(self, part: str) -> tuple[np.ndarray, np.ndarray]:
        """Memory-mapped uint8 images N×size×size×3 and int64 labels N of "train", "val" or "test"."""
        found = listed(self.root, part)
        if not found.files:
            purpose = {TEST: ", so nothing to be tested on", TRAIN: ", so nothing to be trained on"}.get(part, "")
            raise DataError(
                f"data.root={self.root}: there is no image in {part}/CLASS/{purpose}; put labelled ones there, in "
                f"folders called {_some(self.classes)}."
            )
        if unknown := _unknown(self.root, part, self.classes):
            raise DataError(f"data.root={self.root}: {unknown}")
        known = {name: label for label, name in enumerate(self.classes)}
        labels = np.array([known[name] for name in found.labels], np.int64)
        return Decoded(self.root / part, found.files, self.image_shape[:2], self.white).open(), labels

    def files(self, part: str) -> list[str]:
        """The images' paths below `root/part`, as rose/17.jpg."""
        return [file.relative_to(self.root / part).as_posix() for file in listed(self.root, part).files]

    def prepare(self) -> str:
        """Decode whatever was not yet; returns where the images are."""
        for part in (TRAIN, VAL, TEST):
            if listed(self.root, part).files:
                self.arrays(part)
        return str(self.root)


@functools.cache  # each job of a sweep loads the same
def _once(level: int, text: str) -> None:
    log.log(level, text)


def _folder_problem(root: Path, classes: Sequence[str] | None) -> str | None:
    """Returns what keeps a folder from being a dataset."""
    wanted = f"put each image into {TRAIN}/CLASS/, a folder for each of at least two classes"
    if not root.is_dir():
        return "there is no such folder"
    if not (root / TRAIN).is_dir() and classes is None:
        return f"has no folder {TRAIN}/; {wanted}"
    there = classes_in(root) or ()
    if empty := [folder.name for folder in class_folders(root / TRAIN) if class_of(folder) not in there]:
        return f"there is no image in {TRAIN}/{empty[0]} (of the kinds {', '.join(EXTENSIONS)})"
    if classes is None or len(classes) < 2:
        return f"has {len(classes or ())} classes with images in {TRAIN}/; {wanted}"
    return _unknown(root, VAL, classes) or _unknown(root, TEST, classes)


def _unknown(root: Path, part: str, classes: Sequence[str]) -> str | None:
    """Returns which of a part's folders is none of the classes, which are the training folders' or were given."""
    unknown = [name for name in dict.fromkeys(listed(root, part).labels) if name not in classes]
    return f"{part}/{unknown[0]} is none of the classes {_some(classes)}" if unknown else None


def _some(names: Sequence[str], most: int = 5) -> str:
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more


def _counted_problems(root: Path, options: Mapping[str, Any]) -> list[str]:
    """Returns what the numbers of images do not allow, and what is wrong with the options of all datasets."""
    images, val_size = len(listed(root, TRAIN).files), options["val_size"]
    there = f"{images:,} images in {TRAIN}/"
    share = is_number(val_size) and 0 < val_size < 1
    if val_size is not None and not share and not is_whole(val_size, 0, images - 1):
        return [
            f"data.val_size={val_size}: must be a number of images up to {images - 1} ({there}), a share of them such "
            f"as 0.2, or null, for those in {VAL}/ or else a tenth"
        ]
    if val_size not in (None, 0) and listed(root, VAL).files:
        return [f"data.val_size={val_size}: the images in {VAL}/ validate; leave it null (or 0, for no validation)"]
    apart = 0 if listed(root, VAL).files else _val_count(root, val_size)
    if apart:
        there += f", {apart} of which validate"
    return check_shared(images - apart, there, options)


def _val_count(root: Path, val_size: float | None) -> int:
    """Returns how many images validate."""
    if val_size is None and (given := listed(root, VAL).files):
        return len(given)
    share = VAL_SHARE if val_size is None else val_size
    return max(1, round(share * len(listed(root, TRAIN).files))) if 0 < share < 1 else int(share)
