"""PyTorch's convolution, with our own GPU kernel for the shapes that it computes several times as fast."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from cifar_tuning import kernels

# Colour channels of an image: where there are so few, a matrix product's columns go to waste in cuDNN's kernels.
FEW = 4
# Channels of a group from which on cuDNN has fast kernels for grouped convolutions, unless they have a stride.
ENOUGH = 16
# Most channels of a group for our kernel, as far as measured; with more, cuDNN's are fast.
MOST = 64


class Conv2d(nn.Conv2d):
    """PyTorch's convolution, same weights and values; faster for few channels on a GPU."""

    def forward(self, input: Tensor) -> Tensor:
        """Maps N×C×H×W to N×out×H'×W'."""
        if self.padding_mode != "zeros" or isinstance(self.padding, str):
            return super().forward(input)
        return convolved(input, self.weight, self.bias, self.groups, self.stride, self.padding, self.dilation)


def convolved(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    groups: int,
    stride: tuple[int, ...],
    padding: tuple[int, ...] | str,
    dilation: tuple[int, ...],
) -> Tensor:
    """Returns `F.conv2d` of the same arguments, by the faster way where there is one."""
    if not _suits(x, weight, bias, groups, stride, padding, dilation):
        return F.conv2d(x, weight, bias, stride, padding, dilation, groups)
    from cifar_tuning.kernels.convolution import convolve

    return convolve(x, weight, bias, groups, stride[0], int(padding[0]))


def _suits(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    groups: int,
    stride: tuple[int, ...],
    padding: tuple[int, ...] | str,
    dilation: tuple[int, ...],
) -> bool:
    """Whether a kernel of our own computes it, and was measured to be faster."""
    if x.device.type != "cuda" or x.ndim != 4 or isinstance(padding, str):
        return False
    inputs, outputs = weight.shape[1], len(weight) // groups
    # What is wrong is PyTorch's to say.
    fits = x.shape[1] == groups * inputs and all(
        size + 2 * padding[0] >= kernel for size, kernel in zip(x.shape[2:], weight.shape[2:], strict=True)
    )
    if groups == 1:
        few = inputs <= FEW
    else:
        few = inputs % 8 == 0 and inputs <= MOST and outputs % 8 == 0 and (stride[0] > 1 or inputs < ENOUGH)
    return (
        few
        and fits
        and all(len(set(numbers)) == 1 for numbers in (stride, padding, dilation))
        and dilation[0] == 1
        and kernels.plain(weight, x.device)
        and (bias is None or (kernels.plain(bias, x.device) and bias.is_contiguous()))
        and x.dtype in (torch.float32, torch.bfloat16)
        and kernels.usable(x)
        and len(x) * len(weight) * (x.shape[2] + 2 * padding[0]) * (x.shape[3] + 2 * padding[0]) < kernels.MAX_ELEMENTS
    )
