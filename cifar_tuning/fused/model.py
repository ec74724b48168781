"""Several models of one structure as one module."""

import copy
from collections.abc import Iterator, Sequence
from types import FunctionType
from typing import TYPE_CHECKING

from torch import nn

from cifar_tuning.fused.layers import (
    TWINS,
    Given,
    NotStackableError,
    StackedConv2d,
    StackedDropout,
    Twin,
)
from cifar_tuning.models.activations import Swish
from cifar_tuning.models.layers import is_hooked

if TYPE_CHECKING:
    from cifar_tuning.training.trainer import Trainer

# Attributes that every module has.
_INTERNAL = frozenset(vars(nn.Module()))


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


def _stack(modules: list[nn.Module], name: str, known: dict[int, nn.Module]) -> nn.Module:
    first = modules[0]
    if any(is_hooked(module) for module in modules):
        raise NotStackableError(f"{name or type(first).__name__} has hooks, which a stack would not call")
    if id(first) in known:  # one layer used under two names
        return known[id(first)]
    kinds = {type(module) for module in modules}
    if kinds == {nn.Identity, nn.Dropout}:
        result: nn.Module = StackedDropout(modules)
    elif len(kinds) > 1:
        raise NotStackableError(f"{name}: {' and '.join(sorted(kind.__name__ for kind in kinds))}")
    elif differing := next((module for module in modules if _options(module) != _options(first)), None):
        raise NotStackableError(f"{name or 'the models'}: {_options(first)} and {_options(differing)}")
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


def _options(module: nn.Module) -> str:
    """What must agree between the modules that share a twin, or a container's code."""
    plain = {key: value for key, value in vars(module).items() if key not in _INTERNAL}
    plain |= {name: None if value is None else tuple(value.shape) for name, value in module._parameters.items()}
    if isinstance(module, nn.Dropout | nn.BatchNorm2d):
        plain.pop("p", None), plain.pop("momentum", None)
    return f"{type(module).__name__} { {name: _described(value) for name, value in plain.items()} }"


def _described(value: object) -> str:
    """An attribute as text, which of a function must not be its address: each model makes its own of one code."""
    if not isinstance(value, FunctionType):
        return repr(value)
    cells = [_described(cell.cell_contents) for cell in value.__closure__ or ()]
    return f"{value.__code__} {value.__defaults__} {cells}"


def structure_of(model: nn.Module) -> str:
    """Returns what models must have in common to be stacked, as text."""
    parts = []
    for name, module in model.named_modules():
        droppable = isinstance(module, nn.Identity | nn.Dropout)  # a rate of 0 may have made it the former
        parts.append(f"{name}: {'dropout' if droppable else _options(module)}")
    return "\n".join(parts)


def stack_key(run: "Trainer") -> tuple[object, ...]:
    """Returns what runs must have in common to be one stack; equal ones can be."""
    return run.precision, run.memory_format, run.device, structure_of(run.model)


def _container(modules: list[nn.Module], name: str, known: dict[int, nn.Module]) -> nn.Module:
    """A module of modules, or one that has nothing to learn, keeps its own code, and with it the twins of its parts.

    Most work element by element or over pixels; `check_stackable` finds out which don't.
    """
    first = modules[0]
    own = [*first._parameters, *first._buffers]
    if any(getattr(first, key) is not None for key in own):
        raise NotStackableError(f"{type(first).__name__} has parameters of its own: {', '.join(own)}")
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


def twins(model: nn.Module) -> Iterator[Twin]:
    """Yields the twins of a stacked model."""
    return (module for module in model.modules() if isinstance(module, Twin))


def give(model: nn.Module, given: Given) -> None:
    """Has a stacked model's convolutions know the images that it is given."""
    for twin in twins(model):
        if isinstance(twin, StackedConv2d):
            twin.given = given
