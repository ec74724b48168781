"""Whole jobs on a GPU; each piece of them is tested without one."""

import json

import pytest

from tests.jobs.stopping import check_that_it_goes_on, history

pytestmark = pytest.mark.gpu

ON_GPU = [
    "trainer.device=cuda",
    "model.dropout=0.3",
    "model.batch_norm=true",
    "augmentation=crop_flip",
    "trainer.epochs=4",
]


def test_a_run_that_goes_on_is_the_uninterrupted_one_to_the_bit(tiny, predicting, tmp_path):
    check_that_it_goes_on(tiny, tmp_path, *ON_GPU, "trainer.deterministic=true")
    # What a GPU trained predicts on a CPU.
    predicted = predicting(f"run={tmp_path}/whole", f"output={tmp_path}/predictions.csv", "device=cpu")
    assert predicted.code == 0, predicted.err


def test_a_last_batch_of_one_image_is_trained_where_the_model_takes_it(tiny, tmp_path):
    outcome = tiny(*ON_GPU, "trainer.epochs=1", "data.train_limit=65", "data.batch_size=64")
    assert outcome.code == 0, outcome.err
    assert json.loads((tmp_path / "run" / "result.json").read_text())["state"] == "complete"


def test_a_sweeps_second_job_may_be_deterministic(tiny, tmp_path):
    """cuBLAS reads what it needs for that once a process, before its first job."""
    outcome = tiny(*ON_GPU, "trainer.epochs=1", "-m", "trainer.deterministic=false,true")
    assert outcome.code == 0, outcome.err
    results = [json.loads((tmp_path / "sweep" / str(job) / "result.json").read_text()) for job in (0, 1)]
    assert [result["state"] for result in results] == ["complete"] * 2


def test_stacked_jobs_are_the_single_ones(tiny, tmp_path):
    grid = [*ON_GPU, "-m", "optimizer.lr=0.01,0.02", "seed=0,1"]
    assert tiny(*grid, f"hydra.sweep.dir={tmp_path}/basic").code == 0
    outcome = tiny(*grid, "hydra/launcher=fused", "hydra.launcher.stack=4", f"hydra.sweep.dir={tmp_path}/fused")
    assert outcome.code == 0, outcome.err
    assert "as one model" in outcome.out
    for job in range(4):
        one, other = (history(tmp_path / way / str(job)) for way in ("basic", "fused"))
        # The same draws in another order of summation: what rounding makes of it stays small in the first epochs.
        losses, others = ([epoch["train/loss"] for epoch in epochs] for epochs in (one, other))
        assert len(losses) == len(others) == 5
        assert losses[:3] == pytest.approx(others[:3], rel=0.02)
