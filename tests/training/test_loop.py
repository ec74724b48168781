import copy
import math
import sys
from functools import partial

import pytest
import torch
import torch.nn.functional as F

from cifar_tuning import devices
from cifar_tuning.data.augmentation import Augmentation
from cifar_tuning.training import L2, Listener, Regularizer
from cifar_tuning.training import checkpoint as checkpoints
from cifar_tuning.training.averaging import WeightAverage
from cifar_tuning.training.computation import LEAD, Computation, Trained, _due
from cifar_tuning.training.display import Display
from cifar_tuning.training.evaluation import Evaluation
from cifar_tuning.training.events import EpochMetrics
from cifar_tuning.training.loop import run_epochs
from cifar_tuning.training.resizing import sides
from cifar_tuning.training.schedules import constant, step
from tests.training.conftest import COSINE, EXPONENTIAL, ONE_CYCLE, PLATEAU, SGD, assert_same, moved

NESTEROV = partial(torch.optim.SGD, momentum=0.9, nesterov=True)


class Recorder(Listener):
    def __init__(self, stop_after=None):
        self.epochs, self.stop_after, self.ended = [], stop_after, None

    def on_epoch(self, metrics):
        self.epochs.append(metrics)
        return metrics.epoch == self.stop_after

    def on_end(self, result):
        self.ended = result


class Watched(torch.optim.SGD):
    """Keeps the norms of the gradients that it is given."""

    def step(self, closure=None):
        norms = [p.grad.norm() for group in self.param_groups for p in group["params"]]
        vars(self).setdefault("norms", []).append(torch.stack(norms).norm().item())
        return super().step(closure)


def test_gradients_are_clipped(make_trainer):
    free, clipped = (make_trainer(optimizer=Watched, epochs=1, max_grad_norm=norm) for norm in (None, 0.5))
    for trainer in (free, clipped):
        trainer.fit()
    assert min(free.optimizer.norms) > 0.5
    assert clipped.optimizer.norms == pytest.approx([0.5] * len(free.optimizer.norms), rel=1e-4)


@pytest.mark.parametrize("val", [None, 0.7038])
def test_the_bar_and_what_stands_beside_it_fit_into_80_columns(monkeypatch, val):
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    with Display(4_500_000) as display:
        display._bar.dynamic_ncols = lambda stream: (80, 24)
        display.begin(100, 100)
        display.report(EpochMetrics(100, 0.8841, 0.6907, val, val, val, 0.01, 7751.0, 6.0), 100)
        bar = display._bar
        bar.n, bar.start_t = 450_000, bar.start_t - 400  # an hour is left
        shown = str(bar)
    assert len(shown) <= 80
    assert len(shown.split("|")[1]) >= 20
    assert shown.endswith("k images/s, loss 0.884" if val is None else "k images/s, best 0.704")


def test_learns_and_reports_every_epoch(make_trainer):
    recorder = Recorder()
    result = make_trainer(epochs=4, listeners=[recorder]).fit()
    assert result.state == "complete"
    assert [m.epoch for m in recorder.epochs] == [0, 1, 2, 3, 4]
    assert recorder.ended is result
    first, last = recorder.epochs[0], recorder.epochs[-1]
    assert abs(first.train_loss - math.log(10)) < 0.1
    assert last.train_loss < first.train_loss - 0.3
    assert result.value == max(m.val_acc for m in recorder.epochs) == last.val_acc_best
    assert result.value > 0.3
    always = {"train/loss", "train/acc", "val/loss", "val/acc", "val/acc_best", "lr"}
    assert set(first.named()) == always
    assert set(last.named()) == always | {"images_per_second", "epoch_seconds"}
    assert sum(map(sum, result.progress.confusion)) == 64
    assert sum(row[i] for i, row in enumerate(result.progress.confusion)) == round(result.value * 64)


