"""What a group of jobs is trained as, and what is said where that is one by one."""

from functools import partial
from types import SimpleNamespace

import pytest
import torch

from cifar_tuning.fused import plan as planning
from cifar_tuning.fused.size import Stacking
from cifar_tuning.fused.twin import NotStackableError

MEASURED = Stacking(4, by_seed=True)


class OwnSGD(torch.optim.SGD):
    """An optimizer of the user's."""


@pytest.fixture
def ask(make_run, monkeypatch, caplog):
    """Plans for a job whose measurement answers, or raises, what is given; returns the plan and what was said."""

    def ask(stack=None, measured=MEASURED, check=None, side=None, **options):
        def choose(run, jobs, of_a_seed, shape):
            assert (jobs, of_a_seed, shape) == (6, 3, (2, 3, 32, 32))
            if isinstance(measured, Exception):
                raise measured
            return measured

        def check_stackable(model, images):
            if check is not None:
                raise check

        monkeypatch.setattr(planning, "choose", choose)
        monkeypatch.setattr(planning, "check_stackable", check_stackable)
        run = make_run(exact=False, **options)
        run.train.side = side
        with caplog.at_level("INFO"):
            found = planning.plan(SimpleNamespace(run=run, number=3), stack, 6, 3)
        return found, " ".join(record.getMessage() for record in caplog.records)

    return ask


@pytest.mark.parametrize(
    ("given", "plan", "said"),
    [
        ({}, MEASURED, ""),
        ({"stack": 5}, Stacking(5), ""),
        ({"measured": Stacking(1)}, Stacking(1), "stacking this model does not pay on this device"),
        ({"measured": NotStackableError("no room")}, Stacking(1), "Trained one by one: no room."),
        ({"measured": RuntimeError("odd")}, Stacking(1), "one by one: the model could not be measured (odd)"),
        ({"check": NotStackableError("it draws"), "stack": 5}, Stacking(1), "Trained one by one: it draws."),
        (
            {"side": lambda epoch: (16, 16), "stack": 5},
            Stacking(1),
            "the size of its images changes from epoch to epoch (trainer.initial_scale)",
        ),
        ({"compile": True}, Stacking(1), "one by one: a stack is not compiled; hydra.launcher.stack=N stacks all the"),
        ({"compile": True, "stack": 5}, Stacking(5), "A stack is not compiled: trainer.compile has no effect on it."),
        (
            {"optimizer": partial(OwnSGD, lr=0.1), "stack": 5},
            Stacking(1),
            "#3 is trained by itself: OwnSGD is no optimizer of PyTorch's",
        ),
    ],
)
def test_how_many_and_why(ask, given, plan, said):
    found, words = ask(**given)
    assert found == plan
    assert (said in words) if said else not words


def test_an_optimizer_of_the_users_shares_with_nobody(make_run):
    plain, own = (make_run(optimizer=partial(kind, lr=0.1)) for kind in (torch.optim.SGD, OwnSGD))
    jobs = [SimpleNamespace(run=run, number=number) for number, run in enumerate((plain, plain, own, own))]
    keys = [planning.key_of(job) for job in jobs]
    assert [keys.index(key) for key in keys] == [0, 0, 2, 3]
