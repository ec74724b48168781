"""Batch normalisation, with a way around a slow case of PyTorch's CPU kernel."""

from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

# One AVX-512 register of float32, the width the CPU kernel is written for. With fewer channels in channels_last
# its backward pass runs element by element: 6.2 ms for 128×8×28×28 on two cores, 1.4 ms by the pass below.
VECTOR = 16
LINE = 128


class _NarrowBatchNorm(torch.autograd.Function):
    """Batch normalisation in training mode whose backward pass sees several pixels as one long line.

    N×C×H×W in channels_last is a matrix of N·H·W rows of C numbers, so it is as well one of rows of k·C: wide
    enough to vectorise. Sums over its rows are then folded k to 1.
    """

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        weight: Tensor,
        bias: Tensor,
        running_mean: Tensor,
        running_var: Tensor,
        momentum: float,
        eps: float,
    ) -> Tensor:
        y, mean, invstd = torch.native_batch_norm(x, weight, bias, running_mean, running_var, True, momentum, eps)
        ctx.save_for_backward(x, weight, mean, invstd)
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        x, weight, mean, invstd = ctx.saved_tensors
        channels, count = x.shape[1], x.numel() // x.shape[1]
        dy, lines = as_lines(grad.contiguous(memory_format=torch.channels_last)), as_lines(x)
        pixels = lines.shape[1] // channels
        centred = lines - mean.repeat(pixels)

        def fold(line: Tensor) -> Tensor:
            return line.view(pixels, channels).sum(0)

        grad_bias = fold(dy.sum(0))
        grad_weight = fold((dy * centred).sum(0)) * invstd
        # dx = w/σ · (dy - mean(dy) - x̂·mean(dy·x̂)), Ioffe and Szegedy 2015, section 3
        scale = weight * invstd
        slope = (-scale * invstd * grad_weight / count).repeat(pixels)
        shift = (-scale * grad_bias / count).repeat(pixels)
        dx = torch.addcmul(shift, centred, slope, out=centred).addcmul_(dy, scale.repeat(pixels))
        batch, _, height, width = x.shape
        dx = dx.view(batch, height, width, channels).permute(0, 3, 1, 2)
        return dx, grad_weight, grad_bias, None, None, None, None


def as_lines(x: Tensor) -> Tensor:
    """Several pixels as one long line: what differs by channel only is done in whole registers then.

    Args:
        x: N×C×H×W in channels_last.

    Returns:
        a view of it, lines × (pixels·C): a power of two that divides the number of pixels, up to `LINE` numbers.
    """
    channels, pixels = x.shape[1], 1
    count = x.numel() // channels
    while count % (2 * pixels) == 0 and 2 * pixels * channels <= LINE:
        pixels *= 2
    return x.permute(0, 2, 3, 1).view(-1, pixels * channels)


class BatchNorm2d(nn.BatchNorm2d):
    """PyTorch's batch normalisation, same values and gradients; faster for few channels on a CPU.

    Args:
        num_features: channels.
        momentum: weight of a new batch in the running statistics.
    """

    def __init__(self, num_features: int, momentum: float = 0.1) -> None:
        super().__init__(num_features, momentum=momentum)

    def forward(self, x: Tensor) -> Tensor:
        """Normalises N×C×H×W."""
        if not self._takes_the_narrow_way(x):
            return super().forward(x)
        assert self.num_batches_tracked is not None
        self.num_batches_tracked.add_(1)
        y: Tensor = _NarrowBatchNorm.apply(
            x, self.weight, self.bias, self.running_mean, self.running_var, self.momentum, self.eps
        )
        return y

    def take_in(self, mean: Tensor, var: Tensor) -> None:
        """Moves the running statistics towards a batch's.

        Args:
            mean: of each channel, C.
            var: of each channel, unbiased, C.
        """
        assert self.running_mean is not None
        assert self.running_var is not None
        assert self.num_batches_tracked is not None
        momentum = float(self.momentum or 0.0)
        self.num_batches_tracked.add_(1)
        self.running_mean.lerp_(mean.to(self.running_mean.dtype), momentum)
        self.running_var.lerp_(var.to(self.running_var.dtype), momentum)

    def _takes_the_narrow_way(self, x: Tensor) -> bool:
        return (
            self.training
            and x.device.type == "cpu"
            and x.dtype in (torch.float32, torch.float64)
            and self.num_features < VECTOR
            and torch.is_grad_enabled()
            and x.is_contiguous(memory_format=torch.channels_last)
            and not torch.compiler.is_compiling()
        )
