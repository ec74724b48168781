"""Parts of a user's that can be built, but not trained with."""

import torch
from torch import Tensor, nn

from cifar_tuning.torchvision_compat import torchvision

v2 = torchvision.transforms.v2


class Head(nn.Module):
    """One layer.

    Args:
        end: the last thing that is done to its logits.
    """

    def __init__(self, end: str) -> None:
        super().__init__()
        self.head, self.end = nn.Linear(3072, 10), end

    def forward(self, x: Tensor) -> Tensor:
        logits = self.head(x.flatten(1))
        return logits.softmax(1) if self.end == "softmax" else getattr(logits, self.end)()


class Unfinished(torch.optim.Optimizer):
    """An optimizer around another one, without what every optimizer has."""

    def __init__(self, groups: list[dict]) -> None:
        self.base = torch.optim.SGD(groups, 0.1)
        self.param_groups = self.base.param_groups


class ByNumber:
    """A scheduler that is told the number of each epoch, as those of timm are."""

    def __init__(self, optimizer: torch.optim.Optimizer) -> None:
        self.optimizer = optimizer

    def step(self, epoch: int, metric: float | None = None) -> None:
        pass

    def state_dict(self) -> dict:
        return {}

    def load_state_dict(self, state: dict) -> None:
        pass


class Stateless(ByNumber):
    state_dict = None


def usual(scale: bool) -> v2.Transform:
    """Transforms as they stand before a `DataLoader`."""
    return v2.Compose([v2.RandomHorizontalFlip(), v2.ToDtype(torch.float32, scale=scale)])
