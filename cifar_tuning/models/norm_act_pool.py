"""Normalisation, non-linearity and pooling behind a convolution; on a GPU in one pass over the images."""

from typing import Any, cast

import torch
from torch import Tensor, nn

from cifar_tuning import kernels
from cifar_tuning.models.activations import Swish
from cifar_tuning.models.layers import is_hooked
from cifar_tuning.models.pooling import normalized_and_pooled, numbers_of


def activated(norm: nn.Module, activation: nn.Module, x: Tensor) -> Tensor:
    """Returns `activation(norm(x))`, the faster way where there is one.

    Args:
        norm: any module; one with `by_kernel` (`BatchNorm2d`) may be computed together with what is behind it.
        activation: any module; a rectifier or Swish may be computed together with what is before it.
        x: N×C×H×W.
    """
    together = _together(norm, activation, x)
    return cast(Tensor, activation(norm(x))) if together is None else together


def activated_and_pooled(
    norm: nn.Module, activation: nn.Module, pool: nn.Module, x: Tensor, pool_first: bool = False
) -> Tensor:
    """Returns `pool(activation(norm(x)))`, the faster way where there is one.

    Args:
        norm, activation: see `activated`.
        pool: any module; an `nn.MaxPool2d(2)` may be computed together with what is before it.
        x: N×C×H×W.
        pool_first: whether that is the same as `activation(pool(norm(x)))`, which has a quarter of the work.
    """
    together = _together(norm, activation, x, pool)
    if together is not None:
        return together
    if pool_first:
        return cast(Tensor, activation(normalized_and_pooled(norm, pool, x)))
    return cast(Tensor, pool(activation(norm(x))))


def _together(norm: nn.Module, activation: nn.Module, x: Tensor, pool: nn.Module | None = None) -> Tensor | None:
    """Returns what comes of all three, by one kernel; None where there is none for them."""
    if x.dtype != torch.bfloat16 or not kernels.usable(x):
        return None
    if any(part is not None and is_hooked(part) for part in (norm, activation, pool)):
        return None
    if pool is not None and not _halves(pool, x):
        return None
    if type(activation) is nn.ReLU:
        kind = kernels.RELU
    elif type(activation) is Swish and activation.is_unit:
        kind = kernels.SILU
    else:
        return None
    if type(norm) is nn.Identity and pool is not None:
        from cifar_tuning.kernels.normalization import pool as pooled

        return pooled(x, kind)
    # A class that inherits it may have changed what it stands for.
    if "by_kernel" in vars(type(norm)):
        return cast(Any, norm).by_kernel(x, kind, pool is not None)
    return None


def _halves(pool: nn.Module, x: Tensor) -> bool:
    """Whether a layer takes the largest of each 2×2 pixels, and none is left over."""
    if type(pool) is not nn.MaxPool2d or pool.return_indices or x.shape[2] % 2 or x.shape[3] % 2:
        return False
    kernel, stride, padding, dilation, _ = numbers_of(pool)
    return kernel == stride == [2, 2] and padding == [0, 0] and dilation == [1, 1]
