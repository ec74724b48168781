"""Batch normalisation with the non-linearity and the 2×2 max-pooling behind it, in one pass over the images.

PyTorch's read and write an activation of many small models about fifteen times in a step, with pooling more; these
take N×C×H×W in channels_last as lines of C numbers, read them four times and write them twice.
Statistics are put together from shares of the pixels after Chan, Golub and LeVeque 1979, always in the same order; the
gradient is that of Ioffe and Szegedy 2015, section 3. What was largest in a window is found again in the backward pass.
"""

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor
from torch.autograd.function import once_differentiable

from cifar_tuning.kernels import NONE

# Found on an H200: channels that a program takes, numbers of a tile, programs, shares of the pixels; warps.
CHANNELS, TILE = 32, 4096
PROGRAMS, SHARES = 528, 128
WARPS = 4


@triton.jit
def _activated(z: tl.tensor, ACTIVATION: tl.constexpr) -> tl.tensor:
    """The non-linearity; what is not a number stays so."""
    if ACTIVATION == 1:
        z = tl.where(z < 0, 0.0, z)
    elif ACTIVATION == 2:
        z = z * tl.sigmoid(z)
    return z


@triton.jit
def _slope(z: tl.tensor, ACTIVATION: tl.constexpr) -> tl.tensor:
    """The derivative of the non-linearity."""
    slope = tl.full(z.shape, 1.0, tl.float32)
    if ACTIVATION == 1:
        slope = tl.where(z <= 0, 0.0, 1.0)  # as PyTorch has it for what is not a number
    elif ACTIVATION == 2:
        sigmoid = tl.sigmoid(z)
        slope = sigmoid * (1 + z * (1 - sigmoid))
    return slope


@triton.jit
def _corner(line: tl.tensor, height: tl.tensor, width: tl.tensor) -> tl.tensor:
    """The first of the four pixels that a pooled one is made of; `height` and `width` are the pooled image's."""
    image = line // (height * width)
    row = (line % (height * width)) // width
    return (image * height * 2 + row * 2) * width * 2 + (line % width) * 2


@triton.jit
def _larger(best: tl.tensor, other: tl.tensor) -> tl.tensor:
    """Whether another pixel takes the place of the largest so far; the first of equal ones stays, as in PyTorch."""
    return (other > best) | (other != other)


@triton.jit
def _statistics(
    x: tl.tensor,
    means: tl.tensor,
    squares: tl.tensor,
    pixels: tl.tensor,
    channels: tl.tensor,
    share: tl.tensor,
    LINES: tl.constexpr,
    CHANNELS: tl.constexpr,
) -> None:
    """Mean and sum of squared deviations of a share of the pixels, for each channel."""
    channel = tl.program_id(1) * CHANNELS + tl.arange(0, CHANNELS)
    begin = tl.program_id(0) * share
    end = tl.minimum(begin + share, pixels)
    line = begin + tl.arange(0, LINES)
    known = (line < end)[:, None] & (channel < channels)[None, :]
    first = tl.load(x + line[:, None] * channels + channel[None, :], mask=known, other=0.0).to(tl.float32)
    # Sums of what is near zero lose nothing: a first guess of the mean is taken off.
    guess = tl.sum(first, 0) / tl.minimum(end - begin, LINES)
    ones = tl.zeros((LINES, CHANNELS), dtype=tl.float32)
    twos = tl.zeros((LINES, CHANNELS), dtype=tl.float32)
    for start in tl.range(begin, end, LINES):
        at = start + tl.arange(0, LINES)
        here = (at < end)[:, None] & (channel < channels)[None, :]
        off = tl.load(x + at[:, None] * channels + channel[None, :], mask=here, other=0.0).to(tl.float32)
        off = tl.where(here, off - guess[None, :], 0.0)
        ones += off
        twos += off * off
    total = tl.sum(ones, 0)
    place = tl.program_id(0) * channels + channel
    tl.store(means + place, guess + total / (end - begin), mask=channel < channels)
    tl.store(squares + place, tl.sum(twos, 0) - total * total / (end - begin), mask=channel < channels)


