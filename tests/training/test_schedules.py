"""When a schedule is stepped, and what of it is in a checkpoint."""

import math
from functools import partial

import numpy as np
import pytest
import torch

from cifar_tuning.training import Schedule
from cifar_tuning.training import checkpoint as checkpoints
from cifar_tuning.training.schedules import constant, step, warmup_cosine
from tests.training.conftest import COSINE, EXPONENTIAL, ONE_CYCLE, PLATEAU, SGD

CYCLIC = partial(torch.optim.lr_scheduler.CyclicLR, base_lr=0.01, max_lr=0.1, step_size_up=4, cycle_momentum=False)


@pytest.fixture
def optimizer():
    return SGD([torch.nn.Parameter(torch.zeros(1))], lr=0.1)


@pytest.mark.parametrize(
    ("schedule", "expected"),
    [
        (constant, [0.1, 0.1, 0.1, 0.1]),
        (partial(step, decay_epochs=2, decay=0.1), [0.1, 0.1, 0.01, 0.01]),
        (partial(step, decay_epochs=None, decay=0.1), [0.1, 0.1, 0.1, 0.1]),
        (COSINE, [0.1, 0.1 * (1 + math.cos(math.pi / 4)) / 2, 0.05, 0.1 * (1 - math.cos(math.pi / 4)) / 2]),
        (EXPONENTIAL, [0.1, 0.05, 0.025, 0.0125]),
    ],
)
def test_schedules_by_epoch(make_trainer, schedule, expected):
    history = make_trainer(epochs=4, lr=0.1, schedule=schedule).fit().progress.history
    assert [m.lr for m in history[1:]] == pytest.approx(expected)


def test_one_cycle_goes_up_and_down_by_the_batch(make_trainer):
    trainer = make_trainer(epochs=5, schedule=partial(ONE_CYCLE, pct_start=0.4, cycle_momentum=False))
    assert trainer.schedule.every_step
    rates = [m.lr for m in trainer.fit().progress.history]
    assert rates[0] < rates[1] < rates[2]
    assert rates[2] > rates[3] > rates[4] > rates[5]
    assert trainer.schedule.scheduler.last_epoch == 5 * len(trainer.train)


@pytest.mark.parametrize(
    ("warmup_ratio", "risen"),
    [(0.29, 12), (0.0, 0), (0.001, 0), (0.999, 39)],
)
def test_a_warm_up_then_a_cosine(warmup_ratio, risen):
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=0.2)
    options = {"warmup_ratio": warmup_ratio, "eta_min": 0.02}
    schedule = Schedule(partial(warmup_cosine, **options), optimizer, epochs=4, steps_per_epoch=10)
    assert schedule.every_step
    rates = []
    for _ in range(41):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        schedule.after_step()
    rise = [0.2 * (0.01 + 0.99 * step / risen) for step in range(risen)]
    fall = [0.02 + 0.09 * (1 + math.cos(math.pi * step / (40 - risen))) for step in range(41 - risen)]
    assert rates == pytest.approx(rise + fall)


def own(optimizer, interval=2):
    return torch.optim.lr_scheduler.StepLR(optimizer, interval)


def in_batches(optimizer, steps_per_epoch, of=torch.optim.lr_scheduler.StepLR):
    return of(optimizer, steps_per_epoch)


@pytest.mark.parametrize(
    ("schedule", "every_step"),
    [
        (constant, False),
        (COSINE, False),
        (partial(COSINE, interval="step"), True),
        (ONE_CYCLE, True),
        (CYCLIC, True),
        (lambda optimizer: CYCLIC(optimizer), True),
        (partial(CYCLIC, interval=None), True),
        (partial(CYCLIC, interval="epoch"), False),
        (partial(own, interval=3), False),
        (in_batches, True),
        (partial(in_batches, interval="epoch"), False),
        (partial(in_batches, of=lambda optimizer, steps: PLATEAU(optimizer)), False),
    ],
)
def test_when_a_schedule_is_stepped(optimizer, schedule, every_step):
    made = Schedule(schedule, optimizer, epochs=10, steps_per_epoch=3)
    assert made.every_step == every_step
    optimizer.step()
    before = made.scheduler.last_epoch
    for _ in range(3):
        made.after_step()
    made.after_epoch(1.0)
    assert made.scheduler.last_epoch - before == (3 if every_step else 1)


