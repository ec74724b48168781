"""The best configuration as something to type."""

import shlex

import pytest
from omegaconf import OmegaConf

from cifar_tuning.jobs.best import MARK, export_problem, find_best
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
    found = find_best([FakeRun("r", overrides=overrides), FakeRun("s", overrides=overrides)], "seed")
    assert (found and found.command) == expected


@pytest.mark.parametrize(("runs", "seed"), [(1, " seed=3"), (2, "")])
def test_the_seed_of_the_only_run_is_kept(runs, seed):
    """Another one would give another number than is reported."""
    found = find_best([FakeRun("r", overrides=["seed=3", "optimizer.lr=0.1"])] * runs, "seed")
    assert found.command == f"python train.py{seed} optimizer.lr=0.1"


@pytest.mark.parametrize(
    ("content", "fine"),
    [(None, True), (f"# @package _global_\n{MARK}\n", True), ("# @package _global_\n# Mine.\n", False), ("", False)],
)
def test_only_our_own_file_is_written_again(tmp_path, content, fine):
    file = tmp_path / "best.yaml"
    if content is not None:
        file.write_text(content)
    assert (export_problem(file) is None) == fine


FLAGS = ["--config-dir=/a b", "--config-name=mine", "hydra.searchpath=[file:///x]"]


def test_a_configuration_of_ones_own_is_looked_for_where_it_was():
    found = find_best([FakeRun("r", overrides=["a=1"], config_flags=FLAGS)], "seed")
    assert found.command == f"python train.py {shlex.join(FLAGS)} a=1"


@pytest.mark.slow
@pytest.mark.parametrize("way", ["--config-dir={}", "hydra.searchpath=['{}']"])
def test_a_report_knows_where_the_configuration_was(tiny, command, reporting, tmp_path, store, way):
    mine = tmp_path / "my conf"
    (mine / "mygroup").mkdir(parents=True)
    (mine / "mygroup" / "a.yaml").write_text("x: 1\n")
    (mine / "mine.yaml").write_text("defaults:\n  - config\n  - _self_\n\ndata:\n  split_seed: 5\n")
    name = "mine" if "--" in way else "config"  # Hydra does not look for the first one in hydra.searchpath
    flags = [way.format(mine), *(["--config-name=mine"] if name == "mine" else [])]
    trained = tiny("-m", *flags, "seed=0,1", "+mygroup=a", *store, "trainer.epochs=1")
    assert trained.code == 0, trained.err
    outcome = reporting(f"sweep={tmp_path}/sweep", store[1], f"export={mine}/best.yaml")
    assert outcome.code == 0, outcome.text
    line = next(line for line in outcome.text.splitlines() if "python train.py" in line)
    typed = shlex.split(line.partition("python train.py")[2])
    assert set(flags) <= set(typed)
    (mine / "experiment").mkdir()
    (mine / "best.yaml").rename(mine / "experiment" / "best.yaml")
    shown = command(*flags, "--cfg", "job", "experiment=best")
    assert shown.code == 0, shown.text
    config = OmegaConf.create(shown.out)
    assert (config.mygroup.x, config.data.split_seed) == (1, 5 if name == "mine" else 0)
    (mine / "mygroup" / "a.yaml").unlink()
    moved = tmp_path / "moved"
    (moved / "mygroup").mkdir(parents=True)
    (moved / "mygroup" / "a.yaml").write_text("x: 1\n")
    (moved / "mine.yaml").write_text((mine / "mine.yaml").read_text())
    found = reporting(f"--config-dir={moved}", f"sweep={tmp_path}/sweep", store[1], f"export={tmp_path}/found.yaml")
    assert found.code == 0, found.text
    lost = reporting(f"sweep={tmp_path}/sweep", store[1], f"export={tmp_path}/lost.yaml")
    assert lost.code == 1
    assert "can't be composed any more" in lost.err
    assert "give --config-dir=… with that" in lost.err
