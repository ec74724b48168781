"""Several models of one structure as one module, checked before it is used."""

import copy
from collections.abc import Iterator, Sequence
from types import FunctionType

import torch
from torch import Tensor, nn

from cifar_tuning.fused.layers import (
    NEED_NONE,
    TWINS,
    Given,
    NotStackableError,
    StackedBatchNorm2d,
    StackedConv2d,
    StackedDropout,
    Twin,
)
from cifar_tuning.models.activations import Swish
from cifar_tuning.models.layers import is_hooked

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


def check_stackable(model: nn.Module, images: Tensor) -> None:
    """Tries with copies of a model, their weights random, whether a stack computes what its models do.

    A model's own code may do what is different for features side by side (concatenate them, or scale by the largest).

    Args:
        model: on any device; left as it is.
        images: a few, N×C×H×W.

    Raises:
        NotStackableError: it doesn't, or a layer has no twin.
    """
    given = images.detach().to("cpu", torch.float64)
    generator = torch.Generator().manual_seed(0)
    # Positive weights let every pixel through to the end; weights of both signs, near the model's own, don't saturate
    # what is bounded. A stack of two and one of three: what is shared by chance in the one is not in the other.
    for count, near in ((2, False), (3, True)):
        copies = [copy.deepcopy(model).to("cpu", torch.float64).eval() for _ in range(count)]
        for copied in copies:
            _draw_weights(copied, near, generator)
        try:
            _check_all_are_used(copies[0], given)
            with torch.no_grad(), torch.random.fork_rng(devices=[]):
                _check_the_same(copies, given)
        except NotStackableError:
            raise
        except _OtherNumbersError as error:
            raise NotStackableError(_suspect(model) or f"{type(model).__name__} {error}") from error
        except Exception as error:
            what = _suspect(model) or f"{type(model).__name__} does not run over stacked features: {error}"
            raise NotStackableError(what) from error


class _OtherNumbersError(Exception):
    """A stack computes something else than its models."""


def _suspect(model: nn.Module) -> str | None:
    """Names the layers that are kept as they are without being known to be the same for features side by side."""
    kept = [
        f"{name} ({type(module).__name__})"
        for name, module in model.named_modules()
        if name and not module._modules and type(module) not in (*TWINS, *NEED_NONE, nn.Sequential, nn.ModuleList)
    ]
    return f"the layer {', '.join(kept)} has no stacked twin" if kept else None


def _draw_weights(model: nn.Module, near: bool, generator: torch.Generator) -> None:
    """Gives a model random weights: all from 0.1 to 0.6, or near its own, some of which may be zero."""
    for value in [*model.parameters(), *model.buffers()]:
        if not value.is_floating_point():
            continue
        drawn = torch.empty(value.shape, dtype=value.dtype)
        if near and isinstance(value, nn.Parameter):
            scale = value.detach().std().nan_to_num() if value.numel() > 1 else 0.0
            value.data += (scale + 0.05) * drawn.normal_(generator=generator)
        else:
            value.data.copy_(drawn.uniform_(0.1, 0.6, generator=generator))


def _check_the_same(models: list[nn.Module], images: Tensor) -> None:
    """Compares models with their stack, over images that they have in common and over each its own.

    Raises:
        _OtherNumbersError: it computes something else.
    """
    others = [images, images.flip(0), -images][: len(models)]
    shared, apart = (
        [_outputs(model, own) for model, own in zip(models, given, strict=True)]
        for given in ([images] * len(models), others)
    )
    side_by_side = torch.cat(others, 1).contiguous(memory_format=torch.channels_last)
    stacked = stack_models(models)
    together = _outputs(stacked, images)
    give(stacked, Given(side_by_side, (1,) * len(models)))  # as in training, where the runs' batches differ
    for got, expected in ((together, shared), (_outputs(stacked, side_by_side), apart)):
        for one, wanted in zip(got, (torch.cat(mode, 1) for mode in zip(*expected, strict=True)), strict=True):
            if one.shape != wanted.shape or (one - wanted).abs().max() > 1e-9 + 1e-6 * wanted.abs().max():
                raise _OtherNumbersError("computes something else over stacked features")
    _check_dropouts(stacked, images, side_by_side)


def _check_all_are_used(model: nn.Module, images: Tensor) -> None:
    """Looks whether each parameter gets a gradient.

    By itself one without is left alone by its optimizer. In a stack it would have a gradient of zero, and decay.

    Raises:
        NotStackableError: some don't.
    """
    with torch.enable_grad():
        model(images).sum().backward()
    unused = [name for name, value in model.named_parameters() if value.requires_grad and value.grad is None]
    model.zero_grad(set_to_none=True)
    if unused:
        raise NotStackableError(f"{type(model).__name__} does not use its {', '.join(unused)}")


def _check_dropouts(stacked: nn.Module, shared: Tensor, apart: Tensor) -> None:
    """Looks whether features are each model's own where they are dropped: only then are they as wide with both images.

    Args:
        stacked: a stack; its dropouts are off.
        shared: images that its models have in common.
        apart: images of each model's own.

    Raises:
        NotStackableError: what all models share would be dropped, each model's slice of it by another one's draws.
    """
    seen: list[tuple[str, torch.Size]] = []
    for module in stacked.modules():
        if isinstance(module, StackedDropout | nn.Identity):  # a model of rate 0 may have the latter
            kind = "a Dropout" if isinstance(module, StackedDropout) else "an Identity"
            module.register_forward_hook(lambda _, inputs, output, kind=kind: seen.append((kind, output.shape[1:2])))
    stacked(shared)
    calls = len(seen)
    stacked(apart)
    for (kind, width), (_, other) in zip(seen[:calls], seen[calls:], strict=True):
        if width != other:
            raise NotStackableError(f"{kind} before the first layer with weights")


def _outputs(model: nn.Module, images: Tensor) -> list[Tensor]:
    """Returns a model's outputs in evaluation and in training mode, but for the layers that draw or keep statistics.

    Raises:
        NotStackableError: its own code draws random numbers: a stack could not give each run its own.
    """
    evaluated = model.eval()(images)
    model.train()
    for module in model.modules():
        if isinstance(module, nn.Dropout | nn.BatchNorm2d | StackedDropout | StackedBatchNorm2d):
            module.eval()
    before = torch.get_rng_state()
    trained = model(images)
    if not torch.equal(before, torch.get_rng_state()):
        raise NotStackableError(f"{type(model).__name__} draws random numbers outside of nn.Dropout")
    return [evaluated, trained]
