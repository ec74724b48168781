"""The CIFAR ResNets of He et al. 2015, "Deep Residual Learning for Image Recognition", section 4.2."""

import torch.nn.functional as F
from torch import Tensor, nn

from cifar_tuning.models import layers
from cifar_tuning.models.activations import ACTIVATIONS
from cifar_tuning.models.convolution import Conv2d
from cifar_tuning.models.layers import conv3x3, every_nth_pixel, mean_of_pixels
from cifar_tuning.models.norm_act_pool import activated
from cifar_tuning.models.normalization import BatchNorm2d
from cifar_tuning.numeric import is_whole
from cifar_tuning.option_rules import Rule, broken, one_of, raise_all

RULES = layers.RULES | {
    "depth": Rule(
        lambda value: is_whole(value, 8) and (value - 2) % 6 == 0, "6n+2 with n ≥ 1, such as 20, 32, 44, 56 or 110"
    ),
    "shortcut": one_of(("A", "B", "none")),
}


class PaddedShortcut(nn.Module):
    """Option A of section 3.3: every second pixel, and zeros for the added channels; no parameters.

    Args:
        added: how many channels the output has more than the input.
        stride: 1 or 2.
    """

    def __init__(self, added: int, stride: int) -> None:
        super().__init__()
        self.added, self.stride = added, stride

    def forward(self, x: Tensor) -> Tensor:
        """Maps N×C×H×W to N×(C+added)×H/stride×W/stride."""
        before = self.added // 2
        return F.pad(every_nth_pixel(x, self.stride), (0, 0, 0, 0, before, self.added - before))


class Block(nn.Module):
    """Two 3×3 convolutions with batch normalisation, and the shortcut around them.

    Args:
        in_channels, out_channels: of the input and of the output.
        stride: of the first convolution.
        shortcut, activation, separable: see `ResNet`.
        momentum: of batch normalisation.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        stride: int,
        shortcut: str,
        activation: str,
        separable: bool,
        momentum: float,
    ) -> None:
        super().__init__()
        self.conv1 = conv3x3(in_channels, out_channels, separable=separable, bias=False, stride=stride, padding=1)
        self.norm1 = BatchNorm2d(out_channels, momentum=momentum)
        self.conv2 = conv3x3(out_channels, out_channels, separable=separable, bias=False, padding=1)
        self.norm2 = BatchNorm2d(out_channels, momentum=momentum)
        self.activation = ACTIVATIONS[activation]()
        self.shortcut: nn.Module | None
        if shortcut == "none":
            self.shortcut = None
        elif in_channels == out_channels:
            self.shortcut = nn.Identity()
        elif shortcut == "A":
            self.shortcut = PaddedShortcut(out_channels - in_channels, stride)
        else:
            projection = Conv2d(in_channels, out_channels, 1, stride=stride, bias=False)
            self.shortcut = nn.Sequential(projection, BatchNorm2d(out_channels, momentum=momentum))

    def forward(self, x: Tensor) -> Tensor:
        """Maps N×in_channels×H×W to N×out_channels×H/stride×W/stride."""
        y = self.norm2(self.conv2(activated(self.norm1, self.activation, self.conv1(x))))
        return self.activation(y if self.shortcut is None else y + self.shortcut(x))


class ResNet(nn.Module):
    """Residual network for 32×32 images: 6n+2 layers, widths 16, 32, 64 (269,722 parameters at depth 20).

    Convolutions begin with the normal distribution of He et al. 2015 (variance 2/fan-in), all else as in PyTorch.

    Args:
        depth: number of weighted layers, 6n+2: 20, 32, 44, 56, 110, …
        shortcut: what joins blocks of different shape: `A` pads with zeros, `B` projects by a 1×1
            convolution; `none` leaves out every shortcut (the plain network).
        activation: name of the non-linearity.
        dropout: rate of dropout before the fully connected layer.
        separable: every 3×3 convolution is made depthwise separable.
        batch_norm_momentum: weight of a new batch in the running statistics, as PyTorch counts it.
        in_channels: colour channels of the images.
        num_classes: number of classes.

    Raises:
        ValueError: an option is out of range; the message names all that are.
    """

    def __init__(
        self,
        depth: int = 20,
        shortcut: str = "A",
        activation: str = "relu",
        dropout: float = 0.0,
        separable: bool = False,
        batch_norm_momentum: float = 0.1,
        in_channels: int = 3,
        num_classes: int = 10,
    ) -> None:
        raise_all(broken("model", RULES, locals()))
        super().__init__()
        self.conv1 = conv3x3(in_channels, 16, separable=separable, bias=False, padding=1)
        self.norm1 = BatchNorm2d(16, momentum=batch_norm_momentum)
        self.activation = ACTIVATIONS[activation]()
        blocks, channels = [], 16
        for width in (16, 32, 64):
            for index in range((depth - 2) // 6):
                stride = 2 if index == 0 and width > 16 else 1
                blocks.append(Block(channels, width, stride, shortcut, activation, separable, batch_norm_momentum))
                channels = width
        self.blocks = nn.Sequential(*blocks)
        self.dropout = nn.Dropout(dropout) if dropout > 0 else nn.Identity()
        self.fc = nn.Linear(64, num_classes)
        self._initialise()

    @staticmethod
    def check(**options: object) -> list[str]:
        """Returns a line for each option that is out of range; empty if all are right."""
        return broken("model", RULES, options)

    def forward(self, x: Tensor) -> Tensor:
        """Maps images N×C×H×W to logits N×`num_classes`; H and W divisible by 4."""
        x = self.blocks(activated(self.norm1, self.activation, self.conv1(x)))
        return self.fc(self.dropout(mean_of_pixels(x)))

    def _initialise(self) -> None:
        # He et al. 2015, "Delving Deep into Rectifiers", eq. 10: variance 2 / fan-in. That makes up for the
        # rectifier behind a convolution; none follows the last layer, which keeps PyTorch's default.
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
