"""What a study says of itself in the end, and which files it leaves."""

import os
import shlex
from datetime import datetime
from types import SimpleNamespace

import optuna
import pytest
from hydra import initialize
from hydra.core.global_hydra import GlobalHydra
from hydra.core.utils import setup_globals
from omegaconf import OmegaConf
from optuna.trial import TrialState

from cifar_tuning import PROJECT_ROOT
from cifar_tuning.tuning import study_files, summary
from cifar_tuning.tuning.overlays import StudiesSearchPath, register
from cifar_tuning.tuning.place import SAME_AS, more_to_type
from cifar_tuning.tuning.trial import outcome_key

COMPLETE, PRUNED, FAIL = TrialState.COMPLETE, TrialState.PRUNED, TrialState.FAIL


def trial(number: int = 0, state: TrialState = COMPLETE, *seeds: tuple[str, int], error: str | None = None):
    """One that ended; `seeds` are the states and epochs, of 10 each, that its jobs left."""
    left = {outcome_key(i): {"state": s, "value": 0.5, "epochs": e, "of": 10} for i, (s, e) in enumerate(seeds)}
    made = optuna.trial.create_trial(
        state=state,
        value=0.5 if state == COMPLETE else None,
        user_attrs={} if error is None else {"error": error},
        system_attrs=left,
    )
    made.number = number
    return made


def options(**facts):
    """The part of a study's options that its summary reads."""
    config = OmegaConf.create({"objective": facts.pop("objective", None)})
    sweeper = SimpleNamespace(**{"timeout": None, "retrain_best": 0, "repeats": 1, **facts.pop("sweeper", {})})
    known = {"config": config, "sweeper": sweeper, "n_trials": 50, "directions": ["maximize"]}
    known["same_command"] = "the same command"
    return SimpleNamespace(**{**known, **facts})


@pytest.mark.parametrize(
    ("trials", "repeats", "text"),
    [
        ([], 1, ""),
        ([trial(0, COMPLETE, ("complete", 10))], 1, ""),
        ([trial(0, COMPLETE, ("diverged", 2))], 1, ""),
        (
            [trial(0, COMPLETE, ("complete", 10)), trial(1, PRUNED, ("pruned", 3))],
            1,
            "; 13 of 20 epochs trained, 35% saved by pruning",
        ),
        (
            [trial(0, COMPLETE, ("diverged", 2)), trial(1, PRUNED, ("pruned", 3))],
            1,
            "; 5 of 20 epochs trained, 35% saved by pruning",
        ),
        ([trial(0, PRUNED, ("pruned", 4))], 3, "; 4 of 30 epochs trained, 87% saved by pruning"),
        (
            [trial(0, PRUNED, ("diverged", 2), ("pruned", 4))],
            3,
            "; 6 of 30 epochs trained, 53% saved by pruning",
        ),
        ([trial(0, COMPLETE, ("complete", 6))], 1, "; 6 of 10 epochs trained, 40% saved by trainer.patience"),
        (
            [trial(0, COMPLETE, ("complete", 6), ("complete", 10)), trial(1, PRUNED, ("complete", 8), ("pruned", 2))],
            2,
            "; 26 of 40 epochs trained, 20% saved by pruning and 15% by trainer.patience",
        ),
        ([trial(0, FAIL, ("complete", 10))], 2, ""),
        ([trial(0, PRUNED)], 2, ""),  # an application that says nothing of epochs
    ],
)
def test_what_pruning_saved_is_of_pruned_trials_and_never_more_than_was_asked(trials, repeats, text):
    assert summary.saved(trials, repeats) == text


def test_the_latest_failures_are_listed_with_their_reasons():
    trials = [trial(n, FAIL, error=f"ValueError: no {n}\nmore") for n in range(6)]
    lines = summary.failures([trial(9), *trials, trial(7, FAIL), trial(8, FAIL, error="x" * 500)])
    assert lines[0] == "  3 earlier trials failed too"
    assert lines[1] == "  trial 3 failed: ValueError: no 3"
    assert lines[-2] == "  trial 7 failed: no reason is known"
    assert lines[-1].endswith("x…")
    assert len(lines) == 6
    assert summary.failures([trial(9)]) == []


@pytest.mark.parametrize(
    ("facts", "timed_out", "sampler", "lines"),
    [
        ({}, False, None, []),
        (
            {},
            False,
            "Impatient",
            ["stopped by the sampler: Impatient has called study.stop(); the same command goes on"],
        ),
        (
            {"sweeper": {"timeout": 2.0, "retrain_best": 3}},
            True,
            "Impatient",
            [
                "stopped by hydra.sweeper.timeout=2; the same command goes on",
                "the winner is retrained once all n_trials=50 are finished",
            ],
        ),
    ],
)
def test_what_is_left_undone_is_said(facts, timed_out, sampler, lines):
    assert summary.unfinished(options(**facts), 7, timed_out, sampler) == lines


@pytest.mark.parametrize(
    ("objective", "name"),
    [
        ("val/acc_best", "validation accuracy"),
        ("val/loss", "val/loss"),
        (None, "objective"),
        (["val/acc_best", "model/macs"], "objective"),
    ],
)
def test_an_objective_has_the_name_that_its_application_gives_it(objective, name):
    assert study_files.objective_name(options(objective=objective)) == name


@pytest.mark.parametrize(
    ("files", "found"),
    [([], None), (["best.pt", "seed_1/best.pt"], "."), (["seed_3/best.pt", "seed_2/best.pt"], "seed_2")],
)
def test_a_trials_checkpoint_is_found_below_its_seeds(tmp_path, files, found):
    for file in files:
        (tmp_path / file).parent.mkdir(exist_ok=True)
        (tmp_path / file).touch()
    assert summary.folder_of_model(tmp_path) == (None if found is None else tmp_path / found)


