"""Convolutions of few channels in groups, as matrix products over patches that are gathered on the way.

cuDNN has no fast kernels for them: on an H200 forward and backward pass of eight ResNet-20s' first convolution with
stride 2, side by side, take 812 µs, of 32 SimpleNNs' second convolution 391 µs, of their first 230; here 169, 149 and
115 (`docs/performance.md`). With 16 channels a group and more, and stride 1, cuDNN is as fast or faster.

The three passes (Dumoulin and Visin 2016, "A guide to convolution arithmetic", section 4) are two kernels: what the
forward pass gathers by `pixel·stride - padding + tap`, that for the input gathers by the inverse of it.
"""

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor
from torch.autograd.function import once_differentiable

# Found on an H200: output pixels and numbers of a patch that a program takes at a time, warps, programs of a reduction.
PIXELS, PATCH = 128, 32
SUMMED_PIXELS, SUMMED_PATCH = 64, 128
WARPS, PROGRAMS = 4, 528
# Fewest and most columns of a matrix product.
NARROW, WIDE = 16, 128


@triton.jit
def _convolve(
    x: tl.tensor,
    weight: tl.tensor,
    bias: tl.tensor,
    y: tl.tensor,
    pixels: tl.tensor,
    height: tl.tensor,
    width: tl.tensor,
    out_height: tl.tensor,
    out_width: tl.tensor,
    in_line: tl.tensor,
    out_units: tl.tensor,
    units: tl.tensor,
    blocks: tl.tensor,
    of_group: tl.tensor,
    of_out: tl.tensor,
    of_row: tl.tensor,
    of_column: tl.tensor,
    of_in: tl.tensor,
    IN: tl.constexpr,
    UNIT: tl.constexpr,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
    STRIDE: tl.constexpr,
    PADDING: tl.constexpr,
    TRANSPOSED: tl.constexpr,
    BIASED: tl.constexpr,
    PIXELS: tl.constexpr,
    CHANNELS: tl.constexpr,
    PATCH: tl.constexpr,
) -> None:
    """Computes some pixels of some channels of a group; TRANSPOSED: of the gradient of its input."""
    group = tl.program_id(1) // blocks
    out = (tl.program_id(1) % blocks) * CHANNELS + tl.arange(0, CHANNELS)
    out_here = out // UNIT < units
    out_place = group * units * UNIT + out
    pixel = tl.program_id(0) * PIXELS + tl.arange(0, PIXELS)
    image = pixel // (out_height * out_width)
    row = (pixel % (out_height * out_width)) // out_width
    column = pixel % out_width
    total = tl.zeros((PIXELS, CHANNELS), dtype=tl.float32)
    for start in tl.range(0, ROWS * COLUMNS * IN, PATCH, num_stages=1):
        place = start + tl.arange(0, PATCH)
        tap = place // IN
        channel = place % IN
        down = tap // COLUMNS
        right = tap % COLUMNS
        if TRANSPOSED:
            # Added first: what is divided must not be negative, for it is rounded towards zero.
            above = row[:, None] + PADDING - down[None, :]
            before = column[:, None] + PADDING - right[None, :]
            from_row = above // STRIDE
            from_column = before // STRIDE
            inside = (above >= 0) & (before >= 0) & (from_row < height) & (from_column < width)
            if STRIDE > 1:
                inside = inside & (above % STRIDE == 0) & (before % STRIDE == 0)
        else:
            from_row = row[:, None] * STRIDE - PADDING + down[None, :]
            from_column = column[:, None] * STRIDE - PADDING + right[None, :]
            inside = (from_row >= 0) & (from_column >= 0) & (from_row < height) & (from_column < width)
        inside = inside & (pixel < pixels)[:, None] & (place < ROWS * COLUMNS * IN)[None, :]
        line = (image[:, None] * height + from_row) * width + from_column
        patch = tl.load(x + line * in_line + (group * IN + channel)[None, :], mask=inside, other=0.0)
        weights = tl.load(
            weight
            + group * of_group
            + (down * of_row + right * of_column + channel * of_in)[:, None]
            + out[None, :] * of_out,
            mask=(place < ROWS * COLUMNS * IN)[:, None] & out_here[None, :],
            other=0.0,
        )
        total = tl.dot(patch, weights.to(tl.bfloat16), total)
    if BIASED:
        total += tl.load(bias + out_place, mask=out_here, other=0.0).to(tl.float32)[None, :]
    tl.store(
        y + pixel[:, None] * (out_units * UNIT) + out_place[None, :],
        total.to(y.dtype.element_ty),
        mask=(pixel < pixels)[:, None] & out_here[None, :],
    )


