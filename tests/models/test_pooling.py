"""Pooling before normalising gives what the layers in their order give."""

import copy

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from cifar_tuning.fused.layers import StackedBatchNorm2d
from cifar_tuning.models import SimpleNN, pooling
from cifar_tuning.models.normalization import BatchNorm2d


@pytest.fixture(autouse=True)
def _however_few(monkeypatch):
    monkeypatch.setattr(pooling, "FEWEST_PIXELS", 0)


def layer(channels, momentum=0.3):
    norm = BatchNorm2d(channels, momentum=momentum).double()
    norm.weight.data.uniform_(0.5, 2)
    norm.bias.data.uniform_(-1, 1)
    return norm


def stack(channels, momenta):
    return StackedBatchNorm2d([layer(channels, momentum) for momentum in momenta])


def images(*shape, dtype=torch.double):
    x = torch.randn(shape, dtype=torch.double, generator=torch.Generator().manual_seed(1)) + 2
    return x.to(dtype).to(memory_format=torch.channels_last)


@pytest.mark.parametrize(
    ("make", "shape"),
    [
        (lambda: layer(8), (4, 8, 12, 12)),
        (lambda: layer(1), (4, 1, 6, 4)),
        (lambda: layer(3), (3, 3, 6, 10)),
        (lambda: layer(15), (2, 15, 5, 7)),  # the last line and column are not pooled, but normalised by
        (lambda: layer(40), (1, 40, 2, 2)),
        (lambda: stack(8, [0.1, 0.1, 0.1]), (4, 24, 8, 8)),
        (lambda: stack(3, [0.1, 0.9]), (4, 6, 8, 8)),
    ],
)
@pytest.mark.parametrize("pool", [nn.MaxPool2d(2), nn.MaxPool2d(2, 3, padding=1), nn.MaxPool2d((2, 1), ceil_mode=True)])
def test_the_same_values_gradients_and_statistics(make, shape, pool):
    outcomes = []
    for first in (True, False):
        torch.manual_seed(0)
        norm = make()
        x = images(*shape).requires_grad_()
        for _ in range(2):
            assert pooling.pools_first(norm, pool, x)
            y = pooling.normalized_and_pooled(norm, pool, x) if first else pool(norm(x))
        assert y.is_contiguous(memory_format=torch.channels_last)
        (y * torch.linspace(-1, 2, y.numel(), dtype=torch.double).view_as(y)).sum().backward()
        outcomes.append([y, x.grad, norm.weight.grad, norm.bias.grad, *norm.state_dict().values()])
    for mine, reference in zip(*outcomes, strict=True):
        torch.testing.assert_close(mine, reference, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize(("channels", "offset"), [(8, 0), (64, 0), (8, 30)])
def test_as_exact_as_the_layers_in_the_precision_used(dtype, channels, offset):
    errors = {}
    exact = None
    for name in ("exact", "ours", "layers"):
        torch.manual_seed(0)
        norm = layer(channels)
        x = images(64, channels, 28, 28, dtype=dtype) + offset
        if name == "exact":
            x = x.double()
        else:
            norm = norm.float()
        x.requires_grad_()
        y = pooling.normalized_and_pooled(norm, nn.MaxPool2d(2), x) if name == "ours" else F.max_pool2d(norm(x), 2)
        assert y.dtype == x.dtype
        weights = torch.randn(y.shape, generator=torch.Generator().manual_seed(2))
        (y.double() * weights).sum().backward()
        got = [y.detach().double(), *(p.grad.double() for p in [x, *norm.parameters()])]
        # What a convolution before it sums up: an error that pixels have in common would not cancel out.
        patches = torch.randn(x.shape, generator=torch.Generator().manual_seed(3)).double() + 3
        got.append((x.grad.double() * patches).sum((0, 2, 3)))
        exact = exact or got
        errors[name] = [((a - b).norm() / b.norm()).item() for a, b in zip(got, exact, strict=True)]
    for ours, theirs in zip(errors["ours"], errors["layers"], strict=True):
        assert ours < 1.5 * theirs + 1e-6


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
def test_of_equal_pixels_the_first_has_the_gradient(dtype):
    pixels = torch.randint(0, 3, (6, 8, 8, 10), generator=torch.Generator().manual_seed(0)).to(dtype)
    pixels = pixels.to(memory_format=torch.channels_last)
    norm = BatchNorm2d(8).to(dtype if dtype == torch.float64 else torch.float32)
    sizes = []
    for first in (True, False):
        x = pixels.clone().requires_grad_()
        pool = nn.MaxPool2d(2)
        y = pooling.normalized_and_pooled(norm, pool, x) if first else pool(norm(x))
        y.backward(torch.randint(100, 200, y.shape, generator=torch.Generator().manual_seed(1)).to(dtype))
        sizes.append(x.grad > 20)  # what comes by way of the statistics is smaller
    assert torch.equal(*sizes)
    assert sizes[0].sum() > 100


def test_only_where_it_is_the_same():
    norm, pool = layer(8), nn.MaxPool2d(2)
    contiguous = torch.zeros(2, 8, 8, 8, dtype=torch.double)
    x = contiguous.to(memory_format=torch.channels_last)
    assert pooling.pools_first(norm, pool, x)
    assert not pooling.pools_first(norm, pool, contiguous)
    assert not pooling.pools_first(nn.Identity(), pool, x)
    assert not pooling.pools_first(nn.BatchNorm2d(8), pool, x)
    assert not pooling.pools_first(copy.deepcopy(norm).eval(), pool, x)
    assert not pooling.pools_first(stack(8, [0.1, 0.1]), pool, x)  # its models share the images, and are not so wide
    assert not pooling.pools_first(norm, nn.AvgPool2d(2), x)
    assert not pooling.pools_first(norm, nn.MaxPool2d(2, return_indices=True), x)
    assert not pooling.pools_first(norm, nn.MaxPool2d(3, 2), x)  # a pixel may be the largest of two windows
    assert not pooling.pools_first(norm, nn.MaxPool2d(2, dilation=2), x)
    with torch.no_grad():
        assert not pooling.pools_first(norm, pool, x)
    watched = copy.deepcopy(norm)
    watched.register_forward_hook(lambda *a: None)
    assert not pooling.pools_first(watched, pool, x)
    norm.weight.data[3] = -0.1
    assert not pooling.pools_first(norm, pool, x)


class Half(BatchNorm2d):
    def forward(self, x):
        return super().forward(x) / 2


def patched(channels):
    norm = BatchNorm2d(channels)
    norm.forward = lambda x: x
    return norm


def without_statistics(channels):
    norm = BatchNorm2d(channels)
    norm.running_mean = norm.running_var = norm.num_batches_tracked = None
    norm.track_running_stats = False
    return norm


@pytest.mark.parametrize(
    "make", [Half, patched, without_statistics, lambda channels: BatchNorm2d(channels).to(torch.bfloat16)]
)
@pytest.mark.parametrize("channels", [8, 16])
def test_what_is_no_batch_norm_as_we_know_it_is_left_alone(make, channels):
    x = images(2, channels, 8, 8, dtype=torch.float32)
    norm, pool = make(channels), nn.MaxPool2d(2)
    if next(norm.parameters()).dtype == torch.bfloat16:
        x = x.bfloat16()
    x.requires_grad_()
    assert not pooling.pools_first(norm, pool, x)
    y = pooling.normalized_and_pooled(norm, pool, x)
    assert torch.equal(y, pool(norm(x)))
    y.sum().backward()


def test_not_for_a_handful_of_pixels(monkeypatch):
    norm, pool, x = layer(8), nn.MaxPool2d(2), images(2, 8, 8, 8)
    monkeypatch.setattr(pooling, "FEWEST_PIXELS", 128)
    assert pooling.pools_first(norm, pool, x)
    monkeypatch.setattr(pooling, "FEWEST_PIXELS", 129)
    assert not pooling.pools_first(norm, pool, x)


def test_simplenn_takes_it_in_training_only(monkeypatch):
    calls = []
    pooled = pooling._NormalizedMaximum.apply
    monkeypatch.setattr(pooling._NormalizedMaximum, "apply", lambda *a: calls.append(1) or pooled(*a))
    model = SimpleNN(batch_norm=True)
    x = torch.randn(4, 3, 32, 32)
    model(x)
    assert len(calls) == 0  # it is made for channels_last
    x = x.to(memory_format=torch.channels_last)
    model = model.to(memory_format=torch.channels_last)
    model(x)
    assert len(calls) == 2
    model.eval()
    with torch.no_grad():
        model(x)
    assert len(calls) == 2
    SimpleNN(batch_norm=True, activation="swish").to(memory_format=torch.channels_last)(x)
    assert len(calls) == 2  # Swish falls before it rises, so its maximum is another pixel's
