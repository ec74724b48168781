"""A model's classes of images; the test set is for `predict.py` and for a study's retrained winner only."""

from statistics import mean
from typing import Any

import torch
from torch import Tensor, nn
from tqdm import tqdm

from cifar_tuning.data.batches import EvalBatches
from cifar_tuning.jobs.batches import evaluated_at_once
from cifar_tuning.training.evaluation import unequal_recalls


def label_test_images(model: nn.Module, data: Any, device: torch.device) -> tuple[Tensor, Tensor]:
    """Returns the model's classes of the test images and the true ones, int64 N each, on the CPU.

    Args:
        model: in evaluation mode, in the memory format it was trained in; moved to the device.
        data: the data group that it was trained with.
        device: where to compute.
    """
    test = data.load_test()
    return probabilities_of(model, data, test.images, device).argmax(1), test.labels


def probabilities_of(model: nn.Module, data: Any, images: Tensor, device: torch.device) -> Tensor:
    """Returns how likely the model holds each class of images (softmax), float32 N×classes, on the CPU.

    A progress bar shows how many are done.

    Args:
        model: in evaluation mode; moved to the device.
        data: the data group that it was trained with.
        images: uint8 N×H×W×C.
        device: where to compute.
    """
    nobodys = torch.zeros(len(images), dtype=torch.int64)
    at_once = evaluated_at_once(images.shape, data.batch_size)
    batches = EvalBatches(images, nobodys, batch_size=at_once, mean=data.mean, std=data.std, device=device)
    model.to(device)
    probabilities = []
    # A bar on a terminal only.
    with torch.inference_mode(), tqdm(total=len(images), unit=" images", desc="predicting", disable=None) as bar:
        for batch, _ in batches:
            probabilities.append(model(batch).float().softmax(1))
            bar.update(len(batch))
    return torch.cat(probabilities).cpu()


def recalls(predicted: Tensor, labels: Tensor) -> dict[int, float] | None:
    """Returns the share of each class that was recognised, 0 to 1; None where classes have equally many images.

    Args:
        predicted: int64 N.
        labels: int64 N.
    """
    classes = int(max(predicted.max(), labels.max())) + 1
    counts = torch.bincount(labels * classes + predicted, minlength=classes**2).view(classes, classes)
    return unequal_recalls(counts.tolist())


def accuracy(predicted: Tensor, labels: Tensor) -> float:
    """Returns the share of right answers, 0 to 1."""
    return (predicted == labels).float().mean().item()


def test_figures(predicted: Tensor, labels: Tensor) -> dict[str, float]:
    """Returns the accuracy, and that of the classes' mean where they are of unequal size, by their public names."""
    of_classes = recalls(predicted, labels)
    balanced = {} if of_classes is None else {"test/acc_balanced": mean(of_classes.values())}
    return {"test/acc": accuracy(predicted, labels), **balanced}
