"""Whether a stack of a model computes what its models do, tried before it is used."""

import copy

import torch
from torch import Tensor, nn

from cifar_tuning.fused.layers import TWINS, Given, NotStackableError, StackedBatchNorm2d, StackedDropout
from cifar_tuning.fused.model import give, stack_models
from cifar_tuning.models.activations import Swish

# Work element by element or over pixels, so that features side by side are nothing new to them. Other layers without
# weights are suspects where a stack computes something else.
NEED_NONE = (
    *(nn.Identity, nn.ReLU, nn.LeakyReLU, nn.ELU, nn.GELU, nn.SiLU, nn.Mish, nn.Tanh, nn.Sigmoid, nn.Softplus),
    *(
        nn.Hardswish,
        nn.ReLU6,
        nn.SELU,
        nn.CELU,
        nn.Hardtanh,
        nn.Hardsigmoid,
        nn.ZeroPad2d,
        nn.MaxPool2d,
        nn.AvgPool2d,
        nn.AdaptiveAvgPool2d,
        nn.AdaptiveMaxPool2d,
        nn.Flatten,
        Swish,
    ),
)


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
