"""The step of all of a stack's runs as one, against PyTorch's optimizers of each."""

from functools import partial

import pytest
import torch

from cifar_tuning.fused.model import stack_models
from cifar_tuning.fused.sgd import StackedSGD
from cifar_tuning.training import L2, Regularizer

SGD = torch.optim.SGD
OPTIMIZERS = {
    "plain": [partial(SGD, lr=0.1), partial(SGD, lr=0.03)],
    "momentum": [partial(SGD, lr=0.1, momentum=0.9), partial(SGD, lr=0.1, momentum=0.5), partial(SGD, lr=0.1)],
    "nesterov": [partial(SGD, lr=0.1, momentum=0.9, nesterov=True), partial(SGD, lr=0.05, momentum=0.8)],
}


class Small(torch.nn.Sequential):
    """Weights of every kind, one of them frozen."""

    def __init__(self):
        super().__init__(torch.nn.Conv2d(3, 4, 3), torch.nn.BatchNorm2d(4), torch.nn.Flatten(), torch.nn.Linear(4, 2))
        self[3].bias.requires_grad = False


@pytest.fixture
def make(make_run):
    """Makes each run twice: to be stacked, and as PyTorch trains it."""

    def make(optimizers, **options):
        regularizers = [L2(0.1, norm_and_bias=False), Regularizer(), L2(0.2)]
        both = [
            [
                make_run(seed=seed, model=Small, optimizer=optimizer, regularizer=regularizer, exact=False, **options)
                for seed, (optimizer, regularizer) in enumerate(zip(optimizers, regularizers, strict=False))
            ]
            for _ in range(2)
        ]
        for run in (run for runs in both for run in runs):
            run.model.double()
        return both

    return make


def step_alone(run, step):
    """Has PyTorch take a step with gradients that the step's number decides."""
    for number, p in enumerate(run.model.parameters()):
        p.grad = gradient(p, number, step) if p.requires_grad else None
    run.optimizer.step()


def gradient(p, number, step):
    draws = torch.Generator().manual_seed(100 * number + step + p.numel())
    return torch.randn(p.shape, dtype=torch.float64, generator=draws)


def step_together(sgd, runs, step):
    sgd.zero_grad()
    for run in runs:
        for number, p in enumerate(run.model.parameters()):
            if p.requires_grad:
                p.grad.copy_(gradient(p, number, step))
    sgd.take_numbers()
    sgd.step()


@pytest.mark.parametrize("kind", OPTIMIZERS)
@pytest.mark.parametrize("begun", [0, 2])
def test_a_step_is_pytorchs_of_each_run(make, kind, begun):
    """Also where the runs had momentum before they were stacked, and where a schedule moves the numbers."""
    stacked, alone = make(OPTIMIZERS[kind])
    for run in (*stacked, *alone):
        for step in range(begun):
            step_alone(run, step)
    sgd = StackedSGD(stacked, stack_models([run.model for run in stacked]))
    for step in range(begun, begun + 4):
        if step == begun + 2:
            for run in (*stacked, *alone):
                for group in run.optimizer.param_groups:
                    group["lr"] *= 0.5
                    group["momentum"] *= 0.9
        for run in alone:
            step_alone(run, step)
        step_together(sgd, stacked, step)
    for mine, theirs in zip(stacked, alone, strict=True):
        torch.testing.assert_close(mine.model.state_dict(), theirs.model.state_dict())
        one, other = (run.optimizer.state_dict()["state"] for run in (mine, theirs))
        kept = {key: state for key, state in other.items() if state.get("momentum_buffer") is not None}
        torch.testing.assert_close({key: one[key] for key in kept}, kept)


@pytest.mark.parametrize(
    ("optimizer", "fits"),
    [
        (partial(SGD, lr=0.1, momentum=0.9, nesterov=True), True),
        (partial(SGD, lr=0.1, momentum=0.9, dampening=0.1), False),
        (partial(SGD, lr=0.1, maximize=True), False),
        (partial(SGD, lr=0.1, differentiable=True), False),
        (partial(torch.optim.Adam, lr=0.1), False),
        (lambda groups: SGD(groups[0]["params"][:1], lr=0.1), False),
    ],
    ids=["sgd", "dampening", "maximize", "differentiable", "adam", "some weights only"],
)
def test_which_optimizers_it_stands_for(make, optimizer, fits):
    plain, _ = make([partial(SGD, lr=0.1)])
    other, _ = make([optimizer])
    assert StackedSGD.fits([*plain, *other]) == fits


@pytest.mark.parametrize(("base", "fits"), [(0.85, True), (0.0, False)])
def test_a_schedule_that_takes_momentum_away_is_left_to_pytorch(make, base, fits):
    """PyTorch's SGD leaves a buffer alone while momentum is 0."""
    cycle = partial(torch.optim.lr_scheduler.CyclicLR, base_lr=0.01, max_lr=0.1, base_momentum=base)
    runs, _ = make([partial(SGD, lr=0.1, momentum=0.9)], schedule=cycle)
    assert StackedSGD.fits(runs) == fits
