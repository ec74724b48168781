"""Access to the test set, for `predict.py` and for a study's retrained winner only."""

from typing import Any

import torch
from torch import Tensor, nn

from cifar_tuning.data.batches import EvalBatches
from cifar_tuning.jobs.batches import EVAL_BATCH
from cifar_tuning.reporting.predictions import predict


def label_test_images(model: nn.Module, data: Any, device: torch.device) -> tuple[Tensor, Tensor]:
    """Returns the model's classes of the test images and the true ones, int64 N each, on the CPU.

    Args:
        model: in evaluation mode, in the memory format it was trained in; moved to the device.
        data: the data group that it was trained with.
        device: where to compute.
    """
    test = data.load_test()
    batches = EvalBatches(test.images, test.labels, batch_size=EVAL_BATCH, mean=data.mean, std=data.std, device=device)
    return predict(model.to(device), batches), test.labels


def accuracy(predicted: Tensor, labels: Tensor) -> float:
    """Returns the share of right answers, 0 to 1."""
    return (predicted == labels).float().mean().item()
