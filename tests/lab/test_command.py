import os
import subprocess
import sys

import pytest

from cifar_tuning import PROJECT_ROOT
from cifar_tuning.lab import __main__ as command
from cifar_tuning.lab import scale as scales
from cifar_tuning.lab.collect import Found
from cifar_tuning.lab.experiments import EXPERIMENTS, load_experiment
from cifar_tuning.lab.runs import save_runs
from cifar_tuning.lab.winners import RECIPE, SWEEPS, missing_repeats, recipe_lines, to_test, winner


@pytest.fixture
def commands(monkeypatch):
    """The training commands that would have run."""
    found = []

    def run(arguments, **options):
        found.append(" ".join(arguments[1:]))
        return subprocess.CompletedProcess(arguments, 0)

    monkeypatch.setattr(command.subprocess, "run", run)
    return found


def test_only_what_is_missing_is_trained(scale, make_run, commands):
    scale.data.mkdir()
    runs = [make_run("lab1_baseline", "", seed) for seed in range(5)]
    save_runs(runs, scale.data)
    assert command.train(scale, "lab1_baseline", {}, [], again=False)
    assert commands == []
    assert command.train(scale, "lab1_baseline", {}, ["hydra.launcher.stack=5"], again=True)
    save_runs(runs[:4], scale.data)
    assert command.train(scale, "lab1_baseline", {}, [], again=False)
    plain, folder = "train.py -m experiment=lab1_baseline", relative(scale.sweeps / "lab1_baseline_seed_4")
    assert commands == [f"{plain} hydra.launcher.stack=5", f"{plain} seed=4 hydra.sweep.dir={folder}"]


def relative(path):
    return os.path.relpath(path, PROJECT_ROOT)


def test_a_clone_trains_what_the_csv_lacks_and_nothing_twice(scale, make_run, commands, capsys):
    scale.data.mkdir()
    runs = load_experiment("lab2_bn_lr").runs
    save_runs([make_run("lab2_bn_lr", *run) for run in runs if run[1] < 2], scale.data)
    assert command.train(scale, "lab2_bn_lr", {}, ["trainer.device=cuda"], again=False)
    folder = "lab2_bn_lr_seed_2_3_4"
    assert commands.pop() == (
        f"train.py -m experiment=lab2_bn_lr seed=2,3,4 trainer.device=cuda "
        f"hydra.sweep.dir={relative(scale.sweeps / folder)}"
    )
    assert "lab2_bn_lr: 18 of 30 runs to train" in capsys.readouterr().out
    # Killed when one seed was finished: jobs are known by their numbers, so it must be the same command again.
    here = [make_run("lab2_bn_lr", *run) for run in runs if run[1] == 2]
    save_runs([make_run("lab2_bn_lr", *run) for run in runs if run[1] < 2] + here, scale.data)
    found = {run.key: Found(run, {}, scale.sweeps / folder / str(number)) for number, run in enumerate(here)}
    assert command.train(scale, "lab2_bn_lr", found, [], again=False)
    assert f" seed=2,3,4 hydra.sweep.dir={relative(scale.sweeps / folder)}" in commands.pop()
    assert "lab2_bn_lr: 12 of 30 runs to train" in capsys.readouterr().out


def test_a_machine_with_its_own_first_runs_goes_on_in_their_folder(scale, make_run, commands, capsys):
    scale.data.mkdir()
    here = [make_run("lab2_bn_lr", *run) for run in load_experiment("lab2_bn_lr").runs if run[1] < 2]
    save_runs(here, scale.data)
    found = {run.key: Found(run, {}, scale.sweeps / "lab2_bn_lr" / str(number)) for number, run in enumerate(here)}
    assert command.train(scale, "lab2_bn_lr", found, [], again=False)
    assert commands == ["train.py -m experiment=lab2_bn_lr"]
    assert "lab2_bn_lr: 18 of 30 runs to train" in capsys.readouterr().out
    # Half of them were another machine's: the whole grid would train those again.
    half = {key: one for key, one in found.items() if "batch_norm=true" in key[1]}
    assert command.train(scale, "lab2_bn_lr", half, [], again=False)
    assert " seed=2,3,4 " in commands[-1]
    assert "lab2_bn_lr: 18 of 30 runs to train" in capsys.readouterr().out


