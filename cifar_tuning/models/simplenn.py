"""SimpleNN: the lab report's network of two convolutions and three fully connected layers."""

import torch
from torch import Tensor, nn

from cifar_tuning.models import layers
from cifar_tuning.models.activations import ACTIVATIONS, MONOTONE
from cifar_tuning.models.convolution import Conv2d
from cifar_tuning.models.layers import conv3x3
from cifar_tuning.models.norm_act_pool import activated_and_pooled
from cifar_tuning.models.normalization import BatchNorm2d
from cifar_tuning.option_rules import FLAG, broken, raise_all

RULES = layers.RULES | {"batch_norm": FLAG}


def _as_channels_last(x: Tensor) -> Tensor:
    return x.contiguous(memory_format=torch.channels_last)


class SimpleNN(nn.Module):
    """SimpleNN of the lab report's Table 1, for images of 32×32 pixels.

    Convolution 5×5 to 8 channels, max-pooling, convolution 3×3 to 16 channels, max-pooling, fully
    connected 120, 84, `num_classes`; no padding. Weights: 600, 1152, 69120, 10080, 840; they begin as in PyTorch.

    Args:
        activation: name of the non-linearity after every layer but the last.
        batch_norm: batch normalisation after each convolution. Such a convolution has no bias: the
            normalisation would subtract it again.
        dropout: rate of dropout before each fully connected layer.
        separable: the 3×3 convolution is made depthwise separable (the 5×5 one stays).
        batch_norm_momentum: weight of a new batch in the running statistics, as PyTorch counts it.
        in_channels: colour channels of the images.
        num_classes: number of classes.

    Raises:
        ValueError: an option is out of range; the message names all that are.
    """

    def __init__(
        self,
        activation: str = "relu",
        batch_norm: bool = False,
        dropout: float = 0.0,
        separable: bool = False,
        batch_norm_momentum: float = 0.1,
        in_channels: int = 3,
        num_classes: int = 10,
    ) -> None:
        raise_all(broken("model", RULES, locals()))
        super().__init__()

        def norm(channels: int) -> nn.Module:
            return BatchNorm2d(channels, momentum=batch_norm_momentum) if batch_norm else nn.Identity()

        self.conv1 = Conv2d(in_channels, 8, 5, bias=not batch_norm)
        self.norm1 = norm(8)
        self.conv2 = conv3x3(8, 16, separable=separable, bias=not batch_norm)
        self.norm2 = norm(16)
        self.pool = nn.MaxPool2d(2)
        self.fc1 = nn.Linear(16 * 6 * 6, 120)
        self.fc2 = nn.Linear(120, 84)
        self.fc3 = nn.Linear(84, num_classes)
        self.dropout = nn.Dropout(dropout) if dropout > 0 else nn.Identity()
        self.activation = ACTIVATIONS[activation]()
        self._pool_first = activation in MONOTONE

    @staticmethod
    def check(**options: object) -> list[str]:
        """Returns a line for each option that is out of range; empty if all are right."""
        return broken("model", RULES, options)

    def forward(self, x: Tensor) -> Tensor:
        """Maps images N×C×32×32 to logits N×`num_classes`."""
        x = self._convolve(self.conv1, self.norm1, x)
        x = self._convolve(self.conv2, self.norm2, x)
        channels_last = x.is_contiguous(memory_format=torch.channels_last)
        if channels_last and x.requires_grad and not torch.compiler.is_compiling():
            # The gradient of `flatten` is contiguous. Where it meets a layout other than its own an element-wise
            # operation takes 15 times as long, a rectifier's over 128×64×6×6 in bf16 1.8 ms in place of 0.1.
            x.register_hook(_as_channels_last)
        x = self.activation(self.fc1(self.dropout(x.flatten(1))))
        x = self.activation(self.fc2(self.dropout(x)))
        return self.fc3(self.dropout(x))

    def _convolve(self, conv: nn.Module, norm: nn.Module, x: Tensor) -> Tensor:
        return activated_and_pooled(norm, self.activation, self.pool, conv(x), self._pool_first)
