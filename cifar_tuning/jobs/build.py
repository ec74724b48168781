"""From a configuration to the objects that train, each built by the constructor its `_target_` names."""

import copy
import inspect
import logging
import random
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import MissingMandatoryValue
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from cifar_tuning.data import Augmentation, ImageData
from cifar_tuning.errors import ConfigError, root_cause, wants_traces
from cifar_tuning.jobs.checks import find_target
from cifar_tuning.targets import refused
from cifar_tuning.text import on_one_line
from cifar_tuning.tracking.base import Tracker
from cifar_tuning.training.lazy_compiler import load_compiler_lazily
from cifar_tuning.training.regularizers import Regularizer
from cifar_tuning.training.resizing import STEP, sides
from cifar_tuning.training.settings import TrainerSettings
from cifar_tuning.user_code import user_frame

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


@dataclass
class Parts:
    """The objects a job is made of; `optimizer` and `schedule` still wait for what they work on."""

    data: ImageData
    augmentation: Augmentation
    model: nn.Module
    optimizer: Callable[..., Optimizer]
    schedule: Callable[..., LRScheduler]
    regularizer: Regularizer
    trainer: TrainerSettings
    tracking: Tracker


def plain(cfg: DictConfig) -> dict[str, Any]:
    """Returns the configuration with every interpolation resolved, as plain dictionaries and lists.

    Raises:
        ConfigError: a value is missing (`???`) or refers to something that does not exist.
    """
    try:
        content = OmegaConf.to_container(cfg, resolve=True, throw_on_missing=True)
    except MissingMandatoryValue as error:
        raise ConfigError([f"{error.full_key}: is missing; give it a value, as in {error.full_key}=…"]) from error
    except Exception as error:
        raise ConfigError([on_one_line(str(error))]) from error
    assert isinstance(content, dict)
    return {str(key): value for key, value in content.items()}


def build_parts(cfg: DictConfig, without: set[str]) -> tuple[Parts | None, list[str]]:
    """Builds every group by its constructor, those left out excepted.

    Returns:
        the parts, if all could be built, and a line for each constructor that refused.
    """
    parts: dict[str, Any] = {}
    failures = []
    for group in Parts.__dataclass_fields__:
        if group in without:
            continue
        try:
            parts[group] = build_model(cfg[group], parts.get("data")) if group == "model" else build_part(cfg[group])
        except Exception as error:
            failures.append(_refusal(group, error))
    if without or failures:
        return None, failures
    built = Parts(**parts)
    failures = _try_together(built)
    return (None if failures else built), failures


def build_part(node: Any) -> Any:
    """Instantiates one config group; lists and dictionaries reach the constructor as plain Python ones."""
    find_target(node.get("_target_"))
    return instantiate(node, _convert_="all")


def build_model(node: Any, data: ImageData | None) -> Any:
    """Instantiates the model, for as many classes as the data has, unless its configuration says how many.

    Args:
        node: the config group.
        data: None: it could not be built; the model has its default.
    """
    target = find_target(node.get("_target_"))
    if data is not None and node.get("num_classes") is None and "num_classes" in inspect.signature(target).parameters:
        return instantiate(node, _convert_="all", num_classes=len(data.classes))
    return build_part(node)


def make_optimizer(parts: Parts) -> Optimizer:
    """Builds the optimizer over the model's parameters, grouped as the regularizer wants them."""
    load_compiler_lazily()
    return parts.optimizer(parts.regularizer.parameter_groups(parts.model))


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


def _try_together(parts: Parts) -> list[str]:
    """Builds the optimizer and the schedule once, so that a bad option shows before the data is fetched."""
    if wrong := _wrong_kind(parts):
        return [wrong]
    try:
        optimizer = make_optimizer(parts)
    except Exception as error:
        return [f"optimizer: {_innermost(error)}"]
    if wrong := _unfit_optimizer(optimizer) or _unfit_schedule(parts, optimizer):
        return [wrong]
    return (_try_images(parts) or _try_small_images(parts)) + _cutout_problems(parts)


def _unfit_optimizer(optimizer: Optimizer) -> str | None:
    """Returns why an optimizer can't train here; None if it can."""
    name = type(optimizer).__name__
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
        return f"schedule: {_innermost(error)}"
    name, steps = type(schedule.scheduler).__name__, getattr(schedule.scheduler, "total_steps", None)
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


