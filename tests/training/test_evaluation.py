"""What an evaluation comes to, also where its batches are replayed; test_cuda_graphs.py does that on a GPU."""

import pytest
import torch
import torch.nn.functional as F

from cifar_tuning.models import SimpleNN
from cifar_tuning.training import clock
from cifar_tuning.training.cuda_graphs import WARM_UP
from cifar_tuning.training.evaluation import Evaluation, Logits, evaluate, evaluate_untrained
from cifar_tuning.training.events import EpochMetrics


class Replayed:
    """Stands in for `Recorded`: works a few times; then results only appear where the last one's lie."""

    def __init__(self, logits):
        self.logits, self.calls = logits, 0

    def __call__(self, work, images):
        self.calls += 1
        if self.calls <= WARM_UP + 1:
            work(images)
            self.memory = self.logits._kept
        else:
            self.memory.copy_(self.logits.compute(images))


def test_batches_are_replayed_but_for_a_smaller_one_at_the_end():
    torch.manual_seed(0)
    model, device = SimpleNN(batch_norm=True), torch.device("cpu")
    images, labels = torch.randn(64, 3, 32, 32), torch.randint(10, (64,))
    batches = list(zip(images.split(20), labels.split(20), strict=True))
    plain, logits = Logits(model, device, "fp32"), Logits(model, device, "fp32")
    logits.recorded = Replayed(logits)
    for epoch in range(5):
        assert evaluate(logits, batches) == evaluate(plain, batches), epoch
        with torch.no_grad():
            model.fc3.weight.mul_(-1.5)
    assert logits.recorded.calls == 12  # not in the first evaluation, which may be the only one
    logits.recorded.forget = lambda: None
    logits.forget()
    assert logits._kept.numel() == 0


class Given(torch.nn.Module):
    """Has its input for logits, or nothing where it is in training; moves a buffer there, as batch norm does."""

    def __init__(self):
        super().__init__()
        self.register_buffer("seen", torch.zeros(()))

    def forward(self, images):
        if self.training:
            self.seen += 1
            torch.rand(1)
        return images.flatten(1)


def test_runs_side_by_side_are_judged_each_by_itself():
    """Two runs' logits of three classes, batch by batch, against the same figures by hand."""
    torch.manual_seed(0)
    logits, labels = torch.randn(7, 2, 3), torch.tensor([0, 1, 2, 2, 1, 1, 0])
    images = logits.view(7, 6, 1, 1)
    batches = list(zip(images.split(4), labels.split(4), strict=True))
    model = Given().train()
    found = evaluate(Logits(model, torch.device("cpu"), "fp32"), batches, runs=2)
    assert (len(found), int(model.seen)) == (2, 0)
    for run, one in enumerate(found):
        taken_for = logits[:, run].argmax(1)
        assert one.loss == pytest.approx(F.cross_entropy(logits[:, run], labels).item())
        assert one.accuracy == pytest.approx((taken_for == labels).float().mean().item())
        pairs = list(zip(labels.tolist(), taken_for.tolist(), strict=True))
        assert one.confusion == [[pairs.count((i, j)) for j in range(3)] for i in range(3)]


@pytest.mark.parametrize("shares", [False, True])
def test_what_is_untrained_is_judged_by_the_first_batches_and_stays_untouched(shares):
    torch.manual_seed(0)
    logits, labels = torch.randn(25, 2, 3), torch.randint(3, (25,))
    labels_given = F.one_hot(labels, 3).float() if shares else labels
    batches = zip(logits.view(25, 6, 1, 1).split(2), labels_given.split(2), strict=True)
    model, generator = Given(), torch.get_rng_state()

    def losses(logits, labels):
        return torch.stack([F.cross_entropy(logits[:, run], labels) for run in range(2)])

    found = evaluate_untrained(Logits(model, torch.device("cpu"), "fp32"), batches, losses, runs=2)
    assert int(model.seen) == 0
    assert torch.equal(torch.get_rng_state(), generator)
    for run, (loss, accuracy) in enumerate(found):  # ten batches of two
        assert loss == pytest.approx(F.cross_entropy(logits[:20, run], labels[:20]).item())
        assert accuracy == pytest.approx((logits[:20, run].argmax(1) == labels[:20]).float().mean().item())


def test_seconds_on_the_cpu(monkeypatch):
    monkeypatch.setattr(clock.time, "perf_counter", iter([2.0, 5.5]).__next__)
    began, ended = (clock.now(torch.device("cpu")) for _ in range(2))
    assert clock.seconds_between(began, ended) == 3.5


@pytest.mark.parametrize(
    ("confusion", "balanced"),
    [
        ([[3, 1], [2, 2]], None),  # the accuracy says it
        ([[8, 0], [1, 1]], 0.75),
        ([[8, 0, 0], [0, 0, 0], [2, 0, 2]], 0.75),  # a class that no image validates
        ([[5, 0], [0, 0]], None),
        ([[5, 0], [4, 2]], None),
        ([], None),
    ],
)
def test_each_class_counts_alike_in_the_balanced_accuracy(confusion, balanced):
    assert Evaluation(loss=0.0, accuracy=0.5, confusion=confusion).balanced == balanced
    metrics = EpochMetrics(1, 1.0, 0.5, 1.0, 0.5, 0.5, 0.1, 1.0, 1.0, balanced)
    assert metrics.named().get("val/acc_balanced") == balanced
    assert metrics.figure("val/acc_balanced") == (0.5 if balanced is None else balanced)
    assert metrics.figure("lr") == 0.1
    assert metrics.figure("model/macs") is None
