"""Claim 1.8: depthwise separable convolutions make a ResNet's 3×3 layers about nine times faster. Counted and timed."""

import statistics
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor, nn
from tqdm import tqdm

from cifar_tuning.models import ResNet
from cifar_tuning.models.facts import count_macs, count_parameters
from cifar_tuning.models.layers import conv3x3
from cifar_tuning.training.settings import place

IMAGE_SHAPE = (3, 32, 32)
WARM_UP = 3


@dataclass(frozen=True)
class Layer:
    """A 3×3 convolution from M to N channels with a D×D output.

    Its depthwise separable form has 1/N + 1/9 of its weights and of its multiply-accumulate operations: 9·M·D·D +
    M·N·D·D in place of 9·M·N·D·D (Howard et al. 2017, "MobileNets", section 3.1, equations 2 and 5).

    Args:
        name: in the model.
        in_channels, out_channels, side: M, N, D.
        stride: of the convolution; its input is stride·D wide.
    """

    name: str
    in_channels: int
    out_channels: int
    side: int
    stride: int

    @property
    def ratio(self) -> float:
        """What the separable form has of the operations."""
        return 1 / self.out_channels + 1 / 9

    @property
    def shape(self) -> tuple[int, int, int, int]:
        """M, N, D and the stride: what decides a layer's time."""
        return self.in_channels, self.out_channels, self.side, self.stride


@dataclass(frozen=True)
class Times:
    """Median milliseconds of a batch's forward and backward pass, and how often faster the separable form is.

    `speedup` is the median of the rounds' ratios, forward and backward together: both sides of each were
    measured within the same moment.
    """

    name: str
    regular_forward: float
    regular_backward: float
    separable_forward: float
    separable_backward: float
    speedup: float


@torch.no_grad()
def layers_of(depth: int = 20) -> list[Layer]:
    """Returns every 3×3 convolution of a ResNet for 32×32 images, in the network's order.

    Args:
        depth: 6n+2.
    """
    found: list[Layer] = []

    def add(name: str, layer: nn.Conv2d, inputs: object, output: Tensor) -> None:
        found.append(Layer(name, layer.in_channels, layer.out_channels, output.shape[2], layer.stride[0]))

    with torch.device("meta"):  # shapes without numbers
        model = ResNet(depth).eval()
        for name, module in model.named_modules():
            if isinstance(module, nn.Conv2d) and module.kernel_size == (3, 3):
                module.register_forward_hook(partial(add, name))
        model(torch.zeros(1, *IMAGE_SHAPE))
    return found


def network_totals() -> dict[str, dict[str, int]]:
    """Returns `macs` of one image and `parameters` of ResNet-20, `regular` and `separable`."""
    with torch.device("meta"):
        models = {"regular": ResNet(), "separable": ResNet(separable=True)}
    return {
        name: {"macs": count_macs(model, IMAGE_SHAPE), "parameters": count_parameters(model)}
        for name, model in models.items()
    }


def measure_times(depth: int = 20, *, batch_size: int, repeats: int) -> list[Times]:
    """Times every 3×3 convolution of a ResNet, regular and separable, and, as the last entry, the `network`.

    On the CPU, in fp32 and channels_last. Each round takes all layers of both kinds in turn, so that what else the
    machine does hits all of them alike. Layers of one shape are measured once and get the same times. The backward pass
    gives the gradients of the weights and, but for the images, of the input.

    Args:
        depth: 6n+2.
        batch_size: images.
        repeats: rounds that count; three more go before, to warm up.
    """
    layers = layers_of(depth)
    with torch.random.fork_rng(devices=[]):  # weights and inputs are random, the caller's numbers stay as they are
        subjects = _subjects(layers, depth, batch_size)
    rounds = _measure(subjects, repeats)
    measured = {key: _summary(values) for key, values in rounds.items()}
    named: list[tuple[str, object]] = [(layer.name, layer.shape) for layer in layers]
    return [Times(name, *measured[key]) for name, key in [*named, ("network", "network")]]


class _Subject:
    """A module, an input, and how to time it.

    Args:
        module: put into training mode.
        x: a batch; a gradient is computed for it where it requires one.
    """

    def __init__(self, module: nn.Module, x: Tensor) -> None:
        self.module = place(module, torch.device("cpu")).train()
        self.x = x.detach().to(memory_format=torch.channels_last).requires_grad_(x.requires_grad)
        self.wanted = [*self.module.parameters(), *([self.x] if self.x.requires_grad else [])]

    def time(self) -> tuple[float, float]:
        """Returns the milliseconds of one forward and one backward pass."""
        start = time.perf_counter()
        output = self.module(self.x)
        forward = time.perf_counter() - start
        gradient = torch.ones_like(output)
        start = time.perf_counter()
        torch.autograd.grad(output, self.wanted, gradient)
        backward = time.perf_counter() - start
        return 1000 * forward, 1000 * backward


def _subjects(layers: Sequence[Layer], depth: int, batch_size: int) -> dict[object, list[_Subject]]:
    """Returns a regular and a separable subject for each shape of layer, and for the `network`."""
    kinds = (False, True)
    subjects: dict[object, list[_Subject]] = {
        layer.shape: [_layer(layer, separable, batch_size) for separable in kinds] for layer in layers
    }
    images = torch.randn(batch_size, *IMAGE_SHAPE)
    subjects["network"] = [_Subject(ResNet(depth, separable=separable), images) for separable in kinds]
    return subjects


def _layer(layer: Layer, separable: bool, batch_size: int) -> _Subject:
    module = conv3x3(
        layer.in_channels, layer.out_channels, separable=separable, bias=False, stride=layer.stride, padding=1
    )
    side = layer.side * layer.stride
    x = torch.randn(batch_size, layer.in_channels, side, side)
    return _Subject(module, x.requires_grad_(layer.in_channels != IMAGE_SHAPE[0]))


def _measure(subjects: Mapping[object, Sequence[_Subject]], repeats: int) -> dict[object, list[list[float]]]:
    """Returns, for each pair of subjects, the rounds: forward and backward of the one, then of the other."""
    rounds: dict[object, list[list[float]]] = {key: [] for key in subjects}
    for number in tqdm(range(WARM_UP + repeats), desc="timing layers", unit=" rounds"):
        for key, pair in subjects.items():
            times = [value for subject in pair for value in subject.time()]
            if number >= WARM_UP:
                rounds[key].append(times)
    return rounds


def _summary(rounds: list[list[float]]) -> list[float]:
    medians = [statistics.median(column) for column in zip(*rounds, strict=True)]
    return [*medians, statistics.median((times[0] + times[1]) / (times[2] + times[3]) for times in rounds)]
