"""Max-pooling of 2×2 pixels on a CPU: of each two columns of all images at once, then of each two lines.

PyTorch's looks at one window after the other and keeps a place of eight bytes for each. Operations over whole images
fill the processor's registers however few channels there are. Where the largest stood is one bit a step, and what moves
by it, gradients, is moved as integers of the same size, which costs nothing but the memory's time.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

# Integers of the same size.
BITS = {torch.bfloat16: torch.int16, torch.float16: torch.int16, torch.float32: torch.int32, torch.float64: torch.int64}
Function = Callable[[Tensor], Tensor]
# Channels from which on PyTorch's kernel is as fast, and those from which on it is faster where there is more to do
# than to find the largest: several passes over what no cache holds.
MANY, WIDE = 64, 32


@dataclass(frozen=True)
class Places:
    """Which of its four pixels each window takes: an integer, 1 or 0, of as many bytes as a pixel has.

    Attributes:
        left: of each line of two pixels, whether it is the left one, N×H×W/2×C.
        upper: of each two lines, whether it is the upper one, N×H/2×W/2×C.
    """

    left: Tensor
    upper: Tensor


def pools_by_lines(pool: nn.Module, x: Tensor) -> bool:
    """Whether a layer takes the largest of each 2×2 pixels, none left over, of images in channels_last on a CPU.

    Args:
        pool: any module.
        x: N×C×H×W, of fewer than `MANY` channels.
    """
    return x.shape[1] < MANY and halves(pool, x) and in_channels_last(x)


def in_channels_last(x: Tensor) -> bool:
    """Whether images N×C×H×W are on a CPU, of a precision and in the layout that is made for, and not traced."""
    return (
        x.device.type == "cpu"
        and x.dtype in BITS
        and x.is_contiguous(memory_format=torch.channels_last)
        and not (torch.compiler.is_compiling() or torch.compiler.is_exporting())
    )


def halves(pool: nn.Module, x: Tensor) -> bool:
    """Whether a layer takes the largest of each 2×2 pixels, and none is left over."""
    if type(pool) is not nn.MaxPool2d or pool.return_indices or x.shape[2] % 2 or x.shape[3] % 2:
        return False
    return all(
        value in (wanted, (wanted, wanted))
        for value, wanted in ((pool.kernel_size, 2), (pool.stride, 2), (pool.padding, 0), (pool.dilation, 1))
    )


def max_pooled(x: Tensor, valley: Function | None = None) -> Tensor:
    """Returns the largest of each 2×2 pixels, N×C×H/2×W/2.

    Of equal ones, the first has the gradient, as in PyTorch; not so of different ones with one value in a valley.

    Args:
        x: as `pools_by_lines` wants it.
        valley: a function that falls, then rises; the pixel for which it is largest is taken instead. That is the
            largest pixel of a window, or the smallest.
    """
    if torch.is_grad_enabled() and x.requires_grad:
        pooled: Tensor = _Maximum.apply(x, valley)
        return pooled
    most = _picked(_lines(torch.maximum(*_columns(x))), torch.maximum)
    if valley is None:
        return most
    least = _picked(_lines(torch.minimum(*_columns(x))), torch.minimum)
    return _higher(most, least, valley)


def largest(x: Tensor, valley: Function | None = None) -> tuple[Tensor, Places]:
    """Returns what `max_pooled` does, and where it stands."""
    columns = _columns(x)
    larger = torch.maximum(*columns)
    left = _equal(columns[0], larger)
    lines = _lines(larger)
    most = _picked(lines, torch.maximum)
    upper = _equal(lines[0], most.permute(0, 2, 3, 1))
    if valley is None:
        return most, Places(left, upper)
    lines = _lines(torch.minimum(*columns))
    least = _picked(lines, torch.minimum)
    chosen = _higher(most, least, valley)
    # Which of both it is: equal ones stand in the same place, or in one as good.
    is_most = _equal(chosen, most).permute(0, 2, 3, 1)
    upper = _chosen(is_most, upper, _equal(lines[0], least.permute(0, 2, 3, 1)))
    # Of two pixels that differ, the one that is not the larger is the smaller.
    both = torch.empty_like(left)
    for line in _lines(both):
        line.copy_(is_most)
    return chosen, Places(torch.eq(both, left, out=left), upper)


def put_back(values: Tensor, places: Places) -> Tensor:
    """Returns images N×C×H×W with a value for each window, N×C×H/2×W/2, where it belongs, and zeros."""
    images = torch.empty(
        (*values.shape[:2], 2 * values.shape[2], 2 * values.shape[3]),
        dtype=values.dtype,
        memory_format=torch.channels_last,
    )
    of_lines = _of_lines(values, places)
    left, right = (column.view(of_lines.dtype) for column in _columns(images))
    torch.mul(of_lines, places.left, out=left)
    torch.sub(of_lines, left, out=right)
    return images


def set_back(images: Tensor, values: Tensor, places: Places) -> None:
    """Sets the pixel of images N×C×H×W that each window takes to a value of its own, N×C×H/2×W/2."""
    of_lines = _of_lines(values, places)
    taken = torch.empty_like(places.left)
    upper, lower = _lines(taken)
    upper.copy_(places.upper)
    torch.sub(1, places.upper, out=lower)
    of_left = taken * places.left
    for column, taken_here in zip(_columns(images), (of_left, taken.sub_(of_left)), strict=True):
        column.view(taken.dtype).mul_(1 - taken_here).add_(of_lines * taken_here)


def _of_lines(values: Tensor, places: Places) -> Tensor:
    """A value for each window as one for each of its lines, bits, 0 for the one that does not have it."""
    bits = values.permute(0, 2, 3, 1).view(BITS[values.dtype])
    of_lines = torch.empty_like(places.left)
    upper, lower = _lines(of_lines)
    torch.mul(bits, places.upper, out=upper)
    torch.sub(bits, upper, out=lower)
    return of_lines


def _picked(lines: Sequence[Tensor], pick: Callable[..., Tensor]) -> Tensor:
    """What is picked of each two lines, N×C×H/2×W/2; no view, so that an operation in place may follow."""
    n, height, width, channels = lines[0].shape
    shape = n, channels, height, width
    picked = torch.empty(shape, dtype=lines[0].dtype, memory_format=torch.channels_last)
    pick(*lines, out=picked.permute(0, 2, 3, 1))
    return picked


def _higher(most: Tensor, least: Tensor, valley: Function) -> Tensor:
    """Returns that of two pixels for which a function is larger; the first where it is the same."""
    heights = valley(most), valley(least)
    is_most = _equal(heights[0], torch.maximum(*heights))
    chosen = torch.empty_like(most)
    bits = is_most.dtype
    _chosen(is_most, most.view(bits), least.view(bits), chosen.view(bits))
    return chosen


def _equal(one: Tensor, other: Tensor) -> Tensor:
    """1 or 0 for each pair of bits; PyTorch's way by `bool` takes ten times as long."""
    bits = BITS[one.dtype]
    return torch.eq(one.view(bits), other.view(bits), out=torch.empty_like(other, dtype=bits))


def _chosen(which: Tensor, one: Tensor, other: Tensor, out: Tensor | None = None) -> Tensor:
    """One integer where `which` is 1, the other where it is 0."""
    return torch.sub(one, other, out=out).mul_(which).add_(other)


def _columns(x: Tensor) -> tuple[Tensor, ...]:
    """The left and the right of each two columns of N×C×H×W in channels_last: views N×H×W/2×C."""
    n, channels, height, width = x.shape
    return x.permute(0, 2, 3, 1).view(n, height, width // 2, 2, channels).unbind(3)


def _lines(columns: Tensor) -> tuple[Tensor, ...]:
    """The upper and the lower of each two lines of N×H×W/2×C: views N×H/2×W/2×C."""
    return columns.unflatten(1, (-1, 2)).unbind(2)


class _Maximum(torch.autograd.Function):
    """Max-pooling of 2×2 pixels; has first derivatives only."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, valley: Function | None) -> Tensor:
        y, places = largest(x, valley)
        ctx.save_for_backward(places.left, places.upper)
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        return put_back(grad.contiguous(memory_format=torch.channels_last), Places(*ctx.saved_tensors)), None
