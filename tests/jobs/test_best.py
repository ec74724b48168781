"""The best configuration as something to type."""

import pytest

from cifar_tuning.jobs.best import MARK, best_overrides, command, export_problem
from tests.reporting.runs import FakeRun


@pytest.mark.parametrize(
    ("overrides", "expected"),
    [
        ([], None),
        (
            ["seed=3", "optimizer.lr=0.1", "tracking.uri=http://me:secret@host", "hydra/launcher=fused", "+a.seed=1"],
            "python train.py optimizer.lr=0.1 +a.seed=1",
        ),
        (["~schedule=null", "name=a b"], "python train.py '~schedule' 'name=a b'"),
        (["tracking=none", "hydra.sweep.dir=x", "resume=y"], "python train.py"),
    ],
)
def test_the_command(overrides, expected):
    found = best_overrides([FakeRun("r", overrides=overrides), FakeRun("s", overrides=overrides)], "seed")
    assert (found if found is None else command(found)) == expected


@pytest.mark.parametrize(("runs", "seed"), [(1, " seed=3"), (2, "")])
def test_the_seed_of_the_only_run_is_kept(runs, seed):
    """Another one would give another number than is reported."""
    found = best_overrides([FakeRun("r", overrides=["seed=3", "optimizer.lr=0.1"])] * runs, "seed")
    assert command(found) == f"python train.py{seed} optimizer.lr=0.1"


@pytest.mark.parametrize(
    ("content", "fine"),
    [(None, True), (f"# @package _global_\n{MARK}\n", True), ("# @package _global_\n# Mine.\n", False), ("", False)],
)
def test_only_our_own_file_is_written_again(tmp_path, content, fine):
    file = tmp_path / "best.yaml"
    if content is not None:
        file.write_text(content)
    assert (export_problem(file) is None) == fine
