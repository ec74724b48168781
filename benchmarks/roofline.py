"""What a machine could do at best: a training step's operations and bytes, counted, over ceilings that are measured."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.utils.benchmark import Timer
from torch.utils.flop_counter import FlopCounterMode

NUMBERS, REPEATS = 2**26, 5
# Sides of the matrices, and products between two looks at the clock: on a GPU a small product would be over before its
# launch is.
ON_CPU, ON_GPU = (2048, 1), (8192, 20)


@dataclass(frozen=True)
class Ceilings:
    """The rates that no step exceeds, in operations and bytes per second."""

    flops: float
    bytes: float


def ceilings(device: torch.device, precision: str) -> Ceilings:
    """Measures a product of large matrices in the precision, and a copy of 256 MB (its reading and writing count).

    In fp32 a GPU's convolutions take TF32 where they can, so the product may as well.
    """
    side, calls = ON_GPU if device.type == "cuda" else ON_CPU
    dtype = torch.bfloat16 if precision == "bf16" else torch.float32
    a, b = (torch.randn(side, side, device=device).to(dtype) for _ in range(2))
    source = torch.zeros(NUMBERS, device=device)
    target = torch.zeros_like(source)
    exact = torch.backends.cuda.matmul.allow_tf32
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32
    try:
        product = _fastest(lambda: torch.mm(a, b), calls)
    finally:
        torch.backends.cuda.matmul.allow_tf32 = exact
    copy = _fastest(lambda: target.copy_(source), calls)
    return Ceilings(2 * side**3 / product, 2 * source.nbytes / copy)


def _fastest(work: Callable[[], Tensor], calls: int) -> float:
    """Returns the seconds of one call, the fastest of several rounds of so many calls."""
    timer = Timer("work()", globals={"work": work}, num_threads=torch.get_num_threads())
    return min(timer.timeit(calls).mean for _ in range(REPEATS))


@dataclass(frozen=True)
class LayerCost:
    """Operations and numbers moved by a layer's forward and backward pass over one image."""

    flops: int
    numbers: int


def costs(model: nn.Module, image_shape: tuple[int, int, int]) -> list[LayerCost]:
    """Counts what every layer costs an image in training.

    Forward a layer reads its input and writes its output; backward it reads the output's gradient and its input, and
    writes the input's gradient. Weights, sums of shortcuts and the optimizer's step are left out. Two operations a
    multiply-accumulate; the backward pass of a layer with weights has twice the forward's, the first layer's once.

    Args:
        model: on any device.
        image_shape: C×H×W.
    """
    found: list[LayerCost] = []
    counter = FlopCounterMode(display=False)
    before = 0

    def count(layer: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        nonlocal before
        flops = counter.get_total_flops() - before
        before += flops
        first = flops > 0 and not any(cost.flops for cost in found)
        moved = inputs[0].numel() + output.numel() + output.numel() + inputs[0].numel() * (1 if first else 2)
        found.append(LayerCost(flops * (2 if first else 3), moved))

    leaves = [layer for layer in model.modules() if not list(layer.children()) and not isinstance(layer, nn.Identity)]
    handles = [layer.register_forward_hook(count) for layer in leaves]
    device, was_training = next(model.parameters()).device, model.training
    try:
        with torch.no_grad(), counter:
            model.eval()(torch.zeros(1, *image_shape, device=device))
    finally:
        model.train(was_training)
        for handle in handles:
            handle.remove()
    return found


def share(layers: list[LayerCost], limits: Ceilings, precision: str, images_per_second: float) -> dict[str, float]:
    """Returns how close a rate is to the ceilings.

    Returns:
        `of_roofline`: the time that the layers would take, each at the ceiling that binds it, over the time taken;
        `of_flops`: operations per second over those of the matrix product; and the two counts, per image.
    """
    size = 2 if precision == "bf16" else 4
    bound = sum(max(cost.flops / limits.flops, cost.numbers * size / limits.bytes) for cost in layers)
    flops = sum(cost.flops for cost in layers)
    return {
        "of_roofline": round(bound * images_per_second, 3),
        "of_flops": round(flops * images_per_second / limits.flops, 3),
        "mflop_per_image": round(flops / 1e6, 2),
        "mbyte_per_image": round(sum(cost.numbers for cost in layers) * size / 1e6, 3),
        "ceiling_gflops": round(limits.flops / 1e9, 1),
        "ceiling_gbytes": round(limits.bytes / 1e9, 1),
    }
