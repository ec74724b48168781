"""An epoch as batches on the device: the images live there as uint8, and each batch is made when needed."""

from collections.abc import Iterator, Sequence
from weakref import WeakValueDictionary

import numpy as np
import torch
from torch import Tensor

from cifar_tuning.data.augmentation import ORDER_STREAM, Augmentation, Plan, epoch_bits

Batch = tuple[Tensor, Tensor]


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
    """What both kinds of batches share: the images on the device and how many go into a batch."""

    def __init__(
        self,
        images: Tensor,
        labels: Tensor,
        rows: Tensor | None,
        *,
        batch_size: int,
        mean: Sequence[float],
        std: Sequence[float],
        device: torch.device | str,
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
        self._labels = labels.to(self.device)
        self._normalize = Normalizer(mean, std, self.image_shape, self.device)

    @property
    def count(self) -> int:
        """Number of images."""
        return len(self._rows)

    def __len__(self) -> int:
        """Number of batches; the last one may be smaller than the others."""
        return -(-self.count // self.batch_size)

    def _pick(self, rows: Tensor, batch: int) -> Tensor:
        """The uint8 images B×H×W×C of one batch, given the rows of all of them."""
        part = rows[batch * self.batch_size : (batch + 1) * self.batch_size]
        return self._images.index_select(0, part).view(-1, *self.image_shape)


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
    ) -> None:
        super().__init__(images, labels, rows, batch_size=batch_size, mean=mean, std=std, device=device)
        self.augmentation = augmentation
        self.seed = seed

    def order(self, epoch: int) -> np.ndarray:
        """Which image (an index into `labels`) stands where in an epoch: a permutation, int64 N."""
        return np.argsort(epoch_bits(self.seed, epoch, ORDER_STREAM, self.count), kind="stable")

    def epoch(self, epoch: int) -> Iterator[Batch]:
        """The batches of one epoch (from 0): images float32 B×C×H×W in channels_last, labels int64 B."""
        order = torch.from_numpy(self.order(epoch))
        # The only transfers of the epoch.
        rows, order = self._rows[order].to(self.device), order.to(self.device)
        plan = Plan(self.count, self.batch_size, self.image_shape, self.seed, epoch, self.device)
        augment = self.augmentation.start(plan)
        for batch in range(len(self)):
            images = augment(self._pick(rows, batch), batch)
            part = order[batch * self.batch_size : (batch + 1) * self.batch_size]
            yield self._normalize(images), self._labels.index_select(0, part)


class EvalBatches(_Batches):
    """Normalised batches in order, without augmentation; iterate as often as you like.

    Args:
        images: uint8 M×H×W×C.
        labels: int64 N.
        rows: int64 N: image i is images[rows[i]]. None: the images are in order, M = N.
        batch_size: images in a batch; it may be larger than in training.
        mean, std: of each channel, on the scale 0..1.
        device: where the batches are made and used.

    Raises:
        ValueError: the shapes don't fit, or the batch size is below one.
    """

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
        super().__init__(images, labels, rows, batch_size=batch_size, mean=mean, std=std, device=device)
        self._device_rows = self._rows.to(self.device)

    def __iter__(self) -> Iterator[Batch]:
        """Images float32 B×C×H×W in channels_last and labels int64 B, in order."""
        for batch in range(len(self)):
            labels = self._labels[batch * self.batch_size : (batch + 1) * self.batch_size]
            yield self._normalize(self._pick(self._device_rows, batch)), labels
