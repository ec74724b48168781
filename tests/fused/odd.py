"""A model of a user's with a layer that has no stacked twin."""

import torch
from torch import Tensor, nn

from cifar_tuning.models import SimpleNN


class Weird(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.flip(1)


class Odd(SimpleNN):
    def __init__(
        self,
        activation: str = "relu",
        batch_norm: bool = False,
        dropout: float = 0.0,
        separable: bool = False,
        batch_norm_momentum: float = 0.1,
    ) -> None:
        super().__init__(activation, batch_norm, dropout, separable, batch_norm_momentum)
        self.weird = Weird()

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(self.weird(x))


class Rebinding(torch.optim.SGD):
    """Puts new tensors in the place of the parameters, as some optimizers that people write do."""

    def step(self, closure=None):
        for group in self.param_groups:
            for parameter in group["params"]:
                parameter.data = parameter.data - group["lr"] * parameter.grad
