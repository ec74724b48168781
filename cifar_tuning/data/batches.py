"""An epoch as batches on the device: the images live there as uint8, and each batch is made when needed."""

from collections.abc import Callable, Iterator, Sequence
from functools import cached_property
from typing import NamedTuple
from weakref import WeakValueDictionary

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from cifar_tuning.data.augmentation import MIXUP_STREAM, ORDER_STREAM, Augment, Augmentation, Plan, epoch_bits, queued
from cifar_tuning.devices import is_asynchronous

Batch = tuple[Tensor, Tensor]
# Most images that are made at once, several batches together, on a device that queues, if each has so many pixels. Of
# larger ones fewer are: making them takes ten times the memory of their bytes, and kernels are long enough.
AHEAD, AHEAD_PIXELS = 2048, 32 * 32


class Normalizer:
    """uint8 images to float32, with each channel's mean and standard deviation taken out.

    Args:
        mean, std: of each channel, on the scale 0..1.
        image_shape: height, width, channels.
        device: where the images are.
    """

    def __init__(
        self,
        mean: Sequence[float],
        std: Sequence[float],
        image_shape: tuple[int, int, int],
        device: torch.device,
    ) -> None:
        self.image_shape = image_shape
        height, width, channels = image_shape
        # One factor for each byte of an image instead of one for each channel: broadcasting over an innermost
        # dimension of three keeps the CPU from vectorising and is five times slower.
        means, stds = (np.tile(np.asarray(values, np.float64), height * width) for values in (mean, std))
        self._factor = torch.from_numpy((1 / (255 * stds)).astype(np.float32)).to(device)
        self._offset = torch.from_numpy((-means / stds).astype(np.float32)).to(device)
        if len(self._factor) != height * width * channels:
            raise ValueError(f"mean and std must have {channels} values, not {len(mean)} and {len(std)}")

    def __call__(self, images: Tensor) -> Tensor:
        """uint8 (or float on 0..255) B×H×W×C to float32 B×C×H×W in channels_last memory format."""
        values = images.reshape(len(images), -1).to(torch.float32, copy=True)
        torch.addcmul(self._offset, values, self._factor, out=values)
        return values.view(-1, *self.image_shape).permute(0, 3, 1, 2)


_on_device: WeakValueDictionary[tuple[object, ...], Tensor] = WeakValueDictionary()


def shared_on_device(images: Tensor, device: torch.device) -> Tensor:
    """Returns a copy on the device that all of a process's runs share while one of them needs it.

    Many runs of one sweep may be live at once, and CIFAR-10 takes 154 MB.

    Args:
        images: whose memory says which they are; nothing is copied where it is on the device already.
        device: where they are needed.
    """
    if images.device == device:
        return images
    key = (images.data_ptr(), images.shape, images.stride(), device)
    copied = _on_device.get(key)
    if copied is None:
        copied = _on_device[key] = images.to(device)
        copied.source = images  # type: ignore[attr-defined]  # while it lives, nothing else gets its address
    return copied