def test_epoch_0_leaves_no_trace(make_trainer):
    """Looking before training changes neither weights, nor batch norm's statistics, nor the generators."""
    trainer = make_trainer(dropout=0.5)
    before = copy.deepcopy(trainer.model.state_dict())
    generator = torch.get_rng_state()
    Computation([trainer], trainer.model).untrained()
    assert torch.equal(generator, torch.get_rng_state())
    assert_same(before, trainer.model.state_dict())


def test_an_epoch_is_the_plain_recipe(make_trainer):
    """Against a loop written out by hand: same batches, same loss, same updates."""
    trainer, twin = make_trainer(epochs=1), make_trainer(epochs=1)
    result = trainer.fit()
    optimizer = torch.optim.SGD(twin.model.parameters(), lr=0.05, momentum=0.9, weight_decay=1e-4)
    loss_sum = right = 0.0
    for images, labels in twin.train.epoch(1):
        logits = twin.model(images)
        loss = F.cross_entropy(logits, labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        loss_sum += loss.item() * len(labels)
        right += (logits.argmax(1) == labels).sum().item()
    assert_same(list(trainer.model.parameters()), list(twin.model.parameters()))
    metrics = result.progress.history[1]
    assert metrics.train_loss == pytest.approx(loss_sum / 256, rel=1e-5)
    assert metrics.train_acc == right / 256


@pytest.mark.parametrize(
    ("optimizer", "schedule", "others"),
    [
        (SGD, constant, {}),
        (NESTEROV, partial(step, decay_epochs=1, decay=0.5), {"dropout": 0.3}),
        (SGD, ONE_CYCLE, {}),
        (SGD, PLATEAU, {}),
        (torch.optim.Adam, COSINE, {}),
        (torch.optim.AdamW, EXPONENTIAL, {"dropout": 0.5}),
        (SGD, ONE_CYCLE, {"ema_decay": 0.9}),
        (SGD, constant, {"mixup": 0.4, "label_smoothing": 0.1}),
        (SGD, COSINE, {"validate": False, "dropout": 0.3, "ema_decay": 0.9}),
    ],
)
def test_resume_goes_on_to_the_same_bits(make_trainer, tmp_path, optimizer, schedule, others):
    options = {"epochs": 4, "optimizer": optimizer, "schedule": schedule, **others}
    whole = make_trainer(**options)
    expected = whole.fit()

    broken = make_trainer(**options, folder=tmp_path, listeners=[Recorder(stop_after=2)])
    assert broken.fit().state == "pruned"
    torch.manual_seed(12345)  # another process would have another generator state
    resumed = make_trainer(**options, seed=0)
    resumed.resume(checkpoints.load(tmp_path))
    result = resumed.fit()

    assert_same(whole.model.state_dict(), resumed.model.state_dict())
    if whole.average is not None:
        assert_same(whole.average.model.state_dict(), resumed.average.model.state_dict())

    def numbers(r):  # all but the clock
        return [(m.epoch, m.train_loss, m.train_acc, m.val_loss, m.val_acc, m.lr) for m in r.progress.history]

    assert numbers(result) == numbers(expected)
    assert (result.value, result.progress.best_epoch) == (expected.value, expected.progress.best_epoch)


def test_the_average_is_validated_and_kept_and_training_does_not_see_it(make_trainer, tmp_path):
    plain, averaging = make_trainer(epochs=2), make_trainer(epochs=2, ema_decay=0.8, folder=tmp_path)
    average = copy.deepcopy(plain.model.state_dict())
    steps = 0

    def after_step():
        nonlocal steps
        for name, value in plain.model.state_dict().items():
            keep = min(0.8, (1 + steps) / (10 + steps))
            average[name] = keep * average[name] + (1 - keep) * value
        steps += 1

    plain.update_average = after_step
    plain.fit()
    result = averaging.fit()
    assert_same(plain.model.state_dict(), averaging.model.state_dict())
    checkpoint = checkpoints.load(tmp_path)
    read = {name: value for name, value in average.items() if "num_batches" not in name}  # which nobody reads
    torch.testing.assert_close({name: checkpoint.model[name] for name in read}, read, rtol=1e-5, atol=1e-6)
    judge = make_trainer()
    judge.model.load_state_dict(checkpoint.model)
    (alone,) = Computation([judge], judge.model).evaluate()
    last = result.progress.history[-1]
    assert (last.val_loss, last.val_acc) == pytest.approx((alone.loss, alone.accuracy), abs=1e-6)
    assert last.val_loss != plain.progress.history[-1].val_loss


def test_a_run_without_average_goes_on_from_the_weights_of_one_with_it(make_trainer, tmp_path):
    averaging, resumed = make_trainer(epochs=1, ema_decay=0.9, folder=tmp_path), make_trainer()
    averaging.fit()
    resumed.resume(checkpoints.load(tmp_path))
    assert_same(averaging.model.state_dict(), resumed.model.state_dict())


def test_an_average_that_begins_late_begins_with_the_weights(make_trainer, tmp_path):
    make_trainer(epochs=1, folder=tmp_path).fit()
    resumed = make_trainer(epochs=1, ema_decay=0.9)
    resumed.resume(checkpoints.load(tmp_path))
    before = resumed.model.fc3.bias.detach().clone()
    resumed.model.fc3.bias.data.fill_(3.0)
    resumed.update_average()
    torch.testing.assert_close(resumed.average.model.fc3.bias, 0.1 * before + 0.9 * 3)


def test_a_run_that_was_killed_in_its_first_epoch_averages_as_if_it_had_not_been(make_trainer, tmp_path):
    broken = make_trainer(epochs=1, ema_decay=0.9, folder=tmp_path, listeners=[Killer()])
    with pytest.raises(KeyboardInterrupt):
        broken.fit()
    whole, resumed = (make_trainer(epochs=1, ema_decay=0.9) for _ in range(2))
    whole.fit()
    resumed.resume(checkpoints.load(tmp_path))
    resumed.fit()
    assert_same(whole.average.model.state_dict(), resumed.average.model.state_dict())


class Killer(Listener):
    def on_epoch(self, metrics):
        raise KeyboardInterrupt


def test_tied_weights_are_averaged_once():
    model = torch.nn.Sequential(torch.nn.Linear(2, 2), torch.nn.Linear(2, 2))
    model[1].weight = model[0].weight
    average = WeightAverage(model, 0.9)
    with torch.no_grad():
        model[0].weight.zero_()
    average.update()
    expected = average.model[0].weight.detach().clone()
    assert expected.abs().max() > 0
    with average.in_place():
        assert torch.equal(model[1].weight, expected)
        assert model[1].weight is model[0].weight
    assert torch.equal(model[0].weight, torch.zeros(2, 2))
    assert torch.equal(average.model[1].weight, expected)


class Counting(torch.nn.Linear):
    """Puts another tensor into the place of its buffer, in each step."""

    def __init__(self):
        super().__init__(2, 2)
        self.register_buffer("count", torch.zeros(()))

    def forward(self, x):
        self.count = self.count + 1
        return super().forward(x)


def test_a_buffer_is_averaged_that_is_another_tensor_in_each_step():
    model = Counting()
    average = WeightAverage(model, 0.0)
    for count in (1.0, 2.0):
        model(torch.ones(2))
        average.update()
        assert average.model.count.item() == count


class Masked(torch.nn.Sequential):
    """Has a causal mask, as transformers do: minus infinity where one must not look."""

    def __init__(self):
        super().__init__(torch.nn.Flatten(), torch.nn.Linear(3072, 10))
        self.register_buffer("mask", torch.full((4, 4), float("-inf")).triu(1))
        self.register_buffer("scale", torch.ones(1).to(torch.float8_e4m3fn))  # which PyTorch can't average


@pytest.mark.parametrize("options", [{"ema_decay": 0.9}, {"validate": False}])
def test_a_buffer_that_is_infinite_is_no_divergence(make_trainer, options):
    run = make_trainer(model=Masked(), epochs=1, **options)
    run.model.mask[0, 0] = 1.0  # some change it while they are trained
    assert run.fit().state == "complete"
    if run.average is not None:
        assert torch.equal(run.average.model.mask, run.model.mask)


@pytest.mark.parametrize("smoothing", [0.0, 0.2])
def test_the_loss_of_mixed_images_is_the_mixed_loss(make_trainer, smoothing):
    trainer = make_trainer(mixup=0.5, label_smoothing=smoothing)
    logits = torch.randn(48, 1, 10)
    _, shares = next(iter(trainer.train.epoch(1)))
    (loss,) = Computation([trainer], trainer.model).losses(logits, shares)
    expected = F.cross_entropy(logits[:, 0], shares, label_smoothing=smoothing)
    torch.testing.assert_close(loss, expected)
    assert make_trainer(epochs=3, mixup=0.5, label_smoothing=smoothing).fit().value > 0.2


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ((10, 0.5, 0.5, 0.2), [16, 16, 16, 16, 16, 16, 20, 28, 32, 32]),
        ((5, 0.6, 0.0, 0.0), [20, 20, 24, 28, 28]),
        ((4, 0.5, 1.0, 0.0), [16] * 4),
        ((4, 0.01, 0.5, 0.5), [4, 4, 32, 32]),
        ((3, 0.5, 0.5, 0.2), [16, 16, 32]),
        ((4, 0.5, 0.0, 1.0), [32] * 4),
        ((10, 0.5, 0.3, 0.7), [16] * 3 + [32] * 7),
    ],
)
def test_sides_grow_from_the_initial_scale_to_whole_images(settings, expected):
    side = sides((32, 32), *settings)
    assert [side(epoch) for epoch in range(1, len(expected) + 1)] == [(s, s) for s in expected]


