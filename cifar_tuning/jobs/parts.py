"""The objects that a job is made of."""

import logging
from collections.abc import Callable
from dataclasses import dataclass

from hydra.errors import InstantiationException
from torch import nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from cifar_tuning.data import Augmentation, ImageData
from cifar_tuning.errors import wants_traces
from cifar_tuning.tracking.base import Tracker
from cifar_tuning.training.lazy_compiler import load_compiler_lazily
from cifar_tuning.training.regularizers import Regularizer
from cifar_tuning.training.settings import TrainerSettings
from cifar_tuning.user_code import user_frame

log = logging.getLogger(__name__)


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


def make_optimizer(parts: Parts) -> Optimizer:
    """Builds the optimizer over the model's parameters, grouped as the regularizer wants them."""
    load_compiler_lazily()
    return parts.optimizer(parts.regularizer.parameter_groups(parts.model))


def innermost(error: BaseException) -> str:
    """Returns what the constructor itself said, without Hydra's wrapping, and where in the user's own code it arose."""
    if wants_traces(log):
        log.error("What is said in a line below, in full:", exc_info=error)
    place = user_frame(error)
    while isinstance(error, InstantiationException) and error.__cause__ is not None:
        error = error.__cause__
    return f"{type(error).__name__}: {error}".split("\nfull_key")[0] + place
