"""Max-pooling by lines gives what PyTorch's does."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from cifar_tuning.models import max_pooling
from cifar_tuning.models.max_pooling import max_pooled

POOL = nn.MaxPool2d(2)


def images(*shape, dtype=torch.bfloat16):
    """Of few different numbers, so that many pixels are equal."""
    x = torch.randint(-4, 5, shape, generator=torch.Generator().manual_seed(1)) / 4
    return x.to(dtype).to(memory_format=torch.channels_last)


@pytest.mark.parametrize("dtype", list(max_pooling.BITS))
@pytest.mark.parametrize("shape", [(3, 8, 4, 6), (1, 1, 2, 2), (2, 63, 6, 2), (0, 8, 4, 4)])
def test_values_and_gradients_are_pytorchs(dtype, shape):
    x = images(*shape, dtype=dtype).requires_grad_()
    assert max_pooling.pools_by_lines(POOL, x)
    y, reference = max_pooled(POOL, x), POOL(x)
    assert torch.equal(y, reference)
    assert y.is_contiguous(memory_format=torch.channels_last)
    grad = images(*y.shape, dtype=dtype) + 1
    assert torch.equal(*(torch.autograd.grad(one, x, grad)[0] for one in (y, reference)))
    with torch.no_grad():
        assert torch.equal(max_pooled(POOL, x), reference)
    assert torch.equal(max_pooled(POOL, x).relu_(), reference.relu())  # may be changed in place


def test_what_is_not_finite_stays_so():
    x = images(1, 8, 4, 4)
    x[0, 0, 0, 1], x[0, 1, 2, 2], x[0, 2, 0, 0] = float("nan"), float("inf"), -float("nan")
    x.requires_grad_()
    y = max_pooled(POOL, x)
    torch.testing.assert_close(y, POOL(x), equal_nan=True)
    assert y.isnan().sum() == 2
    y.sum().backward()
    assert torch.equal(F.avg_pool2d(x.grad, 2, divisor_override=1), torch.ones_like(y))


class Own(nn.MaxPool2d):
    pass


@pytest.mark.parametrize(
    "pool",
    [
        nn.AvgPool2d(2),
        nn.MaxPool2d(3),
        nn.MaxPool2d(2, 1),
        nn.MaxPool2d(2, return_indices=True),
        nn.MaxPool2d(2, 2, 1),
        nn.MaxPool2d(2, dilation=2),
        Own(2),
    ],
)
def test_only_two_by_two(pool):
    assert not max_pooling.pools_by_lines(pool, images(1, 8, 4, 4))


@pytest.mark.parametrize(
    "x",
    [
        images(1, 8, 5, 4),
        images(1, 8, 4, 3),
        images(1, 64, 4, 4),
        images(2, 8, 4, 4).contiguous(),
        images(2, 8, 4, 4, dtype=torch.float32),
        images(2, 16, 4, 4)[:, :8],
        images(2, 8, 4, 4)[0],
    ],
)
def test_only_such_images(x):
    assert not max_pooling.pools_by_lines(nn.MaxPool2d(2), x)


def test_it_stays_on_the_images_device():
    x = images(1, 8, 4, 4)
    with torch.device("meta"):
        assert torch.equal(max_pooled(POOL, x), POOL(x))


def test_pytorch_may_be_asked_to_do_all(monkeypatch):
    monkeypatch.setenv("CIFAR_TUNING_KERNELS", "0")
    assert not max_pooling.pools_by_lines(POOL, images(1, 8, 4, 4))


def test_hooks_are_called():
    pool, calls = nn.MaxPool2d(2), []
    pool.register_forward_hook(lambda *a: calls.append(a))
    max_pooled(pool, images(1, 8, 4, 4))
    assert len(calls) == 1