@pytest.mark.parametrize("options", [{}, {"ema_decay": 0.9}])
def test_without_validation_training_is_the_same_and_the_last_epoch_is_kept(make_trainer, tmp_path, options, caplog):
    plain = make_trainer(epochs=2, **options)
    plain.fit()
    recorder = Recorder()
    trainer = make_trainer(epochs=2, validate=False, folder=tmp_path, listeners=[recorder], **options)
    caplog.clear()
    with caplog.at_level("INFO"):
        result = trainer.fit()
    assert (result.state, result.value) == ("complete", None)
    assert (result.progress.best_epoch, result.progress.confusion) == (2, [])
    best = checkpoints.load(tmp_path / "best.pt")
    assert best.progress == checkpoints.load(tmp_path / "last.pt").progress == result.progress
    expected = plain.model if plain.average is None else plain.average.model
    assert_same(best.model, expected.state_dict())
    assert not [name for metrics in recorder.epochs for name in metrics.named() if name.startswith("val/")]
    lines = [record.getMessage() for record in caplog.records if record.getMessage().startswith("epoch")]
    assert len(lines) == 3
    assert not [line for line in lines if "val" in line or "best" in line or "nan" in line]


@pytest.mark.parametrize("lr", [1e30, 1e12])
def test_without_validation_a_diverging_run_keeps_its_last_sound_epoch(make_trainer, tmp_path, lr):
    result = make_trainer(epochs=10, lr=lr, validate=False, folder=tmp_path).fit()
    assert (result.state, result.value) == ("diverged", None)
    assert result.progress.epoch == result.progress.best_epoch + 1
    for name in ("best.pt", "last.pt"):
        saved = checkpoints.load(tmp_path / name)
        assert saved.progress.epoch == result.progress.best_epoch
        assert all(torch.isfinite(value).all() for value in saved.model.values())


