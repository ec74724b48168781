"""Images of one's own: a folder for each class, as torchvision's `ImageFolder` has them, or a CSV file of classes."""

import functools
import logging
import os
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from cifar_tuning.data.base import SEED, ImageData, Splits, array_set, check_root, check_shared
from cifar_tuning.data.decoded import Decoded
from cifar_tuning.data.folders import TEST, TRAIN, VAL
from cifar_tuning.data.listing import OPTIONS, Listing, some
from cifar_tuning.data.split import grouped_split, stratified_subset
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
    """Images in `root/train/CLASS/`, and for the end in `root/test/CLASS/`, or images that a CSV file names.

    Each is scaled and cropped at the centre to a square. They are decoded once and kept as arrays in the user's cache
    folder, which all processes map; where an image comes, goes or changes, they are decoded again.

    Args:
        root: the folder. A class is a folder in `train`, its name the class's; images may lie in folders below it.
            None, beside `classes`: it has no images, and says what a network is to be shown.
        labels: a CSV file, in `root` unless its path is absolute. Each line names an image, in or below `root` and with
            or without its ending, and its class. None: folders do.
        file_column, label_column: of the file's columns; None: those that have no other meaning, the images' first.
        group_column: of the file, holds what no two parts may have in common, such as the patient; None: there is none.
        split_column: of the file, says of each image that it is for train, val or test. None: all are for train.
        classes: their names in the order of a network's outputs; None: those of the training images. With them, a
            folder will do that has images in `test` alone.
        size: side of the square in pixels, 8 … 512.
        white: which number is white in a grey image of sixteen bits, 255 … 65535.
        val_size: number or share of the training images. None: those in `root/val/CLASS/` or for val, if there are any,
            else a tenth. With `group_column` it is about so many, for groups are whole.
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
        labels: str | Path | None = None,
        file_column: str | None = None,
        label_column: str | None = None,
        group_column: str | None = None,
        split_column: str | None = None,
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
        options = (labels, file_column, label_column, group_column, split_column)
        if root is None:  # then the file is not there either
            self._listing = Listing(Path(os.devnull))
        else:
            self._listing = Listing.of(root, **dict(zip(OPTIONS, options, strict=True)))
        self.root = self._listing.root
        self.image_shape, self.white = (size, size, 3), white
        self.split_seed, self.train_limit, self.batch_size = split_seed, train_limit, batch_size
        self.mean, self.std = tuple(map(float, mean)), tuple(map(float, std))
        self.classes = tuple(classes or self._listing.classes or ())
        self._val_given = val_size is None and bool(self._listing.part(VAL).files)
        self._size = _val_count(self._listing, val_size)
        self.val_size = _set_apart(self._listing, self._size, split_seed)

    @staticmethod
    def check(**options: Any) -> list[str]:
        """Problems of the given settings, one line each; an empty list when the constructor takes them."""
        problems, root, classes = broken("data", RULES, options), options["root"], options["classes"]
        if not RULES["classes"].holds(classes) or (root is None and classes):
            return problems
        if wrong := check_root(root):
            return problems + wrong
        try:
            listing = Listing.of(root, **{name: options[name] for name in OPTIONS})
            problem = listing.problem(classes)
        except ValueError as error:
            problem = str(error)
        if problem is not None:
            return [*problems, problem]
        if not listing.part(TRAIN).files:  # for predictions
            return problems
        return problems + _counted_problems(listing, options)

    def load(self) -> Splits:
        """The training and validation images, decoded when needed; doesn't open the test set.

        Raises:
            DataError: an image can't be read; says which.
        """
        if not self._val_given:
            splits = super().load()
        else:
            (train, labels), (val, val_labels) = self.arrays(TRAIN), self.arrays(VAL)
            limit = len(labels) if self.train_limit is None else self.train_limit
            rows = stratified_subset(labels, limit, self.split_seed)
            validating = array_set(torch.from_numpy(val), val_labels, np.arange(len(val_labels)))
            splits = Splits(array_set(torch.from_numpy(train), labels, rows), validating)
        self._say(splits)
        return splits

    def _split(self, labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        if self._listing.part(TRAIN).groups:
            return _grouped(self._listing, self._size, self.split_seed)
        return super()._split(labels)

    def _say(self, splits: Splits) -> None:
        """Says what was found, and which classes too few images leave out."""
        listing = self._listing
        counts = Counter(listing.part(TRAIN).labels)
        text = (
            f"{self.root}: {len(splits.train):,} images of {len(self.classes)} classes ({min(counts.values()):,} to "
            f"{max(counts.values()):,} of each in {listing.place(TRAIN)}) are trained on, {len(splits.val):,} validate"
        )
        if others := listing.part(TRAIN).others + listing.part(VAL).others:
            text += f"; passed over: {some([f'{count:,} {end}' for end, count in others.most_common()])}"
        _once(logging.INFO, text)
        for chosen, what in ((splits.train, "is trained on"), (splits.val, "validates")):
            there = set(chosen.labels.tolist())
            absent = [name for label, name in enumerate(self.classes) if label not in there]
            if absent and there:
                _once(logging.WARNING, f"{self.root}: no image of {some(absent)} {what}")

    def arrays(self, part: str) -> tuple[np.ndarray, np.ndarray]:
        """Memory-mapped uint8 images N×size×size×3 and int64 labels N of "train", "val" or "test"."""
        found = self._listing.part(part)
        if not found.files:
            raise DataError(self._listing.nothing(part, self.classes))
        if unknown := self._listing.unknown(part, self.classes):
            raise DataError(unknown)
        known = {name: label for label, name in enumerate(self.classes)}
        labels = np.array([known[name] for name in found.labels], np.int64)
        folder, key = self._listing.folder(part), self._listing.key(part)
        return Decoded(folder, found.files, self.image_shape[:2], self.white, key).open(), labels

    def files(self, part: str) -> list[str]:
        """The images' paths below the folder that all of a part's are in, as rose/17.jpg."""
        folder = self._listing.folder(part)
        return [file.relative_to(folder).as_posix() for file in self._listing.part(part).files]

    def prepare(self) -> str:
        """Decode whatever was not yet; returns where the images are."""
        for part in (TRAIN, VAL, TEST):
            if self._listing.part(part).files:
                self.arrays(part)
        return str(self.root)


@functools.cache  # each job of a sweep loads the same
def _once(level: int, text: str) -> None:
    log.log(level, text)


def _counted_problems(listing: Listing, options: Mapping[str, Any]) -> list[str]:
    """Returns what the numbers of images do not allow, and what is wrong with the options of all datasets."""
    images, val, val_size = len(listing.part(TRAIN).files), listing.place(VAL), options["val_size"]
    there = f"{images:,} images in {listing.place(TRAIN)}"
    share = is_number(val_size) and 0 < val_size < 1
    if val_size is not None and not share and not is_whole(val_size, 0, images - 1):
        return [
            f"data.val_size={val_size}: must be a number of images up to {images - 1} ({there}), a share of them such "
            f"as 0.2, or null, for those in {val} or else a tenth"
        ]
    if val_size not in (None, 0) and listing.part(VAL).files:
        return [f"data.val_size={val_size}: the images in {val} validate; leave it null (or 0, for no validation)"]
    size = 0 if listing.part(VAL).files else _val_count(listing, val_size)
    seed = options["split_seed"]
    apart = _set_apart(listing, size, seed if SEED.holds(seed) else 0)
    if apart:
        there += f", {apart} of which validate"
    elif size:
        column = listing.labels.group_column if listing.labels else None
        return [
            f"data.group_column={column}: each group has all images of a class, so none can validate; data.val_size=0 "
            "trains on all"
        ]
    return check_shared(images - apart, there, options)


def _val_count(listing: Listing, val_size: float | None) -> int:
    """Returns how many images are to validate."""
    if val_size is None and (given := listing.part(VAL).files):
        return len(given)
    share = VAL_SHARE if val_size is None else val_size
    return max(1, round(share * len(listing.part(TRAIN).files))) if 0 < share < 1 else int(share)


def _set_apart(listing: Listing, size: int, split_seed: int) -> int:
    """Returns how many images validate where so many are to: whole groups, if there are groups."""
    if not listing.part(TRAIN).groups or listing.part(VAL).files:
        return size
    return len(_grouped(listing, size, split_seed)[1])


@functools.cache
def _grouped(listing: Listing, size: int, split_seed: int) -> tuple[np.ndarray, np.ndarray]:
    images = listing.part(TRAIN)
    return grouped_split(images.labels, images.groups, size, split_seed)
