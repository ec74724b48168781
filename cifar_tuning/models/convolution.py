"""PyTorch's convolution, with faster ways for what it is slow at: few channels.

On a GPU that is a kernel of our own. On a CPU, a convolution of an image's few colours to few channels leaves half of
each register empty. Two pixels side by side are one with twice the channels, and so are two of the output: both are
views in channels_last, and only the weights are laid out anew.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from cifar_tuning import kernels
from cifar_tuning.models.normalization import VECTOR

# Colour channels of an image: where there are so few, a matrix product's columns go to waste in cuDNN's kernels.
FEW = 4
# Channels of a group from which on cuDNN has fast kernels for grouped convolutions, unless they have a stride.
ENOUGH = 16
# Most channels of a group for our kernel, as far as measured; with more, cuDNN's are fast.
MOST = 64


class Conv2d(nn.Conv2d):
    """PyTorch's convolution, same weights and values; faster for few channels."""

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
    if groups == 1 and pairs_pixels(x, weight, stride, padding, dilation):
        return _convolved_in_pairs(x, weight, bias, int(padding[0]))
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


def pairs_pixels(
    x: Tensor, weight: Tensor, stride: tuple[int, ...], padding: tuple[int, ...] | str, dilation: tuple[int, ...]
) -> bool:
    """Whether a convolution without groups is computed for two pixels at a time, which was measured to be faster.

    Of images that are finite, as they should be: one column further than by itself, a pixel meets a weight of zero.

    Args:
        x: N×C×H×W.
        weight: out×C×kH×kW.
        stride, padding, dilation: of the convolution.
    """
    return (
        x.device.type == "cpu"
        and x.ndim == 4
        and not x.requires_grad  # a gradient of the images takes longer that way
        and weight.shape[1] == x.shape[1] <= FEW
        and 2 * len(weight) <= VECTOR  # which two pixels' output channels fill
        and not isinstance(padding, str)
        and padding[1] == 0
        and {*stride, *dilation} == {1}
        and x.shape[3] % 2 == 0
        and weight.shape[3] % 2 == 1
        and all(
            size + 2 * more >= kernel for size, more, kernel in zip(x.shape[2:], padding, weight.shape[2:], strict=True)
        )
        and x.is_contiguous(memory_format=torch.channels_last)
        and not kernels.left_to_pytorch()
    )


def _convolved_in_pairs(x: Tensor, weight: Tensor, bias: Tensor | None, padding: int) -> Tensor:
    """Returns the convolution of images as `pairs_pixels` wants them, N×out×H'×W'.

    Args:
        x: N×C×H×W.
        weight: out×C×kH×kW.
        bias: out.
        padding: lines of zeros above and below.
    """
    n, channels, height, width = x.shape
    pairs = x.permute(0, 2, 3, 1).view(n, height, width // 2, 2 * channels).permute(0, 3, 1, 2)
    y = F.conv2d(pairs, _of_pairs(weight), None if bias is None else bias.repeat(2), padding=(padding, 0))
    return y.permute(0, 2, 3, 1).reshape(n, y.shape[2], 2 * y.shape[3], len(weight)).permute(0, 3, 1, 2)


def _of_pairs(weight: Tensor) -> Tensor:
    """Returns weights for one pixel, out×C×kH×kW, as those for two, (2·out)×(2·C)×kH×(kW+1)/2.

    The right pixel's are the left one's, one column later. Both lack a column, which has zeros.
    """
    own = weight.permute(0, 2, 3, 1)
    out, height, width, channels = own.shape
    both = torch.stack([F.pad(own, (0, 0, 0, 1)), F.pad(own, (0, 0, 1, 0))])
    return both.reshape(2 * out, height, (width + 1) // 2, 2 * channels).permute(0, 3, 1, 2)