def test_without_validation_weights_that_blow_up_in_the_last_step_are_seen(make_trainer, tmp_path):
    trainer = make_trainer(epochs=2, validate=False, folder=tmp_path)
    train = Computation.train_batch

    class Last(Computation):
        def train_batch(self, batch, display):
            train(self, batch, display)
            if len(batch[1]) < 48:  # an epoch's last
                trainer.model.fc3.bias.data.fill_(math.inf)

    with Display.of([trainer]) as display:
        ((_, state),) = run_epochs(Last([trainer], trainer.model), display)
    assert state == "diverged"
    assert math.isfinite(trainer.progress.history[-1].train_loss)
    assert checkpoints.load(tmp_path / "best.pt").progress.epoch == 0


@pytest.mark.parametrize(("seeds", "same"), [((7, 7), True), ((7, 8), False)])
def test_the_seed_decides_everything(make_trainer, seeds, same):
    first, second = (make_trainer(seed=seed, epochs=1, dropout=0.5) for seed in seeds)
    assert first.train.seed == seeds[0]
    torch.manual_seed(seeds[0])
    first.fit()
    torch.manual_seed(seeds[1])
    second.fit()
    equal = [torch.equal(a, b) for a, b in zip(first.model.parameters(), second.model.parameters(), strict=True)]
    assert all(equal) if same else not any(equal)


