"""Augmentations that work on whole batches of uint8 images, and the random numbers of an epoch.

Everything random is drawn on the CPU for a whole epoch at once, from (seed, epoch) alone; the device, the
batch size, the worker and whatever else the process runs have no say in it.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from cifar_tuning.numeric import is_whole
from cifar_tuning.option_rules import Rule, broken, raise_all

# Which stream of an epoch's random numbers; a new use gets a new number.
ORDER_STREAM, AUGMENTATION_STREAM, SIDE_STREAM, CUTOUT_STREAM, MIXUP_STREAM = range(5)

MAX_PADDING = 32
ALTERNATING = "alternating"
RULES = {
    "padding": Rule(
        lambda value: is_whole(value, 0, MAX_PADDING), f"a whole number between 0 and {MAX_PADDING} (pixels)"
    ),
    "flip": Rule(
        lambda value: value == ALTERNATING or (isinstance(value, int | float) and 0 <= value <= 1),
        f"a probability between 0 and 1, or true, false or {ALTERNATING}",
    ),
    "cutout": Rule(lambda value: is_whole(value, 0), "a whole number, 0 or above (pixels)"),
}

# Takes a batch, uint8 B×H×W×C, and its number in the epoch; gives uint8, or float on 0..255, of that shape.
Augment = Callable[[Tensor, int], Tensor]


def epoch_bits(seed: int, epoch: int, stream: int, count: int) -> np.ndarray:
    """`count` random uint64 that are the same on every machine and with every NumPy.

    NumPy freezes the bit streams of its generators but not the methods of `Generator`; hence the raw bits.
    """
    raw = np.random.PCG64(np.random.SeedSequence([seed, epoch, stream])).random_raw(count)
    return np.asarray(raw, np.uint64)


def queued(values: np.ndarray, device: torch.device) -> Tensor:
    """Copies an array to a device; a GPU is not waited for: it does so behind what it was given to do before."""
    tensor = torch.from_numpy(values)
    return tensor.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else tensor.to(device)


@dataclass(frozen=True)
class Plan:
    """The epoch an augmentation draws for.

    Args:
        count: images in the epoch.
        batch_size: images in a batch; the last one may be smaller.
        image_shape: height, width, channels.
        seed, epoch: decide every draw.
        device: where the batches are.
        order: which image stands where in the epoch, int64 N; None: each at its own place.
        mean: of each channel, on the scale 0..1.
    """

    count: int
    batch_size: int
    image_shape: tuple[int, int, int]
    seed: int
    epoch: int
    device: torch.device
    order: np.ndarray | None = None
    mean: Sequence[float] = ()


class Augmentation(ABC):
    """Makes an epoch's batches more varied; each image of a batch independently of the others.

    Attributes:
        ahead: a GPU may have several batches made as one larger one, and an epoch drawn before it begins, because what
            becomes of an image depends on the plan and its place in the epoch alone.
    """

    ahead = False

    @abstractmethod
    def start(self, plan: Plan) -> Augment:
        """Draw for one epoch and return the function that augments its batches."""


class NoAugmentation(Augmentation):
    """The images as they are; `conf/augmentation/none.yaml` is this constructor."""

    ahead = True

    def start(self, plan: Plan) -> Augment:
        """Return the identity."""
        return lambda images, batch: images


@dataclass(frozen=True)
class CropFlipDraws:
    """Where each image of an epoch is cropped and whether it is flipped, by its place in the order.

    Args:
        top, left: offset of the crop in the padded image, int64 N, each 0 … 2·padding.
        flip: bool N; an image is flipped first and cropped then.
    """

    top: np.ndarray
    left: np.ndarray
    flip: np.ndarray


class CropFlip(Augmentation):
    """Pad with black, crop back at a random place, flip horizontally, cut out; `conf/augmentation/crop_flip.yaml`.

    Args:
        padding: black pixels added on every side, 0 … 32.
        flip: probability of a flip; true and false mean 0.5 and 0. `alternating`: half of the images, drawn once
            for a run, are flipped in its odd epochs and the others in its even ones, so that two epochs show every
            image from both sides (Jordan 2024, "94% on CIFAR-10 in 3.29 Seconds on a Single GPU", section 3.6).
        cutout: side, in pixels, of a square that takes the images' mean colour, its centre anywhere in the image
            (DeVries and Taylor 2017, "Improved Regularization of Convolutional Neural Networks with Cutout"); 0: none.

    Raises:
        ValueError: every problem that `check` finds.
    """

    ahead = True

    def __init__(self, *, padding: int = 4, flip: float | bool | str = 0.5, cutout: int = 0) -> None:
        raise_all(self.check(padding=padding, flip=flip, cutout=cutout))
        self.padding, self.cutout = padding, cutout
        self.alternating = flip == ALTERNATING
        self.flip = 0.5 if isinstance(flip, str) else 0.5 * flip if isinstance(flip, bool) else float(flip)

    @staticmethod
    def check(**options: object) -> list[str]:
        """Problems of the given settings, one line each; an empty list when the constructor takes them."""
        return broken("augmentation", RULES, options)

    def draw(self, count: int, *, seed: int, epoch: int, order: np.ndarray | None = None) -> CropFlipDraws:
        """The draws of an epoch of `count` images, which stand in the given order (that of their indices if None)."""
        bits = epoch_bits(seed, epoch, AUGMENTATION_STREAM, 3 * count).reshape(count, 3)
        places = np.uint64(2 * self.padding + 1)
        offsets = (bits[:, :2] % places).astype(np.int64)
        if self.alternating:
            first = epoch_bits(seed, 0, SIDE_STREAM, count) >> np.uint64(63) == 1
            flip = (first if order is None else first[order]) ^ (epoch % 2 == 0)
        else:
            # The upper 53 bits make a float64 in [0, 1), so p = 1 flips always and p = 0 never.
            flip = (bits[:, 2] >> np.uint64(11)).astype(np.float64) * 2.0**-53 < self.flip
        return CropFlipDraws(offsets[:, 0], offsets[:, 1], flip)

    def start(self, plan: Plan) -> Augment:
        """Draw for one epoch and return the function that augments its batches."""
        draws = self.draw(plan.count, seed=plan.seed, epoch=plan.epoch, order=plan.order)
        cut = _cutout(self.cutout, plan) if self.cutout else None
        height, width, channels = plan.image_shape
        tall, wide = height + 2 * self.padding, width + 2 * self.padding
        # Canvases with black borders: one for each image of a batch, and one for its mirror image.
        sides = 2 if self.flip else 1
        canvas = torch.zeros((sides, plan.batch_size, tall, wide, channels), dtype=torch.uint8, device=plan.device)
        inside = canvas[:, :, self.padding : self.padding + height, self.padding : self.padding + width]
        # Every possible line of a crop, as an overlapping view of the canvases' memory; a line is known by
        # the pixel it begins at. Picking lines by `index_select` copies memory in whole runs; indexing the
        # canvases by (image, top, left) is ten times slower.
        lines = canvas.as_strided((canvas.numel() // channels - width + 1, width * channels), (channels, 1))
        first_pixels = queued(_first_pixels(draws, plan, tall, wide), plan.device)

        def augment(images: Tensor, batch: int) -> Tensor:
            begin, size = batch * plan.batch_size, len(images)
            inside[0, :size].copy_(images)
            if sides == 2:
                # Turning round the order of all pixels is five times faster than mirroring each line; it also
                # turns round the images and their lines, which `_first_pixels` reckons with.
                inside[1, :size].copy_(images.reshape(-1, channels).flip(0).view(images.shape))
            cropped = lines.index_select(0, first_pixels[begin : begin + size].flatten()).view(images.shape)
            return cropped if cut is None else cut(cropped, batch)

        return augment


def _first_pixels(draws: CropFlipDraws, plan: Plan, tall: int, wide: int) -> np.ndarray:
    """Where each line of each cropped image begins, in pixels from the canvases' start: int32 N×height."""
    place = np.arange(plan.count)
    within = place % plan.batch_size
    batch_sizes = np.minimum(plan.batch_size, plan.count - (place - within))
    upright = within * tall + draws.top
    # In the turned half the images stand in reverse order and upside down, so their lines are read upwards.
    turned = (plan.batch_size + batch_sizes - within) * tall - 1 - draws.top
    line = np.where(draws.flip, turned, upright)
    step = np.where(draws.flip, -wide, wide)
    first = (line * wide + draws.left).astype(np.int32)
    rows = np.arange(plan.image_shape[0], dtype=np.int32)
    pixels: np.ndarray = first[:, None] + step.astype(np.int32)[:, None] * rows
    return pixels