def _cutout_problems(parts: Parts) -> list[str]:
    """Looks whether cutout leaves anything of the images."""
    side, cutout = min(parts.data.image_shape[:2]), getattr(parts.augmentation, "cutout", 0)
    if isinstance(cutout, int) and cutout > side:
        return [f"augmentation.cutout={cutout}: must be at most {side}, the side of the images in pixels"]
    return []


def _try_images(parts: Parts) -> list[str]:
    """Looks whether the model makes a number for each class of an image."""
    name, classes = type(parts.model).__name__, len(parts.data.classes)
    height, width, channels = parts.data.image_shape
    try:
        logits = _outputs(parts.model, (channels, height, width))
    except Exception as error:
        small = (height, width) == (32, 32)
        way_out = "" if small else "; give it images of 32×32, or take a model that pools globally: model=resnet20"
        return [f"model: {name} does not take images of {channels}×{height}×{width} ({_innermost(error)}){way_out}"]
    if not isinstance(logits, Tensor):
        return [f"model: {name} returns a {type(logits).__name__}, not a tensor of logits N×{classes}"]
    if logits.shape != (1, classes):
        shape = "×".join(map(str, ("N", *logits.shape[1:])))
        return [
            f"model: {name} returns {shape}, not a number for each of the {classes} classes (N×{classes}); "
            f"many models take it as num_classes={classes}"
        ]
    trained = _outputs_in_training(parts.model, (channels, height, width))
    if trained is not None and not isinstance(trained, Tensor):
        return [
            f"model: {name} returns a {type(trained).__name__} in training, not a tensor of logits N×{classes}; "
            "auxiliary classifiers can mostly be switched off (aux_logits: false)"
        ]
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
            f"{small[0]}×{small[1]} pixels ({_innermost(error)}); use a model that pools globally, such as "
            "model=resnet20, or trainer.initial_scale=1"
        ]
    return []


def _outputs(model: nn.Module, shape: tuple[int, int, int]) -> Any:
    """Returns what a model makes of one image C×H×W in evaluation mode; generators and mode stay as they were."""
    training = model.training
    try:
        with torch.no_grad(), torch.random.fork_rng(devices=[]):
            return model.eval()(torch.zeros(1, *shape))
    finally:
        model.train(training)


def last_batch_problem(parts: Parts, images: int) -> str | None:
    """Returns why a model can't be trained on an epoch's last batch, if that is one image; batch norm may need more.

    Args:
        parts: of the job.
        images: in an epoch.
    """
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
            f"{type(parts.model).__name__} can't be trained on one ({_innermost(error)}); "
            "another batch size or data.train_limit leaves more"
        )
    return None


def _outputs_in_training(model: nn.Module, shape: tuple[int, int, int]) -> Any:
    """Returns what a copy of a model makes of two images in training mode; None where that can't be found out."""
    try:
        with torch.no_grad(), torch.random.fork_rng(devices=[]):
            return copy.deepcopy(model).train()(torch.zeros(2, *shape))
    except Exception:  # shown when it is trained
        return None


def _refusal(group: str, error: Exception) -> str:
    if (reason := refused(error)) is not None:
        return f"{group}: {reason}"
    message = _innermost(error)
    partly = group in ("optimizer", "schedule") and "missing" in message and "argument" in message
    return f"{group}: {message}" + ("; with _partial_: true it is given the rest in training" if partly else "")


def _innermost(error: BaseException) -> str:
    """Returns what the constructor itself said, without Hydra's wrapping, and where in the user's own code it arose."""
    if wants_traces(log):
        log.error("What is said in a line below, in full:", exc_info=error)
    place = user_frame(error)
    error = root_cause(error)
    return f"{type(error).__name__}: {error}".split("\nfull_key")[0] + place


def seed_everything(seed: int, deterministic: bool = False) -> None:
    """Seeds PyTorch's global generators, which draw initial weights and dropout, and others that code may draw from."""
    torch.manual_seed(seed)
    np.random.seed(seed)
    random.seed(seed)
    if torch.are_deterministic_algorithms_enabled() != (deterministic is True):  # it imports the compiler: a second
        torch.use_deterministic_algorithms(deterministic is True)
    torch.backends.cudnn.deterministic = deterministic
    torch.backends.cudnn.benchmark = not deterministic
