"""A command that is typed again loses nothing that an earlier one trained."""

import json
import shlex
import subprocess
import sys
from contextlib import nullcontext
from unittest.mock import MagicMock

import optuna
import pytest
import torch

from cifar_tuning import PROJECT_ROOT
from cifar_tuning.training import measurement_cache, probe
from cifar_tuning.tuning import trial
from tests.conftest import STUDY
from tests.jobs.stopping import stopped


def state(folder):
    return json.loads((folder / "result.json").read_text())["state"]


@pytest.mark.slow
def test_a_grid_that_was_stopped_goes_on(tiny, tmp_path, capsys):
    grid = ["-m", "seed=0,1,2", "trainer.epochs=3"]
    with stopped(seed=1, epoch=2):
        tiny(*grid)
    assert f"same command with hydra.sweep.dir={tmp_path}/sweep trains what is missing" in "".join(capsys.readouterr())
    first = (tmp_path / "sweep/0/best.pt").stat().st_mtime_ns
    again = tiny(*grid)
    assert again.code == 0, again.err
    assert again.out.count("finished already") == 1
    assert again.out.count("resuming after epoch 2 of 3") == 1
    assert (tmp_path / "sweep/0/best.pt").stat().st_mtime_ns == first
    assert [state(tmp_path / "sweep" / str(job)) for job in range(3)] == ["complete"] * 3
    assert not list(tmp_path.glob("sweep/*/traceback.txt"))
    whole = tiny(*grid, f"hydra.sweep.dir={tmp_path}/whole")
    assert whole.code == 0
    for job in range(3):
        one, other = (torch.load(tmp_path / name / f"{job}/last.pt", weights_only=True) for name in ("sweep", "whole"))
        assert all(torch.equal(value, other["model"][name]) for name, value in one["model"].items())


