"""The epoch loop. It exists once; whoever wants to know what happens passes a `Listener`."""

import logging
import math
import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.optim import Optimizer

from cifar_tuning.training import checkpoint as checkpoints
from cifar_tuning.training.checkpoint import Checkpoint
from cifar_tuning.training.display import Display
from cifar_tuning.training.evaluation import evaluate, evaluate_untrained
from cifar_tuning.training.events import EpochMetrics, Listener, Progress, Result, State
from cifar_tuning.training.precision import autocast
from cifar_tuning.training.regularizers import Regularizer
from cifar_tuning.training.schedules import Schedule

log = logging.getLogger(__name__)

Batch = tuple[Tensor, Tensor]


class EpochBatches(Protocol):
    """The training images in a new order each epoch: float N×C×H×W with labels N, on the device."""

    def __len__(self) -> int:
        """Number of batches."""

    @property
    def count(self) -> int:
        """Number of images."""

    def epoch(self, epoch: int) -> Iterable[Batch]:
        """The batches of an epoch, decided by the seed and the epoch's number alone."""


class Trainer:
    """Trains one model: the loop over epochs, evaluation, checkpoints.

    Args:
        model: on the device.
        optimizer: over the model's parameters.
        schedule: steps the optimiser's learning rate.
        regularizer: may add a term to each batch's loss.
        train: training batches.
        val: validation batches, the same each time.
        epochs: total number, counted from the start of the run even if resumed.
        device: where all of it is.
        precision: `fp32` or `bf16`.
        compile: run the model through `torch.compile`.
        folder: where `best.pt` and `last.pt` go; None writes no checkpoints.
        config: the resolved configuration, kept in the checkpoints.
        run_id: the tracking run, kept in the checkpoints.
        listeners: told about every epoch.
    """

    def __init__(
        self,
        model: nn.Module,
        optimizer: Optimizer,
        schedule: Schedule,
        regularizer: Regularizer,
        train: EpochBatches,
        val: Iterable[Batch],
        *,
        epochs: int,
        device: torch.device,
        precision: str = "fp32",
        compile: bool = False,
        folder: Path | None = None,
        config: dict[str, Any] | None = None,
        run_id: str | None = None,
        listeners: Sequence[Listener] = (),
    ) -> None:
        self.model, self.optimizer, self.schedule, self.regularizer = model, optimizer, schedule, regularizer
        self.train, self.val, self.epochs = train, val, epochs
        self.device, self.precision = device, precision
        self.folder, self.config, self.run_id = folder, config or {}, run_id
        self.listeners = list(listeners)
        self.progress = Progress()
        self._forward: nn.Module = torch.compile(model) if compile else model  # type: ignore[assignment]
        if compile:
            log.info("compiling: the first batches take a minute or more, and count into the first epoch's images/s")

    def resume(self, checkpoint: Checkpoint) -> None:
        """Goes on from a checkpoint; on a CPU to the same bits as if the run had never stopped."""
        self.model.load_state_dict(checkpoint.model)
        self.optimizer.load_state_dict(checkpoint.optimizer)
        self.schedule.load_state_dict(checkpoint.schedule)
        checkpoints.restore_generators(checkpoint.generators)
        self.progress = checkpoint.progress

    def fit(self) -> Result:
        """Trains until the last epoch, a listener's stop, or a loss that is no longer finite."""
        state: State = "complete"
        with Display(self.epochs, self.train.count, self.progress.epoch) as display:
            if not self.progress.started:
                self._finish_epoch(self._before_training(), display)
            for epoch in range(self.progress.epoch + 1, self.epochs + 1):
                display.begin(epoch)
                metrics = self._epoch(epoch, display)
                stop = self._finish_epoch(metrics, display)
                if not _is_finite(metrics):
                    log.warning("The loss is no longer finite in epoch %d: this run has diverged.", epoch)
                    state = "diverged"
                    break
                if stop and epoch < self.epochs:
                    state = "pruned"
                    break
        result = Result(state, self.progress)
        for listener in self.listeners:
            listener.on_end(result)
        return result

    def _before_training(self) -> EpochMetrics:
        train_loss, train_acc = evaluate_untrained(self._forward, self.train, self.device, self.precision)
        val = evaluate(self._forward, self.val, self.device, self.precision)
        self._keep_if_best(0, val.accuracy, val.confusion)
        return EpochMetrics(
            epoch=0,
            train_loss=train_loss,
            train_acc=train_acc,
            val_loss=val.loss,
            val_acc=val.accuracy,
            val_acc_best=self.progress.best_acc,
            lr=self._lr(),
            images_per_second=0.0,
            epoch_seconds=0.0,
        )

    def _epoch(self, epoch: int, display: Display) -> EpochMetrics:
        start = time.perf_counter()
        train_loss, train_acc, lr = self.train_epoch(epoch, display)
        trained = time.perf_counter()
        val_loss = val_acc = math.nan
        if math.isfinite(train_loss):
            val = evaluate(self._forward, self.val, self.device, self.precision)
            val_loss, val_acc = val.loss, val.accuracy
        if math.isfinite(val_loss):
            self._keep_if_best(epoch, val.accuracy, val.confusion)
            self.schedule.after_epoch(val_loss)
        return EpochMetrics(
            epoch=epoch,
            train_loss=train_loss,
            train_acc=train_acc,
            val_loss=val_loss,
            val_acc=val_acc,
            val_acc_best=self.progress.best_acc,
            lr=lr,
            images_per_second=self.train.count / (trained - start),
            epoch_seconds=time.perf_counter() - start,
        )

    def train_epoch(self, epoch: int, display: Display) -> tuple[float, float, float]:
        """Returns mean loss and accuracy over the epoch's batches, and the last step's learning rate."""
        self._forward.train()
        sums, lr = self.new_sums(), self._lr()
        for batch in self.train.epoch(epoch):
            lr = self._lr()
            self.train_batch(batch, sums, display)
        loss, correct = (total.item() for total in sums)
        return loss / self.train.count, correct / self.train.count, lr

    def new_sums(self) -> tuple[Tensor, Tensor]:
        """Returns zeros to sum an epoch's loss and right answers in, on the device.

        They are read at the epoch's end only: reading one waits for all the work that is queued.
        """
        return torch.zeros((), device=self.device), torch.zeros((), dtype=torch.long, device=self.device)

    def train_batch(self, batch: Batch, sums: tuple[Tensor, Tensor], display: Display) -> None:
        """Takes one step; nothing in it waits for the device."""
        images, labels = batch
        logits, loss = self._step(images, labels)
        sums[0].add_(loss, alpha=len(labels))
        sums[1].add_((logits.argmax(1) == labels).sum())
        self.schedule.after_step()
        display.advance(len(labels))

    def _step(self, images: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        with autocast(self.device, self.precision):
            logits = self._forward(images).float()
        loss = F.cross_entropy(logits, labels)
        penalty = self.regularizer.penalty(self.model)
        self.optimizer.zero_grad(set_to_none=True)
        (loss if penalty is None else loss + penalty).backward()
        self.optimizer.step()
        return logits.detach(), loss.detach()

    def _finish_epoch(self, metrics: EpochMetrics, display: Display) -> bool:
        self.progress.history.append(metrics)
        display.report(metrics)
        if self.folder is not None and _is_finite(metrics):
            self._save(is_best=self.progress.best_epoch == metrics.epoch)
        answers = [listener.on_epoch(metrics) for listener in self.listeners]  # everyone hears of it
        return any(answers)

    def _keep_if_best(self, epoch: int, accuracy: float, confusion: list[list[int]]) -> None:
        if epoch == 0 or accuracy > self.progress.best_acc:
            self.progress.best_acc, self.progress.best_epoch = accuracy, epoch
            self.progress.confusion = confusion

    def _save(self, is_best: bool) -> None:
        assert self.folder is not None
        state = Checkpoint(
            model=self.model.state_dict(),
            optimizer=self.optimizer.state_dict(),
            schedule=self.schedule.state_dict(),
            generators=checkpoints.generator_states(),
            progress=self.progress,
            config=self.config,
            run_id=self.run_id,
            precision=self.precision,
        )
        names = ["last.pt", "best.pt"] if is_best else ["last.pt"]
        checkpoints.save(state, *(self.folder / name for name in names))

    def _lr(self) -> float:
        return float(self.optimizer.param_groups[0]["lr"])


def _is_finite(metrics: EpochMetrics) -> bool:
    # A last step may blow up the weights after all its epoch's losses were fine.
    return math.isfinite(metrics.train_loss) and math.isfinite(metrics.val_loss)
