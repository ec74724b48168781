"""A narrow convolution, its batch norm and 2×2 max-pooling, for the four pixels of every window side by side.

The CPU's kernels are written for 16 channels and more. A 5×5 convolution to 8 channels takes as long as one to 16,
batch norm and pooling work on lines of 8. But the four pixels that a window pools may as well be channels: a
convolution of stride 2 whose kernel stands at four places makes them (four times the channels, half the height and
width), the pooling is a maximum of neighbouring channels, and what normalises can be put off until a quarter is left.
"""

from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from cifar_tuning.models.normalization import VECTOR, BatchNorm2d, pixels_per_line

# Where a window's pixels stand (down, right), in the order of their channels. Of equal ones the first by lines has the
# gradient, as in PyTorch: the first is compared with the second of its line, then the lines with each other.
PLACES = ((0, 0), (1, 0), (0, 1), (1, 1))


def applies(conv: nn.Module, norm: nn.Module, x: Tensor) -> bool:
    """Whether `pooled` gives the same as the layers, and faster: in training on a CPU, few channels, channels_last.

    Without batch norm it would be the same and no faster: what the convolution gains, the maximum loses.

    Args:
        conv: the convolution.
        norm: what follows it.
        x: its input, N×C×H×W.
    """
    if not (
        torch.is_grad_enabled()
        and x.device.type == "cpu"
        and x.is_contiguous(memory_format=torch.channels_last)
        and not (torch.compiler.is_compiling() or torch.compiler.is_exporting())
        and type(conv) is nn.Conv2d
        and conv.out_channels < VECTOR
        and (conv.stride, conv.padding, conv.dilation, conv.groups) == ((1, 1), (0, 0), (1, 1), 1)
        and all((side - kernel) % 2 for side, kernel in zip(x.shape[2:], conv.kernel_size, strict=True))
        and type(norm) is BatchNorm2d
        and norm.training
        and not _is_watched(conv)
        and not _is_watched(norm)
    ):
        return False
    # Normalising by a negative factor makes a minimum of a maximum.
    return bool((norm.weight.detach() > 0).all())


def _is_watched(layer: nn.Module) -> bool:
    return bool(layer._forward_hooks or layer._forward_pre_hooks or layer._backward_hooks or layer._backward_pre_hooks)


def pooled(conv: nn.Conv2d, norm: BatchNorm2d, x: Tensor) -> Tensor:
    """Convolves, normalises and pools, where `applies`.

    Args:
        conv: to C channels. A bias is subtracted again by the normalisation, but belongs to the running mean.
        norm: whose running statistics take the batch in.
        x: N×C'×H×W.

    Returns:
        N×C×h×w: half the convolution's height and width.
    """
    places = [F.pad(conv.weight, (right, 1 - right, down, 1 - down)) for down, right in PLACES]
    phases = F.conv2d(x, torch.cat(places), stride=2).contiguous(memory_format=torch.channels_last)
    batch, channels, height, width = phases.shape
    lines = phases.permute(0, 2, 3, 1).reshape(-1, channels)
    y = _NormalizedMaximum.apply(lines, norm.weight, norm.bias, norm, conv.bias)
    return cast(Tensor, y).view(batch, height, width, -1).permute(0, 3, 1, 2)


def _exact(dtype: torch.dtype) -> torch.dtype:
    return dtype if dtype == torch.float64 else torch.float32


def _halves(lines: Tensor) -> tuple[Tensor, Tensor]:
    middle = lines.shape[1] // 2
    return lines[:, :middle], lines[:, middle:]


def _largest(lines: Tensor) -> Tensor:
    """The maximum of each window: M×4C to M×C."""
    return torch.maximum(*_halves(torch.maximum(*_halves(lines))))


