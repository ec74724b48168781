"""The pooled convolution gives what the layers one after the other give."""

import copy

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from cifar_tuning.models import SimpleNN, phases
from cifar_tuning.models.normalization import BatchNorm2d


def layers(channels, kernel, bias):
    torch.manual_seed(0)
    conv = nn.Conv2d(3, channels, kernel, bias=bias).double().to(memory_format=torch.channels_last)
    norm = BatchNorm2d(channels, momentum=0.3).double()
    norm.weight.data.uniform_(0.5, 2)
    norm.bias.data.uniform_(-1, 1)
    return conv, norm


@pytest.mark.parametrize("channels", [1, 3, 8, 15])
@pytest.mark.parametrize(("kernel", "shape"), [(5, (4, 12, 12)), (3, (3, 6, 10)), (1, (2, 4, 2)), ((3, 1), (1, 8, 6))])
@pytest.mark.parametrize("bias", [True, False])
def test_the_same_values_gradients_and_statistics(channels, kernel, shape, bias):
    outcomes = []
    batch, height, width = shape
    for fused in (True, False):
        conv, after = layers(channels, kernel, bias)
        x = torch.randn(batch, 3, height, width, dtype=torch.double, generator=torch.Generator().manual_seed(1)) + 2
        x = x.to(memory_format=torch.channels_last).requires_grad_()
        for _ in range(2):
            if fused:
                assert phases.applies(conv, after, x)
                y = phases.pooled(conv, after, x)
                assert y.is_contiguous(memory_format=torch.channels_last)
            else:
                y = F.max_pool2d(after(conv(x)), 2)
        (y * torch.linspace(-1, 2, y.numel(), dtype=torch.double).view_as(y)).sum().backward()
        if bias:  # the normalisation takes it out: zero but for rounding
            assert conv.bias.grad is None or conv.bias.grad.abs().max() < 1e-10
            conv.bias.grad = None
        gradients = [p.grad for p in [*conv.parameters(), *after.parameters()] if p.grad is not None]
        outcomes.append([y, x.grad, *gradients, *after.state_dict().values()])
    assert len(outcomes[0]) == len(outcomes[1])
    for mine, reference in zip(*outcomes, strict=True):
        torch.testing.assert_close(mine, reference, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_as_exact_as_the_layers_in_the_precision_used(dtype):
    errors = {}
    exact = None
    for name in ("exact", "ours", "layers"):
        conv, after = layers(8, 5, False)
        x = torch.randn(64, 3, 32, 32, generator=torch.Generator().manual_seed(1)).to(memory_format=torch.channels_last)
        if name == "exact":
            x = x.double()
        else:
            conv, after = conv.float(), after.float()
        with torch.autocast("cpu", torch.bfloat16, enabled=dtype == torch.bfloat16 and name != "exact"):
            y = phases.pooled(conv, after, x) if name == "ours" else F.max_pool2d(after(conv(x)), 2)
        assert y.dtype == (torch.double if name == "exact" else dtype)
        weights = torch.randn(y.shape, generator=torch.Generator().manual_seed(2))
        (y.double() * weights).sum().backward()
        got = [y.detach().double(), *(p.grad.double() for p in [*conv.parameters(), *after.parameters()])]
        exact = exact or got
        errors[name] = [((a - b).norm() / b.norm()).item() for a, b in zip(got, exact, strict=True)]
    for ours, theirs in zip(errors["ours"], errors["layers"], strict=True):
        assert ours < 1.5 * theirs + 1e-6


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
def test_of_equal_pixels_the_first_has_the_gradient(dtype):
    pixels = torch.randint(0, 3, (6, 8, 8, 10), generator=torch.Generator().manual_seed(0)).to(dtype)
    theirs = pixels.to(memory_format=torch.channels_last).requires_grad_()
    y = F.max_pool2d(theirs, 2)
    grad = torch.randint(1, 100, y.shape, generator=torch.Generator().manual_seed(1)).to(dtype)
    y.backward(grad)
    in_phases = [[t[:, :, down::2, right::2] for down, right in phases.PLACES] for t in (pixels, theirs.grad)]
    lines, expected = (torch.cat(four, 1).permute(0, 2, 3, 1).reshape(-1, 32) for four in in_phases)
    assert torch.equal(phases._largest(lines), y.detach().permute(0, 2, 3, 1).reshape(-1, 8))
    assert torch.equal(phases._to_the_largest(grad.permute(0, 2, 3, 1).reshape(-1, 8), lines), expected)


def test_only_where_it_is_the_same():
    conv, norm = layers(8, 5, False)
    contiguous = torch.zeros(2, 3, 8, 8, dtype=torch.double)
    x = contiguous.to(memory_format=torch.channels_last)
    assert phases.applies(conv, norm, x)
    assert not phases.applies(conv, norm, contiguous)
    for other in (
        nn.Conv2d(3, 16, 5),
        nn.Conv2d(3, 8, 5, stride=2),
        nn.Conv2d(3, 8, 5, padding=2),
        nn.Conv2d(3, 8, 4),  # an odd number of pixels, the last of which are not pooled
        nn.Conv2d(3, 6, 5, groups=3),
        nn.Conv2d(3, 8, 3, dilation=2),
        nn.utils.parametrizations.weight_norm(nn.Conv2d(3, 8, 5)),
    ):
        assert not phases.applies(other, norm, x)
    assert not phases.applies(conv, nn.Identity(), x)
    assert not phases.applies(conv, nn.BatchNorm2d(8), x)
    assert not phases.applies(conv, copy.deepcopy(norm).eval(), x)
    with torch.no_grad():
        assert not phases.applies(conv, norm, x)
    watched = copy.deepcopy(conv)
    watched.register_forward_hook(lambda *a: None)
    assert not phases.applies(watched, norm, x)
    norm.weight.data[3] = -0.1
    assert not phases.applies(conv, norm, x)


def test_simplenn_takes_it_in_training_only(monkeypatch):
    calls = []
    pooled = phases.pooled
    monkeypatch.setattr(phases, "pooled", lambda *a: calls.append(1) or pooled(*a))
    model = SimpleNN(batch_norm=True).to(memory_format=torch.channels_last)
    x = torch.randn(4, 3, 32, 32)
    model(x)
    assert len(calls) == 0  # it is made for channels_last
    x = x.to(memory_format=torch.channels_last)
    model(x)
    assert len(calls) == 1
    model.eval()
    with torch.no_grad():
        model(x)
    assert len(calls) == 1
