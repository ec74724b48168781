"""Stacked twins: one layer that does for K models what K layers do, each with its own weights.

Between twins the models' features lie side by side in dimension 1, model by model: N×(K·F) or N×(K·C)×H×W. What all
models share (the images, where the seeds agree) stays N×C×H×W until the first layer with weights.
A convolution over side-by-side channels is a grouped one, a fully connected layer a batched matrix product, and
everything that works element by element, or over pixels, needs no twin (Wang et al. 2021, "HFTA", section 3).
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from cifar_tuning import kernels
from cifar_tuning.fused.joining import cat_channels
from cifar_tuning.fused.twin import NotStackableError, memory_format_of
from cifar_tuning.fused.twin import Twin as Twin  # for twins of the user's own, beside TWINS
from cifar_tuning.models.convolution import Conv2d, convolved, pairs_pixels
from cifar_tuning.models.initial_weights import FrozenBatchNorm2d
from cifar_tuning.models.layers import every_nth_pixel
from cifar_tuning.models.normalization import BatchNorm2d, on_gpu
from cifar_tuning.models.resnet import PaddedShortcut


@dataclass
class Given:
    """What a stack is given: images that some of its models may have in common.

    Attributes:
        images: of this step, N×(K·C)×H×W, those of models that share them side by side.
        sharing: how many models have the same images, for each of the different ones in their order; sums up to K.
        batches: the different ones, N×C×H×W each, in the memory format of `images`; none: they are parts of `images`.
    """

    images: Tensor | None = None
    sharing: tuple[int, ...] = ()
    batches: Sequence[Tensor] = ()


class StackedConv2d(Twin):
    """K convolutions: wide ones over what models share, grouped ones over what each has for itself."""

    shared_state = ("weight", "bias")
    weight: Tensor
    bias: Tensor | None

    def __init__(self, layers: Sequence[nn.Conv2d]) -> None:
        super().__init__(layers)
        self.given: Given | None = None
        first = layers[0]
        self.first = {"stride": first.stride, "padding": first.padding, "dilation": first.dilation}
        self.channels, self.groups = first.in_channels, first.groups
        if first.padding_mode != "zeros":
            raise NotStackableError(f"a Conv2d with padding_mode={first.padding_mode}")

    def forward(self, x: Tensor) -> Tensor:
        """Maps N×C×H×W or N×(K·C)×H×W to N×(K·out)×H'×W'."""
        if x.shape[1] == self.channels and self.groups == 1:
            return self._convolved(x, self.weight, self.bias, 1)
        if self.given is not None and x is self.given.images and self.groups == 1:
            return self._of_the_images(x, self.given)
        x = self.side_by_side(x, self.channels)
        return self._convolved(x, self.weight, self.bias, self.count * self.groups)

    def _of_the_images(self, x: Tensor, given: Given) -> Tensor:
        """Convolves images, some of which models may share."""
        alone = len(given.sharing) == self.count
        if alone and x.device.type != "cpu":
            return self._convolved(x, self.weight, self.bias, self.count)
        batches = given.batches or self._apart(x, given.sharing)
        first = self.weight[: len(self.weight) // self.count]
        # In bf16 a grouped convolution of few channels takes longer than one by one in pairs of pixels, and in
        # contiguous_format twice as long.
        in_pairs = _in_bf16(x) and pairs_pixels(batches[0], first, **self.first)  # type: ignore[arg-type]
        if alone and not in_pairs and x.is_contiguous(memory_format=torch.channels_last):
            return self._convolved(x, self.weight, self.bias, self.count)
        return self._widely(batches, given.sharing)

    def _apart(self, x: Tensor, sharing: tuple[int, ...]) -> list[Tensor]:
        """Returns the different images N×C×H×W that N×(K·C)×H×W has side by side."""
        firsts = [sum(sharing[:i]) * self.channels for i in range(len(sharing))]
        return [x[:, a : a + self.channels].contiguous(memory_format=memory_format_of(x)) for a in firsts]

    def _widely(self, batches: Sequence[Tensor], sharing: tuple[int, ...]) -> Tensor:
        """One convolution for each of the different images, a wide one where models share it."""
        outputs, first, features = [], 0, len(self.weight) // self.count
        for images, models in zip(batches, sharing, strict=True):
            own = slice(first * features, (first + models) * features)
            outputs.append(self._convolved(images, self.weight[own], None if self.bias is None else self.bias[own], 1))
            first += models
        return cat_channels(outputs)

    def _convolved(self, x: Tensor, weight: Tensor, bias: Tensor | None, groups: int) -> Tensor:
        return convolved(x, weight, bias, groups, **self.first)  # type: ignore[arg-type]


def _in_bf16(x: Tensor) -> bool:
    """Whether a convolution on a CPU computes in bf16."""
    autocast = torch.is_autocast_enabled("cpu") and torch.get_autocast_dtype("cpu") == torch.bfloat16
    return autocast or x.dtype == torch.bfloat16


class StackedLinear(Twin):
    """K fully connected layers over N×(K·in)."""

    shared_state = ("weight", "bias")
    weight: Tensor
    bias: Tensor | None

    def __init__(self, layers: Sequence[nn.Linear]) -> None:
        super().__init__(layers)
        self.inputs = layers[0].in_features

    def forward(self, x: Tensor) -> Tensor:
        """Maps N×in or N×(K·in) to N×(K·out).

        Raises:
            NotStackableError: the input has more dimensions, of which none tells the models apart.
        """
        if x.ndim != 2:
            raise NotStackableError(f"a Linear over an input of {x.ndim} dimensions")
        if x.shape[1] == self.inputs:
            return F.linear(x, self.weight, self.bias)
        inputs = x.view(len(x), self.count, self.inputs).transpose(0, 1)
        weights = self.weight.view(self.count, -1, self.inputs).transpose(1, 2)
        if self.bias is None:
            y = torch.bmm(inputs, weights)
        else:
            y = torch.baddbmm(self.bias.view(self.count, 1, -1), inputs, weights)
        return y.transpose(0, 1).reshape(len(x), -1)


class StackedBatchNorm2d(Twin):
    """K batch normalisations, which are one over K·C channels; each model's momentum may differ."""

    shared_state = ("weight", "bias", "running_mean", "running_var", "num_batches_tracked")
    weight: Tensor | None
    bias: Tensor | None
    running_mean: Tensor
    running_var: Tensor
    num_batches_tracked: Tensor

    def __init__(self, layers: Sequence[nn.BatchNorm2d]) -> None:
        super().__init__(layers)
        first = layers[0]
        if first.running_mean is None or any(layer.momentum is None for layer in layers):
            raise NotStackableError("a BatchNorm2d without running statistics, or with momentum=None")
        self.channels, self.eps = first.num_features, first.eps
        momenta = [float(layer.momentum or 0.0) for layer in layers]
        self.momentum = momenta[0] if len(set(momenta)) == 1 else None
        each = torch.tensor(momenta, device=first.running_mean.device, dtype=first.running_mean.dtype)
        self.register_buffer("momenta", each.repeat_interleave(self.channels), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """Normalises N×(K·C)×H×W, each channel by itself."""
        x = self.side_by_side(x, self.channels)
        if (y := self.by_kernel(x)) is not None:
            return y
        if not self.training:
            return F.batch_norm(x, self.running_mean, self.running_var, self.weight, self.bias, eps=self.eps)
        if self.momentum is not None:
            self.num_batches_tracked.add_(1)
            return F.batch_norm(
                x, self.running_mean, self.running_var, self.weight, self.bias, True, self.momentum, self.eps
            )
        # With momentum 1 the running statistics become the batch's own.
        mean, var = torch.zeros_like(self.running_mean), torch.zeros_like(self.running_var)
        y = F.batch_norm(x, mean, var, self.weight, self.bias, True, 1.0, self.eps)
        self.take_in(mean, var)
        return y

    def by_kernel(self, x: Tensor, activation: int = kernels.NONE, pooled: bool = False) -> Tensor | None:
        """Normalises on a GPU, and does what comes behind; see `on_gpu`."""
        return on_gpu(self, x, activation, pooled)

    def take_in(self, mean: Tensor, var: Tensor) -> None:
        """Moves the running statistics towards a batch's mean and unbiased variance, K·C each."""
        momenta = self.momenta if self.momentum is None else self.momentum
        self.num_batches_tracked.add_(1)
        self.running_mean.lerp_(mean.to(self.running_mean.dtype), momenta)  # type: ignore[arg-type]
        self.running_var.lerp_(var.to(self.running_var.dtype), momenta)  # type: ignore[arg-type]


class StackedFrozenBatchNorm2d(StackedBatchNorm2d):
    """K batch normalisations that keep their statistics, and use them in training too."""

    def __init__(self, layers: Sequence[FrozenBatchNorm2d]) -> None:
        super().__init__(layers)
        self.eval()

    def train(self, mode: bool = True) -> "StackedFrozenBatchNorm2d":
        """Stays in evaluation mode."""
        return super().train(False)


class StackedDropout(Twin):
    """K dropouts, each with its rate and its own random generator; the draws are those of `nn.Dropout` on a CPU."""

    def __init__(self, layers: Sequence[nn.Module]) -> None:
        super().__init__(layers)
        self.rates = [float(getattr(layer, "p", 0.0)) for layer in layers]  # an Identity is one of rate 0
        self.inplace = any(getattr(layer, "inplace", False) for layer in layers)
        self.generators: Sequence[torch.Generator] = ()

    def forward(self, x: Tensor) -> Tensor:
        """Drops features of N×(K·F), each model's by its own draws."""
        if not self.training or not any(self.rates):
            return x
        kept = torch.cat([self._keep(x, *one) for one in zip(self.rates, self.generators, strict=True)], 1)
        return x.mul_(kept) if self.inplace else x * kept

    def _keep(self, x: Tensor, rate: float, generator: torch.Generator) -> Tensor:
        """Returns 0 for what one model drops and 1/(1-rate) for what it keeps."""
        shape = (len(x), x.shape[1] // self.count, *x.shape[2:])
        noise = torch.empty(shape, dtype=x.dtype, device=x.device, memory_format=memory_format_of(x))
        if rate == 0:
            return noise.fill_(1)
        return noise.bernoulli_(1 - rate, generator=generator).div_(1 - rate) if rate < 1 else noise.zero_()


class StackedPaddedShortcut(Twin):
    """K shortcuts that add channels of zeros around each model's own."""

    def __init__(self, layers: Sequence[PaddedShortcut]) -> None:
        super().__init__(layers)
        self.added, self.stride = layers[0].added, layers[0].stride

    def forward(self, x: Tensor) -> Tensor:
        """Maps N×(K·C)×H×W to N×(K·(C+added))×H/stride×W/stride."""
        before = self.added // 2
        own = every_nth_pixel(x, self.stride).unflatten(1, (self.count, -1))
        wider = F.pad(own, (0, 0, 0, 0, before, self.added - before)).flatten(1, 2)
        return wider.contiguous(memory_format=memory_format_of(x))


# The stacked twin of each type of layer. Subclasses have none: they may compute anything.
TWINS: dict[type[nn.Module], Callable[[Sequence[Any]], Twin]] = {
    nn.Conv2d: StackedConv2d,
    Conv2d: StackedConv2d,
    nn.Linear: StackedLinear,
    nn.BatchNorm2d: StackedBatchNorm2d,
    BatchNorm2d: StackedBatchNorm2d,
    FrozenBatchNorm2d: StackedFrozenBatchNorm2d,
    nn.Dropout: StackedDropout,
    PaddedShortcut: StackedPaddedShortcut,
}