def _to_the_largest(grad: Tensor, lines: Tensor) -> Tensor:
    """Hands the gradient M×C of the maximum to the pixel that it came from: M×4C.

    `threshold_backward` is the one operator that masks in whole registers; a comparison and `where` take four times as
    long.
    """
    for pair in (torch.maximum(*_halves(lines)), lines):
        first, second = _halves(pair)
        theirs = torch.ops.aten.threshold_backward(grad, second - first, 0)
        grad = torch.cat([grad - theirs, theirs], 1)
    return grad


class _NormalizedMaximum(torch.autograd.Function):
    """Batch norm over all pixels, then the maximum of each four, M×4C to M×C; computed the other way round."""

    @staticmethod
    def forward(
        ctx: Any, lines: Tensor, weight: Tensor, bias: Tensor, norm: BatchNorm2d, conv_bias: Tensor | None
    ) -> Tensor:
        rows, channels = len(lines), len(weight)
        as_image = lines.view(1, rows, 1, 4 * channels).permute(0, 3, 1, 2)
        unused = torch.zeros(
            4 * channels, dtype=_exact(lines.dtype)
        )  # without, its results are of the images' precision
        means, variances = (s.view(4, -1) for s in torch.batch_norm_update_stats(as_image, unused, unused, 0.0))
        mean = means.mean(0)
        var = (variances + (means - mean).square_()).mean(0)
        _take_in(norm, mean if conv_bias is None else mean + conv_bias.detach(), var * (4 * rows / (4 * rows - 1)))
        invstd = (var + norm.eps).rsqrt_()
        largest = _largest(lines)
        ctx.save_for_backward(lines, largest, weight, mean, invstd)
        scale = weight * invstd
        p = _long(largest, channels)
        wide = p.shape[1] // channels
        normalized = torch.addcmul((bias - mean * scale).repeat(wide), p.to(_exact(lines.dtype)), scale.repeat(wide))
        y = torch.empty_like(largest)  # no view, which must not be changed in place behind
        _long(y, channels).copy_(normalized)
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        lines, largest, weight, mean, invstd = ctx.saved_tensors
        exact, channels, count = _exact(lines.dtype), len(weight), 4 * len(lines)
        dy = _long(grad, channels).to(exact)
        wide = dy.shape[1] // channels
        scale = weight * invstd
        grad_bias = _fold(dy.sum(0), channels)
        centred = _long(largest, channels) - mean.repeat(wide)
        grad_weight = _fold(centred.mul_(dy).sum(0), channels) * invstd
        # dx = w/σ · (dy - mean(dy) - x̂·mean(dy·x̂)), Ioffe and Szegedy 2015, section 3; dy is zero but where a pixel is
        # the largest
        slope = -scale * invstd * grad_weight / count
        shift = -scale * grad_bias / count - slope * mean
        x = lines.to(exact)
        dx = _to_the_largest(dy.mul_(scale.repeat(wide)).view(-1, channels), x)
        long_x, long_dx = _long(x, channels), _long(dx, channels)
        wide = long_x.shape[1] // channels
        long_dx.add_(shift.repeat(wide)).addcmul_(long_x, slope.repeat(wide))
        return dx.to(lines.dtype), grad_weight, grad_bias, None, None


def _long(lines: Tensor, channels: int) -> Tensor:
    """Several lines M×k·C as one: what differs by channel only is done in whole registers then."""
    return lines.view(-1, pixels_per_line(lines.numel() // channels, channels) * channels)


def _fold(line: Tensor, channels: int) -> Tensor:
    return line.view(-1, channels).sum(0)


def _take_in(norm: BatchNorm2d, mean: Tensor, var: Tensor) -> None:
    """Moves the running statistics towards a batch's; its variance is the unbiased one."""
    assert norm.running_mean is not None
    assert norm.running_var is not None
    assert norm.num_batches_tracked is not None
    momentum = float(norm.momentum or 0.0)
    norm.num_batches_tracked.add_(1)
    norm.running_mean.lerp_(mean.to(norm.running_mean.dtype), momentum)
    norm.running_var.lerp_(var.to(norm.running_var.dtype), momentum)
