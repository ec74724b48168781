"""The usual pipeline, as tutorials have it: PIL transforms, DataLoader with workers, fp32, default layout."""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.data import DataLoader

from cifar_tuning.data import ArraySet, ImageData, ImageDataset
from cifar_tuning.models import ResNet
from cifar_tuning.torchvision_compat import torchvision

WORKERS = 2


class PlainSimpleNN(nn.Module):
    """SimpleNN with batch norm written the way Table 1 reads: activation, then pooling, PyTorch's layers."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(3, 8, 5), nn.BatchNorm2d(8)
        self.conv2, self.bn2 = nn.Conv2d(8, 16, 3), nn.BatchNorm2d(16)
        self.fc1, self.fc2, self.fc3 = nn.Linear(576, 120), nn.Linear(120, 84), nn.Linear(84, 10)

    def forward(self, x: Tensor) -> Tensor:
        """Maps N×3×32×32 to logits N×10."""
        x = F.max_pool2d(F.relu(self.bn1(self.conv1(x))), 2)
        x = F.max_pool2d(F.relu(self.bn2(self.conv2(x))), 2)
        x = F.relu(self.fc1(torch.flatten(x, 1)))
        return self.fc3(F.relu(self.fc2(x)))


MODELS: dict[str, Callable[[], nn.Module]] = {"simplenn": PlainSimpleNN, "resnet20": ResNet}


def loader(data: ImageData, images: ArraySet, train: bool = True) -> DataLoader:
    """A DataLoader with two workers that stay, over crop and flip (in training), tensor and normalisation per image."""
    transforms = torchvision.transforms
    augment = [transforms.RandomCrop(32, padding=4), transforms.RandomHorizontalFlip()] if train else []
    transform = transforms.Compose([*augment, transforms.ToTensor(), transforms.Normalize(data.mean, data.std)])
    dataset = ImageDataset(images.images, images.labels, transform)
    return DataLoader(
        dataset,
        batch_size=data.batch_size,
        shuffle=train,
        num_workers=WORKERS,
        persistent_workers=True,
        pin_memory=torch.cuda.is_available(),
    )


def epoch(model: nn.Module, optimizer: torch.optim.Optimizer, batches: DataLoader, device: torch.device) -> int:
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
def evaluate(model: nn.Module, batches: DataLoader, device: torch.device) -> float:
    """Returns the share of right answers."""
    model.eval()
    right = count = 0
    for images, labels in batches:
        right += (model(images.to(device)).argmax(1).cpu() == labels).sum().item()
        count += len(labels)
    return right / count
