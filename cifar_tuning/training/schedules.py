"""Learning-rate schedules: PyTorch's own, found by what their constructors ask for.

`schedule=` names any callable that takes the optimizer and returns a PyTorch scheduler. If it also has
parameters called `epochs` or `steps_per_epoch`, they are filled in. The option `interval`, as Lightning calls it, says
whether the scheduler is stepped after every batch (`step`) or after every `epoch`. Without it those are stepped after
every batch that ask for `steps_per_epoch` or that PyTorch documents so (`BY_STEP`), any other after every epoch.
"""

import functools
import inspect
from collections.abc import Callable
from typing import Any

from torch.optim import Optimizer
from torch.optim.lr_scheduler import (
    CosineAnnealingLR,
    CyclicLR,
    LambdaLR,
    LinearLR,
    LRScheduler,
    OneCycleLR,
    ReduceLROnPlateau,
    SequentialLR,
    StepLR,
)

# Count batches.
BY_STEP = (OneCycleLR, CyclicLR)
# Share of the learning rate with which a warm-up begins.
COLD = 0.01


def constant(optimizer: Optimizer) -> LRScheduler:
    """The learning rate stays what it is."""
    return LambdaLR(optimizer, lambda epoch: 1.0)


def step(optimizer: Optimizer, decay_epochs: int | None, decay: float) -> LRScheduler:
    """Multiplies the learning rate by `decay` every `decay_epochs` epochs; None: never."""
    if decay_epochs is None:
        return constant(optimizer)
    return StepLR(optimizer, step_size=decay_epochs, gamma=decay)


def warmup_cosine(
    optimizer: Optimizer, epochs: int, steps_per_epoch: int, warmup_ratio: float, eta_min: float
) -> LRScheduler:
    """Rises linearly to the learning rate, then falls by half a cosine, batch by batch.

    Goyal et al. 2017, "Accurate, Large Minibatch SGD", section 2.2; Loshchilov and Hutter 2017, "SGDR", equation 5.

    Args:
        optimizer: its learning rate is the highest.
        epochs: the run's length.
        steps_per_epoch: batches in an epoch.
        warmup_ratio: share of all batches in which it rises, from a hundredth; below 1.
        eta_min: the learning rate after the last batch.
    """
    steps = epochs * steps_per_epoch
    rise = min(round(warmup_ratio * steps), steps - 1)
    fall = CosineAnnealingLR(optimizer, steps - rise, eta_min)
    if rise == 0:  # LinearLR would never leave its beginning
        return fall
    return SequentialLR(optimizer, [LinearLR(optimizer, COLD, total_iters=rise), fall], [rise])


class Schedule:
    """A scheduler together with when to step it.

    Args:
        make: takes the optimizer, and `epochs` and `steps_per_epoch` if it has such parameters. `interval` among its
            options says when to step, unless it has a parameter of that name.
        optimizer: whose learning rate is scheduled.
        epochs: length of the run.
        steps_per_epoch: batches in an epoch; the scheduler is told 1 where `interval` has it count epochs.

    Attributes:
        every_step: whether it is stepped after every batch.

    Raises:
        ValueError: `interval` is neither `step`, `epoch` nor None, or the scheduler steps on the validation loss, which
            a batch does not have.
    """

    def __init__(
        self, make: Callable[..., LRScheduler], optimizer: Optimizer, epochs: int, steps_per_epoch: int
    ) -> None:
        make, interval = _without_interval(make)
        wanted = inspect.signature(make).parameters
        known = {"epochs": epochs, "steps_per_epoch": 1 if interval == "epoch" else steps_per_epoch}
        given = make.keywords if isinstance(make, functools.partial) else {}
        asked = {name: value for name, value in known.items() if name in wanted and name not in given}
        try:
            self.scheduler = make(optimizer, **asked)
        except ZeroDivisionError:
            # OneCycleLR divides by the steps of its rise less one, 0 of a short run: a hair more is a rise of one step.
            if "pct_start" not in wanted:
                raise
            self.scheduler = make(optimizer, **asked, pct_start=wanted["pct_start"].default * (1 + 1e-9))
        if interval == "step" and self.needs_validation:
            raise ValueError(f"interval=step: {type(self.scheduler).__name__} steps on the validation loss of an epoch")
        by_step = "steps_per_epoch" in wanted or isinstance(self.scheduler, BY_STEP)
        self.every_step = not self.needs_validation and (by_step if interval is None else interval == "step")

    def after_step(self) -> None:
        """Call after each optimizer step."""
        if self.every_step:
            self.scheduler.step()

    @property
    def needs_validation(self) -> bool:
        """Whether its steps depend on the validation loss."""
        return isinstance(self.scheduler, ReduceLROnPlateau)

    def after_epoch(self, val_loss: float | None) -> None:
        """Call after each epoch with its validation loss, None without validation (see `needs_validation`)."""
        if isinstance(self.scheduler, ReduceLROnPlateau):
            assert val_loss is not None
            self.scheduler.step(val_loss)
        elif not self.every_step:
            self.scheduler.step()

    def state_dict(self) -> dict[str, Any]:
        """Returns the scheduler's state for a checkpoint, without what is no state: functions and the optimizer."""
        return {key: value for key, value in self.scheduler.state_dict().items() if not _is_code(value)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restores what `state_dict` returned."""
        self.scheduler.load_state_dict(state)


def _without_interval(make: Callable[..., LRScheduler]) -> tuple[Callable[..., LRScheduler], str | None]:
    """Returns what makes a scheduler, without an option that is not its own, and that option."""
    if not isinstance(make, functools.partial) or "interval" not in make.keywords:
        return make, None
    if "interval" in inspect.signature(make.func).parameters:
        return make, None
    options = dict(make.keywords)
    interval = options.pop("interval")
    if interval not in ("step", "epoch", None):
        raise ValueError(f"interval={interval}: must be step, epoch or null")
    return functools.partial(make.func, *make.args, **options), interval


def _is_code(value: object) -> bool:
    """Whether an attribute is what computes, which the constructor makes again; PyTorch's schedulers leave it out too.

    The optimizer is among it under another name than PyTorch's.
    """
    return inspect.isroutine(value) or isinstance(value, functools.partial | Optimizer)