def test_a_diverging_run_ends_early_with_its_best_so_far(make_trainer, tmp_path):
    recorder = Recorder()
    trainer = make_trainer(epochs=10, lr=1e30, listeners=[recorder], folder=tmp_path)
    result = trainer.fit()
    assert (result.state, result.stopped) == ("diverged", None)
    assert recorder.ended is result
    assert len(result.progress.history) < 11
    assert result.value == max(m.val_acc for m in recorder.epochs if not math.isnan(m.val_acc))
    saved = checkpoints.load(tmp_path / "last.pt")
    assert all(torch.isfinite(v).all() for v in saved.model.values())


def test_a_run_that_diverged_in_a_stack_has_no_accuracy_of_any_kind(make_trainer):
    """The others are sound, so that the validation images were looked at; alone it would not have been."""
    val = Evaluation(loss=math.nan, accuracy=0.8, confusion=[[8, 0], [2, 0]])
    metrics = make_trainer().after_epoch(Trained(math.nan, 0.1, lr=0.1, seconds=1.0), val, 1.0)
    assert math.isnan(metrics.val_acc)
    assert math.isnan(metrics.figure("val/acc_balanced"))


@pytest.mark.parametrize(("epochs", "state"), [(5, "pruned"), (1, "complete")])
def test_a_listener_stops_the_run_unless_it_has_ended(make_trainer, epochs, state):
    recorder = Recorder(stop_after=1)
    result = make_trainer(epochs=epochs, listeners=[recorder, Recorder()]).fit()
    assert (result.state, result.stopped) == (state, None)
    assert [m.epoch for m in recorder.epochs] == [0, 1]


@pytest.mark.parametrize(("options", "queues"), [({}, ()), ({"ema_decay": 0.5}, ("cpu",))])
def test_patience_ends_a_run_and_one_that_is_resumed_at_the_same_epoch(
    make_trainer, tmp_path, caplog, monkeypatch, options, queues
):
    monkeypatch.setattr(devices, "QUEUES", queues)
    options = {"epochs": 40, "lr": 0.2, **options}
    recorder = Recorder()
    with caplog.at_level("INFO"):
        whole = make_trainer(**options, patience=2, listeners=[recorder]).fit()
    best, last = whole.progress.best_epoch, whole.progress.epoch
    assert (whole.state, last < 40) == ("complete", True)
    accuracies = [m.val_acc for m in recorder.epochs]
    assert last == best + 2 == next(e for e in range(40) if e - accuracies.index(max(accuracies[: e + 1])) == 2)
    reason = f"after epoch {last}: no better validation accuracy since epoch {best} (trainer.patience=2)"
    assert whole.stopped == recorder.ended.stopped == reason
    assert f"stopped {reason}" in caplog.messages

    make_trainer(**options, folder=tmp_path, listeners=[Recorder(stop_after=last - 1)], patience=2).fit()
    resumed = [make_trainer(**options, patience=patience, folder=tmp_path) for patience in (2, 2, 3)]
    for run, epochs in zip(resumed, [last, last, last + 1], strict=True):
        run.resume(checkpoints.load(tmp_path))
        result = run.fit()
        assert (result.state, result.progress.epoch >= epochs) == ("complete", True)
        assert (result.progress.epoch == last) == (run.patience == 2)


