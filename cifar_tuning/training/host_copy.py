"""A copy on the host of what a run holds, which training no longer changes; a GPU is not waited for to make it."""

import copy
import dataclasses
from collections import Counter, OrderedDict
from collections.abc import Callable, Sequence
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

    A GPU's are fetched together: to wait for each of the two hundred of a ResNet-20 takes as long as twenty steps.
    Views are copied too (a run in a stack has only those): `torch.save` writes the whole storage behind a view.
    """

    def __init__(self, state: dict[str, Any]) -> None:
        far: list[Tensor] = []

        def near(tensor: Tensor) -> Any:
            if not _is_far(tensor):
                return tensor.detach().clone()
            far.append(_without_gaps(tensor.detach()))
            return _Place(len(far) - 1)

        self._state = _mapped(state, near)
        self._fetched = _Fetched(far)

    def copied(self) -> dict[str, Any]:
        """Returns the copy; waits until all of it is here."""
        copies = self._fetched.tensors()
        whole: dict[str, Any] = _mapped(self._state, lambda tensor: tensor, lambda place: copies[place.index])
        return whole


@dataclasses.dataclass(frozen=True)
class _Place:
    """Where one of the fetched tensors goes."""

    index: int


def _is_far(tensor: Tensor) -> bool:
    """Whether a tensor is a GPU's and nothing but numbers in memory, so that it can be fetched together with others."""
    plain = type(tensor) in (Tensor, nn.Parameter) and tensor.layout == torch.strided
    return is_asynchronous(tensor.device) and plain and not tensor.is_quantized and not tensor.is_nested


class _Fetched:
    """Copies on the CPU of tensors without gaps, in the order of memory that each has.

    They are on their way when this is made: what is computed with the tensors afterwards doesn't change them.
    """

    def __init__(self, tensors: Sequence[Tensor]) -> None:
        alike: dict[tuple[torch.device, torch.dtype], list[int]] = {}
        for index, one in enumerate(tensors):
            alike.setdefault((one.device, one.dtype), []).append(index)
        self._layouts = [(one.shape, one.stride(), one.numel()) for one in tensors]
        self._joined: list[tuple[list[int], Tensor]] = []
        self._arrivals: list[torch.cuda.Event] = []
        for (device, _), indices in alike.items():
            joined = torch.cat([tensors[i].as_strided((tensors[i].numel(),), (1,)) for i in indices])
            if device.type == "cuda":
                joined = self._sent(joined)
            self._joined.append((indices, joined.cpu()))

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

    def tensors(self) -> list[Tensor]:
        """Returns the copies; waits until they are here."""
        for arrival in self._arrivals:
            arrival.synchronize()
        copies = {}
        for indices, joined in self._joined:
            begin = 0
            for i in indices:
                shape, stride, size = self._layouts[i]
                copies[i] = joined.as_strided(shape, stride, begin).clone()
                begin += size
        return [copies[i] for i in range(len(self._layouts))]


def _without_gaps(tensor: Tensor) -> Tensor:
    """Returns a tensor whose numbers lie in one piece, in whatever order: itself or a copy."""
    expected = 1
    for stride, size in sorted(zip(tensor.stride(), tensor.shape, strict=True)):
        if size != 1 and stride != expected:
            return tensor.contiguous()
        expected *= size
    return tensor


def _mapped(value: Any, of_tensor: Callable[[Tensor], Any], of_place: Callable[[_Place], Tensor] | None = None) -> Any:
    """Returns dictionaries, lists and tuples with other things for tensors and places, and NumPy's numbers as Python's.

    Those are no plain ones when they are read; a schedule that computes with NumPy makes such.
    """
    if isinstance(value, Tensor):
        return of_tensor(value)
    if isinstance(value, _Place) and of_place is not None:
        return of_place(value)
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, dict):
        # With its attributes: a module's state dict has its layers' versions in one.
        mapped = copy.copy(value) if type(value) in DICTIONARIES else {}
        for key, one in value.items():
            mapped[key] = _mapped(one, of_tensor, of_place)
        return mapped
    if type(value) in (list, tuple):
        return type(value)(_mapped(one, of_tensor, of_place) for one in value)
    return value if type(value) in PLAIN else _copied(value)


def _copied(value: Any) -> Any:
    """Returns a copy of what training may go on to change, a set say."""
    try:
        return copy.deepcopy(value)
    except Exception:  # nor can it be written: who tries says so
        return value
