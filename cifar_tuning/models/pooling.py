"""Batch norm and max-pooling as one, the pooling first: what normalises, and its gradient, see a quarter of the pixels.

Where all factors of a batch norm are positive, normalising keeps the order of pixels, so the largest may be found
before. The batch's statistics are still those of all pixels. In the backward pass all pixels have what comes by way of
the statistics, and only the largest of each window has more.
"""

from collections.abc import Callable
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from cifar_tuning import kernels
from cifar_tuning.models.layers import is_hooked
from cifar_tuning.models.normalization import (
    gradient_sums,
    keeps_statistics,
    normalized,
    statistics,
    terms_of_statistics,
)

# Integers of the same size.
BITS = {torch.bfloat16: torch.int16, torch.float16: torch.int16}
# Pixels of a batch from which on what is gained outweighs a dozen small operations more. Between those of SimpleNN's
# two batch norms at the batch of 128: 100,352 (a fifth of the step is gained) and 18,432 (it would be slower).
# Channels don't count, so that a run rounds in a stack as it does alone.
FEWEST_PIXELS = 50_000


def normalized_and_pooled(norm: Any, pool: Any, x: Tensor) -> Tensor:
    """Returns `pool(norm(x))`, the faster way where there is one.

    Args:
        norm: any module; a batch norm that can be handed a batch's statistics (`BatchNorm2d.take_in`) may be put off
            until after the pooling.
        pool: any module; an `nn.MaxPool2d` may come first.
        x: N×C×H×W.
    """
    if not pools_first(norm, pool, x):
        return cast(Tensor, pool(norm(x)))
    y = _NormalizedMaximum.apply(x, norm.weight, norm.bias, norm.eps, norm.take_in, numbers_of(pool))
    return cast(Tensor, y)


def pools_first(norm: Any, pool: nn.Module, x: Tensor) -> bool:
    """Whether pooling N×C×H×W first gives the same, and faster: in training on a CPU, many pixels, channels_last."""
    if not (
        torch.is_grad_enabled()
        and x.device.type == "cpu"
        and x.numel() // x.shape[1] >= FEWEST_PIXELS
        and x.is_contiguous(memory_format=torch.channels_last)
        and not kernels.left_to_pytorch()
        and hasattr(norm, "take_in")
        and _is_itself(norm)
        and keeps_statistics(norm)
        and norm.training
        and len(norm.weight) == x.shape[1]
        and type(pool) is nn.MaxPool2d
        and not pool.return_indices
        and _is_apart(pool)
        and not is_hooked(norm)
        and not is_hooked(pool)
    ):
        return False
    # Normalising by a negative factor makes a minimum of a maximum.
    return bool((norm.weight.detach() > 0).all())


def numbers_of(pool: nn.MaxPool2d) -> tuple[Any, ...]:
    """Returns kernel size, stride, padding and dilation as [height, width] each, and `ceil_mode`."""
    sizes = (pool.kernel_size, pool.stride, pool.padding, pool.dilation)
    return *(_pair(size) for size in sizes), pool.ceil_mode


def _is_apart(pool: nn.MaxPool2d) -> bool:
    """Whether no pixel is in two windows, and may be the largest of both."""
    kernel, stride, _, dilation, _ = numbers_of(pool)
    return dilation == [1, 1] and all(size <= step for size, step in zip(kernel, stride, strict=True))


def _pair(size: int | tuple[int, ...]) -> list[int]:
    return [size, size] if isinstance(size, int) else list(size)


def _is_itself(norm: nn.Module) -> bool:
    """Whether a layer does what the class with `take_in` says: no subclass or owner has given it another forward."""
    owner = next(one for one in type(norm).__mro__ if "take_in" in vars(one))
    return getattr(type(norm), "forward", None) is vars(owner).get("forward") and "forward" not in vars(norm)


def _pixels(x: Tensor) -> Tensor:
    """N×C×H×W in channels_last as N×(H·W)×C."""
    return x.permute(0, 2, 3, 1).flatten(1, 2)


class _NormalizedMaximum(torch.autograd.Function):
    """Batch norm in training, then max-pooling; computed the other way round. Has first derivatives only."""

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        weight: Tensor,
        bias: Tensor,
        eps: float,
        take_in: Callable[[Tensor, Tensor], None],
        pool: tuple[Any, ...],
    ) -> Tensor:
        mean, var, count = statistics(x)
        take_in(mean, var * (count / max(count - 1, 1)))
        largest, places = torch.ops.aten.max_pool2d_with_indices(x, *pool)
        ctx.save_for_backward(x, largest, places, weight, mean, var)
        ctx.eps, ctx.pool = eps, pool
        return normalized(largest, weight, bias, mean, var, eps)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        x, largest, places, weight, mean, var = ctx.saved_tensors
        grad = grad.contiguous(memory_format=torch.channels_last)
        sums = gradient_sums(grad, largest, weight, mean, var, ctx.eps)
        scale = weight * (var + ctx.eps).rsqrt()
        given = (x.numel() // x.shape[1], scale, sums, mean, var, ctx.eps)
        dx = terms_of_statistics(x, *given)
        of_largest = terms_of_statistics(largest.to(mean.dtype), *given)
        of_largest.addcmul_(grad.to(mean.dtype), scale.view(1, -1, 1, 1))
        # As integers where there are such: bits are moved, and `scatter_` would have bf16 go by way of fp32 and back.
        bits = BITS.get(x.dtype, x.dtype)
        _pixels(dx).view(bits).scatter_(1, _pixels(places), _pixels(of_largest.to(x.dtype)).view(bits))
        return dx, *sums, None, None, None
