"""What regularizers add to the loss or hand to the optimizer."""

import pytest
import torch
from torch import nn

from cifar_tuning.training.regularizers import L1, L2, ElasticNet, Regularizer, split_parameters


@pytest.fixture
def model():
    """Convolution, batch norm and fully connected layer, with weights that can be summed by hand; one is frozen."""
    model = nn.Sequential(nn.Conv2d(1, 2, 1), nn.BatchNorm2d(2), nn.Flatten(), nn.Linear(2, 1), nn.Linear(1, 1))
    with torch.no_grad():
        model[0].weight.copy_(torch.tensor([1.0, -2.0]).view(2, 1, 1, 1))
        model[3].weight.copy_(torch.tensor([[3.0, -0.5]]))
        for part in (model[0].bias, model[1].weight, model[1].bias, model[3].bias):
            part.fill_(100.0)
    model[4].weight.requires_grad = False
    return model


def test_what_decays_and_what_does_not(model):
    weights, others = split_parameters(model)
    assert [p is q for p, q in zip(weights, (model[0].weight, model[3].weight), strict=True)] == [True] * 2
    assert len(others) == 5


@pytest.mark.parametrize(
    ("regularizer", "penalty"),
    [
        # Σ|w| = 6.5, Σw² = 14.25, of the weights alone.
        (Regularizer(), None),
        (L2(0.1), None),
        (L1(0.1), 0.65),
        (L1(0.0), None),
        (ElasticNet(0.1, 0.0), 0.1 * 0.5 * 14.25),
        (ElasticNet(0.1, 0.25), 0.1 * (0.25 * 6.5 + 0.5 * 0.75 * 14.25)),
        (ElasticNet(0.1), 0.1 * (0.5 * 6.5 + 0.5 * 0.5 * 14.25)),
        (ElasticNet(0.1, 1.0), 0.65),
    ],
)
def test_the_term_of_the_loss(model, regularizer, penalty):
    term = regularizer.penalty(model)
    assert (None if term is None else term.item()) == (None if penalty is None else pytest.approx(penalty))
    if term is None:
        return
    term.backward()
    ratio, strength = regularizer.l1_ratio, regularizer.strength
    weight = model[3].weight
    expected = strength * (ratio * weight.sign() + (1 - ratio) * weight)
    torch.testing.assert_close(weight.grad, expected)
    assert model[0].bias.grad is None


@pytest.mark.parametrize("regularizer", [L1(0.1), ElasticNet(0.1)])
def test_where_no_weights_are_trained_there_is_no_term(regularizer):
    """As when nothing but batch norm is fine-tuned."""
    assert regularizer.penalty(nn.BatchNorm2d(2)) is None


def test_decay_is_the_optimizers(model):
    trainable = [p for p in model.parameters() if p.requires_grad]
    plain, decayed = Regularizer().parameter_groups(model), L2(0.1).parameter_groups(model)
    assert [set(group) for group in (*plain, *decayed)] == [{"params"}, {"params", "weight_decay"}]
    assert [len(group["params"]) for group in (*plain, *decayed)] == [len(trainable)] * 2
    assert decayed[0]["weight_decay"] == 0.1
    own = L2(0.1, norm_and_bias=False)
    assert [(len(g["params"]), g["weight_decay"]) for g in own.parameter_groups(model)] == [(2, 0.1), (5, 0.0)]
    bare = nn.Linear(2, 1, bias=False)
    assert [(len(g["params"]), g["weight_decay"]) for g in own.parameter_groups(bare)] == [(1, 0.1)]


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: Regularizer(-1), "regularizer.strength=-1: must be a number, 0 or above"),
        (lambda: L2(float("nan")), "regularizer.strength=nan: must be"),
        (lambda: L2(0.1, 1), "regularizer.norm_and_bias=1: must be true or false"),
        (lambda: L1("0.1"), "regularizer.strength=0.1: must be"),
        (
            lambda: ElasticNet(-1, 2),
            "regularizer.strength=-1: .*; regularizer.l1_ratio=2: must be a number from 0 to 1",
        ),
        (lambda: ElasticNet(0.1, -0.1), "regularizer.l1_ratio=-0.1: must be"),
        (lambda: ElasticNet(0.1, True), "regularizer.l1_ratio=True: must be"),
    ],
)
def test_options_out_of_range(make, said):
    with pytest.raises(ValueError, match=said):
        make()
