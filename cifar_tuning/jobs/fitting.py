"""Whether a job's parts can be trained with, and together: tried before the data is fetched."""

import copy
import inspect
import logging
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from cifar_tuning.jobs.parts import Parts, innermost, make_optimizer
from cifar_tuning.training.resizing import STEP, sides
from cifar_tuning.training.settings import resolve_device

log = logging.getLogger(__name__)

# Batches in an epoch, where a schedule is only tried out.
TRIED_STEPS = 1000
# Parts that a `_target_` may build as anything: the methods that training calls, and what to use instead.
NEEDED = (
    (
        "augmentation",
        ("start",),
        "cifar_tuning.data.Augmentation; wrap torchvision's transforms: "
        "augmentation={_target_: cifar_tuning.data.TransformsV2, transforms: [...]}",
    ),
    ("regularizer", ("parameter_groups", "penalty"), "cifar_tuning.training.Regularizer; inherit from it"),
)


def try_together(parts: Parts) -> list[str]:
    """Builds the optimizer and the schedule once, so that a bad option shows before the data is fetched."""
    if wrong := _wrong_kind(parts):
        return [wrong]
    try:
        optimizer = make_optimizer(parts)
    except Exception as error:
        return [f"optimizer: {innermost(error)}"]
    if wrong := _unfit_optimizer(optimizer) or _unfit_schedule(parts, optimizer):
        return [wrong]
    return (_try_images(parts) or _try_small_images(parts)) + _augmentation_problems(parts)


def _wrong_kind(parts: Parts) -> str | None:
    """Returns which of the parts can be built, but not trained with."""
    if not isinstance(parts.model, nn.Module):
        return f"model: builds something of type {type(parts.model).__name__}, not a torch.nn.Module"
    for group, methods, wanted in NEEDED:
        built = getattr(parts, group)
        if not all(callable(getattr(built, method, None)) for method in methods):
            return f"{group}: builds something of type {type(built).__name__}, not a {wanted}"
    if not any(parameter.requires_grad for parameter in parts.model.parameters()):
        return f"model: {type(parts.model).__name__} has no parameters to train"
    return None


def _unfit_optimizer(optimizer: Optimizer) -> str | None:
    """Returns why an optimizer can't train here; None if it can."""
    name = type(optimizer).__name__
    if not isinstance(optimizer, Optimizer) or not hasattr(optimizer, "defaults"):
        return f"optimizer: {name} is no torch.optim.Optimizer, or its constructor does not call super().__init__"
    closure = inspect.signature(type(optimizer).step).parameters.get("closure")
    if closure is not None and closure.default is inspect.Parameter.empty:
        return (
            f"optimizer: {name} wants a closure, to evaluate the loss several times a step, which this training loop "
            "does not; use one that takes a gradient a step, such as optimizer=sgd"
        )
    if "weight_decay" not in optimizer.defaults and any(g.get("weight_decay") for g in optimizer.param_groups):
        return f"regularizer=l2: {name} has no weight_decay; use regularizer=none, l1 or elastic_net"
    return None


def _unfit_schedule(parts: Parts, optimizer: Optimizer) -> str | None:
    """Returns why a schedule can't be used here; None if it can."""
    from cifar_tuning.training.schedules import Schedule

    epochs = parts.trainer.epochs
    try:
        schedule = Schedule(parts.schedule, optimizer, epochs, steps_per_epoch=TRIED_STEPS)
    except Exception as error:
        return f"schedule: {innermost(error)}"
    name, steps = type(schedule.scheduler).__name__, getattr(schedule.scheduler, "total_steps", None)
    if wrong := _unfit_methods(schedule.scheduler, by_loss=schedule.needs_validation):
        return f"schedule: {name}{wrong}"
    own_steps = getattr(parts.schedule, "keywords", {}).get("total_steps") is not None
    per_epoch = TRIED_STEPS if schedule.every_step else 1
    if steps is not None and not own_steps and steps < per_epoch * epochs:
        ends = f"schedule: {name} ends after {steps // per_epoch} of {epochs} epochs"
        return f"{ends}; leave its epochs to trainer.epochs"
    if schedule.needs_validation and parts.data.val_size == 0:
        return (
            f"schedule: {name} steps on the validation loss, and data.val_size=0 leaves none; use another schedule, or "
            "validation images, such as data.val_size=5000"
        )
    if getattr(schedule.scheduler, "mode", "min") == "max" and schedule.needs_validation:
        return "schedule.mode=max: its steps depend on the validation loss, which is better when smaller; use mode: min"
    return None


def _unfit_methods(scheduler: Any, by_loss: bool) -> str | None:
    """Returns what a scheduler lacks to be stepped and kept as PyTorch's are; None if nothing."""
    lacking = [
        name for name in ("step", "state_dict", "load_state_dict") if not callable(getattr(scheduler, name, None))
    ]
    if lacking:
        return f" has no {lacking[0]}; it must be one of PyTorch's schedulers, or like them"
    wanted = [
        parameter.name
        for parameter in inspect.signature(scheduler.step).parameters.values()
        if parameter.default is parameter.empty
        and parameter.kind not in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD)
    ]
    if wanted and not by_loss:
        counting = "use a scheduler that counts its own steps, as PyTorch's do"
        return f".step wants {wanted[0]}, which it is not given: {counting}"
    return None


