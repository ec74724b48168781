"""An exponential moving average of a model's weights (Polyak and Juditsky 1992), which is validated in their place."""

import copy
import operator
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import compress
from typing import NamedTuple

import torch
from torch import Tensor, nn


class WeightAverage:
    """The average of a model's weights and batch-norm statistics over the steps of its training.

    Its beginning counts less than a fixed decay would have it: after n steps the average keeps at most (1+n)/(10+n) of
    itself, as in TensorFlow's `ExponentialMovingAverage`. What is no number to average is the model's own: batch norm's
    counter, and what nobody trains and holds infinities (an attention's mask, of which ∞ - ∞ would come) or has 8 bits.

    Args:
        model: whose weights are averaged; its present ones begin.
        decay: what the average keeps of itself at each step, at most.

    Attributes:
        model: a copy with the average as its weights.
        steps: how many were averaged.
    """

    def __init__(self, model: nn.Module, decay: float) -> None:
        self.model, self.decay, self.steps = copy.deepcopy(model), decay, 0
        # Looked for once: to go through all layers takes the host as long as a GPU takes for a step of a small network.
        pairs = list(zip(_places(self.model), _places(model), strict=True))
        averaged = [_can_be_averaged(mine.tensor) for mine, _ in pairs]
        self._averaged = list(compress(pairs, averaged))
        self._taken_over = list(compress(pairs, map(operator.not_, averaged)))

    @torch.no_grad()
    def update(self) -> None:
        """Takes the weights of a step in; nothing waits for the device."""
        keep = min(self.decay, (1 + self.steps) / (10 + self.steps))
        self.steps += 1
        torch._foreach_lerp_(*_tensors(self._averaged), 1 - keep)
        if self._taken_over:
            torch._foreach_copy_(*_tensors(self._taken_over))

    @contextmanager
    def in_place(self) -> Iterator[None]:
        """Has the average stand in the model's own memory, which may be a stack's, until the end of the context."""
        self._swap()
        try:
            yield
        finally:
            self._swap()

    @torch.no_grad()
    def _swap(self) -> None:
        for mine, theirs in zip(*_tensors(self._averaged + self._taken_over), strict=True):
            kept = theirs.clone()
            theirs.copy_(mine)
            mine.copy_(kept)


class _Place(NamedTuple):
    """Where a layer has a parameter or buffer; code of its own may put another tensor there."""

    of_layer: dict[str, Tensor]
    name: str

    @property
    def tensor(self) -> Tensor:
        return self.of_layer[self.name]


def _can_be_averaged(value: Tensor) -> bool:
    return (
        value.is_floating_point() and value.dtype.itemsize > 1 and (value.requires_grad or bool(value.isfinite().all()))
    )


def _places(model: nn.Module) -> list[_Place]:
    """Where parameters and buffers are, each once: tied weights have two names in a state dict."""
    places: dict[int, _Place] = {}
    for kind in ("_parameters", "_buffers"):
        for layer in model.modules():
            for name, value in getattr(layer, kind).items():
                if value is not None:
                    places.setdefault(id(value), _Place(getattr(layer, kind), name))
    return list(places.values())


def _tensors(pairs: Sequence[tuple[_Place, _Place]]) -> tuple[list[Tensor], list[Tensor]]:
    """Returns the average's tensors and the model's, as they are now."""
    return [mine.tensor for mine, _ in pairs], [theirs.tensor for _, theirs in pairs]
