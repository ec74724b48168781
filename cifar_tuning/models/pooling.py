"""Batch norm, non-linearity and max-pooling, the pooling first: what normalises, and its gradient, see fewer pixels.

Where all factors of a batch norm are positive, normalising keeps the order of pixels, so the largest may be found
before. The batch's statistics are still those of all pixels. In the backward pass all pixels have what comes by way of
the statistics, and only the largest of each window has more.
"""

from collections.abc import Callable
from typing import Any, Protocol, cast, runtime_checkable

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from cifar_tuning.models.layers import is_hooked
from cifar_tuning.models.max_pooling import (
    BITS,
    WIDE,
    Function,
    Places,
    halves,
    in_channels_last,
    largest,
    max_pooled,
    pools_by_lines,
    set_back,
)
from cifar_tuning.models.normalization import (
    gradient_sums,
    keeps_statistics,
    normalized,
    statistics,
    terms_of_statistics,
)

# Pixels of a batch from which on what is gained outweighs a dozen small operations more. Between those of SimpleNN's
# two batch norms at the batch of 128: 100,352 (a fifth of the step is gained) and 18,432 (it would be slower).
# Channels don't count, so that a run rounds in a stack as it does alone.
FEWEST_PIXELS = 50_000


@runtime_checkable
class Normalization(Protocol):
    """A batch norm that may be pooled first: PyTorch's attributes, and a way to hand it a batch's statistics.

    Attributes:
        weight: factor of each channel, C.
        bias: what is added to each channel, C.
        eps: added to the variance.
        training: whether it normalises by the batch's statistics.
    """

    weight: Any
    bias: Any
    eps: float
    training: bool

    def take_in(self, mean: Tensor, var: Tensor) -> None:
        """Moves the running statistics towards a batch's mean and unbiased variance, C each."""


def normalized_and_pooled(norm: nn.Module, pool: nn.Module, x: Tensor, valley: Function | None = None) -> Tensor:
    """Returns `pool(norm(x))`, the faster way where there is one.

    Args:
        norm: any module; a `Normalization` may be put off until after the pooling.
        pool: any module; an `nn.MaxPool2d` may come first.
        x: N×C×H×W.
        valley: a function that falls, then rises, of what is normalised: the pixel for which it is largest is taken.
            Only where `pools_by_lines`.
    """
    if pools_first(norm, pool, x, valley is not None):
        assert isinstance(norm, Normalization)
        y = _NormalizedMaximum.apply(x, norm.weight, norm.bias, norm.eps, norm.take_in, valley)
        return cast(Tensor, y)
    y = norm(x)
    if pools_by_lines(pool, y) and not is_hooked(pool):
        return max_pooled(y, valley)
    return cast(Tensor, pool(y))


def pools_first(norm: nn.Module, pool: nn.Module, x: Tensor, extremes: bool = False) -> bool:
    """Whether pooling first gives the same, and faster: in training on a CPU, many pixels, channels_last.

    Args:
        norm: what comes first in the model.
        pool: what comes behind.
        x: N×C×H×W.
        extremes: whether the smallest pixel is looked at too, so that no order must be kept.
    """
    if not (
        torch.is_grad_enabled()
        and x.numel() // x.shape[1] >= FEWEST_PIXELS
        and in_channels_last(x)
        and halves(pool, x)
        and isinstance(norm, Normalization)
        and _is_itself(norm)
        and keeps_statistics(norm)
        and norm.training
        and len(norm.weight) == x.shape[1]
        and not is_hooked(norm)
        and not is_hooked(pool)
    ):
        return False
    # Normalising by a negative factor makes a minimum of a maximum.
    return extremes or bool((norm.weight.detach() > 0).all())


def _is_itself(norm: nn.Module) -> bool:
    """Whether a layer does what the class with `take_in` says: no subclass or owner has given it another forward."""
    owner = next(one for one in type(norm).__mro__ if "take_in" in vars(one))
    return getattr(type(norm), "forward", None) is vars(owner).get("forward") and "forward" not in vars(norm)


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
        valley: Function | None,
    ) -> Tensor:
        mean, var, count = statistics(x)
        take_in(mean, var * (count / max(count - 1, 1)))

        def norm(pixels: Tensor) -> Tensor:
            return normalized(pixels, weight, bias, mean, var, eps)

        if x.shape[1] < WIDE:
            taken, places = largest(x, None if valley is None else lambda pixels: valley(norm(pixels)))
            where = [places.left, places.upper]
        else:
            taken, index = torch.ops.aten.max_pool2d_with_indices(x, [2, 2], [2, 2])
            where = [index]
        ctx.save_for_backward(x, taken, weight, mean, var, *where)
        ctx.eps = eps
        return norm(taken)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        x, taken, weight, mean, var, *where = ctx.saved_tensors
        grad = grad.contiguous(memory_format=torch.channels_last)
        sums = gradient_sums(grad, taken, weight, mean, var, ctx.eps)
        scale = weight * (var + ctx.eps).rsqrt()
        of_statistics = (x.numel() // x.shape[1], scale, sums, mean, var, ctx.eps)
        dx = terms_of_statistics(x, *of_statistics)
        of_taken = terms_of_statistics(taken.to(mean.dtype), *of_statistics)
        of_taken = of_taken.addcmul_(grad.to(mean.dtype), scale.view(1, -1, 1, 1)).to(x.dtype)
        if len(where) == 2:
            set_back(dx, of_taken, Places(*where))
        else:
            # As integers, because `scatter_` would have bf16 go by way of fp32 and back.
            bits = BITS[x.dtype]
            _pixels(dx).view(bits).scatter_(1, _pixels(where[0]), _pixels(of_taken).view(bits))
        return dx, *sums, None, None, None


def _pixels(x: Tensor) -> Tensor:
    """N×C×H×W in channels_last as N×(H·W)×C."""
    return x.permute(0, 2, 3, 1).flatten(1, 2)