@triton.jit
def _normalize(
    x: tl.tensor,
    y: tl.tensor,
    weight: tl.tensor,
    bias: tl.tensor,
    means: tl.tensor,
    squares: tl.tensor,
    running_mean: tl.tensor,
    running_var: tl.tensor,
    momenta: tl.tensor,
    kept: tl.tensor,
    pixels: tl.tensor,
    channels: tl.tensor,
    share: tl.tensor,
    shares: tl.tensor,
    lines: tl.tensor,
    each: tl.tensor,
    height: tl.tensor,
    width: tl.tensor,
    eps: tl.tensor,
    momentum: tl.tensor,
    NORMALIZED: tl.constexpr,
    OWN_MOMENTA: tl.constexpr,
    ACTIVATION: tl.constexpr,
    POOLED: tl.constexpr,
    SHARES: tl.constexpr,
    LINES: tl.constexpr,
    CHANNELS: tl.constexpr,
) -> None:
    """Puts the statistics together and normalises some lines by them; the first program moves the running ones."""
    channel = tl.program_id(1) * CHANNELS + tl.arange(0, CHANNELS)
    there = channel < channels
    if NORMALIZED:
        part = tl.arange(0, SHARES)
        known = (part < shares)[:, None] & there[None, :]
        count = tl.where(part < shares, tl.minimum(share, pixels - part * share), 0).to(tl.float32)
        place = part[:, None] * channels + channel[None, :]
        mean_of = tl.load(means + place, mask=known, other=0.0)
        square_of = tl.load(squares + place, mask=known, other=0.0)
        mean = tl.sum(mean_of * count[:, None], 0) / pixels
        off = mean_of - mean[None, :]
        square = tl.sum(square_of + off * off * count[:, None], 0)
        deviation = tl.rsqrt(square / pixels + eps)
        if tl.program_id(0) == 0:
            tl.store(kept + channel, mean, mask=there)
            tl.store(kept + channels + channel, deviation, mask=there)
            if OWN_MOMENTA:
                moved = tl.load(momenta + channel, mask=there, other=0.0)
            else:
                moved = tl.zeros((CHANNELS,), dtype=tl.float32) + momentum
            before = tl.load(running_mean + channel, mask=there, other=0.0)
            tl.store(running_mean + channel, before + moved * (mean - before), mask=there)
            spread = tl.load(running_var + channel, mask=there, other=0.0)
            tl.store(running_var + channel, spread + moved * (square / (pixels - 1) - spread), mask=there)
        scale = tl.load(weight + channel, mask=there, other=0.0) * deviation
        offset = tl.load(bias + channel, mask=there, other=0.0) - mean * scale
    else:
        scale = tl.full((CHANNELS,), 1.0, tl.float32)
        offset = tl.zeros((CHANNELS,), dtype=tl.float32)
    begin = tl.program_id(0) * each
    for start in tl.range(begin, tl.minimum(begin + each, lines), LINES):
        line = start + tl.arange(0, LINES)
        here = (line < lines)[:, None] & there[None, :]
        if POOLED:
            corner = x + _corner(line, height, width)[:, None] * channels + channel[None, :]
            best = tl.load(corner, mask=here, other=0.0).to(tl.float32) * scale[None, :] + offset[None, :]
            best = _activated(best, ACTIVATION)
            for other in tl.static_range(1, 4):
                step = ((other // 2) * 2 * width + other % 2) * channels
                z = tl.load(corner + step, mask=here, other=0.0).to(tl.float32) * scale[None, :] + offset[None, :]
                z = _activated(z, ACTIVATION)
                best = tl.where(_larger(best, z), z, best)
        else:
            z = tl.load(x + line[:, None] * channels + channel[None, :], mask=here, other=0.0).to(tl.float32)
            best = _activated(z * scale[None, :] + offset[None, :], ACTIVATION)
        tl.store(y + line[:, None] * channels + channel[None, :], best.to(y.dtype.element_ty), mask=here)


@triton.jit
def _winner(
    corner: tl.tensor,
    here: tl.tensor,
    scale: tl.tensor,
    offset: tl.tensor,
    step_down: tl.tensor,
    step_right: tl.tensor,
    ACTIVATION: tl.constexpr,
) -> tuple[tl.tensor, tl.tensor, tl.tensor]:
    """Which of four pixels was the largest, that pixel, and what it was normalised to."""
    pixel = tl.load(corner, mask=here, other=0.0).to(tl.float32)
    z = pixel * scale[None, :] + offset[None, :]
    best = _activated(z, ACTIVATION)
    index = tl.zeros(z.shape, dtype=tl.int32)
    for other in tl.static_range(1, 4):
        step = (other // 2) * step_down + (other % 2) * step_right
        another = tl.load(corner + step, mask=here, other=0.0).to(tl.float32)
        its = another * scale[None, :] + offset[None, :]
        activated = _activated(its, ACTIVATION)
        takes = _larger(best, activated)
        best = tl.where(takes, activated, best)
        z = tl.where(takes, its, z)
        pixel = tl.where(takes, another, pixel)
        index = tl.where(takes, other, index)
    return index, pixel, z


@triton.jit
def _sums(
    x: tl.tensor,
    grad: tl.tensor,
    weight: tl.tensor,
    bias: tl.tensor,
    kept: tl.tensor,
    sums: tl.tensor,
    channels: tl.tensor,
    share: tl.tensor,
    shares: tl.tensor,
    lines: tl.tensor,
    height: tl.tensor,
    width: tl.tensor,
    ACTIVATION: tl.constexpr,
    POOLED: tl.constexpr,
    LINES: tl.constexpr,
    CHANNELS: tl.constexpr,
) -> None:
    """Sums of the gradient, and of it times what the pixels are off their mean, over a share of the lines."""
    channel = tl.program_id(1) * CHANNELS + tl.arange(0, CHANNELS)
    there = channel < channels
    mean = tl.load(kept + channel, mask=there, other=0.0)
    scale = tl.load(weight + channel, mask=there, other=0.0) * tl.load(kept + channels + channel, mask=there, other=0.0)
    offset = tl.load(bias + channel, mask=there, other=0.0) - mean * scale
    ones = tl.zeros((LINES, CHANNELS), dtype=tl.float32)
    products = tl.zeros((LINES, CHANNELS), dtype=tl.float32)
    begin = tl.program_id(0) * share
    for start in tl.range(begin, tl.minimum(begin + share, lines), LINES):
        line = start + tl.arange(0, LINES)
        here = (line < tl.minimum(begin + share, lines))[:, None] & there[None, :]
        of_outputs = tl.load(grad + line[:, None] * channels + channel[None, :], mask=here, other=0.0).to(tl.float32)
        if POOLED:
            corner = x + _corner(line, height, width)[:, None] * channels + channel[None, :]
            _index, pixel, z = _winner(corner, here, scale, offset, 2 * width * channels, channels, ACTIVATION)
        else:
            pixel = tl.load(x + line[:, None] * channels + channel[None, :], mask=here, other=0.0).to(tl.float32)
            z = pixel * scale[None, :] + offset[None, :]
        of_outputs = of_outputs * _slope(z, ACTIVATION)
        ones += of_outputs
        products += of_outputs * (pixel - mean[None, :])
    place = tl.program_id(0) * channels + channel
    tl.store(sums + place, tl.sum(ones, 0), mask=there)
    tl.store(sums + shares * channels + place, tl.sum(products, 0), mask=there)


@triton.jit
def _differentiate(
    x: tl.tensor,
    grad: tl.tensor,
    of_x: tl.tensor,
    weight: tl.tensor,
    bias: tl.tensor,
    kept: tl.tensor,
    sums: tl.tensor,
    of_both: tl.tensor,
    pixels: tl.tensor,
    channels: tl.tensor,
    shares: tl.tensor,
    lines: tl.tensor,
    each: tl.tensor,
    height: tl.tensor,
    width: tl.tensor,
    NORMALIZED: tl.constexpr,
    ACTIVATION: tl.constexpr,
    POOLED: tl.constexpr,
    SHARES: tl.constexpr,
    LINES: tl.constexpr,
    CHANNELS: tl.constexpr,
) -> None:
    """Puts the sums together and makes the gradient of some lines; the first program that of weight and bias."""
    channel = tl.program_id(1) * CHANNELS + tl.arange(0, CHANNELS)
    there = channel < channels
    if NORMALIZED:
        part = tl.arange(0, SHARES)
        known = (part < shares)[:, None] & there[None, :]
        place = part[:, None] * channels + channel[None, :]
        total = tl.sum(tl.load(sums + place, mask=known, other=0.0), 0)
        product = tl.sum(tl.load(sums + shares * channels + place, mask=known, other=0.0), 0)
        mean = tl.load(kept + channel, mask=there, other=0.0)
        deviation = tl.load(kept + channels + channel, mask=there, other=0.0)
        if tl.program_id(0) == 0:
            tl.store(of_both + channel, product * deviation, mask=there)
            tl.store(of_both + channels + channel, total, mask=there)
        scale = tl.load(weight + channel, mask=there, other=0.0) * deviation
        offset = tl.load(bias + channel, mask=there, other=0.0) - mean * scale
        slant = deviation * deviation * product / pixels
        level = total / pixels
    else:
        scale = tl.full((CHANNELS,), 1.0, tl.float32)
        offset = tl.zeros((CHANNELS,), dtype=tl.float32)
        mean = offset
        slant = offset
        level = offset
    begin = tl.program_id(0) * each
    for start in tl.range(begin, tl.minimum(begin + each, lines), LINES):
        line = start + tl.arange(0, LINES)
        here = (line < lines)[:, None] & there[None, :]
        at = line[:, None] * channels + channel[None, :]
        of_outputs = tl.load(grad + at, mask=here, other=0.0).to(tl.float32)
        if POOLED:
            first = _corner(line, height, width)[:, None] * channels + channel[None, :]
            index, _pixel, z = _winner(x + first, here, scale, offset, 2 * width * channels, channels, ACTIVATION)
            of_outputs = of_outputs * _slope(z, ACTIVATION)
            for other in tl.static_range(0, 4):
                step = ((other // 2) * 2 * width + other % 2) * channels
                own = tl.where(index == other, of_outputs, 0.0)
                if NORMALIZED:
                    pixel = tl.load(x + first + step, mask=here, other=0.0).to(tl.float32)
                    own = scale[None, :] * (own - level[None, :] - (pixel - mean[None, :]) * slant[None, :])
                tl.store(of_x + first + step, own.to(of_x.dtype.element_ty), mask=here)
        else:
            pixel = tl.load(x + at, mask=here, other=0.0).to(tl.float32)
            own = of_outputs * _slope(pixel * scale[None, :] + offset[None, :], ACTIVATION)
            if NORMALIZED:
                own = scale[None, :] * (own - level[None, :] - (pixel - mean[None, :]) * slant[None, :])
            tl.store(of_x + at, own.to(of_x.dtype.element_ty), mask=here)


def _split(lines: int, programs: int, tile: int) -> tuple[int, int]:
    """Returns how many shares of the lines there are, and the lines of one; at most so many, of whole tiles."""
    shares = max(1, min(programs, triton.cdiv(lines, tile)))
    share = triton.cdiv(triton.cdiv(lines, shares), tile) * tile
    return triton.cdiv(lines, share), share


class _Plan:
    """How the programs share an image's lines: N×C×H×W, pooled or not."""

    def __init__(self, x: Tensor, pooled: bool) -> None:
        images, self.channels, height, width = x.shape
        self.pixels = images * height * width
        self.height, self.width = (height // 2, width // 2) if pooled else (height, width)
        self.lines = images * self.height * self.width
        columns = min(CHANNELS, triton.next_power_of_2(self.channels))
        tile = TILE // columns
        self.blocks = triton.cdiv(self.channels, columns)
        programs = max(1, PROGRAMS // self.blocks)
        # A window's four pixels are looked at at once.
        tiles = {"CHANNELS": columns, "LINES": tile // 4 if pooled else tile, "num_warps": WARPS}
        self.tiles, self.whole = tiles, tiles | {"LINES": tile}
        self.shares, self.share = _split(self.pixels, SHARES, tile)
        self.summed, self.summed_share = _split(self.lines, SHARES, tiles["LINES"])
        self.programs, self.each = _split(self.lines, programs, tiles["LINES"])


class _Normalized(torch.autograd.Function):
    """Batch norm in training, a non-linearity, and perhaps max-pooling; has first derivatives only."""

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        weight: Tensor,
        bias: Tensor,
        running: tuple[Tensor, Tensor],
        momentum: float | Tensor,
        eps: float,
        activation: int,
        pooled: bool,
    ) -> Tensor:
        plan = _Plan(x, pooled)
        means, squares = torch.empty((2, plan.shares, plan.channels), device=x.device, dtype=torch.float32).unbind()
        kept = torch.empty((2, plan.channels), device=x.device, dtype=torch.float32)
        shape = (len(x), plan.channels, plan.height, plan.width)
        y = torch.empty(shape, device=x.device, dtype=x.dtype, memory_format=torch.channels_last)
        own = isinstance(momentum, Tensor)
        with torch.cuda.device(x.device):
            _statistics[(plan.shares, plan.blocks)](
                x, means, squares, plan.pixels, plan.channels, plan.share, **plan.whole
            )
            _normalize[(plan.programs, plan.blocks)](
                x,
                y,
                weight,
                bias,
                means,
                squares,
                *running,
                momentum if own else weight,
                kept,
                plan.pixels,
                plan.channels,
                plan.share,
                plan.shares,
                plan.lines,
                plan.each,
                plan.height,
                plan.width,
                eps,
                0.0 if own else momentum,
                NORMALIZED=True,
                OWN_MOMENTA=own,
                ACTIVATION=activation,
                POOLED=pooled,
                SHARES=triton.next_power_of_2(plan.shares),
                **plan.tiles,
            )
        ctx.save_for_backward(x, weight, bias, kept)
        ctx.activation, ctx.pooled = activation, pooled
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        x, weight, bias, kept = ctx.saved_tensors
        plan = _Plan(x, ctx.pooled)
        grad = grad.contiguous(memory_format=torch.channels_last)
        sums = torch.empty((2, plan.summed, plan.channels), device=x.device, dtype=torch.float32)
        of_both = torch.empty((2, plan.channels), device=x.device, dtype=torch.float32)
        with torch.cuda.device(x.device):
            _sums[(plan.summed, plan.blocks)](
                x,
                grad,
                weight,
                bias,
                kept,
                sums,
                plan.channels,
                plan.summed_share,
                plan.summed,
                plan.lines,
                plan.height,
                plan.width,
                ACTIVATION=ctx.activation,
                POOLED=ctx.pooled,
                **plan.tiles,
            )
        of_x = _gradient(x, grad, (weight, bias, kept, sums, of_both), plan, ctx.activation, ctx.pooled)
        return of_x, *of_both.unbind(), None, None, None, None, None


class _Pooled(torch.autograd.Function):
    """A non-linearity and 2×2 max-pooling without anything before; has first derivatives only."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, activation: int) -> Tensor:
        plan = _Plan(x, True)
        shape = (len(x), plan.channels, plan.height, plan.width)
        y = torch.empty(shape, device=x.device, dtype=x.dtype, memory_format=torch.channels_last)
        with torch.cuda.device(x.device):
            _normalize[(plan.programs, plan.blocks)](
                x,
                y,
                *[x] * 8,  # not looked at
                plan.pixels,
                plan.channels,
                plan.share,
                plan.shares,
                plan.lines,
                plan.each,
                plan.height,
                plan.width,
                0.0,
                0.0,
                NORMALIZED=False,
                OWN_MOMENTA=False,
                ACTIVATION=activation,
                POOLED=True,
                SHARES=1,
                **plan.tiles,
            )
        ctx.save_for_backward(x)
        ctx.activation = activation
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        (x,) = ctx.saved_tensors
        grad = grad.contiguous(memory_format=torch.channels_last)
        return _gradient(x, grad, None, _Plan(x, True), ctx.activation, True), None


def _gradient(
    x: Tensor, grad: Tensor, normalization: tuple[Tensor, ...] | None, plan: _Plan, activation: int, pooled: bool
) -> Tensor:
    """Returns the gradient of what was normalised (by weight, bias, statistics, sums; theirs goes to the last)."""
    of_x = torch.empty_like(x)
    with torch.cuda.device(x.device):
        _differentiate[(plan.programs, plan.blocks)](
            x,
            grad,
            of_x,
            *(normalization or [x] * 5),
            plan.pixels,
            plan.channels,
            plan.summed,
            plan.lines,
            plan.each,
            plan.height,
            plan.width,
            NORMALIZED=normalization is not None,
            ACTIVATION=activation,
            POOLED=pooled,
            SHARES=triton.next_power_of_2(plan.summed),
            **plan.tiles,
        )
    return of_x


def normalize(
    x: Tensor,
    weight: Tensor,
    bias: Tensor,
    running: tuple[Tensor, Tensor],
    momentum: float | Tensor,
    eps: float,
    activation: int = NONE,
    pooled: bool = False,
) -> Tensor:
    """Normalises images by their own statistics, and goes on with what comes behind.

    Args:
        x: N×C×H×W on a GPU, channels_last, bf16.
        weight: float32, C.
        bias: float32, C.
        running: mean and variance, float32, C each, which are moved towards the batch's.
        momentum: how far, one for all or float32, C.
        eps: added to the variance.
        activation: `NONE`, `RELU` or `SILU`.
        pooled: whether the largest of each 2×2 pixels is taken at last; H and W are even.

    Returns:
        bf16 in channels_last, N×C×H×W or N×C×H/2×W/2.
    """
    y: Tensor = _Normalized.apply(x, weight, bias, running, momentum, eps, activation, pooled)
    return y


def pool(x: Tensor, activation: int = NONE) -> Tensor:
    """Takes the largest of each 2×2 pixels behind a non-linearity.

    Args:
        x: N×C×H×W on a GPU, channels_last, bf16; H and W are even.
        activation: `NONE`, `RELU` or `SILU`.

    Returns:
        N×C×H/2×W/2 in channels_last.
    """
    y: Tensor = _Pooled.apply(x, activation)
    return y
