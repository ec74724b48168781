"""What every dataset offers, and the checks of the settings that all of them share."""

import warnings
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from cifar_tuning.data.split import stratified_split, stratified_subset
from cifar_tuning.errors import ConfigError, DataError
from cifar_tuning.numeric import is_whole
from cifar_tuning.option_rules import Rule, broken

_MAX_SEED = 2**32 - 1
SEED = Rule(lambda value: is_whole(value, 0, _MAX_SEED), f"a whole number between 0 and {_MAX_SEED}")


@dataclass(frozen=True)
class ArraySet:
    """Images and labels in memory; image `i` is `stored[rows[i]]`, its class is `labels[i]`.

    Batches take `stored` and `rows`, so that processes on one machine share the pages of the mapped file.

    Args:
        stored: uint8 M×H×W×3, usually a memory map, M ≥ N.
        rows: int64 N.
        labels: int64 N.
    """

    stored: Tensor
    rows: Tensor
    labels: Tensor

    @cached_property
    def images(self) -> Tensor:
        """The images themselves, uint8 N×H×W×3: a private copy, made at the first use."""
        return self.stored[self.rows]

    def __len__(self) -> int:
        return len(self.labels)


@dataclass(frozen=True)
class Splits:
    """What a run trains on and what it is judged by (nothing, if `val` is empty); the test set is apart."""

    train: ArraySet
    val: ArraySet


