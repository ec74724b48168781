"""How good a model is on images it is not trained on."""

import itertools
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from cifar_tuning.training.cuda_graphs import Recorded
from cifar_tuning.training.precision import at_least_fp32, autocast

UNTRAINED_BATCHES = 10


@dataclass(frozen=True)
class Evaluation:
    """Mean cross-entropy, share of right answers, and who was taken for whom.

    `confusion[i][j]` counts images of class i that were taken for class j.
    """

    loss: float
    accuracy: float
    confusion: list[list[int]]

    @property
    def balanced(self) -> float | None:
        """The mean over all classes of the share that was recognised; None where that is the accuracy itself."""
        recalls = unequal_recalls(self.confusion)
        return None if recalls is None else sum(recalls.values()) / len(recalls)


def unequal_recalls(confusion: list[list[int]]) -> dict[int, float] | None:
    """Returns of each class that has images the share that was recognised; None where classes have equally many.

    So they have if a stratified split gave one more to some.

    Args:
        confusion: as `Evaluation` has it.
    """
    counts = {label: sum(row) for label, row in enumerate(confusion) if sum(row)}
    if not counts or max(counts.values()) - min(counts.values()) <= 1:
        return None
    return {label: confusion[label][label] / count for label, count in counts.items()}


def class_of(labels: Tensor) -> Tensor:
    """Returns the classes N×K or N×1 of labels N or N×K, or those of the largest share where labels are shares."""
    return (labels.argmax(-1) if labels.is_floating_point() else labels).view(len(labels), -1)


class Logits:
    """A model's logits in evaluations, without gradients; `record` has a GPU replay whole batches as a CUDA graph."""

    def __init__(self, model: nn.Module, device: torch.device, precision: str, record: bool = False) -> None:
        self.model, self.device, self.precision = model, device, precision
        self.recorded = Recorded(device, what="an evaluation") if record else None
        self._whole, self._evaluations = 0, 0
        # Of the last whole batch; once there is a recording, in its memory, where every replay leaves them.
        self._kept = torch.empty(0)

    def begin(self) -> None:
        """Begins an evaluation. The first is not recorded: it may be the only one, and training needs memory first."""
        self.model.eval()
        self._evaluations += 1

    def __call__(self, images: Tensor) -> Tensor:
        """Maps images N×C×H×W to logits N×(K·classes), which hold until the next call."""
        self._whole = max(self._whole, len(images))
        if self.recorded is None or self._evaluations < 2 or len(images) < self._whole:  # the last may be smaller
            return self.compute(images)
        self.recorded(self._keep, images)
        return self._kept

    def _keep(self, images: Tensor) -> None:
        self._kept = self.compute(images)

    @torch.no_grad()
    def compute(self, images: Tensor) -> Tensor:
        """Maps images to logits in the model's present mode, without a recording."""
        with autocast(self.device, self.precision):
            return at_least_fp32(self.model(images))

    def forget(self) -> None:
        """Frees the recording and its memory."""
        self._kept = torch.empty(0)
        if self.recorded is not None:
            self.recorded.forget()


@torch.no_grad()
def evaluate(logits_of: Logits, batches: Iterable[tuple[Tensor, Tensor]], runs: int = 1) -> list[Evaluation]:
    """Runs the model in evaluation mode over all batches.

    Args:
        logits_of: the model's, which is left in evaluation mode; N×(K·classes) for K runs side by side.
        batches: float images N×C×H×W with labels N, on the device.
        runs: K.

    Returns:
        what came out for each run.
    """
    logits_of.begin()
    losses, predictions, targets = [], [], []
    classes = 0
    for images, labels in batches:
        logits = logits_of(images).view(len(labels), runs, -1)
        target = labels.unsqueeze(1).expand(-1, runs)
        losses.append(F.cross_entropy(logits.transpose(1, 2), target, reduction="none").sum(0))
        predictions.append(logits.argmax(2))
        targets.append(target)
        classes = logits.shape[2]
    # Only here does the host wait for the device.
    target, predicted = torch.cat(targets), torch.cat(predictions)
    places = torch.arange(runs, device=target.device) * classes**2 + target * classes + predicted
    counts = torch.bincount(places.flatten(), minlength=runs * classes**2).view(runs, classes, classes).cpu()
    return [
        Evaluation(
            loss=loss / len(target), accuracy=count.diagonal().sum().item() / len(target), confusion=count.tolist()
        )
        for loss, count in zip(torch.stack(losses).sum(0).tolist(), counts, strict=True)
    ]


@torch.no_grad()
def evaluate_untrained(
    logits_of: Logits,
    batches: Iterable[tuple[Tensor, Tensor]],
    losses: Callable[[Tensor, Tensor], Tensor],
    runs: int,
) -> list[tuple[float, float]]:
    """Returns loss and accuracy of the first training batches before anything is learnt, for each run.

    In training mode, because batch norm's running statistics mean nothing yet; they, and the random
    generators, are put back afterwards.

    Args:
        logits_of, runs: see `evaluate`; the model is left in training mode.
        batches: images and labels N, or images N×(K·C)×H×W and labels N×K; or shares of the classes as labels.
        losses: the mean loss of each run over a batch, K, as in training, of logits N×K×classes and the labels.
    """
    model, device = logits_of.model, logits_of.device
    buffers = {name: buffer.clone() for name, buffer in model.named_buffers()}
    loss = correct = torch.zeros(runs, device=device)
    count = 0
    try:
        with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
            model.train()
            for images, labels in itertools.islice(batches, UNTRAINED_BATCHES):
                logits = logits_of.compute(images).view(len(images), runs, -1)
                target = class_of(labels).expand(-1, runs)
                loss = loss + losses(logits, labels) * len(images)
                correct = correct + (logits.argmax(2) == target).sum(0)
                count += len(images)
    finally:
        for name, buffer in model.named_buffers():
            buffer.copy_(buffers[name])
    return [(a / count, b / count) for a, b in zip(loss.tolist(), correct.tolist(), strict=True)]
