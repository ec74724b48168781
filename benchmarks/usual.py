"""What others do, in fp32 and the default layout: PIL transforms and a DataLoader, or a script, data on the device."""

from collections.abc import Callable, Iterable, Iterator
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from cifar_tuning.data import ArraySet, ImageData
from cifar_tuning.models import ResNet
from cifar_tuning.processes import cores
from cifar_tuning.torchvision_compat import torchvision

# As many as the machine has cores for, up to what people take.
MOST_WORKERS = 8
LR = 0.05


class PlainSimpleNN(nn.Module):
    """SimpleNN written the way Table 1 reads: activation, then pooling, PyTorch's layers."""

    def __init__(self, batch_norm: bool) -> None:
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(3, 8, 5), nn.BatchNorm2d(8) if batch_norm else nn.Identity()
        self.conv2, self.bn2 = nn.Conv2d(8, 16, 3), nn.BatchNorm2d(16) if batch_norm else nn.Identity()
        self.fc1, self.fc2, self.fc3 = nn.Linear(576, 120), nn.Linear(120, 84), nn.Linear(84, 10)

    def forward(self, x: Tensor) -> Tensor:
        """Maps N×3×32×32 to logits N×10."""
        x = F.max_pool2d(F.relu(self.bn1(self.conv1(x))), 2)
        x = F.max_pool2d(F.relu(self.bn2(self.conv2(x))), 2)
        x = F.relu(self.fc1(torch.flatten(x, 1)))
        logits: Tensor = self.fc3(F.relu(self.fc2(x)))
        return logits


MODELS: dict[str, Callable[[], nn.Module]] = {
    "simplenn_bn": partial(PlainSimpleNN, batch_norm=True),
    "simplenn": partial(PlainSimpleNN, batch_norm=False),
    "resnet20": ResNet,
}


class ImageDataset(Dataset[tuple[Any, int]]):
    """The images one by one, as PIL's, through torchvision's transforms.

    Args:
        images: uint8 N×H×W×3.
        labels: int64 N.
        transform: applied to the PIL image; torchvision's `transforms.Compose([...])` for example. None gives
            the PIL image itself.
    """

    def __init__(self, images: Tensor, labels: Tensor, transform: Callable[[Image.Image], Any] | None = None) -> None:
        self.images, self.labels, self.transform = images, labels, transform

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> tuple[Any, int]:
        image = Image.fromarray(self.images[index].numpy())
        return (image if self.transform is None else self.transform(image)), int(self.labels[index])


def loader(data: ImageData, images: ArraySet, train: bool = True) -> DataLoader[tuple[Any, int]]:
    """A DataLoader with workers that stay, over crop and flip (in training), tensor and normalisation per image."""
    transforms = torchvision.transforms
    augment = [transforms.RandomCrop(32, padding=4), transforms.RandomHorizontalFlip()] if train else []
    transform = transforms.Compose([*augment, transforms.ToTensor(), transforms.Normalize(data.mean, data.std)])
    dataset = ImageDataset(images.images, images.labels, transform)
    return DataLoader(
        dataset,
        batch_size=data.batch_size,
        shuffle=train,
        num_workers=min(cores(), MOST_WORKERS),
        persistent_workers=True,
        pin_memory=torch.cuda.is_available(),
    )


class DeviceBatches:
    """What a script does that keeps the data on the device: normalised once, cropped and flipped batch by batch.

    Args:
        data: mean, standard deviation and batch size.
        images: with their labels.
        train: shuffle, crop and flip.
        device: where they stay.
    """

    def __init__(self, data: ImageData, images: ArraySet, train: bool, device: torch.device) -> None:
        mean, std = (torch.tensor(values, device=device).view(3, 1, 1) for values in (data.mean, data.std))
        pixels = images.images.to(device).permute(0, 3, 1, 2).float() / 255
        padding = (4, 4, 4, 4) if train else (0, 0, 0, 0)
        self.images = (F.pad(pixels, padding) - mean) / std
        self.labels, self.train, self.batch_size = images.labels.to(device), train, data.batch_size

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        count, device = len(self.labels), self.labels.device
        order = torch.randperm(count, device=device) if self.train else torch.arange(count, device=device)
        for part in order.split(self.batch_size):
            images = self.images[part]
            yield (self._augmented(images) if self.train else images), self.labels[part]

    def _augmented(self, images: Tensor) -> Tensor:
        count, device = len(images), images.device
        images = torch.where(torch.rand(count, 1, 1, 1, device=device) < 0.5, images.flip(3), images)
        top, left = torch.randint(0, 9, (2, count, 1), device=device)
        side = torch.arange(32, device=device)
        number, channel = (
            torch.arange(count, device=device).view(-1, 1, 1, 1),
            torch.arange(3, device=device).view(-1, 1, 1),
        )
        return images[number, channel, (top + side).view(-1, 1, 32, 1), (left + side).view(-1, 1, 1, 32)]


def optimizer(model: nn.Module) -> torch.optim.Optimizer:
    """Returns the lab report's."""
    return torch.optim.SGD(model.parameters(), lr=LR, momentum=0.9, weight_decay=1e-4)


Batches = Iterable[tuple[Tensor, Tensor]]


def whole_epoch(
    model: nn.Module, optimizer: torch.optim.Optimizer, train: Batches, val: Batches, device: torch.device
) -> int:
    """Trains and evaluates an epoch; returns the number of training images."""
    count = epoch(model, optimizer, train, device)
    evaluate(model, val, device)
    return count


def epoch(model: nn.Module, optimizer: torch.optim.Optimizer, batches: Batches, device: torch.device) -> int:
    """Trains an epoch and returns the number of images."""
    model.train()
    count = 0
    for images, labels in batches:
        images, labels = images.to(device, non_blocking=True), labels.to(device, non_blocking=True)
        loss = F.cross_entropy(model(images), labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        count += len(labels)
    return count


@torch.no_grad()
def evaluate(model: nn.Module, batches: Batches, device: torch.device) -> float:
    """Returns the share of right answers."""
    model.eval()
    right = count = 0
    for images, labels in batches:
        right += (model(images.to(device)).argmax(1).cpu() == labels.cpu()).sum().item()
        count += len(labels)
    return right / count