def _cutout(side: int, plan: Plan) -> Augment:
    """Draws a square for each image of the epoch; what lies outside of the image is lost, as in the paper."""
    height, width, channels = plan.image_shape
    bits = epoch_bits(plan.seed, plan.epoch, CUTOUT_STREAM, 2 * plan.count).reshape(plan.count, 2)
    centres = (bits % np.array([height, width], np.uint64)).astype(np.int64)
    begins = queued(centres - side // 2, plan.device)
    rows, columns = torch.arange(height, device=plan.device), torch.arange(width, device=plan.device)
    columns = columns.repeat_interleave(channels)  # whole lines of memory, as everywhere
    colour = np.array([round(255 * value) for value in plan.mean or (0,) * channels], np.uint8)
    line = queued(np.tile(colour, width), plan.device)

    def cut(images: Tensor, batch: int) -> Tensor:
        begin = begins[batch * plan.batch_size :][: len(images)]
        top, left = begin[:, :1], begin[:, 1:]
        inside_rows = (rows >= top) & (rows < top + side)
        inside_columns = (columns >= left) & (columns < left + side)
        inside = inside_rows.unsqueeze(2) & inside_columns.unsqueeze(1)
        lines = images.view(len(images), height, width * channels)
        return torch.where(inside, line, lines).view(images.shape)

    return cut
