"""Several models of one structure as one module."""

import copy
import hashlib
from collections.abc import Mapping, Sequence
from functools import partial
from itertools import zip_longest
from types import FunctionType
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor, nn

from cifar_tuning.fused.layers import TWINS, Given, StackedConv2d, StackedDropout
from cifar_tuning.fused.twin import NotStackableError
from cifar_tuning.models.activations import Swish
from cifar_tuning.models.layers import is_hooked

if TYPE_CHECKING:
    from cifar_tuning.training.trainer import Trainer

# Attributes that every module has.
_INTERNAL = frozenset(vars(nn.Module()))
# Levels of nested attributes that are compared, and the longest value that a message shows.
DEPTH, SHOWN = 4, 60


def stack_models(models: Sequence[nn.Module]) -> nn.Module:
    """Makes one module of K models: their own code, with a stacked twin in place of each layer.

    It maps images N×C×H×W, or N×(K·C)×H×W of each model's own, to logits N×(K·classes). The models' parameters,
    gradients and buffers become views of its own: what changes one changes the other.

    Args:
        models: on one device, of one structure.

    Raises:
        NotStackableError: they differ, or have a layer without a twin.
    """
    layers = [id(value) for module in set(models[0].modules()) for value in module._parameters.values()]
    if len(layers) - layers.count(id(None)) != len({*layers} - {id(None)}):
        raise NotStackableError(f"{type(models[0]).__name__} has layers that share a parameter")
    return _stack(list(models), "", {})


def refuse_hooks(module: nn.Module, name: str) -> None:
    """Looks for hooks, on a module itself and on its parameters.

    Raises:
        NotStackableError: it has some.
    """
    own = [value for value in module._parameters.values() if value is not None]
    if is_hooked(module) or any(value._backward_hooks or value._post_accumulate_grad_hooks for value in own):
        raise NotStackableError(f"{name or type(module).__name__} has hooks, which a stack would not call")


def _stack(modules: list[nn.Module], name: str, known: dict[int, nn.Module]) -> nn.Module:
    first = modules[0]
    for module in modules:
        refuse_hooks(module, name)
    if id(first) in known:  # one layer used under two names
        return known[id(first)]
    kinds = {type(module) for module in modules}
    if kinds == {nn.Identity, nn.Dropout}:
        result: nn.Module = StackedDropout(modules)
    elif len(kinds) > 1:
        raise NotStackableError(f"{name}: {' and '.join(sorted(kind.__name__ for kind in kinds))}")
    elif differing := next((module for module in modules if options(module) != options(first)), None):
        raise NotStackableError(f"{name or 'the models'}: {difference(options(first), options(differing))}")
    elif (twin := TWINS.get(type(first))) is not None:
        result = twin(modules)
    elif type(first) is Swish and not first.learnable:
        result = copy.copy(first)
    elif not first._modules and (first._parameters or first._buffers):
        raise NotStackableError(f"the layer {name} ({type(first).__name__}) has no stacked twin")
    else:
        result = _container(modules, name, known)
    known[id(first)] = result
    return result


def options(module: nn.Module) -> dict[str, str]:
    """Returns what must agree between the modules that share a twin, or a container's code, by attribute."""
    plain: dict[str, object] = {key: value for key, value in vars(module).items() if key not in _INTERNAL}
    for name, value in module._parameters.items():
        plain[name] = None if value is None else (tuple(value.shape), "trained" if value.requires_grad else "frozen")
    if isinstance(module, nn.Dropout | nn.BatchNorm2d):
        plain.pop("p", None), plain.pop("momentum", None)
    return {"type": type(module).__name__} | {name: _described(value) for name, value in plain.items()}


def difference(one: Mapping[str, str], other: Mapping[str, str]) -> str:
    """Says in what two modules of different `options` differ."""
    key = next(key for key in {**one, **other} if one.get(key) != other.get(key))
    values = one.get(key, "nothing"), other.get(key, "nothing")
    told = f" ({' and '.join(values)})" if max(map(len, values)) <= SHOWN else ""
    return f"they differ in {key}{told}"


