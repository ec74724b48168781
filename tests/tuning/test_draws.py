"""A study's draws: what its sampler is told, and whose draws are whose."""

import os
import re
import subprocess
from collections.abc import Callable

import optuna
import pytest
from hydra import compose, initialize
from hydra.core.global_hydra import GlobalHydra
from omegaconf import OmegaConf

from cifar_tuning.databases import sqlite_url
from cifar_tuning.errors import ConfigError
from cifar_tuning.processes import WORKER_VARIABLE
from cifar_tuning.tuning.options import StudyOptions, _seeded_for
from cifar_tuning.tuning.place import sweeper_options
from cifar_tuning.tuning.storage import Storage
from cifar_tuning.tuning.study import open_study
from cifar_tuning.tuning.trial import _study
from cifar_tuning.tuning.worker_count import COUNT_VARIABLE

# What makes a file's options those of a study.
STUDY = "# @package _global_\ndefaults:\n  - override /hydra/sweeper: study\n"


@pytest.fixture
def opened(configure, tmp_path, monkeypatch) -> Callable[..., optuna.Study]:
    """Opens the study as a command does that has this process's number, or the one given."""

    def open_as(
        command: int | None = None, sampler: dict | None = None, space: str = "optimizer.lr=interval(0.001,0.1)"
    ) -> optuna.Study:
        if command is not None:
            monkeypatch.setenv(WORKER_VARIABLE, str(command))
            monkeypatch.setenv(COUNT_VARIABLE, "1")
        given = [f"hydra.sweep.dir={tmp_path}", "hydra.sweeper.workers=1", "hydra.sweeper.allow_changed_space=true"]
        study = ["study=simplenn"] if sampler is None else []
        if sampler is not None:
            file = tmp_path / "own" / "hydra" / "sweeper" / "sampler" / "own.yaml"
            file.parent.mkdir(parents=True, exist_ok=True)
            OmegaConf.save(OmegaConf.create(sampler), file)
            given += [f"hydra.searchpath=[file://{tmp_path}/own]", "hydra/sweeper=study", "hydra/sweeper/sampler=own"]
        config = compose("config", [*given, *study], return_hydra_config=True)
        return open_study(StudyOptions.parse(config, [*study, *space.split()]))

    return open_as


OURS, PLAIN = {"multivariate": True, "constant_liar": True}, {"multivariate": False, "constant_liar": False}


@pytest.mark.parametrize(
    ("given", "own", "told"),
    [
        (["hydra/sweeper=study"], {}, {**OURS, "group": False}),
        (["hydra/sweeper=study", "hydra/sweeper/sampler=tpe"], {}, OURS),
        (["hydra/sweeper=study", "hydra.sweeper.custom_search_space=sphere.space"], {}, {**OURS, "group": True}),
        (["hydra/sweeper=study", "hydra.sweeper.sampler.multivariate=false"], {}, {**OURS, "multivariate": False}),
        (["+experiment=own"], {"hydra": {"sweeper": {"sampler": PLAIN}}}, PLAIN),
        (
            ["hydra/sweeper=study", "hydra/sweeper/sampler=own"],
            {"_target_": "optuna.samplers.TPESampler", **PLAIN},
            PLAIN,
        ),
        (["hydra/sweeper=study", "hydra/sweeper/sampler=random"], {}, {"seed": None}),
        (["hydra/sweeper=optuna"], {}, {**PLAIN, "group": False}),
    ],
)
def test_a_sampler_is_told_what_its_configuration_says(tmp_path, given, own, told):
    """Of any application; TPE's defaults are Optuna's under our sweeper, and the stock plugin's under that."""
    for folder, header in (("hydra/sweeper/sampler", ""), ("experiment", STUDY)):
        (tmp_path / folder).mkdir(parents=True)
        (tmp_path / folder / "own.yaml").write_text(header + OmegaConf.to_yaml(own))
    GlobalHydra.instance().clear()
    with initialize(config_path=None):
        config = compose(overrides=[f"hydra.searchpath=[file://{tmp_path}]", *given], return_hydra_config=True)
    sampler = sweeper_options(config.hydra)["sampler"]
    assert {key: sampler[key] for key in told} == told


def test_the_options_of_a_sweeper_have_the_ranges_that_were_typed():
    params = {"optimizer.lr": "interval(0.1,0.2)", "decay": "range(2, 11)", "model": {"act": "relu,swish"}}
    typed = ["+momentum=0.8,0.9", "decay=range(1,4)", "model.act=relu", "seed=3", "~extra"]
    hydra = OmegaConf.create({"sweeper": {"n_trials": 3, "params": params}, "overrides": {"task": typed}})
    assert sweeper_options(hydra) == {
        "n_trials": 3,
        "params": {"optimizer.lr": "interval(0.1,0.2)", "momentum": "0.8,0.9", "decay": "range(1,4)"},
    }


