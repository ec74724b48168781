"""The winner of a study trained with further seeds: once each, whatever interrupts it."""

import json
from types import SimpleNamespace

import pytest

from cifar_tuning.errors import DataError
from cifar_tuning.jobs import run as jobs
from tests.conftest import STUDY


@pytest.mark.slow
def test_a_winner_that_was_tested_is_not_tested_again(tiny, tmp_path, monkeypatch):
    """The process may be killed between the end of a retrained run and its line in retrained.json."""
    tested, test = [], jobs.label_test_images

    def counted(*arguments):
        tested.append(arguments)
        return test(*arguments)

    monkeypatch.setattr(jobs, "label_test_images", counted)
    command = [*STUDY, "hydra.sweeper.n_trials=1", "hydra.sweeper.retrain_best=2"]
    assert tiny(*command).code == 0
    left = tmp_path / "sweep" / "retrained.json"
    before = json.loads(left.read_text())
    assert len(tested) == 2
    left.unlink()
    again = tiny(*command)
    assert again.code == 0, again.text
    assert json.loads(left.read_text()) == before
    assert len(tested) == 2


def test_a_winner_without_test_images_is_a_winner(tmp_path, monkeypatch, caplog):
    def nothing(*arguments):
        raise DataError("own: there are no test images")

    monkeypatch.setattr(jobs, "label_test_images", nothing)
    monkeypatch.setattr(jobs, "model_from_checkpoint", lambda file: (None, None))
    job = jobs.Job.__new__(jobs.Job)
    job.folder, job.test_acc = tmp_path, None
    job._test(SimpleNamespace(parts=SimpleNamespace(trainer=SimpleNamespace(device="cpu"))))
    assert job.test_acc is None
    assert caplog.messages == ["The winner was not tested: own: there are no test images"]
