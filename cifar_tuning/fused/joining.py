"""Features of several models side by side: one copy of many short pieces."""

from collections.abc import Sequence
from typing import Any, cast

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

# The widest number that PyTorch copies; nothing is computed with it. Eight channels in bf16 are one, and are copied
# three times as fast as eight numbers.
WIDEST = torch.complex128


def cat_channels(features: Sequence[Tensor]) -> Tensor:
    """Joins features of several models, N×C×H×W each, to N×ΣC×H×W; all in one memory format, which stays."""
    if all(_in_wide_numbers(each) for each in features):
        return cast(Tensor, _CatChannels.apply(*features))
    return torch.cat(list(features), 1)


def _in_wide_numbers(x: Tensor) -> bool:
    """Whether a pixel's channels fill whole wide numbers, one after the other in memory."""
    return (
        x.device.type == "cpu"
        and x.is_contiguous(memory_format=torch.channels_last)
        and x.shape[1] * x.element_size() % WIDEST.itemsize == 0
        and x.storage_offset() * x.element_size() % WIDEST.itemsize == 0
    )


def _wide(x: Tensor) -> Tensor:
    """N×C×H×W in channels_last as a view N×H×W×(wide numbers)."""
    n, channels, height, width = x.shape
    # The stride of a single pixel may be any number, which `view` would not accept.
    strides = height * width * channels, width * channels, channels, 1
    return x.as_strided((n, height, width, channels), strides).view(WIDEST)


class _CatChannels(torch.autograd.Function):
    """`torch.cat` along the channels of images in channels_last; has first derivatives only."""

    @staticmethod
    def forward(ctx: Any, *features: Tensor) -> Tensor:
        ctx.channels = [each.shape[1] for each in features]
        n, _, height, width = features[0].shape
        first, shape = features[0], (n, sum(ctx.channels), height, width)
        joined = torch.empty(shape, dtype=first.dtype, device=first.device, memory_format=torch.channels_last)
        torch.cat([_wide(each) for each in features], 3, out=_wide(joined))
        return joined

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, ...]:
        wide = _wide(grad.contiguous(memory_format=torch.channels_last))
        sizes = [channels * grad.element_size() // WIDEST.itemsize for channels in ctx.channels]
        parts = (part.contiguous().view(grad.dtype) for part in wide.split(sizes, 3))
        return tuple(part.permute(0, 3, 1, 2) for part in parts)