@pytest.mark.slow
def test_a_sweep_that_goes_on_is_computed_as_it_began(tiny, tmp_path, monkeypatch):
    """A measurement beside other programs holds for one process; the rest of the sweep must not get another answer."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(measurement_cache.Neighbours, "in_the_way", lambda self: True)
    monkeypatch.setattr(probe, "has_bf16", lambda device: True)
    for faster, jobs in (("bf16", "0"), ("fp32", "0,1")):
        monkeypatch.setattr(probe, "measure_step", lambda formats, *a, best=faster: 1.0 + (formats.precision != best))
        measurement_cache._provisional.clear()  # as in another process
        outcome = tiny("-m", "trainer.precision=auto", "trainer.epochs=1", f"seed={jobs}")
        assert outcome.code == 0, outcome.err
    for job in ("0", "1"):
        assert torch.load(tmp_path / "sweep" / job / "last.pt", weights_only=True)["precision"] == "bf16"


@pytest.mark.slow
def test_who_is_stopped_before_training_leaves_what_was_there(tiny, tmp_path):
    grid = ["-m", "seed=0,1", "trainer.epochs=3"]
    with stopped(epoch=2):
        tiny(*grid)
    before = (tmp_path / "sweep/0/result.json").read_text()
    assert json.loads(before)["epochs"] == 2
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("cifar_tuning.jobs.training.make_batches", MagicMock(side_effect=KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            tiny(*grid)
    assert (tmp_path / "sweep/0/result.json").read_text() == before


@pytest.mark.slow
@pytest.mark.parametrize(
    ("mode", "early"),
    [([], True), ([], False), (["-m"], True), (["-m"], False), ([*STUDY, "hydra.sweeper.n_trials=1"], False)],
)
def test_another_run_in_the_same_folder_puts_aside_what_is_there(tiny, tmp_path, mode, early):
    folder = tmp_path / ("sweep/0" if mode else "run")
    with stopped(epoch=1) if early else nullcontext():
        tiny(*mode, "seed=0")
    weights = (folder / "best.pt").read_bytes()
    of_study = len(mode) > 1
    if of_study:  # whose folder stays when it is deleted from its database
        optuna.delete_study(study_name="simplenn", storage=f"sqlite:///{tmp_path}/sweep/optuna.db")
        trial._study.cache_clear()
    other = tiny(*mode, "seed=0", "hydra.sweeper.enqueue=[{optimizer.lr:0.2}]" if of_study else "optimizer.lr=0.2")
    assert other.code == 0, other.err
    assert f"It is kept in {folder}/earlier/1" in other.text
    assert (folder / "earlier/1/best.pt").read_bytes() == weights
    assert state(folder / "earlier/1") == ("killed" if early else "complete")
    assert state(folder) == "complete"


@pytest.mark.slow
@pytest.mark.parametrize("asked", ["run", "run/last.pt", "link"])
def test_a_run_that_goes_on_in_its_own_folder_puts_nothing_aside(tiny, tmp_path, monkeypatch, asked):
    assert tiny().code == 0
    (tmp_path / "link").symlink_to(tmp_path / "run")
    monkeypatch.chdir(tmp_path)
    longer = tiny("trainer.epochs=3", f"resume={asked}")
    assert longer.code == 0, longer.err
    assert not (tmp_path / "run/earlier").exists()


def test_a_studys_options_on_a_single_run_are_named(tiny):
    outcome = tiny("hydra.sweep.subdir=x", "hydra/launcher=fused")
    assert outcome.code == 0
    assert "hydra.sweep.subdir=x hydra/launcher=fused: of no effect on a single run; add -m" in outcome.text
    command = shlex.split(outcome.text.splitlines()[-1])
    assert command[2:4] == ["-m", "data=synthetic"]
    assert command[-2:] == ["hydra.sweep.subdir=x", "hydra/launcher=fused"]
    assert not [one for one in command if one.startswith("hydra.run")]


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["experiment=lab2_lr"], "experiment=lab2_lr would vary seed, optimizer.lr; add -m for that"),
        (["experiment=lab2_lr", "seed=3"], "experiment=lab2_lr would vary optimizer.lr; add -m for that"),
        (["experiment=lab2_lr", "seed=3", "optimizer.lr=0.1"], None),
        (["study=simplenn", "optimizer.lr=0.1"], "study=simplenn would vary regularizer.strength"),
        # As `--experimental-rerun` has it, which trains one job of a sweep once more.
        (["experiment=lab2_lr", "hydra.sweep.subdir=x", "hydra.mode=RUN"], None),
        ([], None),
    ],
)
def test_an_overlay_that_would_vary_something_says_so_on_a_single_run(tiny, options, said):
    outcome = tiny(*options, "trainer.epochs=1")
    assert outcome.code == 0, outcome.err
    assert (said in outcome.text) if said else ("add -m" not in outcome.text)
    if said:  # again behind the epochs, with the command
        *_, again, command = outcome.text.splitlines()
        assert said in again
        assert command.startswith("  python ")
        assert set(options) < set(shlex.split(command)[3:])


def test_a_single_runs_folder_on_a_sweep_is_named(tiny, tmp_path):
    outcome = tiny("-m", "seed=0,1", "trainer.epochs=1", f"hydra.run.dir={tmp_path}/x")
    assert outcome.code == 0, outcome.err
    assert f"hydra.run.dir={tmp_path}/x: of no effect on a sweep, which goes to hydra.sweep.dir=" in outcome.out
    assert not (tmp_path / "x").exists()


def test_a_single_runs_folder_may_be_named_after_its_job(tiny, tmp_path, recwarn):
    tiny(f"hydra.run.dir='{tmp_path}/${{hydra:job.name}}'", "trainer.epochs=0")
    assert (tmp_path / "train").is_dir()
    assert not [one for one in recwarn if "on_run_start" in str(one.message)]  # what Hydra makes of its errors


def test_what_is_refused_leaves_the_folder_as_it_is(tiny, tmp_path):
    assert tiny().code == 0
    before = {file: file.read_bytes() for file in (tmp_path / "run").rglob("*") if file.is_file()}
    outcome = tiny("trainer.epochs=3", f"resume={tmp_path}/run", "optimizer.lr=0.5")
    assert outcome.code == 1
    assert "optimizer.lr=0.5: " in outcome.err
    assert {file: file.read_bytes() for file in (tmp_path / "run").rglob("*") if file.is_file()} == before


@pytest.mark.slow
@pytest.mark.parametrize(("multirun", "option"), [([], "hydra.run.dir"), (["-m", "seed=0"], "hydra.sweep.dir")])
def test_a_folder_in_which_another_process_trains(tiny, tmp_path, multirun, option):
    folder = tmp_path / ("sweep/0" if multirun else "run")
    holds = "import pathlib, sys; from cifar_tuning.jobs.used_folder import only_here\n"
    holds += "with only_here(pathlib.Path(sys.argv[1]), ''): print(flush=True); input()"
    with subprocess.Popen(
        [sys.executable, "-c", holds, str(folder)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=PROJECT_ROOT
    ) as other:
        other.stdout.readline()
        outcome = tiny(*multirun)
        assert outcome.code == 1
        assert f"error: {option}={folder} is in use: another process trains there" in outcome.err
        assert not list(folder.glob("*.pt"))
        assert not (folder / "result.json").exists()
    assert tiny(*multirun).code == 0
