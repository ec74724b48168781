"""What every stacked twin is: one layer whose memory K layers share."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn


class NotStackableError(ValueError):
    """Some models can't be trained as one; the message says why."""


class Twin(nn.Module):
    """A layer for K models.

    Its parameters and buffers are the K layers' own, concatenated in dimension 0.

    Args:
        layers: of the models, alike but for their weights and, where a twin says so, their numbers.
    """

    # Parameters and buffers of a layer, by name.
    shared_state: tuple[str, ...] = ()

    def __init__(self, layers: Sequence[nn.Module]) -> None:
        super().__init__()
        self.count = len(layers)
        for name in self.shared_state:
            values = [getattr(layer, name) for layer in layers]
            if values[0] is None:
                setattr(self, name, None)
            elif isinstance(values[0], nn.Parameter):
                setattr(self, name, nn.Parameter(_joined(values), requires_grad=values[0].requires_grad))
            else:
                self.register_buffer(name, _joined(values))
        self.share(layers)

    def share(self, layers: Sequence[nn.Module]) -> None:
        """Makes the layers' parameters, their gradients and buffers views of the twin's."""
        for name in self.shared_state:
            mine = getattr(self, name)
            if mine is None:
                continue
            if isinstance(mine, nn.Parameter) and mine.requires_grad:
                mine.grad = torch.zeros_like(mine)
            for index, layer in enumerate(layers):
                theirs = getattr(layer, name)
                theirs.data = part_of(mine.data, index, theirs)
                if mine.grad is not None:
                    theirs.grad = part_of(mine.grad, index, theirs)

    def side_by_side(self, x: Tensor, features: int) -> Tensor:
        """Repeats what the models share, given how many features one of them takes; the memory format stays."""
        if x.shape[1] != features or self.count == 1:
            return x
        return x.repeat(1, self.count, *(1 for _ in x.shape[2:])).contiguous(memory_format=memory_format_of(x))


def _joined(values: Sequence[Tensor]) -> Tensor:
    """K tensors as one, along dimension 0; scalars as a vector. The memory format stays."""
    return torch.cat([value.detach().unsqueeze(0) if value.ndim == 0 else value.detach() for value in values])


def part_of(joined: Tensor, index: int, like: Tensor) -> Tensor:
    """Returns one model's part of what was joined, given a tensor of its shape."""
    return joined[index] if like.ndim == 0 else joined[index * len(like) : (index + 1) * len(like)]


def memory_format_of(x: Tensor) -> torch.memory_format:
    """Returns `channels_last` of images that lie so, else `contiguous_format`."""
    channels_last = x.ndim == 4 and x.is_contiguous(memory_format=torch.channels_last)
    return torch.channels_last if channels_last else torch.contiguous_format