@pytest.mark.parametrize("also", [{"listeners": [Recorder(stop_after=1)]}, {"epochs": 1}])
def test_a_run_whose_patience_ends_where_something_else_does_is_complete(make_trainer, also):
    result = make_trainer(**{"epochs": 2, "lr": 1e-12, **also}, patience=1).fit()
    assert (result.state, result.progress.epoch) == ("complete", 1)
    assert (result.stopped is None) == (also.get("epochs") == 1)


def test_best_and_last_checkpoints(make_trainer, tmp_path):
    result = make_trainer(epochs=3, folder=tmp_path, config={"model": {"a": 1}}, run_id="abc").fit()
    last, best = checkpoints.load(tmp_path / "last.pt"), checkpoints.load(tmp_path / "best.pt")
    assert last.progress.epoch == 3
    assert best.progress.epoch == best.progress.best_epoch == result.progress.best_epoch
    assert (last.config, last.run_id) == ({"model": {"a": 1}}, "abc")
    assert not list(tmp_path.glob(".*"))


def test_l2_is_coupled_weight_decay(make_trainer):
    """With strength λ SGD's first step moves by lr·λ·w more than without."""
    with_l2 = make_trainer(epochs=1, regularizer=L2(0.1), lr=1e-4)
    without = make_trainer(epochs=1, regularizer=Regularizer(), lr=1e-4)
    start = with_l2.model.fc1.weight.detach().clone()
    batch = next(iter(with_l2.train.epoch(1)))
    for trainer in (with_l2, without):
        computation = Computation([trainer], trainer.model)
        computation.train_batch(batch, Display(256))
    difference = without.model.fc1.weight - with_l2.model.fc1.weight
    torch.testing.assert_close(difference, 1e-4 * 0.1 * start, rtol=0.05, atol=2e-8)


class Waiting(Listener):
    """Knows in which epochs the host had time."""

    def __init__(self):
        self.epochs, self.waited = 0, []

    def on_epoch(self, metrics):
        self.epochs += 1
        return False

    def while_waiting(self):
        self.waited.append(self.epochs)


def test_while_a_device_works_the_next_epoch_is_drawn_and_listeners_do_what_may_be_late(make_trainer, monkeypatch):
    plain, waiting = make_trainer(), Waiting()
    plain.fit()
    monkeypatch.setattr(devices, "QUEUES", ("cpu",))
    trainer = make_trainer(listeners=[waiting])
    drawn = []
    monkeypatch.setattr(
        trainer.train, "order", lambda epoch: drawn.append(epoch) or type(trainer.train).order(trainer.train, epoch)
    )
    trainer.fit()
    assert waiting.waited == [1, 2, 3]  # behind the look before training, and each time before the epoch ends
    assert drawn == [1, 1, 2, 3]  # none twice but the first, which the look before training has begun
    assert_same(plain.model.state_dict(), trainer.model.state_dict())
    trainer.train.prepare(3)
    Computation([trainer], trainer.model).release()
    assert trainer.train._next is None


@pytest.mark.parametrize(("chores", "steps"), [(1, 352), (32, 352), (3, 17), (40, 20), (5, 16), (2, 3), (0, 50)])
def test_chores_are_spread_over_an_epoch(chores, steps):
    due = [_due(chores, steps)(index) for index in range(steps)]
    assert sum(due) == (chores if steps > LEAD else 0)  # what is left is done behind the last step
    assert sum(due[:LEAD]) == 0
    if steps > 300 and chores:
        assert max(due) == 1
        assert due.index(1) <= LEAD + steps // chores


class Interrupting(Listener):
    """Notes which epoch `last.pt` is of at each of these moments, and ends a run behind its second epoch."""

    def __init__(self, folder, kind):
        self.folder, self.kind, self.reported, self.seen = folder, kind, 0, []

    def _look(self):
        return checkpoints.load(self.folder).progress.epoch

    def on_epoch(self, metrics):
        self.seen.append((f"epoch {metrics.epoch}", self._look()))
        self.reported = metrics.epoch
        return metrics.epoch == 2 and self.kind == "pruned"

    def while_waiting(self):
        self.seen.append((f"in epoch {self.reported + 1}", self._look()))
        if self.reported == 2:
            raise KeyboardInterrupt

    def on_end(self, result):
        self.seen.append((result.state, self._look()))


