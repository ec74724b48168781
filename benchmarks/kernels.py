"""Kernels of our own against PyTorch's: forward and backward pass of the layers that they were written for."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from tqdm import tqdm

from benchmarks import measure
from cifar_tuning.errors import UserError
from cifar_tuning.models.convolution import convolved
from cifar_tuning.models.norm_act_pool import activated, activated_and_pooled
from cifar_tuning.models.normalization import BatchNorm2d
from cifar_tuning.training.cuda_graphs import seconds_when_recorded

BATCH = 128
PYTORCH, OURS = "PyTorch", "ours"


class Convolution(NamedTuple):
    """Channels are those of a group."""

    groups: int
    inputs: int
    outputs: int
    size: int
    kernel: int
    stride: int
    padding: int
    of_images: bool = False


class Norm(NamedTuple):
    """Batch norm with what stands behind it."""

    channels: int
    size: int
    activated: bool = False
    pooled: bool = False


LAYERS: dict[str, Convolution | Norm] = {
    "first convolution of a SimpleNN": Convolution(1, 3, 8, 32, 5, 1, 0, of_images=True),
    "of 32 that share their images": Convolution(1, 3, 256, 32, 5, 1, 0, of_images=True),
    "of 32 with images of their own": Convolution(32, 3, 8, 32, 5, 1, 0, of_images=True),
    "of 8 ResNet-20s that share them": Convolution(1, 3, 128, 32, 3, 1, 1, of_images=True),
    "second convolution of 32 SimpleNNs": Convolution(32, 8, 16, 14, 3, 1, 0),
    "8 ResNet-20s, convolution with stride 2, 16 to 32 channels": Convolution(8, 16, 32, 32, 3, 2, 1),
    "the same, 32 to 64 channels": Convolution(8, 32, 64, 16, 3, 2, 1),
    "batch norm of 32 SimpleNNs, 256×28×28": Norm(256, 28),
    "with rectifier and pooling": Norm(256, 28, activated=True, pooled=True),
    "batch norm of 8 ResNet-20s, 128×32×32": Norm(128, 32),
    "256×16×16": Norm(256, 16),
    "512×8×8": Norm(512, 8),
    "128×32×32 with rectifier": Norm(128, 32, activated=True),
}


def run(repeats: int) -> Path:
    """Measures each layer, replayed as a CUDA graph, and prints the figures; returns the JSON file.

    Raises:
        UserError: there is no GPU.
    """
    if not torch.cuda.is_available():
        raise UserError("no CUDA device here; elsewhere PyTorch computes everything")
    figures, device = {}, torch.device("cuda")
    for name, layer in LAYERS.items():
        work = contestants(layer, device)
        times: dict[str, list[float]] = {who: [] for who in work}
        for _ in tqdm(range(repeats), desc=name, leave=False):
            for who, passes in work.items():
                times[who].append(1e6 * seconds_when_recorded(passes, device))
        figures[name] = {who: measure.spread(values) for who, values in times.items()}
        shown = ", ".join(f"{who} {figure['median']:.0f} µs" for who, figure in figures[name].items())
        print(f"kernels  {name}: {shown}", flush=True)
    return measure.write("kernels", {"repeats": repeats, "unit": "µs, both passes", "layers": figures})


def contestants(layer: Convolution | Norm, device: torch.device, images: int = BATCH) -> dict[str, Callable[[], Any]]:
    """Returns what makes a layer's output and gradients, by PyTorch and by us where there is a kernel of ours."""
    made = _convolutions(layer, device, images) if isinstance(layer, Convolution) else _norms(layer, device, images)
    passes = dict(zip((PYTORCH, OURS), made, strict=True))

    def forward(compute: Callable[[], Tensor]) -> Tensor:
        with torch.autocast(device.type, torch.bfloat16):
            return compute()

    grad = torch.randn_like(forward(passes[PYTORCH][0]))

    def both(compute: Callable[[], Tensor], inputs: list[Tensor]) -> Callable[[], Any]:
        return lambda: torch.autograd.grad(forward(compute), inputs, grad)

    return {who: both(*one) for who, one in passes.items()}


Pass = tuple[Callable[[], Tensor], list[Tensor]]


def _convolutions(layer: Convolution, device: torch.device, images: int) -> Iterator[Pass]:
    shape = (images, layer.groups * layer.inputs, layer.size, layer.size)
    x = torch.randn(shape, device=device, dtype=torch.bfloat16).to(memory_format=torch.channels_last)
    weight = torch.randn(layer.groups * layer.outputs, layer.inputs, layer.kernel, layer.kernel, device=device)
    weight = weight.to(memory_format=torch.channels_last).requires_grad_()
    inputs = [weight] if layer.of_images else [x.requires_grad_(), weight]
    numbers = (layer.stride, layer.stride), (layer.padding, layer.padding), (1, 1)
    yield (lambda: F.conv2d(x, weight, None, *numbers, layer.groups)), inputs
    yield (lambda: convolved(x, weight, None, layer.groups, *numbers)), inputs


def _norms(layer: Norm, device: torch.device, images: int) -> Iterator[Pass]:
    shape = (images, layer.channels, layer.size, layer.size)
    x = torch.randn(shape, device=device, dtype=torch.bfloat16).to(memory_format=torch.channels_last).requires_grad_()
    activation, pool = nn.ReLU(), nn.MaxPool2d(2)
    theirs, ours = nn.BatchNorm2d(layer.channels).to(device), BatchNorm2d(layer.channels).to(device)

    def usual() -> Tensor:
        y: Tensor = theirs(x)
        y = activation(y) if layer.activated else y
        return pool(y) if layer.pooled else y

    def own() -> Tensor:
        if layer.pooled:
            return activated_and_pooled(ours, activation, pool, x)
        return activated(ours, activation, x) if layer.activated else ours(x)

    yield usual, [x, *theirs.parameters()]
    yield own, [x, *ours.parameters()]
