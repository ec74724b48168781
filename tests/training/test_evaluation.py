"""Evaluation whose batches are replayed; on a GPU test_cuda_graphs.py does it in earnest."""

import torch

from cifar_tuning.models import SimpleNN
from cifar_tuning.training.cuda_graphs import WARM_UP
from cifar_tuning.training.evaluation import Logits, evaluate


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
            self.memory.copy_(self.logits._make(images))


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
