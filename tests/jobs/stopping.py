"""Runs that are stopped and go on, and what they leave."""

import json
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
import torch

from cifar_tuning.training import Trainer
from cifar_tuning.training import checkpoint as checkpoints


@contextmanager
def stopped(epoch: int, seed: int = 0) -> Iterator[None]:
    """Presses Ctrl-C behind an epoch of the run of a seed, once its checkpoint is written."""
    finished = Trainer.finish_epoch

    def finish(run, metrics, display):
        ended = finished(run, metrics, display)
        if (run.train.seed, metrics.epoch) == (seed, epoch):
            raise KeyboardInterrupt
        return ended

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Trainer, "finish_epoch", finish)
        with pytest.raises(KeyboardInterrupt):
            yield


def history(folder) -> list[dict]:
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def same_weights(a, b) -> bool:
    one, two = checkpoints.load(a).model, checkpoints.load(b).model
    return one.keys() == two.keys() and all(torch.equal(one[k], two[k]) for k in one)


def check_that_it_goes_on(tiny, tmp_path, *options) -> None:
    """Trains four epochs at once, in `whole`, and in two parts, and compares bit by bit."""
    options = [*options, "trainer.epochs=4"]
    assert tiny(*options, f"hydra.run.dir={tmp_path}/whole").code == 0
    # The schedule has the whole run's length in both; the first is stopped after two epochs.
    with stopped(epoch=2):
        tiny(*options, f"hydra.run.dir={tmp_path}/broken")
    outcome = tiny(*options, f"resume={tmp_path}/broken", f"hydra.run.dir={tmp_path}/resumed")
    assert outcome.code == 0, outcome.err
    assert "resuming after epoch 2 of 4" in outcome.out
    assert same_weights(tmp_path / "whole/last.pt", tmp_path / "resumed/last.pt")
    assert [s["val/acc"] for s in history(tmp_path / "whole")] == [s["val/acc"] for s in history(tmp_path / "resumed")]
