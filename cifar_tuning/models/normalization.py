"""Batch normalisation, with a way around a slow case of PyTorch's CPU kernels: few channels.

N×C×H×W in channels_last is a matrix of N·H·W lines of C numbers, so it is as well one of lines of k·C: several pixels
side by side, wide enough for whole registers. What is found for the k·C columns is put together k to 1.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from cifar_tuning import kernels

# One AVX-512 register of float32, the width the CPU kernels are written for. Forward and backward pass of 128×8×28×28
# in bf16 take 3.5 ms on one core, 2.0 by the way below; 16 channels and more are faster by PyTorch's own.
VECTOR = 16
LINE = 512


def as_lines(x: Tensor) -> Tensor:
    """Several pixels as one long line: a view of N×C×H×W in channels_last, lines × (k·C).

    k is a power of two that divides the number of pixels; a line has at most `LINE` numbers.
    """
    channels, pixels = x.shape[1], 1
    count = x.numel() // channels
    while count % (2 * pixels) == 0 and 2 * pixels * channels <= LINE:
        pixels *= 2
    return x.permute(0, 2, 3, 1).view(-1, pixels * channels)


def as_wide_image(x: Tensor) -> Tensor:
    """Few channels as many, of a part of the pixels each: a view of N×C×H×W in channels_last, 1×(k·C)×lines×1."""
    lines = as_lines(x)
    return lines.view(1, len(lines), 1, -1).permute(0, 3, 1, 2)


def repeated(each: Tensor, wide: Tensor) -> Tensor:
    """A number for each channel, C, as one for each of a wide image's, k·C."""
    return each.repeat(wide.shape[1] // len(each))


def statistics(x: Tensor) -> tuple[Tensor, Tensor, int]:
    """Returns mean and biased variance of each channel, C each, and the number of pixels they are of.

    Put together from those of a wide image after Chan, Golub and LeVeque 1979.
    """
    wide = as_wide_image(x)
    # Running statistics that are not moved; without any, the results would be of the images' precision.
    unused = torch.zeros(wide.shape[1], dtype=torch.promote_types(x.dtype, torch.float32))
    means, variances = (s.view(-1, x.shape[1]) for s in torch.batch_norm_update_stats(wide, unused, unused, 0.0))
    mean = means.mean(0)
    return mean, (variances + (means - mean).square_()).mean(0), x.numel() // x.shape[1]


def normalized(x: Tensor, weight: Tensor, bias: Tensor, mean: Tensor, var: Tensor, eps: float) -> Tensor:
    """Normalises N×C×H×W by statistics that are given."""
    y, wide = torch.empty_like(x), as_wide_image(x)  # what follows may change it in place, so it must not be a view
    w, b, m, v = (repeated(each, wide) for each in (weight, bias, mean, var))
    unused = torch.empty(0, dtype=mean.dtype)
    torch.native_batch_norm(wide, w, b, m, v, False, 0.0, eps, out=(as_wide_image(y), unused, unused.clone()))
    return y


def gradient_sums(
    grad: Tensor, x: Tensor, weight: Tensor, mean: Tensor, var: Tensor, eps: float
) -> tuple[Tensor, Tensor]:
    """Returns the gradients of a normalisation's weight and bias, C each: the sums of dy·x̂ and of dy."""
    wide = as_wide_image(x)
    w, m, v = (repeated(each, wide) for each in (weight, mean, var))
    _, *sums = torch.ops.aten.native_batch_norm_backward(
        as_wide_image(grad), wide, w, m, v, None, None, False, eps, [False, True, True]
    )
    grad_weight, grad_bias = (each.view(-1, x.shape[1]).sum(0) for each in sums)
    return grad_weight, grad_bias


def terms_of_statistics(
    x: Tensor, count: int, scale: Tensor, sums: tuple[Tensor, Tensor], mean: Tensor, var: Tensor, eps: float
) -> Tensor:
    """Returns the part of batch norm's input gradient that comes by way of the batch's own mean and variance.

    dx = w/σ · (dy - mean(dy) - x̂·mean(dy·x̂)), Ioffe and Szegedy 2015, section 3: its last two terms. They are small
    beside the first, dy·w/σ: add that in float32 and round the sum once, or the error is the same for all pixels.

    Args:
        x: what was normalised, or some pixels of it, N×C×H×W.
        count: all pixels.
        scale: w/σ.
        sums: `gradient_sums` over all pixels.
        mean, var: of the batch; eps is added to the latter.
    """
    grad_weight, grad_bias = sums
    slope, offset = -scale * (var + eps).rsqrt() * grad_weight / count, -scale * grad_bias / count
    return normalized(x, slope, offset, mean, torch.full_like(var, 1 - eps), eps)


def keeps_statistics(norm: nn.Module) -> bool:
    """Whether a layer has what the ways around need: weights in full precision, and running statistics."""
    weight = getattr(norm, "weight", None)
    whole = weight is not None and weight.dtype in (torch.float32, torch.float64)
    return whole and getattr(norm, "running_mean", None) is not None


def on_gpu(norm: Any, x: Tensor, activation: int = kernels.NONE, pooled: bool = False) -> Tensor | None:
    """Normalises by the batch's statistics, and does what comes behind, by a kernel of our own for GPUs.

    Args:
        norm: has PyTorch's attributes of a batch norm; `momenta`, C, where `momentum` is None.
        x: N×C×H×W.
        activation: one of those that `kernels` knows.
        pooled: whether the largest of each 2×2 pixels is taken at last.

    Returns:
        None where there is no such kernel.
    """
    if x.dtype != torch.bfloat16 or not kernels.usable(x) or not norm.training or x.numel() == x.shape[1]:
        return None
    momentum = getattr(norm, "momenta", None) if norm.momentum is None else norm.momentum
    if momentum is None:
        return None
    running = norm.running_mean, norm.running_var
    each = [norm.weight, norm.bias, *running, *([momentum] if isinstance(momentum, Tensor) else [])]
    if not all(kernels.plain(one, x.device) and one.shape == x.shape[1:2] and one.is_contiguous() for one in each):
        return None
    from cifar_tuning.kernels.normalization import normalize

    norm.num_batches_tracked.add_(1)
    return normalize(x, norm.weight, norm.bias, running, momentum, norm.eps, activation, pooled)


class _NarrowBatchNorm(torch.autograd.Function):
    """Batch normalisation in training mode for few channels; has first derivatives only."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight: Tensor, bias: Tensor, eps: float, take_in: Callable[[Tensor, Tensor], None]
    ) -> Tensor:
        mean, var, count = statistics(x)
        take_in(mean, var * (count / max(count - 1, 1)))
        ctx.save_for_backward(x, weight, mean, var)
        ctx.eps = eps
        return normalized(x, weight, bias, mean, var, eps)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        x, weight, mean, var = ctx.saved_tensors
        grad = grad.contiguous(memory_format=torch.channels_last)
        sums = gradient_sums(grad, x, weight, mean, var, ctx.eps)
        # Rounded before the other terms are made with it, so that they still cancel out.
        scale = (weight * (var + ctx.eps).rsqrt()).to(x.dtype)
        count = x.numel() // x.shape[1]
        dx = terms_of_statistics(x, count, scale.to(mean.dtype), sums, mean, var, ctx.eps)
        as_wide_image(dx).addcmul_(as_wide_image(grad), repeated(scale, as_wide_image(x)).view(1, -1, 1, 1))
        return dx, *sums, None, None


class BatchNorm2d(nn.BatchNorm2d):
    """PyTorch's batch normalisation, same options, values and gradients; faster for few channels on a CPU."""

    def forward(self, x: Tensor) -> Tensor:
        """Normalises N×C×H×W."""
        if type(self).take_in is BatchNorm2d.take_in and (y := self.by_kernel(x)) is not None:
            return y
        if not self._takes_the_narrow_way(x):
            return super().forward(x)
        narrow: Tensor = _NarrowBatchNorm.apply(x, self.weight, self.bias, self.eps, self.take_in)
        return narrow

    def take_in(self, mean: Tensor, var: Tensor) -> None:
        """Moves the running statistics towards a batch's mean and unbiased variance, C each."""
        assert self.running_mean is not None
        assert self.running_var is not None
        assert self.num_batches_tracked is not None
        self.num_batches_tracked.add_(1)
        # Without one, the mean of all batches.
        momentum = 1.0 / float(self.num_batches_tracked) if self.momentum is None else self.momentum
        self.running_mean.lerp_(mean.to(self.running_mean.dtype), momentum)
        self.running_var.lerp_(var.to(self.running_var.dtype), momentum)

    def by_kernel(self, x: Tensor, activation: int = kernels.NONE, pooled: bool = False) -> Tensor | None:
        """Normalises on a GPU, and does what comes behind; see `on_gpu`."""
        return on_gpu(self, x, activation, pooled)

    def _takes_the_narrow_way(self, x: Tensor) -> bool:
        return (
            self.training
            and keeps_statistics(self)
            and x.device.type == "cpu"
            and x.dtype in (torch.bfloat16, torch.float32, torch.float64)
            and self.num_features < VECTOR
            and torch.is_grad_enabled()
            and x.is_contiguous(memory_format=torch.channels_last)
            and not kernels.left_to_pytorch()
        )