def _described(value: object, depth: int = 0) -> str:
    """An attribute as text: the same for what does the same, so neither shortened nor with an address in memory."""
    if isinstance(value, Tensor) and value.layout == torch.strided and not value.is_quantized and not value.is_meta:
        # NumPy has no bfloat16, but every number is bytes.
        value = np.asarray(value.detach().cpu().contiguous().flatten().view(torch.uint8)), value.shape, value.dtype
    if isinstance(value, np.ndarray):
        content = repr(value.tolist()).encode() if value.dtype.hasobject else value.tobytes()
        return f"array {value.shape} {value.dtype} {hashlib.sha256(content).hexdigest()[:16]}"
    if depth >= DEPTH:
        return repr(value)
    inside = partial(_described, depth=depth + 1)
    if isinstance(value, FunctionType):
        cells = [inside(cell.cell_contents) for cell in value.__closure__ or ()]
        return f"{value.__code__} {value.__defaults__} {cells}"
    if isinstance(value, dict):
        return f"{type(value).__name__} { {inside(key): inside(each) for key, each in value.items()} }"
    if isinstance(value, list | tuple):
        return f"{type(value).__name__} {[inside(each) for each in value]}"
    if type(value).__repr__ is object.__repr__ and hasattr(value, "__dict__"):
        return f"{type(value).__qualname__} {inside(vars(value))}"
    return repr(value)


def structure_of(model: nn.Module) -> dict[str, dict[str, str]]:
    """Returns what models must have in common to be stacked: the options of each part, by its name."""
    parts = {}
    for name, module in model.named_modules():
        droppable = isinstance(module, nn.Identity | nn.Dropout)  # a rate of 0 may have made it the former
        parts[name] = {"type": "dropout"} if droppable else options(module)
    return parts


# Names of the first entries of a `stack_key`.
OUTER = ("precision", "memory format", "device")


def stack_key(run: "Trainer") -> tuple[str, ...]:
    """Returns what runs must have in common to be one stack; equal ones can be."""
    structure = [f"{name}: {own}" for name, own in structure_of(run.model).items()]
    return run.precision, run.memory_format, str(run.device), *structure


def why_apart(one: tuple[str, ...], other: tuple[str, ...]) -> str:
    """Says why runs of different `stack_key`s can't be one stack."""
    index, (mine, theirs) = next(
        (index, pair) for index, pair in enumerate(zip_longest(one, other, fillvalue="")) if pair[0] != pair[1]
    )
    if index < len(OUTER):
        return f"{OUTER[index]} {mine}, not {theirs}"
    part = (mine or theirs).partition(":")[0]
    return f"the model's {part} differs" if part else "the models' own attributes differ"


def _container(modules: list[nn.Module], name: str, known: dict[int, nn.Module]) -> nn.Module:
    """A module of modules, or one that has nothing to learn, keeps its own code, and with it the twins of its parts.

    Most work element by element or over pixels; `check_stackable` finds out which don't.
    """
    first = modules[0]
    own = [*first._parameters, *first._buffers]
    if any(getattr(first, key) is not None for key in own):
        raise NotStackableError(f"{type(first).__name__} has parameters of its own: {', '.join(own)}")
    if lists := [key for key, value in vars(first).items() if key not in _INTERNAL and _holds_modules(value)]:
        raise NotStackableError(f"{type(first).__name__} has layers in {', '.join(lists)}, which is no nn.ModuleList")
    result = copy.copy(first)
    if any(other._modules.keys() != first._modules.keys() for other in modules):
        raise NotStackableError(f"{name or type(first).__name__}: only some of the models have all of its parts")
    result._modules = dict(first._modules)
    for child, module in first._modules.items():
        parts = [other._modules.get(child) for other in modules]
        if module is None and all(part is None for part in parts):
            continue
        if any(part is None for part in parts):
            raise NotStackableError(f"{name}{'.' if name else ''}{child}: only some of the models have it")
        result._modules[child] = _stack([p for p in parts if p is not None], f"{name}.{child}".lstrip("."), known)
    return result


def _holds_modules(value: object) -> bool:
    held = value.values() if isinstance(value, dict) else value if isinstance(value, list | tuple | set) else [value]
    return any(isinstance(each, nn.Module) for each in held)


def give(model: nn.Module, given: Given, generators: Sequence[torch.Generator] = ()) -> None:
    """Has a stacked model know the images that it is given, and what its dropouts draw from in training."""
    for module in model.modules():
        if isinstance(module, StackedConv2d):
            module.given = given
        elif isinstance(module, StackedDropout):
            module.generators = generators
