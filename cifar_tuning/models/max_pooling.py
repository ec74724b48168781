"""Max-pooling of 2×2 pixels on a CPU: of each two columns of all images at once, then of each two lines.

PyTorch's looks at one window after the other and keeps a place of eight bytes for each. Operations over whole images
fill the processor's registers however few channels there are. Where the largest stood is one bit a step, and what moves
by it, gradients, is moved as integers of the same size, which costs nothing but the memory's time.
"""

from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from cifar_tuning import kernels
from cifar_tuning.models.layers import is_hooked

# Integers of the same size. Of longer numbers, PyTorch's pooling is as fast.
BITS = {torch.bfloat16: torch.int16, torch.float16: torch.int16}
# Channels from which on PyTorch's is as fast: several passes over what no cache holds.
MANY = 64


def max_pooled(pool: nn.Module, x: Tensor) -> Tensor:
    """Returns `pool(x)`, the faster way where there is one: same values, and same gradients but for 0 beside -0.

    Args:
        pool: any module.
        x: N×C×H×W.
    """
    if not pools_by_lines(pool, x):
        return cast(Tensor, pool(x))
    if torch.is_grad_enabled() and x.requires_grad:
        return cast(Tensor, _Maximum.apply(x))
    return _larger(_lines(torch.maximum(*_columns(x))))


def pools_by_lines(pool: nn.Module, x: Tensor) -> bool:
    """Whether a layer takes the largest of each 2×2 pixels of few channels, in channels_last on a CPU.

    Args:
        pool: any module.
        x: N×C×H×W.
    """
    return (
        x.device.type == "cpu"
        and x.dtype in BITS
        and x.ndim == 4
        and x.shape[1] < MANY
        and x.is_contiguous(memory_format=torch.channels_last)
        and halves(pool, x)
        and not is_hooked(pool)
        and not kernels.left_to_pytorch()
    )


def empty_images(shape: tuple[int, int, int, int], like: Tensor) -> Tensor:
    """Returns room for images in channels_last, of the precision and on the device of other ones."""
    return torch.empty(shape, dtype=like.dtype, device=like.device, memory_format=torch.channels_last)


def halves(pool: nn.Module, x: Tensor) -> bool:
    """Whether a layer takes the largest of each 2×2 pixels, and none is left over."""
    if type(pool) is not nn.MaxPool2d or pool.return_indices or x.shape[2] % 2 or x.shape[3] % 2:
        return False
    return all(
        value in (wanted, (wanted, wanted))
        for value, wanted in ((pool.kernel_size, 2), (pool.stride, 2), (pool.padding, 0), (pool.dilation, 1))
    )


def _columns(x: Tensor) -> tuple[Tensor, ...]:
    """The left and the right of each two columns of N×C×H×W in channels_last: views N×H×W/2×C."""
    n, channels, height, width = x.shape
    return x.permute(0, 2, 3, 1).view(n, height, width // 2, 2, channels).unbind(3)


def _lines(columns: Tensor) -> tuple[Tensor, ...]:
    """The upper and the lower of each two lines of N×H×W/2×C: views N×H/2×W/2×C."""
    return columns.unflatten(1, (-1, 2)).unbind(2)


def _larger(lines: tuple[Tensor, ...]) -> Tensor:
    """The larger of each two lines, N×C×H/2×W/2; no view, so that an operation in place may follow."""
    n, height, width, channels = lines[0].shape
    larger = empty_images((n, channels, height, width), lines[0])
    torch.maximum(*lines, out=larger.permute(0, 2, 3, 1))
    return larger


def _equal(one: Tensor, other: Tensor) -> Tensor:
    """1 or 0 for each pair of bits; PyTorch's way by `bool` takes ten times as long."""
    bits = BITS[one.dtype]
    return torch.eq(one.view(bits), other.view(bits), out=torch.empty_like(other, dtype=bits))


class _Maximum(torch.autograd.Function):
    """Max-pooling of 2×2 pixels; of those with equal bits the first has the gradient. Has first derivatives only."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        columns = _columns(x)
        larger = torch.maximum(*columns)
        lines = _lines(larger)
        largest = _larger(lines)
        ctx.save_for_backward(_equal(columns[0], larger), _equal(lines[0], largest.permute(0, 2, 3, 1)))
        return largest

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        is_left, is_upper = ctx.saved_tensors
        bits = is_left.dtype
        n, channels, height, width = grad.shape
        grads = grad.contiguous(memory_format=torch.channels_last).permute(0, 2, 3, 1).view(bits)
        # Those of the larger column of each line, and 0 where it is not the larger line's.
        of_lines = torch.empty_like(is_left)
        upper, lower = _lines(of_lines)
        torch.mul(grads, is_upper, out=upper)
        torch.sub(grads, upper, out=lower)
        dx = empty_images((n, channels, 2 * height, 2 * width), grad)
        left, right = (column.view(bits) for column in _columns(dx))
        torch.mul(of_lines, is_left, out=left)
        torch.sub(of_lines, left, out=right)
        return dx
