"""Building blocks, and rules of options, that the architectures share."""

import torch
from torch import Tensor, nn
from torch.nn.modules import module as modules

from cifar_tuning.models.activations import ACTIVATIONS
from cifar_tuning.models.convolution import Conv2d
from cifar_tuning.numeric import is_whole
from cifar_tuning.option_rules import BELOW_ONE, FLAG, Rule, number, one_of

_COUNT = Rule(lambda value: is_whole(value, 1), "a whole number above 0")
RULES = {
    "activation": one_of(ACTIVATIONS),
    "dropout": BELOW_ONE,
    "separable": FLAG,
    "batch_norm_momentum": number(lambda value: 0 < value <= 1, "a number above 0 and at most 1 (default 0.1)"),
    "in_channels": _COUNT,
    "num_classes": _COUNT,
}


def conv3x3(
    in_channels: int, out_channels: int, *, separable: bool, bias: bool, stride: int = 1, padding: int = 0
) -> nn.Module:
    """A 3×3 convolution, or its depthwise-separable form (Howard et al. 2017, MobileNets, section 3.1).

    Args:
        in_channels, out_channels: of the input and of the output.
        separable: depthwise 3×3 followed by pointwise 1×1 instead of one full convolution.
        bias: whether the (last) convolution has a bias.
        stride, padding: of the 3×3 part.
    """
    if not separable:
        return Conv2d(in_channels, out_channels, 3, stride, padding, bias=bias)
    depthwise = nn.Conv2d(in_channels, in_channels, 3, stride, padding, groups=in_channels, bias=False)
    return nn.Sequential(depthwise, nn.Conv2d(in_channels, out_channels, 1, bias=bias))


def every_nth_pixel(x: Tensor, stride: int) -> Tensor:
    """Returns each `stride`-th line and column of N×C×H×W; the gradient keeps the layout of x.

    That of a plain slice is laid out N×C×H×W, whatever x is: of a ResNet-20 in channels_last on a CPU, the three passes
    that met one took an eighth of a step.
    """
    if not x.is_contiguous(memory_format=torch.channels_last):
        return x[:, :, ::stride, ::stride]
    return x.permute(0, 2, 3, 1)[:, ::stride, ::stride].permute(0, 3, 1, 2)


def mean_of_pixels(x: Tensor) -> Tensor:
    """Returns each channel's mean over the pixels, N×C of N×C×H×W; the gradient keeps the layout of x, as above."""
    if not x.is_contiguous(memory_format=torch.channels_last):
        return x.mean((2, 3))
    return x.permute(0, 2, 3, 1).mean((1, 2))


def is_hooked(module: nn.Module) -> bool:
    """Whether hooks run around the module's `forward`, or something stands in its place.

    Code that computes the layer without calling the module would skip them.
    """
    of_all = (
        modules._global_forward_hooks,
        modules._global_forward_pre_hooks,
        modules._global_backward_hooks,
        modules._global_backward_pre_hooks,
    )
    own = (module._forward_hooks, module._forward_pre_hooks, module._backward_hooks, module._backward_pre_hooks)
    return "forward" in vars(module) or any(own) or any(of_all)