def draws(study: optuna.Study) -> list[float]:
    fresh = optuna.create_study(sampler=study.sampler)
    return [fresh.ask().suggest_float("x", 0, 1) for _ in range(3)]


def test_who_works_alone_draws_as_the_seed_says(opened):
    given = optuna.create_study(sampler=optuna.samplers.TPESampler(seed=0, multivariate=True, constant_liar=True))
    assert draws(opened()) == draws(given)
    assert draws(opened(os.getpid())) == draws(opened())  # a worker, for its supervisor


def test_commands_that_begin_together_draw_apart(opened):
    """As in a job array of a cluster: each of them is alone at its start."""
    with subprocess.Popen(["cat"], stdin=subprocess.PIPE) as other:
        assert draws(opened()) != draws(opened(other.pid))


def test_a_command_that_ended_at_its_start_changes_nothing(opened):
    with subprocess.Popen(["cat"], stdin=subprocess.PIPE) as other:
        before = draws(opened(other.pid))
    assert draws(opened()) == before


RANDOM, QMC = "optuna.samplers.RandomSampler", "optuna.samplers.QMCSampler"
NESTED = {
    "_target_": "optuna.samplers.PartialFixedSampler",
    "fixed_params": {"optimizer.lr": 0.05},
    "base_sampler": {"_target_": RANDOM, "seed": 3},
}


@pytest.mark.parametrize(
    ("sampler", "apart"),
    [
        ({"_target_": RANDOM, "seed": 3}, True),
        (NESTED, True),
        (NESTED | {"base_sampler": {"_target_": QMC, "seed": 3}}, False),
        ({"_target_": QMC, "seed": 3}, False),
    ],
)
def test_a_seed_counts_wherever_the_sampler_has_it(opened, sampler, apart):
    with subprocess.Popen(["cat"], stdin=subprocess.PIPE) as other:
        assert (draws(opened(sampler=sampler)) != draws(opened(other.pid, sampler))) == apart


def test_a_parameter_called_seed_is_no_seed():
    assert _seeded_for(5, {"_target_": RANDOM, "space": {"seed": 7}}) == {"_target_": RANDOM, "space": {"seed": 7}}


@pytest.mark.parametrize(
    ("fixed", "wrong"),
    [
        ({"optimizer.lrr": 0.05}, "optimizer.lrr is not in the search space: optimizer.lr"),
        ({"optimizer.lr": 0.5}, "optimizer.lr=0.5: must be in its range, interval 0.001 to 0.1"),
    ],
)
def test_what_a_sampler_is_to_fix_must_be_in_the_space(opened, fixed, wrong):
    inner = NESTED | {"fixed_params": fixed}
    for sampler in (inner, NESTED | {"base_sampler": inner}):
        with pytest.raises(ConfigError, match="hydra.sweeper.sampler.fixed_params: " + re.escape(wrong)):
            opened(sampler=sampler)


@pytest.mark.parametrize("sampler", ["Grid", "BruteForce"])
def test_who_tries_every_point_does_not_go_on_in_another_space(opened, sampler):
    """Optuna's grid would try the old points again, in place of the new ones; its brute force would be at its end."""
    node = {"_target_": f"optuna.samplers.{sampler}Sampler", **({"_partial_": True} if sampler == "Grid" else {})}
    opened(sampler=node, space="schedule=step schedule.decay_epochs=range(1,3)")
    with pytest.raises(ConfigError, match="integers 1 to 2 before, integers 1 to 4 now"):
        opened(sampler=node, space="schedule=step schedule.decay_epochs=range(1,5)")


def test_a_process_reads_an_ended_trial_once(opened, tmp_path, monkeypatch):
    """Each of Optuna's study objects would have a cache of its own; thousands of trials take seconds to read."""
    study = opened()
    study.add_trial(optuna.trial.create_trial(value=0.5))
    read, get_trials = [], Storage._get_trials

    def counted(*arguments, **options):
        found = get_trials(*arguments, **options)
        read.extend(trial.number for trial in found if trial.state.is_finished())
        return found

    monkeypatch.setattr(Storage, "_get_trials", counted)
    of_job = _study(study.study_name, sqlite_url(tmp_path / "optuna.db"), 60, None)
    assert len({len(one.get_trials()) for one in (study, opened(), of_job)}) == 1
    assert len(read) == 1
