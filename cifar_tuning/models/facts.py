"""A model's size and cost, counted rather than looked up."""

import torch
from torch import nn
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
    with FlopCounterMode(display=False) as counter:
        model(torch.zeros(1, *image_shape, device=device))
    for module, training in modes.items():
        module.training = training
    return counter.get_total_flops() // 2
