"""The classic view of the images: one by one, through torchvision's transforms."""

from collections.abc import Callable
from typing import Any

import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import Dataset


class ImageDataset(Dataset[tuple[Any, int]]):
    """Gives an image and its label by index, for a `DataLoader` or for looking at.

    Training uses `TrainBatches`, which is many times faster and is tested against this class.

    Args:
        images: uint8 N×H×W×3.
        labels: int64 N.
        transform: applied to the PIL image; torchvision's `transforms.Compose([...])` for example. None gives
            the PIL image itself.

    Raises:
        ValueError: the shapes don't fit.
    """

    def __init__(self, images: Tensor, labels: Tensor, transform: Callable[[Image.Image], Any] | None = None) -> None:
        if images.dtype != torch.uint8 or images.ndim != 4 or images.shape[-1] != 3:
            raise ValueError(f"images must be uint8 N×H×W×3, not {images.dtype} {tuple(images.shape)}")
        if len(images) != len(labels):
            raise ValueError(f"{len(images)} images but {len(labels)} labels")
        self.images = images
        self.labels = labels
        self.transform = transform

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> tuple[Any, int]:
        image = Image.fromarray(self.images[index].numpy())
        return (image if self.transform is None else self.transform(image)), int(self.labels[index])