class _Batches:
    """What both kinds of batches share: the images and their labels on the device, and how many go into a batch."""

    def __init__(
        self,
        images: Tensor,
        labels: Tensor,
        *,
        batch_size: int,
        mean: Sequence[float],
        std: Sequence[float],
        device: torch.device | str = "cpu",
        rows: Tensor | None = None,
    ) -> None:
        if images.dtype != torch.uint8 or images.ndim != 4:
            raise ValueError(f"images must be uint8 N×H×W×C, not {images.dtype} {tuple(images.shape)}")
        count = len(images) if rows is None else len(rows)
        if count != len(labels):
            raise ValueError(f"{count} images but {len(labels)} labels")
        if batch_size < 1:
            raise ValueError(f"batch_size={batch_size}: must be at least 1")
        self.batch_size = batch_size
        self.device = torch.device(device)
        height, width, channels = images.shape[1:]
        self.image_shape = (height, width, channels)
        self._rows = torch.arange(count) if rows is None else rows.cpu()
        # Flat, because whole lines of memory are picked fastest. On the CPU this copies nothing.
        self._images = shared_on_device(images.reshape(len(images), -1), self.device)
        self.labels = labels.to(self.device)
        self._normalize = Normalizer(mean, std, self.image_shape, self.device)

    @property
    def count(self) -> int:
        """Number of images."""
        return len(self._rows)

    def __len__(self) -> int:
        """Number of batches; the last one may be smaller than the others."""
        return -(-self.count // self.batch_size)

    def _pick(self, rows: Tensor) -> Tensor:
        """The uint8 images B×H×W×C of some rows."""
        return self._images.index_select(0, rows).view(-1, *self.image_shape)


class _Drawn(NamedTuple):
    """An epoch: how many images are made at once, the rows and labels' places in its order, the augmentation."""

    epoch: int
    several: int
    rows: Tensor
    places: Tensor
    augment: Augment


class TrainBatches(_Batches):
    """Shuffled, augmented, normalised batches; order and augmentation depend on (seed, epoch) alone.

    Nothing is read back from the device within an epoch.

    Args:
        images: uint8 M×H×W×C.
        labels: int64 N.
        rows: int64 N: image i is images[rows[i]]. None: the images are in order, M = N. By `ArraySet.stored`
            and `ArraySet.rows` processes on one machine share the images' memory.
        batch_size: images in a batch; the last one of an epoch holds what is left.
        augmentation: from `conf/augmentation`.
        mean, std: of each channel, on the scale 0..1.
        seed: of the run.
        device: where the batches are made and used.
        mixup: α of the Beta distribution by which the images of a batch are mixed with each other (Zhang et al. 2018,
            "mixup: Beyond Empirical Risk Minimization"); one share for a batch. 0: they are not.
        classes: how many there are; needed for mixup.
        side: returns an epoch's height and width of the images in pixels; None: as they are.

    Raises:
        ValueError: the shapes don't fit, or the batch size is below one.
    """

    def __init__(
        self,
        images: Tensor,
        labels: Tensor,
        *,
        batch_size: int,
        augmentation: Augmentation,
        mean: Sequence[float],
        std: Sequence[float],
        seed: int,
        device: torch.device | str = "cpu",
        rows: Tensor | None = None,
        mixup: float = 0.0,
        classes: int = 0,
        side: Callable[[int], tuple[int, int]] | None = None,
    ) -> None:
        super().__init__(images, labels, batch_size=batch_size, mean=mean, std=std, device=device, rows=rows)
        if mixup and classes < 2:
            raise ValueError(f"classes={classes}: mixup must know how many classes there are")
        self.augmentation = augmentation
        self.seed = seed
        self.mixup, self.classes, self.side = mixup, classes, side
        self._mean = tuple(mean)
        self._next: _Drawn | None = None

    def order(self, epoch: int) -> np.ndarray:
        """Which image (an index into `labels`) stands where in an epoch: a permutation, int64 N."""
        return np.argsort(epoch_bits(self.seed, epoch, ORDER_STREAM, self.count), kind="stable")

    def epoch(self, epoch: int) -> Iterator[Batch]:
        """The batches of one epoch: images float32 B×C×H×W in channels_last, labels int64 B.

        With mixup labels are float32 B×classes: the share of each class.
        """
        ready, self._next = self._next, None
        drawn = ready if ready is not None and ready.epoch == epoch else self._draw(epoch)
        side = self.side(epoch) if self.side is not None else self.image_shape[:2]
        shares = iter(self._shares(epoch) if self.mixup else ())
        parts = zip(drawn.rows.split(drawn.several), drawn.places.split(drawn.several), strict=True)
        for number, (part, place) in enumerate(parts):
            made = self._normalize(drawn.augment(self._pick(part), number))
            known = self.labels.index_select(0, place)
            for images, labels in zip(made.split(self.batch_size), known.split(self.batch_size), strict=True):
                if self.mixup:
                    images, labels = _mixed(images, F.one_hot(labels, self.classes).float(), next(shares))
                if side != self.image_shape[:2]:
                    images = F.interpolate(images, side, mode="bilinear", antialias=True)
                yield images, labels

    def prepare(self, epoch: int | None) -> None:
        """Draws an epoch that will probably be the next, while a device computes; None forgets what was drawn."""
        ahead = getattr(self.augmentation, "ahead", False)
        self._next = self._draw(epoch) if epoch is not None and ahead else None

    def _draw(self, epoch: int) -> "_Drawn":
        order = self.order(epoch)
        several = self.batch_size * self._ahead()
        plan = Plan(self.count, several, self.image_shape, self.seed, epoch, self.device, order, self._mean)
        augment = self.augmentation.start(plan)
        # The only transfers of the epoch.
        rows = queued(self._rows.numpy()[order], self.device)
        return _Drawn(epoch, several, rows, queued(order, self.device), augment)

    def _ahead(self) -> int:
        """Returns how many batches are made as one."""
        ahead = is_asynchronous(self.device) and getattr(self.augmentation, "ahead", False)
        if not ahead:
            return 1
        height, width, _ = self.image_shape
        images = min(AHEAD, AHEAD * AHEAD_PIXELS // (height * width))
        return max(1, min(images // self.batch_size, len(self)))

    def _shares(self, epoch: int) -> list[float]:
        """How much of themselves the images of each batch keep: from Beta(α, α), 0 to 1."""
        from scipy.special import betaincinv  # takes a while to import, and few runs mix

        bits = epoch_bits(self.seed, epoch, MIXUP_STREAM, len(self))
        uniform = ((bits >> np.uint64(11)).astype(np.float64) + 0.5) * 2.0**-53
        drawn: list[float] = betaincinv(self.mixup, self.mixup, uniform).tolist()
        return drawn


def _mixed(images: Tensor, labels: Tensor, share: float) -> Batch:
    """Mixes a batch with itself in reverse: its order is random, so each image meets any other."""
    return images.flip(0).lerp_(images, share), labels.flip(0).lerp_(labels, share)


class EvalBatches(_Batches):
    """Normalised batches in order, without augmentation; iterate as often as you like.

    Args:
        images: uint8 M×H×W×C.
        labels: int64 N.
        batch_size: images in a batch; it may be larger than in training.
        rows, mean, std, device: see `TrainBatches`.

    Raises:
        ValueError: the shapes don't fit, or the batch size is below one.
    """

    @cached_property
    def _device_rows(self) -> Tensor:
        return self._rows.to(self.device)

    def __iter__(self) -> Iterator[Batch]:
        """Images float32 B×C×H×W in channels_last and labels int64 B, in order."""
        for rows, labels in zip(
            self._device_rows.split(self.batch_size), self.labels.split(self.batch_size), strict=True
        ):
            yield self._normalize(self._pick(rows)), labels
