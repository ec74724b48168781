import pytest
import torch
from torch import nn

from cifar_tuning.models.normalization import BatchNorm2d


@pytest.mark.parametrize("channels", [1, 3, 8, 15, 16])
@pytest.mark.parametrize("shape", [(4, 6, 6), (5, 7, 3), (1, 1, 2)])
@pytest.mark.parametrize("offset", [0.0, 100.0])
@pytest.mark.parametrize("momentum", [0.3, None])
def test_is_pytorchs_batch_norm(channels, shape, offset, momentum):
    batch, height, width = shape
    torch.manual_seed(0)
    ours, theirs = BatchNorm2d(channels, momentum=momentum), nn.BatchNorm2d(channels, momentum=momentum)
    for module in (ours, theirs):
        module.weight.data.copy_(torch.linspace(0.5, 2, channels))
        module.bias.data.copy_(torch.linspace(-1, 1, channels))
        module.double()
    outcomes = []
    for module in (ours, theirs):
        torch.manual_seed(1)
        x = torch.randn(batch, channels, height, width, dtype=torch.double) + offset
        x = x.to(memory_format=torch.channels_last).requires_grad_()
        for _ in range(2):
            y = module(x)
        (y * torch.linspace(-1, 2, y.numel(), dtype=torch.double).view_as(y)).sum().backward()
        module.eval()
        outcomes.append([y, x.grad, module.weight.grad, module.bias.grad, *module.state_dict().values(), module(x)])
    for mine, reference in zip(*outcomes, strict=True):
        torch.testing.assert_close(mine, reference, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_values_and_gradients_are_as_exact_as_pytorchs(dtype):
    """Against float64, with a mean far from zero, where sums lose digits."""
    torch.manual_seed(0)
    x = (torch.randn(64, 8, 28, 28) + 5).to(dtype)
    grad = torch.randn_like(x)
    exact = None
    errors = {}
    for name, module, precision in (
        ("exact", nn.BatchNorm2d(8).double(), torch.double),
        ("ours", BatchNorm2d(8), dtype),
        ("theirs", nn.BatchNorm2d(8), dtype),
    ):
        given = x.to(precision).contiguous(memory_format=torch.channels_last).requires_grad_()
        y = module(given)
        y.backward(grad.to(precision))
        assert y.dtype == given.grad.dtype == precision
        got = [value.double() for value in (y.detach(), given.grad, module.weight.grad, module.bias.grad)]
        # What a convolution before it sums up: an error that pixels have in common would not cancel out.
        patches = torch.randn(x.shape, generator=torch.Generator().manual_seed(3)).double() + 3
        got.append((got[1] * patches).sum((0, 2, 3)))
        exact = exact or got
        errors[name] = [((a - b).norm() / b.norm()).item() for a, b in zip(got, exact, strict=True)]
    for ours, theirs in zip(errors["ours"], errors["theirs"], strict=True):
        assert ours < 2 * theirs + 1e-7


def test_the_narrow_way_is_taken_only_where_it_helps():
    channels_last = torch.zeros(2, 8, 4, 4).to(memory_format=torch.channels_last)
    norm = BatchNorm2d(8)
    assert norm._takes_the_narrow_way(channels_last)
    assert not norm._takes_the_narrow_way(channels_last.contiguous())
    assert norm._takes_the_narrow_way(channels_last.bfloat16())
    assert not norm._takes_the_narrow_way(channels_last.half())
    assert not BatchNorm2d(16)._takes_the_narrow_way(torch.zeros(2, 16, 4, 4).to(memory_format=torch.channels_last))
    with torch.no_grad():
        assert not norm._takes_the_narrow_way(channels_last)
    assert not norm.eval()._takes_the_narrow_way(channels_last)
