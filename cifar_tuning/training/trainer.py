"""One run: what is trained, how far it has come, what is kept of it; whoever wants to know passes a `Listener`."""

import logging
import math
from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager, nullcontext
from contextvars import ContextVar
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from cifar_tuning.devices import is_asynchronous
from cifar_tuning.training import checkpoint as checkpoints
from cifar_tuning.training.averaging import WeightAverage
from cifar_tuning.training.checkpoint import Checkpoint
from cifar_tuning.training.checkpoint_files import CheckpointFiles
from cifar_tuning.training.computation import Batch, Computation, Trained
from cifar_tuning.training.display import Display
from cifar_tuning.training.epoch_batches import EpochBatches
from cifar_tuning.training.evaluation import Evaluation
from cifar_tuning.training.events import EpochMetrics, Listener, Progress, Result, State
from cifar_tuning.training.loop import run_epochs
from cifar_tuning.training.regularizers import Regularizer
from cifar_tuning.training.schedules import Schedule

log = logging.getLogger(__name__)

# What trains a run in place of `fit_alone`, set by a launcher that trains several together.
JOINT_FIT: "ContextVar[Callable[[Trainer], Result] | None]" = ContextVar("JOINT_FIT", default=None)
# What stands for the validation of a run whose training loss is no longer finite.
NOT_FINITE = Evaluation(loss=math.nan, accuracy=math.nan, confusion=[])