@triton.jit
def _sum_for_weights(
    x: tl.tensor,
    grad: tl.tensor,
    sums: tl.tensor,
    pixels: tl.tensor,
    height: tl.tensor,
    width: tl.tensor,
    out_height: tl.tensor,
    out_width: tl.tensor,
    in_line: tl.tensor,
    out_units: tl.tensor,
    units: tl.tensor,
    blocks: tl.tensor,
    share: tl.tensor,
    size: tl.tensor,
    IN: tl.constexpr,
    UNIT: tl.constexpr,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
    STRIDE: tl.constexpr,
    PADDING: tl.constexpr,
    PIXELS: tl.constexpr,
    CHANNELS: tl.constexpr,
    PATCH: tl.constexpr,
) -> None:
    """Sums patches times gradients over a share of the pixels: a part of the gradient of some weights of a group."""
    group = tl.program_id(1) // blocks
    out = (tl.program_id(1) % blocks) * CHANNELS + tl.arange(0, CHANNELS)
    out_here = out // UNIT < units
    out_place = group * units * UNIT + out
    place = tl.program_id(2) * PATCH + tl.arange(0, PATCH)
    tap = place // IN
    channel = place % IN
    down = tap // COLUMNS
    right = tap % COLUMNS
    total = tl.zeros((PATCH, CHANNELS), dtype=tl.float32)
    begin = tl.program_id(0) * share
    end = tl.minimum(begin + share, pixels)
    for start in tl.range(begin, end, PIXELS, num_stages=3):
        pixel = start + tl.arange(0, PIXELS)
        image = pixel // (out_height * out_width)
        row = (pixel % (out_height * out_width)) // out_width
        column = pixel % out_width
        known = pixel < end
        of_outputs = tl.load(
            grad + pixel[:, None] * (out_units * UNIT) + out_place[None, :],
            mask=known[:, None] & out_here[None, :],
            other=0.0,
        )
        from_row = (row * STRIDE - PADDING)[:, None] + down[None, :]
        from_column = (column * STRIDE - PADDING)[:, None] + right[None, :]
        inside = (from_row >= 0) & (from_column >= 0) & (from_row < height) & (from_column < width)
        inside = inside & known[:, None] & (place < ROWS * COLUMNS * IN)[None, :]
        line = (image[:, None] * height + from_row) * width + from_column
        patch = tl.load(x + line * in_line + (group * IN + channel)[None, :], mask=inside, other=0.0)
        total = tl.dot(tl.trans(patch), of_outputs, total)
    tl.store(
        sums + tl.program_id(0) * size + out_place[None, :] * (ROWS * COLUMNS * IN) + place[:, None],
        total,
        mask=out_here[None, :] & (place < ROWS * COLUMNS * IN)[:, None],
    )


def _columns(channels: int) -> int:
    return min(max(NARROW, triton.next_power_of_2(channels)), WIDE)


def _unit(channels: int) -> int:
    """Returns what a kernel counts channels in, so that it reads and writes eight at a time.

    It is compiled for that, not for their number, which a stack's first layer has as many of as there are runs.
    """
    return 8 if channels % 8 == 0 else 1


def _gather(
    x: Tensor, weight: Tensor, bias: Tensor | None, y: Tensor, groups: int, stride: int, padding: int, transposed: bool
) -> None:
    """Fills y by a convolution of x with weights out×in×rows×columns; transposed: by the gradient of one."""
    in_line, height, width = x.shape[1:]
    images, out_line, out_height, out_width = y.shape
    outs, ins, row, column = weight.stride()
    inputs, outputs = in_line // groups, out_line // groups
    # The rows of the weights are grouped; of a transposed convolution they are what comes in.
    of_group = (inputs if transposed else outputs) * outs
    of_out, of_in = (ins, outs) if transposed else (outs, ins)
    columns, unit, pixels = _columns(outputs), _unit(outputs), images * out_height * out_width
    blocks = triton.cdiv(outputs, columns)
    with torch.cuda.device(x.device):
        _convolve[(triton.cdiv(pixels, PIXELS), groups * blocks)](
            x,
            weight,
            weight if bias is None else bias,
            y,
            pixels,
            height,
            width,
            out_height,
            out_width,
            in_line,
            out_line // unit,
            outputs // unit,
            blocks,
            of_group,
            of_out,
            row,
            column,
            of_in,
            IN=inputs,
            UNIT=unit,
            ROWS=weight.shape[2],
            COLUMNS=weight.shape[3],
            STRIDE=stride,
            PADDING=padding,
            TRANSPOSED=transposed,
            BIASED=bias is not None,
            PIXELS=PIXELS,
            CHANNELS=columns,
            PATCH=PATCH,
            num_warps=WARPS,
        )


