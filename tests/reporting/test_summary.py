import json

import pytest

from cifar_tuning.reporting.plots import confusion_matrix, learning_curves
from cifar_tuning.reporting.summary import print_summary, read_results, split_overrides
from cifar_tuning.training import EpochMetrics


def write(sweep, job, value, state="complete", overrides=(), error=None):
    folder = sweep / str(job)
    folder.mkdir()
    result = {"state": state, "value": value, "best_epoch": 1, "epochs": 2, "seconds": 3.2, "run_id": None}
    (folder / "result.json").write_text(json.dumps({**result, "overrides": list(overrides), "error": error}))


def test_best_first_failed_last(tmp_path):
    write(tmp_path, 0, 0.5)
    write(tmp_path, 1, None, "failed")
    write(tmp_path, 2, 0.7)
    assert [r["job"] for r in read_results(tmp_path)] == ["2", "0", "1"]


@pytest.mark.parametrize(
    ("jobs", "swept", "common"),
    [
        ([["a=1", "b=2"], ["a=1", "b=3"]], ["b"], ["a=1"]),
        ([["a=1"]], [], ["a=1"]),
        ([["optimizer=sgd", "m=1"], ["optimizer=adam"]], ["optimizer", "m"], []),
    ],
)
def test_what_differs_becomes_a_column(jobs, swept, common):
    assert split_overrides(jobs) == (swept, common)


def test_the_table_names_failures_and_the_next_step(tmp_path, capsys):
    write(tmp_path, 0, 0.51234, overrides=["optimizer.lr=0.123456789", "x='a b'"])
    write(tmp_path, 1, None, "failed", overrides=["optimizer.lr=-1", "x='a b'"], error="ConfigError: lr")
    print_summary(tmp_path)
    out = capsys.readouterr().out
    assert "0.5123" in out
    assert "0.1235" in out
    assert "job 1 failed: ConfigError: lr" in out
    assert "python train.py optimizer.lr=0.123456789 'x='\"'\"'a b'\"'\"''" in out


@pytest.mark.parametrize(
    ("job", "text"),
    [(None, "No finished job"), ((None, "failed"), "No job finished"), ((0.9, "killed"), "No job finished")],
)
def test_a_sweep_without_results(tmp_path, capsys, job, text):
    if job is not None:
        write(tmp_path, 0, *job, error="E: x")
    print_summary(tmp_path)
    out = capsys.readouterr().out
    assert text in out
    assert "best configuration" not in out


def test_a_job_that_did_not_end_is_not_the_best(tmp_path, capsys):
    for job, (value, state) in enumerate([(0.9, "killed"), (0.5, "complete"), (0.5, "complete"), (0.8, "pruned")]):
        write(tmp_path, job, value, state, overrides=[f"seed={job}"])
    print_summary(tmp_path)
    out = capsys.readouterr().out
    assert "python train.py seed=1" in out
    assert f"predict.py run={tmp_path}/1 " in out


def test_a_sweep_without_validation_has_no_best_job(tmp_path, capsys):
    for job in range(2):
        write(tmp_path, job, None, overrides=[f"seed={job}", "data.val_size=0"])
    print_summary(tmp_path)
    out = capsys.readouterr().out
    assert "No job has a validation accuracy, so none is the best." in out
    assert "best first" not in out
    assert "best configuration" not in out


def test_pictures_are_pngs_even_of_a_diverged_run(tmp_path):
    nan = float("nan")
    history = [
        EpochMetrics(0, 2.3, 0.1, 2.3, 0.1, 0.1, 1.0, 0.0, 0.0),
        EpochMetrics(1, nan, 0.1, nan, nan, 0.1, 1.0, 10.0, 1.0),
    ]
    curves = learning_curves(history, tmp_path / "c.png")
    without = learning_curves(
        [EpochMetrics(e, 2.3 - e, 0.1, None, None, None, 1.0, 0.0, 0.0) for e in (0, 1)], tmp_path / "w.png"
    )
    matrix = confusion_matrix([[3, 1], [0, 0]], ["a", "b"], tmp_path / "m.png")
    for file in (curves, without, matrix):
        assert file.read_bytes().startswith(b"\x89PNG")
        assert file.stat().st_size > 5000
    assert sorted(p.name for p in tmp_path.iterdir()) == ["c.png", "m.png", "w.png"]
