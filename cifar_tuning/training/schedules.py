"""Learning-rate schedules: PyTorch's own, found by what their constructors ask for.

`schedule=` names any callable that takes the optimizer and returns a PyTorch scheduler. If it also has
parameters called `epochs` or `steps_per_epoch`, they are filled in. One that asks for `steps_per_epoch` (such
as `torch.optim.lr_scheduler.OneCycleLR`) is stepped after every batch, any other after every epoch.
"""

import functools
import inspect
from collections.abc import Callable
from typing import Any

from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR, LRScheduler, ReduceLROnPlateau, StepLR


def constant(optimizer: Optimizer) -> LRScheduler:
    """The learning rate stays what it is."""
    return LambdaLR(optimizer, _unchanged)


def step(optimizer: Optimizer, decay_epochs: int | None, decay: float) -> LRScheduler:
    """Multiplies the learning rate by `decay` every `decay_epochs` epochs; None: never."""
    if decay_epochs is None:
        return constant(optimizer)
    return StepLR(optimizer, step_size=decay_epochs, gamma=decay)


def _unchanged(epoch: int) -> float:
    return 1.0


class Schedule:
    """A scheduler together with when to step it.

    Args:
        make: takes the optimizer, and `epochs` and `steps_per_epoch` if it has such parameters.
        optimizer: whose learning rate is scheduled.
        epochs: length of the run.
        steps_per_epoch: batches in an epoch.
    """

    def __init__(
        self, make: Callable[..., LRScheduler], optimizer: Optimizer, epochs: int, steps_per_epoch: int
    ) -> None:
        wanted = inspect.signature(make).parameters
        known = {"epochs": epochs, "steps_per_epoch": steps_per_epoch}
        given = make.keywords if isinstance(make, functools.partial) else {}
        asked = {name: value for name, value in known.items() if name in wanted and name not in given}
        self.every_step = "steps_per_epoch" in wanted
        try:
            self.scheduler = make(optimizer, **asked)
        except ZeroDivisionError:
            # OneCycleLR divides by the steps of its rise less one, 0 of a short run: a hair more is a rise of one step.
            if "pct_start" not in wanted:
                raise
            self.scheduler = make(optimizer, **asked, pct_start=wanted["pct_start"].default * (1 + 1e-9))

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
        """Returns the scheduler's state for a checkpoint: what `weights_only` loading admits of it."""
        plain = (int, float, str, bool, list, dict, type(None))
        return {k: v for k, v in self.scheduler.state_dict().items() if isinstance(v, plain)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restores what `state_dict` returned."""
        self.scheduler.load_state_dict(state)
