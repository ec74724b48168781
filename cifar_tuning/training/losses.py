"""The loss of a batch: cross-entropy with label smoothing and weights of the classes, of one run or several."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor


def balanced_weights(labels: Tensor, classes: int) -> Tensor:
    """Returns scikit-learn's "balanced" weights, float32 of each class: images / (classes · images of the class).

    All images together then weigh as much as without, and all classes the same. One without images has 0, and counts as
    none.

    Args:
        labels: of all training images, int64 N; the weights are on their device.
        classes: how many there are.
    """
    counts = torch.bincount(labels, minlength=classes)
    balanced = len(labels) / ((counts > 0).sum() * counts.double())
    return torch.where(counts > 0, balanced, 0.0).float()


class Losses:
    """Maps logits N×K×classes and a batch's labels to each run's mean cross-entropy, K.

    Labels are N or N×K, or the shares of the classes, float N×classes or N×K×classes. As `torch.nn.CrossEntropyLoss`
    has it for labels, the mean over a batch is weighted by their weights; of shares it is too, where PyTorch divides by
    N.

    Args:
        smoothing: of each run, the share of each label that is spread over all classes (Szegedy et al. 2016,
            "Rethinking the Inception Architecture", section 7).
        weights: of each run, those of the classes, on the device; None: all are alike.
        device: where it is computed.
    """

    def __init__(self, smoothing: Sequence[float], weights: Sequence[Tensor | None], device: torch.device) -> None:
        # Made here: a tensor that is made of numbers within a step waits for the device.
        self.alike = smoothing[0] if len(set(smoothing)) == 1 else None
        self.smoothing = torch.tensor(smoothing, device=device, dtype=torch.float64).unsqueeze(1)
        given = [one for one in weights if one is not None]
        each = [torch.ones_like(given[0]) if one is None else one for one in weights] if given else []
        self.weights = torch.stack(each) if each else None

    def __call__(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Computes the losses; nothing in it waits for the device."""
        images, runs, _ = logits.shape
        if self.weights is not None or labels.is_floating_point():
            return self._of_shares(logits, labels)
        targets = labels.view(images, -1).expand(images, runs)
        if self.alike is not None:
            each = F.cross_entropy(
                logits.flatten(0, 1), targets.flatten(), reduction="none", label_smoothing=self.alike
            )
            return each.view(images, runs).mean(0)
        log_p = logits.log_softmax(2)
        right = -log_p.gather(2, targets.unsqueeze(2)).squeeze(2)
        share = self.smoothing.squeeze(1).to(logits.dtype)
        return ((1 - share) * right - share * log_p.mean(2)).mean(0)

    def _of_shares(self, logits: Tensor, labels: Tensor) -> Tensor:
        images, runs, classes = logits.shape
        shares = labels if labels.is_floating_point() else F.one_hot(labels, classes)
        targets = shares.to(logits.dtype).view(images, -1, classes).expand(images, runs, classes)
        spread = self.smoothing.to(logits.dtype)
        smoothed = (1 - spread) * targets + spread / classes
        if self.weights is None:
            return -smoothed.mul(logits.log_softmax(2)).sum(2).mean(0)
        weights = self.weights.to(logits.dtype)
        return -(weights * smoothed * logits.log_softmax(2)).sum((0, 2)) / (weights * targets).sum((0, 2))
