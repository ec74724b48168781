"""Max-pooling by lines gives what PyTorch's does."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from cifar_tuning.models import max_pooling
from cifar_tuning.models.activations import ACTIVATIONS, Course, course_of
from cifar_tuning.models.norm_act_pool import activated_and_pooled


def images(*shape, dtype=torch.double):
    x = 2 * torch.randn(shape, generator=torch.Generator().manual_seed(1), dtype=torch.double)
    return x.to(dtype).to(memory_format=torch.channels_last)


@pytest.mark.parametrize("dtype", list(max_pooling.BITS))
@pytest.mark.parametrize("shape", [(3, 8, 4, 6), (1, 1, 2, 2), (2, 63, 6, 2)])
def test_values_and_gradients_are_pytorchs(dtype, shape):
    x = images(*shape, dtype=dtype).requires_grad_()
    pool = nn.MaxPool2d(2)
    assert max_pooling.pools_by_lines(pool, x)
    y, reference = max_pooling.max_pooled(x), pool(x)
    assert torch.equal(y, reference)
    assert y.is_contiguous(memory_format=torch.channels_last)
    grad = images(*y.shape, dtype=dtype)
    assert torch.equal(*(torch.autograd.grad(one, x, grad)[0] for one in (y, reference)))
    with torch.no_grad():
        assert torch.equal(max_pooling.max_pooled(x), reference)


@pytest.mark.parametrize("name", ACTIVATIONS)
@pytest.mark.parametrize("channels", [8, 48, 80])
def test_before_any_non_linearity(name, channels):
    """Deep in a valley too, where the smallest pixel is the one that counts."""
    activation, pool = ACTIVATIONS[name](), nn.MaxPool2d(2)
    leaf = (images(4, channels, 8, 8) - 2).requires_grad_()
    weights = torch.rand(4, channels, 4, 4, generator=torch.Generator().manual_seed(2)).double()
    outcomes = []
    for course in (course_of(name), Course.OTHER):
        y = activated_and_pooled(nn.Identity(), activation, pool, leaf * 1, course)
        outcomes.append((y.detach(), torch.autograd.grad((y * weights).sum(), leaf)[0]))
        with torch.no_grad():
            assert torch.equal(activated_and_pooled(nn.Identity(), activation, pool, leaf * 1, course), y)
    for mine, reference in zip(*outcomes, strict=True):
        torch.testing.assert_close(mine, reference, rtol=1e-12, atol=1e-12)


def test_what_is_not_finite_stays_so():
    x = images(1, 8, 4, 4)
    x[0, 0, 0, 1], x[0, 1, 2, 2] = float("nan"), float("inf")
    x.requires_grad_()
    y = max_pooling.max_pooled(x)
    assert (
        torch.equal(
            y,
            F.max_pool2d(x, 2),
        )
        or y.isnan().sum() == 1
    )
    assert y[0, 0, 0, 0].isnan()
    assert y[0, 1, 1, 1].isinf()
    y.sum().backward()
    assert torch.equal(F.avg_pool2d(x.grad, 2, divisor_override=1), torch.ones(1, 8, 2, 2).double())


def test_values_are_set_where_they_belong():
    x, values = images(2, 8, 4, 6), images(2, 8, 2, 3)
    _, places = max_pooling.largest(x)
    changed = x.clone()
    max_pooling.set_back(changed, values, places)
    assert torch.equal(
        changed,
        torch.where(x == F.interpolate(F.max_pool2d(x, 2), scale_factor=2), F.interpolate(values, scale_factor=2), x),
    )


@pytest.mark.parametrize(
    "pool",
    [nn.AvgPool2d(2), nn.MaxPool2d(3), nn.MaxPool2d(2, 1), nn.MaxPool2d(2, return_indices=True), nn.MaxPool2d(2, 2, 1)],
)
def test_only_two_by_two(pool):
    assert not max_pooling.pools_by_lines(pool, images(1, 8, 4, 4))


@pytest.mark.parametrize(
    "x", [images(1, 8, 5, 4), images(1, 8, 4, 3), images(1, 64, 4, 4), images(2, 8, 4, 4).contiguous()]
)
def test_only_such_images(x):
    assert not max_pooling.pools_by_lines(nn.MaxPool2d(2), x)
