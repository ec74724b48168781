"""A model's size and cost, counted rather than looked up."""

import torch
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode


def count_parameters(model: nn.Module) -> int:
    """Returns the number of trainable parameters."""
    return sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad)


@torch.no_grad()
def count_macs(model: nn.Module, image_shape: tuple[int, int, int]) -> int:
    """Returns the multiply-accumulate operations of one image's forward pass, in convolutions and matrix products.

    Args:
        model: on any device; each layer's mode is put back.
        image_shape: C×H×W.
    """
    device = next(model.parameters()).device
    modes = {module: module.training for module in model.modules()}
    model.eval()
    # An attention's kernels do several of its products at once and are not counted: it is taken apart.
    fast = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
            model(torch.zeros(1, *image_shape, device=device))
    finally:
        torch.backends.mha.set_fastpath_enabled(fast)
    for module, training in modes.items():
        module.training = training
    return counter.get_total_flops() // 2
