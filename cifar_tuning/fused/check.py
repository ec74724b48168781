"""Checks with random weights that a stack computes what its models do, before it is used."""

import copy
import random
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch
from torch import Tensor, nn

from cifar_tuning.fused.layers import TWINS, Given, StackedDropout
from cifar_tuning.fused.model import give, options, refuse_hooks, stack_models
from cifar_tuning.fused.twin import NotStackableError
from cifar_tuning.models.activations import Swish
from cifar_tuning.processes import free_memory

# Work element by element or over pixels, so that features side by side are nothing new to them. Other layers without
# weights are suspects where a stack computes something else.
NEED_NO_TWIN = (
    *(nn.Identity, nn.ReLU, nn.LeakyReLU, nn.ELU, nn.GELU, nn.SiLU, nn.Mish, nn.Tanh, nn.Sigmoid, nn.Softplus),
    *(nn.Hardswish, nn.ReLU6, nn.SELU, nn.CELU, nn.Hardtanh, nn.Hardsigmoid, nn.Flatten, Swish),
    *(nn.ZeroPad2d, nn.MaxPool2d, nn.AvgPool2d, nn.AdaptiveAvgPool2d, nn.AdaptiveMaxPool2d),
)
# Images in a trial pass. Several, because a model's code may treat a batch of one differently.
TRIED = 4
# Copies of a model's weights that are in memory at once: of three models the originals; those trained alone with their
# gradients; those in the stack with their gradients; and the stack's own.
COPIES = 3 + 2 * 3 + 2 * 3 + 3


def check_stackable(model: nn.Module, images: Tensor) -> None:
    """Tries with copies of a model, their weights random, whether a stack computes what its models do.

    A model's own code may do what is different for features side by side (concatenate them, or scale by the largest),
    forward, in training, or only in the gradients. So the copies' outputs are compared in evaluation, and in training
    also their gradients, weights, statistics and random numbers.

    Args:
        model: on any device; left as it is.
        images: a few, N×C×H×W; at most `TRIED` of them are looked at.

    Raises:
        NotStackableError: it doesn't, or a layer has no twin.
    """
    for name, module in model.named_modules():
        refuse_hooks(module, name)  # copies have lost those of their parameters
    _check_memory(model)
    generator = torch.Generator().manual_seed(0)
    given = images[:TRIED].detach().to("cpu", torch.float64)
    given = given + 0.01 * torch.randn(given.shape, dtype=given.dtype, generator=generator)  # no two pixels are equal
    given = given.contiguous(memory_format=torch.channels_last)  # as side by side: dropout draws in memory's order
    # Positive weights let every pixel through to the end; weights of both signs, near the model's own, don't saturate
    # what is bounded. A stack of two and one of three: what is shared by chance in the one is not in the other.
    for count, near in ((2, False), (3, True)):
        copies = [copy.deepcopy(model).to("cpu", torch.float64).eval() for _ in range(count)]
        for copied in copies:
            copied.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        for copied in copies:
            _draw_weights(copied, near, generator)
        try:
            with _own_draws(model):
                with torch.no_grad():
                    _check_evaluation(copies, given)
                with torch.enable_grad():
                    _check_training(copies, given)
        except NotStackableError:
            raise
        except _OtherNumbersError as error:
            raise NotStackableError(_suspect(model) or f"{type(model).__name__} {error}") from error
        except Exception as error:
            what = _suspect(model) or f"{type(model).__name__} does not run over stacked features: {error}"
            raise NotStackableError(what) from error


def _check_memory(model: nn.Module) -> None:
    """Looks whether copies in float64, alone and stacked, with their gradients, fit into the machine's memory.

    Raises:
        NotStackableError: they might not.
    """
    needed = 8 * COPIES * sum(value.numel() for value in model.parameters())
    if needed > free_memory() / 2:
        raise NotStackableError(f"to try out a stack of such models would take {needed / 1e9:,.0f} GB of memory")


class _OtherNumbersError(Exception):
    """A stack computes something else than its models."""


