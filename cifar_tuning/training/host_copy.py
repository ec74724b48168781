"""A copy on the host of what a run holds, which training no longer changes; a GPU is not waited for to make it."""

import copy
from collections import Counter, OrderedDict
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from cifar_tuning.devices import is_asynchronous

# Dictionaries that `torch.load` makes again without running code of anybody's.
DICTIONARIES = (OrderedDict, Counter)
# What can't be changed.
PLAIN = frozenset({int, float, bool, str, bytes, complex, type(None)})


class OnHost:
    """A copy on the CPU of what may hold tensors, each in memory of its own.

    A GPU's are fetched together: to wait for each of the two hundred of a ResNet-20 takes as long as twenty steps. They
    are on their way when this is made: what is computed with them afterwards doesn't change them.
    Views are copied too (a run in a stack has only those): `torch.save` writes the whole storage behind a view.
    """

    def __init__(self, state: dict[str, Any]) -> None:
        # A GPU's tensors and their copies, by what can be fetched together.
        far: dict[tuple[torch.device, torch.dtype], list[tuple[Tensor, Tensor]]] = {}

        def near(tensor: Tensor) -> Tensor:
            if not _is_far(tensor):
                return tensor.detach().clone()
            there = _without_gaps(tensor.detach())
            here = torch.empty_strided(there.shape, there.stride(), dtype=there.dtype)
            far.setdefault((there.device, there.dtype), []).append((there, here))
            return here

        self._state: dict[str, Any] = _mapped(state, near)
        self._arrivals: list[torch.cuda.Event] = []
        # What is fetched, and the copies that it is for, one behind the other.
        self._fetched: list[tuple[Tensor, list[Tensor]]] = []
        for (device, _), pairs in far.items():
            joined = torch.cat([there.as_strided((there.numel(),), (1,)) for there, _ in pairs])
            if device.type == "cuda":
                joined = self._sent(joined)
            self._fetched.append((joined.cpu(), [here for _, here in pairs]))

    def _sent(self, joined: Tensor) -> Tensor:
        """Has a GPU copy to memory that it can write to by itself; for any other it would be waited for."""
        try:
            here = torch.empty(joined.shape, dtype=joined.dtype, pin_memory=True)
        except RuntimeError:  # the system grants no more of it
            return joined.cpu()
        here.copy_(joined, non_blocking=True)
        self._arrivals.append(torch.cuda.Event())
        self._arrivals[-1].record(torch.cuda.current_stream(joined.device))
        return here

    def copied(self) -> dict[str, Any]:
        """Returns the copy; waits until all of it is here."""
        for arrival in self._arrivals:
            arrival.synchronize()
        for joined, copies in self._fetched:
            begin = 0
            for here in copies:
                here.copy_(joined.as_strided(here.shape, here.stride(), begin))
                begin += here.numel()
        return self._state


def _is_far(tensor: Tensor) -> bool:
    """Whether a tensor is a GPU's and nothing but numbers in memory, so that it can be fetched together with others."""
    plain = type(tensor) in (Tensor, nn.Parameter) and tensor.layout == torch.strided
    return is_asynchronous(tensor.device) and plain and not tensor.is_quantized and not tensor.is_nested


def _without_gaps(tensor: Tensor) -> Tensor:
    """Returns a tensor whose numbers lie in one piece, in whatever order: itself or a copy."""
    expected = 1
    for stride, size in sorted(zip(tensor.stride(), tensor.shape, strict=True)):
        if size != 1 and stride != expected:
            return tensor.contiguous()
        expected *= size
    return tensor


def _mapped(value: Any, of_tensor: Callable[[Tensor], Tensor]) -> Any:
    """Returns dictionaries, lists and tuples with other tensors in them, and NumPy's numbers as Python's.

    Those are no plain ones when they are read; a schedule that computes with NumPy makes such.
    """
    if isinstance(value, Tensor):
        return of_tensor(value)
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, dict):
        # With its attributes: a module's state dict has its layers' versions in one.
        mapped = copy.copy(value) if type(value) in DICTIONARIES else {}
        for key, one in value.items():
            mapped[key] = _mapped(one, of_tensor)
        return mapped
    if type(value) in (list, tuple):
        return type(value)(_mapped(one, of_tensor) for one in value)
    return value if type(value) in PLAIN else _copied(value)


def _copied(value: Any) -> Any:
    """Returns a copy of what training may go on to change, a set say."""
    try:
        return copy.deepcopy(value)
    except Exception:  # nor can it be written: who tries says so
        return value
