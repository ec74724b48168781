"""Any of torchvision's transforms as an augmentation, apart as torchvision is slow to import."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from cifar_tuning.data.augmentation import AUGMENTATION_STREAM, Augment, Augmentation, Plan, epoch_bits
from cifar_tuning.option_rules import raise_all
from cifar_tuning.torchvision_compat import torchvision


class TransformsV2(Augmentation):
    """Transforms of `torchvision.transforms.v2`, in a row; see `conf/augmentation/trivial_augment.yaml`.

    They are applied image by image, because on a batch v2 draws once for all of it. That makes them many
    times slower than `CropFlip`. Each image's draws come from a seed of its own, so that they depend on the
    run's seed and the epoch alone; the process's own generators are left as they were.

    Args:
        transforms: each takes and gives a `tv_tensors.Image`, uint8 C×H×W; a float result counts as 0..1. The
            shape must stay. Normalisation comes afterwards and is refused here.

    Raises:
        ValueError: every problem that `check` finds, or something that isn't a transform.
    """

    def __init__(self, transforms: Sequence[Callable[[Any], Any]]) -> None:
        raise_all(self.check(transforms=transforms))
        problems = []
        for index, transform in enumerate(transforms):
            key = f"augmentation.transforms[{index}]"
            if not callable(transform):
                problems.append(f"{key}={transform}: must be a transform, given by its _target_")
            elif _normalizes(transform):
                problems.append(
                    f"{key}: Normalize would normalise the training images a second time: by the data's mean and std "
                    "they are behind the transforms, as the validation images are; leave it out"
                )
        raise_all(problems)
        self.transforms = list(transforms)

    @staticmethod
    def check(*, transforms: object) -> list[str]:
        """Problems of the given settings, one line each; each transform checks its own when it is made."""
        if not isinstance(transforms, Sequence) or isinstance(transforms, str) or not transforms:
            return [f"augmentation.transforms={transforms}: must be a list of at least one transform"]
        return []

    def try_out(self, image_shape: tuple[int, int, int], device: torch.device | str = "cpu") -> None:
        """Transforms an image of noise; for before the training.

        Args:
            image_shape: height, width, channels.
            device: where the image is.

        Raises:
            ValueError: the image changes its shape, or becomes float without being scaled to 0..1.
            Exception: whatever a transform raises.
        """
        # No even colour: by its spread, 0, a transform may divide.
        noise = torch.randint(256, image_shape, dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
        place = torch.device(device)
        with torch.random.fork_rng(devices=[place] if place.type == "cuda" else []):
            made = self._one(noise.to(place), 0)
        if made.is_floating_point() and made.max() > 10 * 255:  # what adds noise may go a little beyond
            raise ValueError(
                "augmentation.transforms: the numbers of a float image are from 0 to 1, not up to 255; "
                "torchvision.transforms.v2.ToDtype needs scale: true"
            )

    def start(self, plan: Plan) -> Augment:
        """Draw a seed for each image of the epoch and return the function that augments its batches."""
        # 63 bits, because that is what a generator takes as a seed.
        seeds = (epoch_bits(plan.seed, plan.epoch, AUGMENTATION_STREAM, plan.count) >> 1).tolist()
        on_cuda = [plan.device] if plan.device.type == "cuda" else []

        def augment(images: Tensor, batch: int) -> Tensor:
            begin = batch * plan.batch_size
            with torch.random.fork_rng(devices=on_cuda):
                mine = seeds[begin : begin + len(images)]
                return torch.stack([self._one(image, seed) for image, seed in zip(images, mine, strict=True)])

        return augment

    def _one(self, image: Tensor, seed: int) -> Tensor:
        # Not `torch.manual_seed`, which seeds every device's generator: only these are put back.
        torch.default_generator.manual_seed(seed)
        if image.is_cuda:
            with torch.cuda.device(image.device):
                torch.cuda.manual_seed(seed)
        result: Any = torchvision.tv_tensors.Image(image.permute(2, 0, 1))
        for transform in self.transforms:
            result = transform(result)
        if not isinstance(result, Tensor) or result.shape != image.permute(2, 0, 1).shape:
            shape = tuple(result.shape) if isinstance(result, Tensor) else type(result).__name__
            raise ValueError(f"augmentation.transforms: an image must keep its shape 3×H×W, but became {shape}")
        plain = result.as_subclass(Tensor).permute(1, 2, 0)
        return plain * 255 if plain.is_floating_point() else plain


def _normalizes(transform: object) -> bool:
    """Whether a transform, or one inside of it (`Compose`, `RandomApply`, …), is torchvision's normalisation."""
    inside = getattr(transform, "transforms", None)
    if isinstance(inside, Sequence | torch.nn.ModuleList):
        return any(_normalizes(one) for one in inside)
    return isinstance(transform, torchvision.transforms.Normalize | torchvision.transforms.v2.Normalize)