def test_a_piece_of_a_grid_has_its_own_folder_or_the_whole_ones_numbers(scale, make_run, commands):
    """The second seed alone would be job 0, where the first seed's run is."""
    scale.data.mkdir()
    plain = "train.py -m experiment=lab1_baseline"
    assert command.train(scale, "lab1_baseline", {}, ["seed=1", "trainer.device=cuda"], again=False)
    folder = relative(scale.sweeps / "lab1_baseline_seed_1")
    assert commands.pop() == f"{plain} seed=1 trainer.device=cuda hydra.sweep.dir={folder}"
    here = [make_run("lab1_baseline", "", seed) for seed in range(4)]
    save_runs(here, scale.data)
    found = {run.key: Found(run, {}, scale.sweeps / "lab1_baseline" / str(run.seed)) for run in here}
    assert command.train(scale, "lab1_baseline", found, ["seed=2"], again=False)
    assert commands == []
    assert command.train(scale, "lab1_baseline", found, ["seed=4"], again=False)
    assert commands.pop() == plain
    # Somebody's command for the later seeds began with job 0, where the whole grid has the first one.
    late = {run.key: Found(run, {}, scale.sweeps / "lab1_baseline" / str(run.seed - 2)) for run in here[2:]}
    save_runs(here[2:], scale.data)
    assert command.train(scale, "lab1_baseline", late, [], again=False)
    folder = relative(scale.sweeps / "lab1_baseline_seed_0_1_4")
    assert commands == [f"{plain} seed=0,1,4 hydra.sweep.dir={folder}"]


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_the_quick_version_is_short_and_keeps_to_its_own_folders(name):
    quick = scales.quick()
    overrides = quick.command(name)
    assert "trainer.epochs=2" in overrides
    assert f"hydra.sweep.dir=multirun/quick/{name}" in overrides
    assert len(quick.experiment(name).runs) <= len(load_experiment(name).runs)
    for path in (quick.sweeps, quick.page, quick.data, quick.pictures):
        assert path.is_relative_to(PROJECT_ROOT / "multirun" / "quick")


def test_unknown_experiments_are_refused(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["lab", "--only", "lab9,lab2_lr"])
    with pytest.raises(SystemExit):
        command.main()
    assert "--only lab9: must be among lab1_baseline" in capsys.readouterr().err


def test_the_third_labs_winner_gets_further_seeds_and_the_best_network_the_test_set(scale, make_run):
    from cifar_tuning.lab.results import Results

    runs = [
        make_run(name, configuration, 0, 0.88 if configuration.endswith("adam") else 0.8)
        for name in SWEEPS
        for configuration in load_experiment(name).configurations
    ]
    assert winner(Results(scale, runs[:-1], {})) is None
    results = Results(scale, runs, {})
    best = winner(results)
    assert best.configuration == "variant=lab3/adam"
    assert missing_repeats(results) == (best, [1, 2])
    assert to_test(results) == []
    runs += [make_run("lab3_untried", best.configuration, seed, 0.87) for seed in (1, 2)]
    recipe = [make_run(RECIPE, "", seed, 0.90, test_acc=0.895) for seed in range(3)]
    results = Results(scale, [*runs, *recipe], {})
    assert missing_repeats(results) is None
    assert to_test(results) == recipe
    assert recipe_lines(results)[0] == (
        "The fast recipe: validation 0.9000 ± 0.0000 (n = 3), test 0.8950 ± 0.0000 (n = 3)."
    )


def test_the_test_set_stays_with_the_configuration_that_read_it(make_results, make_run):
    from cifar_tuning.lab.results import Results

    grids = {(name, one): [0.8] * 3 for name in SWEEPS for one in load_experiment(name).configurations}
    recipe = {(RECIPE, ""): [0.90] * 3, (RECIPE, "trainer.epochs=60"): [0.91] * 3}
    results = make_results(grids | recipe)
    assert {run.configuration for run in to_test(results)} == {"trainer.epochs=60"}
    tested = [make_run(RECIPE, "", seed, 0.90, test_acc=0.89) for seed in range(3)]
    others = [run for run in results.runs if (run.experiment, run.configuration) != (RECIPE, "")]
    assert to_test(Results(results.scale, [*tested, *others], {})) == tested
