"""An exponential moving average of a model's weights (Polyak and Juditsky 1992), which is validated in their place."""

import copy
from collections.abc import Iterator
from contextlib import contextmanager

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
        self._averaged = [_can_be_averaged(value) for value in _state(self.model)]

    @torch.no_grad()
    def update(self, model: nn.Module) -> None:
        """Takes the weights of a step in; nothing waits for the device."""
        keep = min(self.decay, (1 + self.steps) / (10 + self.steps))
        self.steps += 1
        triples = list(zip(_state(self.model), _state(model), self._averaged, strict=True))
        pairs = [(mine, theirs) for mine, theirs, averaged in triples if averaged]
        torch._foreach_lerp_([mine for mine, _ in pairs], [theirs for _, theirs in pairs], 1 - keep)
        for mine, theirs, averaged in triples:
            if not averaged:
                mine.copy_(theirs)

    @contextmanager
    def in_place_of(self, model: nn.Module) -> Iterator[None]:
        """Has the average stand in the model's own memory, which may be a stack's, until the end of the context."""
        self._swap(model)
        try:
            yield
        finally:
            self._swap(model)

    @torch.no_grad()
    def _swap(self, model: nn.Module) -> None:
        for mine, theirs in zip(_state(self.model), _state(model), strict=True):
            kept = theirs.clone()
            theirs.copy_(mine)
            mine.copy_(kept)


def _can_be_averaged(value: Tensor) -> bool:
    return (
        value.is_floating_point() and value.dtype.itemsize > 1 and (value.requires_grad or bool(value.isfinite().all()))
    )


def _state(model: nn.Module) -> list[Tensor]:
    """Parameters and buffers, each once: tied weights have two names in a state dict."""
    return [*model.parameters(), *model.buffers()]