class ImageData(ABC):
    """A dataset of small colour images, split for training and validation.

    A subclass sets the attributes and delivers the raw arrays.

    Attributes:
        name: as in `data=NAME`.
        classes: names in the order of the labels.
        mean, std: of each channel of the training images, on the scale 0..1.
        val_size: of the training images, so many validate, stratified by class; 0: none.
        split_seed: decides, alone, which they are.
        train_limit: so many training images are used, stratified by class; None: all.
        batch_size: images in a training batch.
        image_shape: height, width, channels.
        border: black pixels on each side that are part of it.
    """

    name: str
    classes: tuple[str, ...]
    mean: Sequence[float]
    std: Sequence[float]
    val_size: int
    split_seed: int
    train_limit: int | None
    batch_size: int
    image_shape: tuple[int, int, int] = (32, 32, 3)
    border: int = 0

    @abstractmethod
    def arrays(self, part: str) -> tuple[np.ndarray, np.ndarray]:
        """Everything of one part ("train", still with the validation images, or "test").

        Returns:
            images, uint8 N×H×W×3 of `image_shape`, and labels N: whole numbers from 0, in the order of `classes`.
            What NumPy takes for an array will do: tensors, lists.

        Raises:
            DataError: the dataset can't be had; says what to do.
        """

    @abstractmethod
    def prepare(self) -> str:
        """Make sure that everything needed is on this machine.

        Returns:
            Where it is, in words.

        Raises:
            DataError: the dataset can't be had; says what to do.
        """

    def files(self, part: str) -> Sequence[str] | None:
        """The files of a part's images in their order, relative to its folder; None where they are none."""
        return None

    def load(self) -> Splits:
        """The training and validation images; fetches them when needed and doesn't open the test set.

        Raises:
            DataError: the dataset can't be had; says what to do. Or the arrays are not what they should be.
            ConfigError: there are too few images for the settings.
        """
        stored, labels = self._arrays("train")
        self._check_scale()
        settings = {key: getattr(self, key) for key in ("val_size", "train_limit", "batch_size", "split_seed")}
        if problems := check_settings(len(labels), settings):  # a class of the user's may have no `check`
            raise ConfigError(problems)
        train, val = self._split(labels)
        if self.train_limit is not None:
            train = train[stratified_subset(labels[train], self.train_limit, self.split_seed)]
        return Splits(array_set(stored, labels, train), array_set(stored, labels, val))

    def _split(self, labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Returns sorted int64 indices of the images that are trained on, and of those that validate."""
        return stratified_split(labels, self.val_size, self.split_seed)

    def load_test(self) -> ArraySet:
        """The test images, for the very end; fetches them when needed.

        Raises:
            DataError: the dataset can't be had; says what to do. Or the arrays are not what they should be, or empty.
        """
        stored, labels = self._arrays("test")
        if not len(labels):
            raise DataError(f"{self.name}: there are no test images")
        return array_set(stored, labels, np.arange(len(labels)))

    def _arrays(self, part: str) -> tuple[Tensor, np.ndarray]:
        """Returns `arrays` after a look at shapes and labels, the images as a tensor that nobody writes to."""
        given, named = self.arrays(part)
        images, labels = np.asarray(given), np.asarray(named)
        if labels.dtype == object:  # as pandas has them
            labels = np.asarray(labels.tolist())
        if images.dtype != np.uint8 or images.shape[1:] != tuple(self.image_shape):
            wanted, found = ("×".join(map(str, shape)) for shape in (("N", *self.image_shape), images.shape))
            raise DataError(
                f"{self.name}: the images of {part} must be uint8 {wanted}, as image_shape says; "
                f"they are {images.dtype} {found}"
            )
        if labels.shape != (len(images),):
            raise DataError(
                f"{self.name}: the labels of {part} must be one for each of the {len(images)} images; "
                f"their shape is {labels.shape}"
            )
        self._check_classes(labels, part)
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "The given NumPy array is not writable")  # a file that is read only
            return torch.from_numpy(np.ascontiguousarray(images)), labels

    def _check_classes(self, labels: np.ndarray, part: str) -> None:
        """Looks whether labels name classes.

        A GPU would meet one that does not with an error that ends the process; in a test set it is never predicted.
        """
        is_number = labels.dtype.kind in "iufb"
        if is_number and np.isin(labels, np.arange(len(self.classes))).all():
            return
        found = f"they go from {labels.min()} to {labels.max()}" if is_number else f"they are of type {labels.dtype}"
        raise DataError(
            f"{self.name}: the labels of {part} must be whole numbers from 0 to {len(self.classes) - 1}, for the "
            f"{len(self.classes)} classes; {found}"
        )

    def _check_scale(self) -> None:
        """Looks whether mean and std can be those of pixels from 0 to 1; elsewhere they are given from 0 to 255."""
        channels = self.image_shape[2]
        for name, values, least in (("mean", self.mean, 0.0), ("std", self.std, 1e-6)):
            given = np.asarray(values)
            right = given.shape == (channels,) and given.dtype.kind in "iuf"
            if not right or not ((given >= least) & (given <= 1)).all():
                raise DataError(
                    f"{self.name}: {name} must be {channels} numbers, of pixels from 0 to 1 "
                    f"(and no std be 0); it is {values}"
                )


def array_set(stored: Tensor, labels: np.ndarray, rows: np.ndarray) -> ArraySet:
    """Returns some of the stored images; labels are those of all that are stored."""
    return ArraySet(stored, torch.from_numpy(rows), torch.from_numpy(labels[rows].astype(np.int64)))


def check_root(root: object) -> list[str]:
    """Problems of the folder that holds a dataset or will hold it, one line each."""
    right = isinstance(root, str | Path) and str(root).strip()
    return [] if right else [f"data.root={root}: must be the path of a folder"]


def check_settings(images: int, options: Mapping[str, object]) -> list[str]:
    """Problems of the settings of a dataset that sets validation images apart, one line each.

    Args:
        images: of training, with those that validate.
        options: as configured, `val_size` and those of `check_shared` among them.
    """
    val_size, reason = options["val_size"], f"{images:,} images"
    if is_whole(val_size, 0, images - 1):
        return check_shared(images - val_size, f"{reason} minus data.val_size={val_size}", options)
    problem = f"data.val_size={val_size}: must be between 0 and {images - 1} ({reason})"
    return [problem, *check_shared(images, reason, options)]


def check_shared(available: int, reason: str, options: Mapping[str, object]) -> list[str]:
    """Problems of the settings that every dataset has, one line each.

    Args:
        available: training images before `train_limit`.
        reason: why it is so many, for the message.
        options: as configured, `train_limit`, `batch_size` and `split_seed` among them.
    """
    problems, size, why = [], available, reason
    train_limit, batch_size = options["train_limit"], options["batch_size"]
    if train_limit is not None and not is_whole(train_limit, 1, available):
        problems.append(f"data.train_limit={train_limit}: must be between 1 and {available} ({reason}), or null")
    elif isinstance(train_limit, int):
        size, why = train_limit, f"data.train_limit={train_limit}"
    if not is_whole(batch_size, 1, size):
        problems.append(f"data.batch_size={batch_size}: must be between 1 and {size} ({why})")
    return problems + broken("data", {"split_seed": SEED}, options)
