"""Where the images come from, how they are split, and the batches a run is fed with.

Imports nothing of the other rooms. torchvision takes two seconds to import and is imported where it is used.
"""

from typing import TYPE_CHECKING, Any

from cifar_tuning.data.augmentation import Augmentation, CropFlip, NoAugmentation
from cifar_tuning.data.base import ArraySet, ImageData, Splits
from cifar_tuning.data.batches import EvalBatches, Normalizer, TrainBatches
from cifar_tuning.data.cifar10 import CIFAR10
from cifar_tuning.data.image_folder import ImageFolder
from cifar_tuning.data.synthetic import Synthetic
from cifar_tuning.data.torchvision_data import TorchvisionData

if TYPE_CHECKING:
    from cifar_tuning.data.transforms_v2 import TransformsV2

__all__ = [
    "CIFAR10",
    "ArraySet",
    "Augmentation",
    "CropFlip",
    "EvalBatches",
    "ImageData",
    "ImageFolder",
    "NoAugmentation",
    "Normalizer",
    "Splits",
    "Synthetic",
    "TorchvisionData",
    "TrainBatches",
    "TransformsV2",
]


def __getattr__(name: str) -> Any:
    # This also puts the compatibility shim in place before Hydra imports the transforms named beneath it.
    if name == "TransformsV2":
        from cifar_tuning.data.transforms_v2 import TransformsV2

        return TransformsV2
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