BEFORE = [("epoch 0", 0), ("in epoch 1", 0), ("epoch 1", 0), ("in epoch 2", 1), ("epoch 2", 1)]


@pytest.mark.parametrize(
    ("kind", "then"),
    [("pruned", [("pruned", 2)]), ("interrupted", [("in epoch 3", 2)])],
)
def test_a_checkpoint_is_written_while_a_device_works_and_in_any_case(make_trainer, monkeypatch, tmp_path, kind, then):
    monkeypatch.setattr(devices, "QUEUES", ("cpu",))
    listener = Interrupting(tmp_path, kind)
    trainer = make_trainer(epochs=3, folder=tmp_path, listeners=[listener])
    if kind == "pruned":
        trainer.fit()
    else:
        with pytest.raises(KeyboardInterrupt):
            trainer.fit()
    assert listener.seen == BEFORE + then
    assert checkpoints.load(tmp_path).progress.epoch == 2


@pytest.mark.parametrize(
    ("error", "full", "left"), [(KeyboardInterrupt, False, 2), (RuntimeError, False, 2), (KeyboardInterrupt, True, 1)]
)
def test_what_was_put_off_is_written_when_training_ends_early(
    make_trainer, monkeypatch, tmp_path, caplog, error, full, left
):
    """A full disk, which may keep it from that, hides no other error."""
    monkeypatch.setattr(devices, "QUEUES", ("cpu",))
    for name in ("plain", "stopped"):
        (tmp_path / name).mkdir()
    make_trainer(epochs=left, folder=tmp_path / "plain").fit()
    trainer = make_trainer(epochs=4, folder=tmp_path / "stopped")
    whole = trainer.train.epoch

    def refused(self, *paths):
        raise OSError(28, "No space left on device")

    def fails(epoch):
        if epoch == 3:
            if full:
                monkeypatch.setattr(checkpoints.Taken, "write", refused)
            raise error
        return whole(epoch)

    monkeypatch.setattr(trainer.train, "epoch", fails)
    with pytest.raises(error):
        trainer.fit()
    found, wanted = (checkpoints.load(tmp_path / name) for name in ("stopped", "plain"))
    assert (found.progress.epoch, trainer.files.saved) == (left, tmp_path / "stopped" / "last.pt")
    assert_same(wanted.model, found.model)
    said = "The checkpoint of epoch 2 could not be written: [Errno 28] No space left on device"
    assert (said in caplog.text) is full


def test_an_augmentation_that_may_draw_anything_is_not_begun_before_its_epoch(make_trainer):
    trainer = make_trainer()
    trainer.train.augmentation = Whatever()
    trainer.train.prepare(2)
    assert trainer.train._next is None


class Whatever(Augmentation):
    def start(self, plan):
        raise AssertionError


@pytest.mark.gpu
@pytest.mark.parametrize("record", [False, True])
def test_on_a_gpu_nothing_waits_for_the_device_inside_an_epoch(make_trainer, record):
    trainer = make_trainer(epochs=1)
    trainer.record = record
    device = torch.device("cuda")
    trainer.model.to(device)
    trainer.device = device
    trainer.train = moved(trainer.train, device)
    computation = Computation([trainer], trainer.model)
    for _ in range(3):
        computation.train([1], Display(256))  # warms up, and is recorded
    batches = iter(trainer.train.epoch(1))  # an epoch's only transfers come before its first batch
    computation.train_batch(next(batches), Display(256))
    torch.cuda.synchronize()
    torch.cuda.set_sync_debug_mode("error")
    try:
        for batch in batches:
            computation.train_batch(batch, Display(256))
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert torch.isfinite(next(trainer.model.parameters())).all()