@pytest.mark.parametrize(("age", "drawn"), [(None, True), (10, True), (-10, False)])
def test_plots_are_drawn_where_they_are_missing_or_older_than_the_last_trial(tmp_path, age, drawn):
    ended = trial()
    ended.datetime_complete = datetime.now()
    if age is not None:
        page = tmp_path / "study.html"
        page.touch()
        time = ended.datetime_complete.timestamp() - age
        os.utime(page, (time, time))
    assert study_files._plots_are_old(tmp_path, [ended]) == drawn


def test_the_table_calls_keys_by_their_last_part():
    best = trial()
    best.params = {"regularizer.strength": 1e-4, "optimizer.lr": 0.1, "schedule.lr": 0.2}
    headers = [str(column.header) for column in summary._table([best], "the best five", []).columns]
    assert headers == ["trial", "value", "strength", "optimizer.lr", "schedule.lr"]


@pytest.mark.parametrize("violations", [[], [-1.0, -1.0], [1.0, -1.0], [1.0, 1.0]])
def test_what_violates_constraints_follows_the_best_and_is_marked(violations):
    """The better trial is the one that does, if one does."""
    trials = [trial(0), trial(1)]
    trials[0].values = [0.9]
    for one, violation in zip(trials, violations, strict=False):
        one.system_attrs = {"constraints": [violation]}
    ranked = summary._ranked(trials, options())
    table = summary._table(ranked, "the best five", [])
    cells = [list(column.cells) for column in table.columns]
    if max(violations, default=0) <= 0:
        assert cells == [["0", "1"], ["0.9000", "0.5000"]]
    elif min(violations) > 0:
        assert (cells[0], cells[-1]) == (["0", "1"], ["violated", "violated"])
    else:
        assert (cells[0], cells[-1]) == (["1", "0"], ["kept", "violated"])
    assert table.rows[0].style == (None if min(violations, default=0) > 0 else "bold")


@pytest.mark.parametrize(("seeds", "older", "lines"), [(1, 0, 1), (2, 0, 2), (2, 1, 1)])
def test_the_retrained_winner_predicts_by_its_first_seed_or_by_all(monkeypatch, tmp_path, seeds, older, lines):
    """Of an earlier command, which retrained it with other overrides, more seeds may be left."""
    monkeypatch.setattr(summary, "retrained", lambda best, options: {f"{5 + seed}": {} for seed in range(seeds)})
    monkeypatch.setattr(summary, "looks_for_studies", lambda: True)
    for seed in range(seeds + older):
        (tmp_path / f"best_0/seed_{5 + seed}").mkdir(parents=True)
        (tmp_path / f"best_0/seed_{5 + seed}/best.pt").touch()
    predicts = summary._model(trial(), options(place=SimpleNamespace(folder=tmp_path)))
    runs = [shlex.split(line, comments=True)[2] for line in predicts]
    assert runs == [f"run={tmp_path}/best_0/seed_5", f"run={tmp_path}/best_0/*"][:lines]


@pytest.mark.parametrize("looks", [True, False])
def test_the_winner_is_an_experiment_to_predict_with_where_hydra_looks_for_studies(monkeypatch, tmp_path, looks):
    """Another application, which has this package installed, does not."""
    monkeypatch.setattr(summary, "retrained", lambda best, options: {})
    (tmp_path / "0").mkdir()
    (tmp_path / "0" / "best.pt").touch()
    register()
    if not looks:
        monkeypatch.setattr(StudiesSearchPath, "manipulate_search_path", lambda self, path: None)
    GlobalHydra.instance().clear()
    place = SimpleNamespace(folder=PROJECT_ROOT / "multirun" / "mine")
    with initialize(config_path=None):
        command = study_files.experiment(options(place=place))
        predicts = summary._model(trial(), options(place=SimpleNamespace(folder=tmp_path)))
    assert [line.partition("predict.py run=")[2].split()[0] for line in predicts] == [f"{tmp_path}/0"] * looks
    assert (command or "").endswith("experiment=mine/best") == looks
    assert (command is None) == (not looks)


@pytest.mark.parametrize(
    ("folder", "storage", "more"),
    [
        ("multirun/${now:%Y}", None, " with hydra.sweep.dir=multirun/{now:%Y}"),
        ("/tmp/${now:%Y}", None, " with hydra.sweep.dir=/tmp/{now:%Y}"),
        ("multirun/mine", None, ""),
        (f"multirun/since_{datetime.now():%Y}", None, ""),
        ("multirun/${now:%Y}", "sqlite:////tmp/studies.db", ""),
    ],
)
def test_the_same_command_goes_on_where_the_folder_is_the_same(folder, storage, more):
    setup_globals()
    now = datetime.now()
    hydra = {
        "sweep": {"dir": folder},
        "run": {"dir": "outputs/${now:%Y}"},
        "sweeper": {"storage": storage, "study_name": "s"},
        "runtime": {"cwd": "/home/me"},
    }
    config = OmegaConf.create({"hydra": hydra})
    assert config.hydra.run.dir == f"outputs/{now:%Y}"
    assert more_to_type(config) == more.format(now=now)
    assert OmegaConf.get_cache(config)["now"] == {("%Y",): f"{now:%Y}"}


def test_a_front_has_a_configuration_once():
    study = optuna.create_study(directions=["maximize", "minimize"])
    for values, skipped in (([0.5, 2.0], {}), ([0.5, 2.0], {SAME_AS: 0}), ([0.4, 1.0], {}), ([0.3, 2.0], {})):
        study.add_trial(optuna.trial.create_trial(values=values, user_attrs=skipped))
    assert [one.number for one in study_files.pareto_front(study)] == [0, 2]