def _suspect(model: nn.Module) -> str | None:
    """Names the layers that are kept as they are without being known to be the same for features side by side."""
    kept = [
        f"{name} ({type(module).__name__})"
        for name, module in model.named_modules()
        if name and not module._modules and type(module) not in (*TWINS, *NEED_NO_TWIN, nn.Sequential, nn.ModuleList)
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


def _check_evaluation(models: list[nn.Module], images: Tensor) -> None:
    """Compares models with their stack in evaluation, over images that they have in common and over each its own.

    Raises:
        _OtherNumbersError: it computes something else.
        NotStackableError: it draws random numbers.
    """
    side_by_side, apart = _own_images(images, len(models))
    shared = [images] * len(models)
    expected = [[model(own) for model, own in zip(models, given, strict=True)] for given in (shared, apart)]
    stacked = stack_models(copy.deepcopy(models)).eval()
    before = torch.get_rng_state()
    got = [stacked(images)]
    give(stacked, Given(side_by_side, (1,) * len(models)))  # as in training, where the runs' batches differ
    got.append(stacked(side_by_side))
    if not torch.equal(before, torch.get_rng_state()):
        raise _drawing(models[0])
    for one, wanted in zip(got, expected, strict=True):
        _compare(one, torch.cat(wanted, 1))
    _check_dropouts(stacked, images, side_by_side)


def _check_training(models: list[nn.Module], images: Tensor) -> None:
    """Compares a training pass of models with that of their stack, as `_check_evaluation` does.

    Raises:
        _OtherNumbersError: it computes something else.
        NotStackableError: a model has what a stack can't give each of its own.
    """
    side_by_side, apart = _own_images(images, len(models))
    # Images in common once: what differs with them would with two models.
    layouts = [(side_by_side, apart)] if len(models) > 2 else [(images, [images] * len(models)), (side_by_side, apart)]
    for given, own in layouts:
        alone, together = copy.deepcopy(models), copy.deepcopy(models)
        before = [_options_of(model) for model in alone]
        expected = [_pass(model, one, seed) for seed, (model, one) in enumerate(zip(alone, own, strict=True))]
        _check_nothing_is_kept(alone[0], before[0])
        _check_all_are_used(alone[0])
        stacked = stack_models(together)
        generators = [torch.Generator().manual_seed(seed) for seed in range(len(models))]
        give(stacked, Given(given if given is side_by_side else None, (1,) * len(models)), generators)
        state = torch.get_rng_state()
        logits = _pass(stacked, given, None, len(models))
        if not torch.equal(state, torch.get_rng_state()):
            raise _drawing(models[0])
        _compare(logits, torch.cat(expected, 1))
        for one, other in zip(alone, together, strict=True):
            of_other = {**dict(other.named_parameters()), **dict(other.named_buffers())}
            for key, wanted in [*one.named_parameters(), *one.named_buffers()]:
                _compare(of_other[key], wanted)
                if wanted.grad is not None:
                    _compare(of_other[key].grad, wanted.grad)


@contextmanager
def _own_draws(model: nn.Module) -> Iterator[None]:
    """Puts all random generators back to where they stood.

    Raises:
        NotStackableError: the model drew from Python's or NumPy's.
    """
    others = random.getstate(), np.random.get_state(legacy=False)
    with torch.random.fork_rng(devices=[]):
        yield
    if repr(others) != repr((random.getstate(), np.random.get_state(legacy=False))):
        random.setstate(others[0])
        np.random.set_state(others[1])
        raise _drawing(model)


def _drawing(model: nn.Module) -> NotStackableError:
    return NotStackableError(f"{type(model).__name__} draws random numbers outside of nn.Dropout")


def _own_images(images: Tensor, count: int) -> tuple[Tensor, list[Tensor]]:
    """Returns images of each model's own, side by side and one by one."""
    apart = [images, images.flip(0), -images][:count]
    return torch.cat(apart, 1).contiguous(memory_format=torch.channels_last), apart


def _pass(model: nn.Module, images: Tensor, seed: int | None, count: int = 1) -> Tensor:
    """Returns the logits of a pass forward and backward in training mode; each of `count` models has its own loss."""
    if seed is not None:
        torch.manual_seed(seed)
    logits: Tensor = model.train()(images)
    # Fixed, and of no pattern: a sum would be blind to what a softmax or a batch norm keeps constant.
    each = torch.linspace(-1, 1, logits.numel() // count, dtype=logits.dtype).mul(7).sin().view(len(logits), -1)
    (logits * each.repeat(1, count)).sum().backward()
    return logits.detach()


def _compare(one: Tensor | None, wanted: Tensor) -> None:
    if one is None or one.shape != wanted.shape or not _near(one.detach(), wanted.detach()):
        raise _OtherNumbersError("computes something else over stacked features")


def _near(one: Tensor, wanted: Tensor) -> bool:
    return bool(((one - wanted).abs().max() <= 1e-9 + 1e-6 * wanted.abs().max()).item()) if wanted.numel() else True


def _options_of(model: nn.Module) -> dict[str, dict[str, str]]:
    return {name: options(module) for name, module in model.named_modules()}


def _check_nothing_is_kept(model: nn.Module, before: dict[str, dict[str, str]]) -> None:
    """Looks whether a model has the same attributes as before a training pass.

    Raises:
        NotStackableError: it counts its steps, say, and a stack would count for all of its runs.
    """
    for name, now in _options_of(model).items():
        changed = [key for key in {**before[name], **now} if before[name].get(key) != now.get(key)]
        if changed:
            where = f"{name} ({type(model.get_submodule(name)).__name__})" if name else type(model).__name__
            raise NotStackableError(f"{where} changes its {', '.join(changed)} in training, outside of its buffers")


def _check_all_are_used(model: nn.Module) -> None:
    """Looks whether each parameter got a gradient in training.

    By itself one without is left alone by its optimizer. In a stack it would have a gradient of zero, and decay.

    Raises:
        NotStackableError: some got none.
    """
    unused = [name for name, value in model.named_parameters() if value.requires_grad and value.grad is None]
    if unused:
        raise NotStackableError(f"{type(model).__name__} does not use its {', '.join(unused)} in training")


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