@pytest.mark.parametrize(
    ("options", "every_step", "steps"),
    [
        ({}, True, 30),
        ({"interval": "epoch"}, False, 10),  # it counts epochs, and is told no batches
        ({"epochs": 4}, True, 12),  # what is given stays
        ({"epochs": 4, "interval": "epoch"}, False, 4),
        ({"steps_per_epoch": 5}, True, 50),
    ],
)
def test_a_schedule_is_told_how_long_the_run_is(optimizer, options, every_step, steps):
    made = Schedule(partial(ONE_CYCLE, **options), optimizer, epochs=10, steps_per_epoch=3)
    assert (made.every_step, made.scheduler.total_steps) == (every_step, steps)


def test_a_schedule_that_divides_by_zero_says_so(optimizer):
    with pytest.raises(ZeroDivisionError):
        Schedule(lambda optimizer, epochs: epochs // 0, optimizer, epochs=10, steps_per_epoch=3)


@pytest.mark.parametrize(
    ("schedule", "message"),
    [
        (partial(COSINE, interval="batch"), "interval=batch: must be step, epoch or null"),
        (partial(PLATEAU, interval="step"), "interval=step: ReduceLROnPlateau steps on the validation loss"),
    ],
)
def test_intervals_that_are_refused(optimizer, schedule, message):
    with pytest.raises(ValueError, match=message):
        Schedule(schedule, optimizer, epochs=10, steps_per_epoch=3)


class Remembering(torch.optim.lr_scheduler.LRScheduler):
    """Computes with more than plain numbers, and keeps what computes."""

    def __init__(self, optimizer):
        self.count, self.recent, self.factor = np.int64(0), (1.0,), torch.tensor(1.0)
        self.stepped, self.rate, self.half = optimizer, self.own_rate, partial(pow, 2)
        super().__init__(optimizer)

    def own_rate(self):
        return 0.1 / float(self.count) * float(self.factor) * sum(self.recent)

    def get_lr(self):
        self.count, self.factor = self.count + np.int64(1), self.factor * 0.9
        self.recent = (*self.recent[-2:], float(self.count))
        return [self.rate()]


MULTI_STEP = partial(torch.optim.lr_scheduler.MultiStepLR, milestones=[2, 3, 3])


@pytest.mark.parametrize("schedule", [Remembering, MULTI_STEP, CYCLIC, PLATEAU, ONE_CYCLE, constant])
def test_a_schedule_goes_on_from_its_state_in_a_checkpoint(make_trainer, tmp_path, schedule):
    whole, resumed = (make_trainer(schedule=schedule, folder=tmp_path) for _ in range(2))
    for _ in range(2):
        whole.optimizer.step()
        whole.schedule.after_step()
        whole.schedule.after_epoch(1.0)
    whole._save(is_best=False)
    resumed.resume(checkpoints.load(tmp_path))
    for run in (whole, resumed):
        run.optimizer.step()
        run.schedule.after_step()
        run.schedule.after_epoch(1.0)
    assert resumed.optimizer.state_dict()["param_groups"] == whole.optimizer.state_dict()["param_groups"]
    mine, theirs = resumed.schedule.state_dict(), whole.schedule.state_dict()
    assert mine == theirs
    assert [type(value) for value in mine.values()] == [type(value) for value in theirs.values()]


@pytest.mark.parametrize(("pct_start", "steps"), [(0.2, 5), (0.1, 10), (0.25, 4), (0.3, 4), (0.2, 1)])
@pytest.mark.parametrize("three_phase", [False, True])
def test_one_cycle_of_a_few_steps(optimizer, pct_start, steps, three_phase):
    """PyTorch divides by the length of the rise less one step, which is 0 where it is of one step."""
    one_cycle = partial(ONE_CYCLE, pct_start=pct_start, cycle_momentum=False, three_phase=three_phase)
    schedule, rates = Schedule(one_cycle, optimizer, 1, steps), []
    for _ in range(steps):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        if len(rates) < steps:
            schedule.after_step()
    assert rates[-1] == pytest.approx(0.1 / 25 / 1e4)
    assert max(rates) <= 0.1
    if pct_start * steps == 1 and not three_phase:  # one step up, then down from the top
        assert rates[0] == pytest.approx(0.1 / 25)
        assert rates[1] == max(rates)