def _augmentation_problems(parts: Parts) -> list[str]:
    """Looks whether the augmentation leaves images that can be trained on."""
    if (try_out := getattr(parts.augmentation, "try_out", None)) is not None:  # transforms of torchvision's
        try:
            _try_out(parts, try_out)
        except Exception as error:
            return [f"augmentation: {innermost(error)}"]
    side, cutout = min(parts.data.image_shape[:2]), getattr(parts.augmentation, "cutout", 0)
    if isinstance(cutout, int) and cutout > side:
        return [f"augmentation.cutout={cutout}: must be at most {side}, the side of the images in pixels"]
    return []


def _try_out(parts: Parts, try_out: Callable[..., None]) -> None:
    """Tries transforms on the CPU, which takes no GPU's memory; those that can't do without a GPU on the run's."""
    try:
        try_out(parts.data.image_shape)
    except Exception:
        if not torch.cuda.is_available() or (device := resolve_device(parts.trainer.device)).type == "cpu":
            raise
        try_out(parts.data.image_shape, device)


def _try_images(parts: Parts) -> list[str]:
    """Looks whether the model makes a number for each class of an image."""
    name, classes = type(parts.model).__name__, len(parts.data.classes)
    height, width, channels = parts.data.image_shape
    try:
        logits = _outputs(parts.model, (channels, height, width))
    except Exception as error:
        small = (height, width) == (32, 32)
        way_out = "" if small else "; give it images of 32×32, or take a model that pools globally: model=resnet20"
        return [f"model: {name} does not take images of {channels}×{height}×{width} ({innermost(error)}){way_out}"]
    if not isinstance(logits, Tensor):
        return [f"model: {name} returns a {type(logits).__name__}, not a tensor of logits N×{classes}"]
    if logits.shape != (1, classes):
        shape = "×".join(map(str, ("N", *logits.shape[1:])))
        return [
            f"model: {name} returns {shape}, not a number for each of the {classes} classes (N×{classes}); "
            f"many models take it as num_classes={classes}"
        ]
    if not logits.is_floating_point():
        return [f"model: {name} returns {str(logits.dtype).removeprefix('torch.')}, not real numbers"]
    if logits.min() >= 0 and (logits.sum() - 1).abs() < 1e-3:
        log.warning("%s returns probabilities; the loss wants logits: leave out the softmax at its end", name)
    trained = _outputs_in_training(parts.model, (channels, height, width))
    if trained is not None and not isinstance(trained, Tensor):
        return [
            f"model: {name} returns a {type(trained).__name__} in training, not a tensor of logits N×{classes}; "
            "auxiliary classifiers can mostly be switched off (aux_logits: false)"
        ]
    if trained is not None and not trained.requires_grad:
        return [f"model: what {name} returns in training has no gradient, so nothing would be learnt"]
    return []


def _try_small_images(parts: Parts) -> list[str]:
    """Looks whether the model takes the smallest images that progressive resizing gives it."""
    trainer, (height, width, channels) = parts.trainer, parts.data.image_shape
    if trainer.initial_scale == 1:
        return []
    small = sides((height, width), trainer.epochs, trainer.initial_scale, 1.0, 0.0)(1)
    if small == (height, width):
        return [
            f"trainer.initial_scale={trainer.initial_scale}: makes no smaller images of {height}×{width} pixels, whose "
            f"sides go down in steps of {STEP}; give {1 - STEP / max(height, width):g} or less, or 1"
        ]
    try:
        _outputs(parts.model, (channels, *small))
    except Exception as error:
        return [
            f"trainer.initial_scale={trainer.initial_scale}: {type(parts.model).__name__} does not take images of "
            f"{small[0]}×{small[1]} pixels ({innermost(error)}); use a model that pools globally, such as "
            "model=resnet20, or trainer.initial_scale=1"
        ]
    return []


def last_batch_problem(parts: Parts, images: int) -> str | None:
    """Returns why a model can't be trained on an epoch's last batch, if that is one image; batch norm may need more."""
    size = parts.data.batch_size
    if images % size != 1 and size != 1:
        return None
    height, width, channels = parts.data.image_shape
    try:
        with torch.no_grad(), torch.random.fork_rng(devices=[]):
            copy.deepcopy(parts.model).train()(torch.zeros(1, channels, height, width))
    except Exception as error:
        return (
            f"data.batch_size={size}: the last of {images:,} images is a batch by itself, and "
            f"{type(parts.model).__name__} can't be trained on one ({innermost(error)}); "
            "another batch size or data.train_limit leaves more"
        )
    return None


def _outputs(model: nn.Module, shape: tuple[int, int, int]) -> Any:
    """Returns what a model makes of one image C×H×W in evaluation mode; generators and mode stay as they were."""
    training = model.training
    try:
        with torch.no_grad(), torch.random.fork_rng(devices=[]):
            return model.eval()(torch.zeros(1, *shape))
    finally:
        model.train(training)


def _outputs_in_training(model: nn.Module, shape: tuple[int, int, int]) -> Any:
    """Returns what a copy of a model makes of two images in training mode; None where that can't be found out."""
    try:
        with torch.enable_grad(), torch.random.fork_rng(devices=[]):
            return copy.deepcopy(model).train()(torch.zeros(2, *shape))
    except Exception:  # shown when it is trained
        return None
