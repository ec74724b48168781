"""Models and other parts of a user's that do what a stack can't."""

import random

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from cifar_tuning.data import Augmentation
from cifar_tuning.training import Regularizer


class Rebinding(torch.optim.SGD):
    """Puts new tensors in the place of the parameters, as some optimizers that people write do."""

    def step(self, closure=None):
        for group in self.param_groups:
            for parameter in group["params"]:
                parameter.data = parameter.data - group["lr"] * parameter.grad


class Net(nn.Module):
    """Common layers, which can be stacked."""

    def __init__(self, dropout: float = 0.0) -> None:
        super().__init__()
        self.first, self.norm = nn.Conv2d(3, 6, 5, stride=2, bias=False), nn.BatchNorm2d(6)
        self.second, self.head = nn.Conv2d(6, 6, 3, groups=6), nn.Linear(216, 10)
        self.rate = dropout

    def features(self, x: Tensor) -> Tensor:
        return F.max_pool2d(F.relu(self.second(F.relu(self.norm(self.first(x))))), 2).flatten(1)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.features(x))


class FrozenNorm(Net):
    """Keeps its statistics in training, by the usual idiom."""

    def train(self, mode: bool = True) -> "FrozenNorm":
        super().train(mode)
        for module in self.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.eval()
        return self


class ListedLayers(Net):
    def __init__(self) -> None:
        super().__init__()
        self.frozen = [self.norm]


class ClippedByHook(Net):
    def __init__(self, dropout: float = 0.0) -> None:
        super().__init__(dropout)
        for parameter in self.parameters():
            parameter.register_hook(lambda gradient: gradient.clamp(-1e-3, 1e-3))


class NormedGradient(Net):
    """Scales the features' gradient by that of all images and features."""

    def forward(self, x: Tensor) -> Tensor:
        features = self.features(x)
        if features.requires_grad:
            features.register_hook(lambda gradient: gradient / gradient.norm())
        return self.head(features)


class MixedWithGradient(Net):
    def forward(self, x: Tensor) -> Tensor:
        features = self.features(x)
        if torch.is_grad_enabled():
            features = features + features.mean(1, keepdim=True)
        return self.head(features)


class MixedInBatches(Net):
    """Looks at single images as they are, and at batches otherwise."""

    def forward(self, x: Tensor) -> Tensor:
        features = self.features(x)
        return self.head(features + features.mean(1, keepdim=True) if len(x) > 3 else features)


class NoisyWithGradient(Net):
    def forward(self, x: Tensor) -> Tensor:
        features = self.features(x)
        return self.head(features + torch.randn_like(features) if features.requires_grad else features)


class NoisyByPython(Net):
    def forward(self, x: Tensor) -> Tensor:
        if self.training:
            random.random()
        return super().forward(x)


class RenormedWeights(Net):
    def forward(self, x: Tensor) -> Tensor:
        if self.training:
            with torch.no_grad():
                self.head.weight.mul_(1 / self.head.weight.norm().clamp(min=1))
        return super().forward(x)


class Counting(Net):
    """Is warm after twenty steps."""

    def __init__(self) -> None:
        super().__init__()
        self.steps = 0

    def forward(self, x: Tensor) -> Tensor:
        self.steps += self.training
        return super().forward(x) * (1.0 if self.steps < 20 else 0.5)


class Auxiliary(Net):
    """Has a head that takes part in one mode alone."""

    def __init__(self, in_training: bool, trained: bool = True) -> None:
        super().__init__()
        self.in_training, self.auxiliary = in_training, nn.Linear(216, 10).requires_grad_(trained)

    def forward(self, x: Tensor) -> Tensor:
        features = self.features(x)
        y = self.head(features)
        return y + self.auxiliary(features) if self.training == self.in_training else y


class DroppedInPlace(Net):
    def __init__(self, rate: float = 0.5) -> None:
        super().__init__()
        self.dropout = nn.Dropout(rate, inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        features = self.features(x)
        self.dropout(features)
        return self.head(features)


class Masked(Net):
    """Sees a part of the pixels, drawn when it is made and kept as a plain tensor."""

    def __init__(self) -> None:
        super().__init__()
        self.mask = torch.rand(32, 32) > 0.5
        self.mask[:3] = self.mask[-3:] = True  # what PyTorch shows of so many numbers

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x * self.mask)


class Thing:
    """What a model may keep."""

    def __init__(self, value: int = 0) -> None:
        self.value = value


class Keeping(Net):
    def __init__(self, value: int = 0) -> None:
        super().__init__()
        self.thing = Thing(value)


class DroppedElsewhere(Net):
    """Drops by a function; without a rate nothing tells it from a model that can be stacked."""

    def forward(self, x: Tensor) -> Tensor:
        return self.head(F.dropout(self.features(x), self.rate, self.training))


class Drawn(torch.optim.lr_scheduler.LRScheduler):
    """Rates by PyTorch's generator."""

    def get_lr(self) -> list[float]:
        return [rate * (0.5 + float(torch.rand(()))) for rate in self.base_lrs]


class Freezing(torch.optim.lr_scheduler.LRScheduler):
    """Freezes the first layer after an epoch."""

    def get_lr(self) -> list[float]:
        if self.last_epoch == 1:
            self.optimizer.param_groups[0]["params"][0].requires_grad_(False)
        return list(self.base_lrs)


class Noisy(Augmentation):
    """Noise by PyTorch's generator."""

    def start(self, plan):
        return lambda images, batch: (images.float() + 20 * torch.randn(images.shape)).clamp(0, 255)


class NoisyPenalty(Regularizer):
    def penalty(self, model: nn.Module) -> Tensor:
        return 1e-2 * sum((value * torch.randn_like(value)).sum() for value in model.parameters())
