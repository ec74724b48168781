"""Features side by side, as `torch.cat` puts them."""

import pytest
import torch

from cifar_tuning.fused import joining


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32, torch.float64])
@pytest.mark.parametrize(("channels", "wide"), [((8, 8), True), ((8, 24, 16), True), ((3, 8), False), ((8,), True)])
@pytest.mark.parametrize("memory_format", [torch.channels_last, torch.contiguous_format])
def test_values_and_gradients(dtype, channels, wide, memory_format, monkeypatch):
    generator = torch.Generator().manual_seed(0)
    leaves = [torch.randn(2, c, 4, 6, generator=generator).to(dtype).requires_grad_() for c in channels]
    features = [leaf.contiguous(memory_format=memory_format) for leaf in leaves]
    calls, apply = [], joining._CatChannels.apply
    monkeypatch.setattr(joining._CatChannels, "apply", lambda *a: calls.append(a) or apply(*a))
    joined, reference = joining.cat_channels(features), torch.cat(features, 1)
    assert len(calls) == (wide and memory_format == torch.channels_last)
    assert torch.equal(joined, reference)
    assert joined.is_contiguous(memory_format=memory_format)
    grad = torch.randn(reference.shape, generator=generator).to(dtype)
    for mine, theirs in zip(*(torch.autograd.grad(y, leaves, grad) for y in (joined, reference)), strict=True):
        assert torch.equal(mine, theirs)


def test_single_pixels():
    leaves = [torch.randn(2, 8, 1, 1, requires_grad=True) for _ in range(2)]
    joined = joining.cat_channels(leaves)
    assert torch.equal(joined, torch.cat(leaves, 1))
    (joined.flatten(1) * torch.arange(16)).sum().backward()
    assert torch.equal(leaves[1].grad[0].flatten(), torch.arange(8, 16).float())


def test_parts_of_longer_tensors():
    longer = torch.randn(5, 8, 2, 2).contiguous(memory_format=torch.channels_last)
    parts = [longer[1:3], longer[3:]]
    assert torch.equal(joining.cat_channels(parts), torch.cat(parts, 1))
