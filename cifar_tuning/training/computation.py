"""How an epoch is computed: training, evaluation and the look before training, for one run or several side by side."""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack
from typing import TYPE_CHECKING, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from cifar_tuning.training.display import Display
from cifar_tuning.training.evaluation import Evaluation, class_of, evaluate, evaluate_untrained
from cifar_tuning.training.precision import at_least_fp32, autocast

if TYPE_CHECKING:
    from cifar_tuning.training.loop import Trainer

Batch = tuple[Tensor, Tensor]


class Trained(NamedTuple):
    """A run's epoch: mean loss and accuracy over its batches, and the last step's learning rate."""

    loss: float
    accuracy: float
    lr: float


class Computation:
    """Computes the epochs of one run; `fused.stack` does so for several whose models are stacked into one.

    Args:
        runs: whose models, optimisers and schedules take part; K of them.
        model: maps images to logits N×(K·classes), the runs' side by side.
    """

    def __init__(self, runs: "Sequence[Trainer]", model: nn.Module) -> None:
        self.runs = list(runs)
        first = self.runs[0]
        self.device, self.precision = first.device, first.precision
        self.memory_format: torch.memory_format = getattr(torch, first.memory_format)
        smoothing = [run.label_smoothing for run in self.runs]
        # Made here: a tensor that is made of numbers within a step waits for the device.
        self.alike = smoothing[0] if len(set(smoothing)) == 1 else None
        self.smoothing = torch.tensor(smoothing, device=self.device, dtype=torch.float64).unsqueeze(1)
        self.model = model
        # Each mode and shape would be compiled anew: only whole training batches are worth it.
        self.compiled: nn.Module | None = torch.compile(model) if first.compile else None  # type: ignore[assignment]
        self.whole = 0

    def batches(self, epochs: Sequence[int]) -> Iterable[Batch]:
        """Returns the training batches, given the number of each run's epoch.

        Images are float N×C×H×W, the same for all runs, or N×(K·C)×H×W; labels accordingly N or N×K, or the
        shares of the classes, float N×classes or N×K×classes.
        """
        return self._laid_out(self.runs[0].train.epoch(epochs[0]))

    def _laid_out(self, batches: Iterable[Batch]) -> Iterator[Batch]:
        """Yields batches with their images in the runs' memory format; what is in it already is not copied."""
        for images, labels in batches:
            yield images.contiguous(memory_format=self.memory_format), labels

    def untrained(self) -> list[tuple[float, float]]:
        """Returns each run's loss and accuracy on some training batches before anything is learnt."""
        batches = self.batches([1] * len(self.runs))
        return evaluate_untrained(self.model, batches, self.device, self.precision, len(self.runs))

    def evaluate(self) -> Sequence[Evaluation | None]:
        """Returns each run's figures on the validation images; None for each where there are none."""
        if (val := self.runs[0].val) is None:
            return [None] * len(self.runs)
        with ExitStack() as averaged:
            for run in self.runs:
                averaged.enter_context(run.averaged())
            val = self._laid_out(val)
            return evaluate(self.model, val, self.device, self.precision, len(self.runs))

    def train(self, epochs: Sequence[int], display: Display) -> list[Trained]:
        """Trains one epoch of each run; the runs may be at different ones."""
        self.model.train()
        sums, rates = self.new_sums(), [run.lr for run in self.runs]
        for batch in self.batches(epochs):
            rates = [run.lr for run in self.runs]
            self.train_batch(batch, sums, display)
        count = self.runs[0].train.count
        losses, correct = (total.tolist() for total in sums)
        return [
            Trained(loss / count, right / count, lr) for loss, right, lr in zip(losses, correct, rates, strict=True)
        ]

    def new_sums(self) -> tuple[Tensor, Tensor]:
        """Returns zeros to sum an epoch's losses and right answers in, one for each run, on the device.

        They are read at the epoch's end only: reading one waits for all the work that is queued.
        """
        runs = len(self.runs)
        return torch.zeros(runs, device=self.device), torch.zeros(runs, dtype=torch.long, device=self.device)

    def train_batch(self, batch: Batch, sums: tuple[Tensor, Tensor], display: Display) -> None:
        """Takes one step of every run; nothing in it waits for the device."""
        images, labels = batch
        with autocast(self.device, self.precision):
            logits = at_least_fp32(self._model_for(len(images))(images))
        logits = logits.view(len(images), len(self.runs), -1)
        losses = self._losses(logits, labels)
        penalties = [run.regularizer.penalty(run.model) for run in self.runs]
        self.zero_grad()
        # Each weight belongs to one run, so the gradient of the sum is every run's own.
        sum((penalty for penalty in penalties if penalty is not None), losses.sum()).backward()
        for run in self.runs:
            run.optimizer.step()
            run.schedule.after_step()
            run.update_average()
        with torch.no_grad():
            sums[0].add_(losses, alpha=len(images))
            sums[1].add_((logits.argmax(2) == class_of(labels)).sum(0))
        display.advance(len(images) * len(self.runs))

    def _model_for(self, images: int) -> nn.Module:
        """Returns what computes a training batch of so many images; an epoch's last one may be smaller."""
        self.whole = max(self.whole, images)
        return self.model if self.compiled is None or images < self.whole else self.compiled

    def zero_grad(self) -> None:
        """Forgets the last step's gradients."""
        for run in self.runs:
            run.optimizer.zero_grad(set_to_none=True)

    def without(self, gone: Sequence[int]) -> "Computation":
        """Returns what computes the runs that stay.

        Args:
            gone: indices of the runs that have ended; not all of them.
        """
        raise NotImplementedError("one run alone has nobody to leave it")

    def release(self) -> None:
        """Gives every run its own memory back, where they share it."""

    def _losses(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Returns each run's mean cross-entropy, K, from logits N×K×classes; its label smoothing included."""
        images, runs, classes = logits.shape
        if labels.is_floating_point():
            targets = labels.to(logits.dtype).view(images, -1, classes).expand(images, runs, classes)
            spread = self.smoothing.to(logits.dtype)
            return -((1 - spread) * targets + spread / classes).mul(logits.log_softmax(2)).sum(2).mean(0)
        targets = labels.view(images, -1).expand(images, runs)
        if self.alike is not None:
            each = F.cross_entropy(
                logits.flatten(0, 1), targets.flatten(), reduction="none", label_smoothing=self.alike
            )
            return each.view(images, runs).mean(0)
        # Szegedy et al. 2016, "Rethinking the Inception Architecture", section 7
        log_p = logits.log_softmax(2)
        right = -log_p.gather(2, targets.unsqueeze(2)).squeeze(2)
        share = self.smoothing.squeeze(1).to(logits.dtype)
        return ((1 - share) * right - share * log_p.mean(2)).mean(0)