class Trainer:
    """One run: a model with what it is trained by, how far it has come, its checkpoints and listeners.

    Args:
        model: on the device.
        optimizer: over the model's parameters.
        schedule: steps the optimizer's learning rate.
        regularizer: may add a term to each batch's loss.
        train: training batches.
        val: validation batches, the same each time; None: there is no validation, and the last epoch's weights count as
            the best.
        epochs: total number, counted from the start of the run even if resumed.
        device: where all of it is.
        precision, compile, label_smoothing, ema_decay, max_grad_norm, patience: see `TrainerSettings`; not `auto`.
        memory_format: likewise, as the model's; the batches are brought into it.
        record: replay the steps as CUDA graphs; see `Recorded`.
        class_weights: of each class's images in the loss, float on the device; None: all are alike.
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
        val: Iterable[Batch] | None,
        *,
        epochs: int,
        device: torch.device,
        precision: str = "fp32",
        memory_format: str = "channels_last",
        compile: bool = False,
        record: bool = False,
        label_smoothing: float = 0.0,
        class_weights: Tensor | None = None,
        ema_decay: float = 0.0,
        max_grad_norm: float | None = None,
        patience: int | None = None,
        folder: Path | None = None,
        config: dict[str, Any] | None = None,
        run_id: str | None = None,
        listeners: Sequence[Listener] = (),
    ) -> None:
        self.model, self.optimizer, self.schedule, self.regularizer = model, optimizer, schedule, regularizer
        self.train, self.val, self.epochs = train, val, epochs
        self.device, self.precision, self.memory_format = device, precision, memory_format
        self.files, self.config, self.run_id = CheckpointFiles(folder), config or {}, run_id
        self.listeners = list(listeners)
        self.progress = Progress()
        self.compile, self.record, self.label_smoothing = compile, record, label_smoothing
        self.class_weights, self.max_grad_norm, self.patience = class_weights, max_grad_norm, patience
        self.average = WeightAverage(model, ema_decay) if ema_decay else None
        # Random numbers of its own, where several runs share the process's generators.
        self.generator: torch.Generator | None = None

    def resume(self, checkpoint: Checkpoint, file: Path | None = None) -> None:
        """Goes on from a checkpoint; on a CPU to the same bits as if the run had never stopped.

        Args:
            checkpoint: of the same run or one like it.
            file: where it lies.
        """
        self.model.load_state_dict(checkpoint.unaveraged or checkpoint.model)
        if self.average is not None:
            self.average.model.load_state_dict(checkpoint.model)
            self.average.steps = checkpoint.averaged_steps
        self.optimizer.load_state_dict(checkpoint.optimizer)
        _reunite_counters(self.optimizer)
        self.schedule.load_state_dict(checkpoint.schedule)
        checkpoints.restore_generators(checkpoint.generators, self.device)
        self.progress, self.files.saved = checkpoint.progress, file

    def fit(self) -> Result:
        """Trains until the last epoch, the end of patience, a listener's stop, or a loss that is no longer finite.

        Where a launcher trains several runs together, it takes this one among them.
        """
        together = JOINT_FIT.get()
        return self.fit_alone() if together is None else together(self)

    def fit_alone(self) -> Result:
        """Trains by itself, whatever the launcher."""
        with Display.of([self]) as display:
            ((_, state),) = run_epochs(Computation([self], self.model), display)
        assert state is not None
        return self.end(state)

    def before_training(self, loss: float, accuracy: float, val: Evaluation | None) -> EpochMetrics:
        """Returns epoch 0's figures, given those on some training batches and on the validation images, if any."""
        self._keep_if_best(0, val)
        return self._metrics(0, Trained(loss, accuracy, self.lr, seconds=math.inf), val, 0.0)

    def after_epoch(self, trained: Trained, val: Evaluation | None, seconds: float) -> EpochMetrics:
        """Returns the figures of the epoch after the last one, and moves the schedule on.

        Args:
            trained: what came of it.
            val: on the validation images; None if there are none, or if that was left out because the loss is no longer
                finite.
            seconds: all that the epoch took, validation included.
        """
        epoch = self.progress.epoch + 1
        if self.val is not None and (val is None or not math.isfinite(trained.loss)):
            val = NOT_FINITE
        val_loss = None if val is None else val.loss
        if self._is_sound(trained.loss, val_loss):
            self._keep_if_best(epoch, val)
            self.schedule.after_epoch(val_loss)
        return self._metrics(epoch, trained, val, seconds)

    def _metrics(self, epoch: int, trained: Trained, val: Evaluation | None, seconds: float) -> EpochMetrics:
        return EpochMetrics(
            epoch=epoch,
            train_loss=trained.loss,
            train_acc=trained.accuracy,
            val_loss=None if val is None else val.loss,
            val_acc=None if val is None else val.accuracy,
            val_acc_best=self.progress.best_acc,
            lr=trained.lr,
            images_per_second=self.train.count / trained.seconds,
            epoch_seconds=seconds,
            val_acc_balanced=None if val is None else val.balanced,
        )

    def finish_epoch(self, metrics: EpochMetrics, display: Display) -> State | None:
        """Keeps and reports an epoch; returns how the run ended, if it did."""
        self.progress.history.append(metrics)
        display.report(metrics, self.epochs)
        sound = self._is_sound(metrics.train_loss, metrics.val_loss)
        if self.files.folder is not None and sound:
            self._save(is_best=self.progress.best_epoch == metrics.epoch)
        answers = [listener.on_epoch(metrics) for listener in self.listeners]  # everyone hears of it
        state: State | None = "pruned" if metrics.epoch > 0 and any(answers) else None
        if metrics.epoch > 0 and not sound:
            log.warning("The loss is no longer finite in epoch %d: this run has diverged.", metrics.epoch)
            state = "diverged"
        elif self.finished:
            state = "complete"
        if state is not None:
            self.files.write()
        return state

    def while_waiting(self) -> None:
        """Does what may be late, while a GPU computes and the host would only wait; has the listeners do so too."""
        self.files.write()
        for listener in self.listeners:
            listener.while_waiting()

    def write_anyway(self) -> None:
        """Writes what is not yet written while an error ends the training, which another one must not hide."""
        try:
            self.files.write()
        except Exception as error:  # a full disk, a GPU that has failed, no memory
            log.warning("The checkpoint of epoch %d could not be written: %s", self.progress.epoch, error)

    def end(self, state: State) -> Result:
        """Tells the listeners how the run ended."""
        progress, stopped = self.progress, None
        if state == "complete" and progress.epoch < self.epochs:
            since = f"since epoch {progress.best_epoch} (trainer.patience={self.patience})"
            stopped = f"after epoch {progress.epoch}: no better validation accuracy {since}"
            log.info("stopped %s", stopped)
        result = Result(state, progress, stopped)
        for listener in self.listeners:
            listener.on_end(result)
        return result

    def clip_gradients(self) -> None:
        """Shortens the gradients of a step, if the run has a largest norm for them; nothing waits for the device."""
        if self.max_grad_norm is not None:
            nn.utils.clip_grad_norm_(self.model.parameters(), self.max_grad_norm)

    def update_average(self) -> None:
        """Takes the weights of the step that was just done into their average, if the run keeps one."""
        if self.average is not None:
            self.average.update()

    def averaged(self) -> AbstractContextManager[None]:
        """Has the average, if the run keeps one, stand in the model's place."""
        return nullcontext() if self.average is None else self.average.in_place()

    @property
    def finished(self) -> bool:
        """Whether no epoch is left, by what a checkpoint has too: a run that is resumed ends where it would have."""
        epoch, best = self.progress.epoch, self.progress.best_epoch
        return epoch >= self.epochs or (self.patience is not None and epoch - best >= self.patience)

    @property
    def lr(self) -> float:
        """The learning rate of the next step."""
        return float(self.optimizer.param_groups[0]["lr"])

    def _is_sound(self, train_loss: float, val_loss: float | None) -> bool:
        """Whether an epoch left a model that can be gone on with.

        A last step may blow up the weights after all its epoch's losses were fine; validation, or else a look at the
        weights, tells.
        """
        if not math.isfinite(train_loss):
            return False
        if val_loss is not None:
            return math.isfinite(val_loss)
        # One answer for all of them: a GPU is waited for once. What is not trained may hold infinities, a mask say.
        values = [value for value in self.model.parameters() if value.requires_grad]
        return not values or bool(torch.stack([value.isfinite().all().to(self.device) for value in values]).all())

    def _keep_if_best(self, epoch: int, val: Evaluation | None) -> None:
        best = self.progress.best_acc
        if val is None:
            self.progress.best_acc, self.progress.best_epoch = None, epoch
        elif epoch == 0 or best is None or val.accuracy > best:
            self.progress.best_acc, self.progress.best_epoch = val.accuracy, epoch
            self.progress.confusion = val.confusion

    def _save(self, is_best: bool) -> None:
        trained = self.model.state_dict()
        state = Checkpoint(
            model=trained if self.average is None else self.average.model.state_dict(),
            unaveraged=None if self.average is None else trained,
            averaged_steps=0 if self.average is None else self.average.steps,
            optimizer=self.optimizer.state_dict(),
            schedule=self.schedule.state_dict(),
            generators=checkpoints.generator_states(self.device, self.generator),
            progress=self.progress,
            config=self.config,
            run_id=self.run_id,
            precision=self.precision,
            memory_format=self.memory_format,
            compile=self.compile,
        )
        self.files.take(state, is_best)
        # Whatever is wrong with the folder or the state should come to light at once.
        if not is_asynchronous(self.device) or self.progress.epoch == 0:
            self.files.write()


def _reunite_counters(optimizer: Optimizer) -> None:
    """Puts a number of NAdam's beside its count of steps, as NAdam makes it: on the host, which reads it in every step.

    `load_state_dict` takes it, but not the count, to the weights' device, where each look at it waits for a GPU.
    """
    if isinstance(optimizer, torch.optim.NAdam):
        for state in optimizer.state.values():
            state["mu_product"] = state["mu_product"].to(state["step"].device)
