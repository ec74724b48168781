"""Runs each kernel once, on the shapes of a stack of SimpleNNs, to find out whether Triton works here."""

import torch

from cifar_tuning.kernels import RELU
from cifar_tuning.kernels.convolution import convolve
from cifar_tuning.kernels.normalization import normalize, pool

GROUPS, CHANNELS, SIZE = 2, 8, 6


def try_all(device: torch.device) -> None:
    """Compiles all kernels and launches them on a GPU, which is not waited for.

    Raises:
        Exception: of whatever kind; Triton can't be used here.
    """
    shape = (2, GROUPS * CHANNELS, SIZE, SIZE)
    with torch.enable_grad():
        x = torch.zeros(shape, device=device, dtype=torch.bfloat16).contiguous(memory_format=torch.channels_last)
        weight = torch.zeros((2 * GROUPS * CHANNELS, CHANNELS, 3, 3), device=device, requires_grad=True)
        scale = torch.ones(len(weight), device=device, requires_grad=True)
        shift = torch.zeros(len(weight), device=device, requires_grad=True)
        y = convolve(x.requires_grad_(), weight, shift, GROUPS, 1, 0)
        running = torch.zeros_like(scale), torch.ones_like(scale)
        z = normalize(y, scale, shift, running, 0.1, 1e-5, RELU, pooled=True)
        torch.autograd.grad(pool(z, RELU).sum(), (x, weight, scale, shift))