def _gradient_of_weights(x: Tensor, grad: Tensor, shape: torch.Size, groups: int, stride: int, padding: int) -> Tensor:
    """Returns the gradient of weights of a shape, float32: sums over shares of the pixels, always in the same order."""
    in_line, height, width = x.shape[1:]
    images, out_line, out_height, out_width = grad.shape
    rows, columns = shape[2:]
    inputs, outputs = in_line // groups, out_line // groups
    length, pixels = rows * columns * inputs, images * out_height * out_width
    wide, unit = _columns(outputs), _unit(outputs)
    patch = min(max(NARROW, triton.next_power_of_2(length)), SUMMED_PATCH)
    blocks, patches = triton.cdiv(outputs, wide), triton.cdiv(length, patch)
    shares = min(triton.cdiv(PROGRAMS, groups * blocks * patches), triton.cdiv(pixels, SUMMED_PIXELS))
    share = triton.cdiv(triton.cdiv(pixels, shares), SUMMED_PIXELS) * SUMMED_PIXELS
    shares = triton.cdiv(pixels, share)
    sums = torch.empty((shares, out_line, length), device=x.device, dtype=torch.float32)
    with torch.cuda.device(x.device):
        _sum_for_weights[(shares, groups * blocks, patches)](
            x,
            grad,
            sums,
            pixels,
            height,
            width,
            out_height,
            out_width,
            in_line,
            out_line // unit,
            outputs // unit,
            blocks,
            share,
            out_line * length,
            IN=inputs,
            UNIT=unit,
            ROWS=rows,
            COLUMNS=columns,
            STRIDE=stride,
            PADDING=padding,
            PIXELS=SUMMED_PIXELS,
            CHANNELS=wide,
            PATCH=patch,
            num_warps=WARPS,
        )
    return sums.sum(0).view(out_line, rows, columns, inputs).permute(0, 3, 1, 2)


class _Convolution(torch.autograd.Function):
    """A convolution in bf16 whose weights stay in float32; has first derivatives only."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None, groups: int, stride: int, padding: int
    ) -> Tensor:
        height, width = (
            (size + 2 * padding - kernel) // stride + 1
            for size, kernel in zip(x.shape[2:], weight.shape[2:], strict=True)
        )
        shape = (len(x), len(weight), height, width)
        y = torch.empty(shape, device=x.device, dtype=torch.bfloat16, memory_format=torch.channels_last)
        _gather(x, weight, bias, y, groups, stride, padding, False)
        ctx.save_for_backward(x, weight)
        ctx.numbers, ctx.biased = (groups, stride, padding), bias is not None
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        x, weight = ctx.saved_tensors
        grad = grad.contiguous(memory_format=torch.channels_last)
        of_x = of_weight = of_bias = None
        if ctx.needs_input_grad[0]:
            of_x = torch.empty_like(x)
            groups, stride, padding = ctx.numbers
            _gather(grad, weight, None, of_x, groups, stride, padding, True)
        if ctx.needs_input_grad[1]:
            of_weight = _gradient_of_weights(x, grad, weight.shape, *ctx.numbers)
        if ctx.biased and ctx.needs_input_grad[2]:
            of_bias = grad.sum((0, 2, 3), dtype=torch.float32)
        return of_x, of_weight, of_bias, None, None, None


def convolve(x: Tensor, weight: Tensor, bias: Tensor | None, groups: int, stride: int, padding: int) -> Tensor:
    """Convolves images, as `F.conv2d` does.

    Args:
        x: N×(groups·in)×H×W on a GPU, channels_last, bf16 or float32.
        weight: float32, (groups·out)×in×rows×columns, in any layout.
        bias: float32, groups·out.
        groups: how many convolutions are side by side.
        stride: of both directions.
        padding: zeros on all four sides.

    Returns:
        bf16 in channels_last, N×(groups·out)×H'×W'.
    """
    y: Tensor = _Convolution.apply(x.to(torch.bfloat16), weight, bias, groups, stride, padding)
    return y
