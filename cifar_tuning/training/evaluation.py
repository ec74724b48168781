"""How good a model is on images it is not trained on."""

import itertools
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from cifar_tuning.training.precision import autocast

UNTRAINED_BATCHES = 10


@dataclass(frozen=True)
class Evaluation:
    """Mean cross-entropy, share of right answers, and who was taken for whom.

    `confusion[i][j]` counts images of class i that were taken for class j.
    """

    loss: float
    accuracy: float
    confusion: list[list[int]]


@torch.no_grad()
def evaluate(
    model: nn.Module, batches: Iterable[tuple[Tensor, Tensor]], device: torch.device, precision: str = "fp32"
) -> Evaluation:
    """Runs the model in evaluation mode over all batches.

    Args:
        model: on the device; left in evaluation mode.
        batches: float images N×C×H×W with labels N, on the device.
        device: where it runs.
        precision: `fp32` or `bf16`.
    """
    model.eval()
    losses, predictions, targets = [], [], []
    classes = 0
    for images, labels in batches:
        with autocast(device, precision):
            logits = model(images).float()
        losses.append(F.cross_entropy(logits, labels, reduction="sum"))
        predictions.append(logits.argmax(1))
        targets.append(labels)
        classes = logits.shape[1]
    # Only here does the host wait for the device.
    target, predicted = torch.cat(targets), torch.cat(predictions)
    counts = torch.bincount(target * classes + predicted, minlength=classes * classes).view(classes, classes)
    return Evaluation(
        loss=torch.stack(losses).sum().item() / len(target),
        accuracy=counts.diagonal().sum().item() / len(target),
        confusion=counts.tolist(),
    )


@torch.no_grad()
def evaluate_untrained(model: nn.Module, train: Any, device: torch.device, precision: str) -> tuple[float, float]:
    """Returns loss and accuracy of the first training batches before anything is learnt.

    In training mode, because batch norm's running statistics mean nothing yet; they, and the random
    generators, are put back afterwards.
    """
    buffers = {name: buffer.clone() for name, buffer in model.named_buffers()}
    loss = correct = torch.zeros((), device=device)
    count = 0
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        model.train()
        for images, labels in itertools.islice(train.epoch(1), UNTRAINED_BATCHES):
            with autocast(device, precision):
                logits = model(images).float()
            loss = loss + F.cross_entropy(logits, labels, reduction="sum")
            correct = correct + (logits.argmax(1) == labels).sum()
            count += len(labels)
    for name, buffer in model.named_buffers():
        buffer.copy_(buffers[name])
    return loss.item() / count, correct.item() / count
