"""What training tells the outside world: an epoch's metrics out, "stop" back in."""

import dataclasses
from dataclasses import dataclass, field
from typing import Literal

State = Literal["complete", "pruned", "diverged"]


@dataclass(frozen=True)
class EpochMetrics:
    """One epoch's figures; epoch 0 is before training.

    Losses are mean cross-entropy per image (no regularisation term; in training with the run's label smoothing and
    mixup, before it as well), accuracies are shares from 0 to 1.
    `lr` is the learning rate of the epoch's last step. `images_per_second` counts training images over the
    time spent training; `epoch_seconds` includes the evaluation. What is of validation is None in a run without any.
    `val_acc_balanced` is the mean accuracy of the classes, None where they have equally many images.
    """

    epoch: int
    train_loss: float
    train_acc: float
    val_loss: float | None
    val_acc: float | None
    val_acc_best: float | None
    lr: float
    images_per_second: float
    epoch_seconds: float
    val_acc_balanced: float | None = None

    def figure(self, name: str) -> float | None:
        """Returns a figure by its public name, None if it was not measured."""
        known = self.named()
        return known.get(name, known.get("val/acc") if name == BALANCED else None)

    def named(self) -> dict[str, float]:
        """Returns the figures under their public names, `train/loss` and so on; those unmeasured left out."""
        values = dataclasses.asdict(self)
        del values["epoch"]
        if self.epoch == 0:  # nothing was trained yet, so there is no speed to report
            del values["images_per_second"], values["epoch_seconds"]
        return {PUBLIC_NAMES.get(name, name): value for name, value in values.items() if value is not None}


BALANCED = "val/acc_balanced"
PUBLIC_NAMES = {
    "train_loss": "train/loss",
    "train_acc": "train/acc",
    "val_loss": "val/loss",
    "val_acc": "val/acc",
    "val_acc_best": "val/acc_best",
    "val_acc_balanced": BALANCED,
}


@dataclass
class Progress:
    """How far a run has come; what a checkpoint keeps besides weights.

    `confusion` counts validation images at the best epoch: rows are labels, columns predictions. Without validation
    the best epoch is the last one, `best_acc` is None and `confusion` stays empty.
    """

    history: list[EpochMetrics] = field(default_factory=list)
    best_acc: float | None = 0.0
    best_epoch: int = 0
    confusion: list[list[int]] = field(default_factory=list)

    @property
    def epoch(self) -> int:
        """The last finished epoch; 0 before training."""
        return self.history[-1].epoch if self.history else 0

    @property
    def started(self) -> bool:
        """Whether epoch 0, the evaluation before training, is done."""
        return bool(self.history)


@dataclass(frozen=True)
class Result:
    """How a run ended.

    Attributes:
        state: complete, pruned or diverged.
        progress: how far it came.
        stopped: after which epoch, and why, a complete run ended before its last one; None of all others.
    """

    state: State
    progress: Progress
    stopped: str | None = None

    @property
    def value(self) -> float | None:
        """The objective: best validation accuracy, epoch 0 included, so that a diverged run has one.

        None without validation.
        """
        return self.progress.best_acc


class Listener:
    """Receives what happens during training; the methods do nothing unless overridden."""

    def on_epoch(self, metrics: EpochMetrics) -> bool:
        """Called after every epoch; true stops the run, which then counts as pruned.

        Its checkpoints are written before; on a GPU while the next epoch is computed, the last ones when the run ends.
        """
        return False

    def while_waiting(self) -> None:
        """Called in an epoch while a GPU computes and the host would only wait: the time for what may be late."""

    def on_end(self, result: Result) -> None:
        """Called once when training ended without an exception."""
