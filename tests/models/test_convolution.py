"""Two pixels at a time, a convolution gives what PyTorch's gives."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from cifar_tuning.models import SimpleNN, convolution
from cifar_tuning.models.convolution import Conv2d


def images(*shape):
    x = torch.randn(shape, generator=torch.Generator().manual_seed(1), dtype=torch.double)
    return x.contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize("channels", [1, 3, 4])
@pytest.mark.parametrize("out", [1, 8])
@pytest.mark.parametrize("kernel", [1, 3, (2, 5)])
@pytest.mark.parametrize("padding", [0, (1, 0)])
@pytest.mark.parametrize("bias", [True, False])
def test_values_and_gradients_are_pytorchs(channels, out, kernel, padding, bias, monkeypatch):
    torch.manual_seed(0)
    layer = Conv2d(channels, out, kernel, padding=padding, bias=bias).double().to(memory_format=torch.channels_last)
    x = images(3, channels, 7, 8)
    calls, plain = [], F.conv2d
    monkeypatch.setattr(F, "conv2d", lambda *a, **o: calls.append(a[0].shape) or plain(*a, **o))
    y = layer(x)
    assert calls == [(3, 2 * channels, 7, 4)]
    reference = plain(x, layer.weight, layer.bias, padding=padding)
    assert y.is_contiguous(memory_format=torch.channels_last)
    torch.testing.assert_close(y, reference, rtol=1e-12, atol=1e-12)
    grad = images(*y.shape)
    parameters = list(layer.parameters())
    for mine, theirs in zip(*(torch.autograd.grad(one, parameters, grad) for one in (y, reference)), strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-12, atol=1e-12)


def test_it_has_second_derivatives():
    layer, x = Conv2d(3, 8, 3).double(), images(2, 3, 8, 8)
    layer.to(memory_format=torch.channels_last)
    second = []
    for convolve in (layer, lambda x: F.conv2d(x, layer.weight, layer.bias)):
        (first,) = torch.autograd.grad(convolve(x).tanh().sum(), layer.weight, create_graph=True)
        second.append(torch.autograd.grad(first.square().sum(), layer.weight)[0])
    torch.testing.assert_close(*second, rtol=1e-12, atol=1e-12)


def test_pytorch_may_be_asked_to_do_all(monkeypatch):
    layer, x = Conv2d(3, 8, 3).double(), images(2, 3, 8, 8)
    assert convolution.pairs_pixels(x, layer.weight, layer.stride, layer.padding, layer.dilation)
    monkeypatch.setenv("CIFAR_TUNING_KERNELS", "0")
    assert not convolution.pairs_pixels(x, layer.weight, layer.stride, layer.padding, layer.dilation)


def test_a_traced_model_can_be_saved(tmp_path):
    model = SimpleNN().to(memory_format=torch.channels_last).eval()
    x = torch.rand(2, 3, 32, 32).contiguous(memory_format=torch.channels_last)
    with torch.no_grad():
        torch.jit.save(torch.jit.trace(model, x), tmp_path / "model.pt")
        torch.testing.assert_close(torch.jit.load(tmp_path / "model.pt")(x), model(x))


@pytest.mark.parametrize(
    ("layer", "x"),
    [
        (nn.Conv2d(3, 9, 3), images(1, 3, 8, 8)),
        (nn.Conv2d(5, 8, 3), images(1, 5, 8, 8)),
        (nn.Conv2d(3, 8, 4), images(1, 3, 8, 8)),
        (nn.Conv2d(3, 8, 3), images(1, 3, 8, 7)),
        (nn.Conv2d(3, 8, 3, padding=1), images(1, 3, 8, 8)),
        (nn.Conv2d(3, 8, 3, stride=2), images(1, 3, 8, 8)),
        (nn.Conv2d(3, 8, 3, dilation=2), images(1, 3, 8, 8)),
        (nn.Conv2d(3, 8, 3, padding="valid"), images(1, 3, 8, 8)),
        (nn.Conv2d(3, 8, 3), images(2, 3, 8, 8).contiguous()),
        (nn.Conv2d(3, 8, 3), images(1, 3, 8, 8).requires_grad_()),
        (nn.Conv2d(3, 8, 9), images(1, 3, 8, 8)),
    ],
)
def test_only_where_it_is_the_same_and_faster(layer, x):
    assert not convolution.pairs_pixels(x, layer.weight, layer.stride, layer.padding, layer.dilation)
