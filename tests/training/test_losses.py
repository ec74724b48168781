"""Weights of the classes in the loss; smoothing and mixed images are tested with the runs that have them."""

import pytest
import torch
import torch.nn.functional as F

from cifar_tuning.training.losses import Losses, balanced_weights

WEIGHTS = torch.tensor([0.5, 2.0, 7.0])
CPU = torch.device("cpu")


def test_balanced_weights_are_scikit_learns():
    """Those of compute_class_weight("balanced", classes=[0, 1, 3], y=...); a class without images has none."""
    weights = balanced_weights(torch.tensor([0, 0, 0, 0, 0, 3, 1, 1]), classes=5)
    torch.testing.assert_close(weights, torch.tensor([8 / 15, 8 / 6, 0, 8 / 3, 0]))


@pytest.mark.parametrize("smoothing", [0.0, 0.2])
def test_a_weighted_loss_is_pytorchs_for_each_run(smoothing):
    """Runs of one stack may have weights or none, and labels of their own."""
    logits, labels = torch.randn(20, 2, 3), torch.arange(40).view(20, 2) % 3
    found = Losses([smoothing, smoothing], [WEIGHTS, None], CPU)(logits, labels)
    for run, weights in enumerate((WEIGHTS, None)):
        expected = F.cross_entropy(logits[:, run], labels[:, run], weights, label_smoothing=smoothing)
        torch.testing.assert_close(found[run], expected)


def test_shares_of_classes_weigh_as_the_classes_do():
    logits, labels = torch.randn(20, 1, 3), torch.arange(20) % 3
    of = Losses([0.1], [WEIGHTS], CPU)
    torch.testing.assert_close(of(logits, F.one_hot(labels, 3).float()), of(logits, labels))
