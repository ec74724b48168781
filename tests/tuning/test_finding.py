"""A sweep's study, found again from what the sweep left."""

import os
import sqlite3
from contextlib import closing

import optuna
import pytest
from omegaconf import OmegaConf

from cifar_tuning.errors import UserError
from cifar_tuning.tuning.finding import find_study, maximized, searched
from cifar_tuning.tuning.storage import open_storage

OURS = {"hydra.sweeper._target_": "cifar_tuning.tuning.plugin.StudySweeper", "hydra.sweeper.study_name": "mine"}
STOCK = {
    "hydra.sweeper._target_": "hydra_plugins.hydra_optuna_sweeper.optuna_sweeper.OptunaSweeper",
    "hydra.sweeper.study_name": "mine",
}


@pytest.fixture
def url(tmp_path):
    address = f"sqlite:///{tmp_path}/optuna.db"
    optuna.create_study(study_name="mine", storage=address).enqueue_trial({"x": 1})
    return address


@pytest.mark.parametrize(
    ("marker", "params", "storage"),
    [
        ("sqlite:///optuna.db", {}, None),
        ("URL", {}, None),
        (None, OURS, None),
        ("", OURS, None),
        (None, STOCK | {"hydra.sweeper.storage": "URL"}, None),
        (None, STOCK, "URL"),
        ("postgresql://me:***@host/db", {}, "URL"),
    ],
)
def test_found(url, tmp_path, marker, params, storage):
    if marker == "":  # as a power cut may leave it
        (tmp_path / "study.yaml").touch()
    elif marker:
        content = {"study_name": "mine", "storage": marker.replace("URL", url)}
        OmegaConf.save(OmegaConf.create(content), tmp_path / "study.yaml")
    given = {key: value.replace("URL", url) for key, value in params.items()}
    study = find_study(tmp_path, given, storage and url)
    assert study is not None
    assert len(study.trials) == 1


def test_in_a_folder_that_is_read_only(tmp_path, monkeypatch):
    """There SQLite can't make the files that its WAL mode has beside the database."""
    address = f"sqlite:///{tmp_path}/50%25 a%3Fb.db"
    opened = open_storage(address)
    optuna.create_study(study_name="mine", storage=opened)
    opened.engine.dispose()
    access = os.access
    monkeypatch.setattr(os, "access", lambda path, mode: path != tmp_path and access(path, mode))
    study = find_study(tmp_path, OURS, address)
    assert study is not None
    assert study.trials == []
    assert list(tmp_path.glob("*.db-*")) == []


@pytest.mark.parametrize("params", [{}, {"hydra.sweeper._target_": "BasicSweeper"}])
def test_a_grid_has_none(tmp_path, params):
    assert find_study(None, params) is None
    assert find_study(tmp_path, params) is None


@pytest.mark.parametrize(
    ("params", "expected"),
    [
        (STOCK, "kept in memory"),
        (OURS, "which is not there"),
        (STOCK | {"hydra.sweeper.storage": "postgresql://me:***@host/db"}, "whose password is not kept"),
        (STOCK | {"hydra.sweeper.storage": "URL", "hydra.sweeper.study_name": "other"}, "can't be read from"),
        (STOCK | {"hydra.sweeper.storage": "no url"}, "can't be read from"),
    ],
)
def test_lost(url, params, expected):
    given = {key: value.replace("URL", url) for key, value in params.items()}
    with pytest.raises(UserError, match=expected):
        find_study(None, given)


@pytest.mark.parametrize(
    ("direction", "expected"),
    [
        (None, []),
        ("minimize", [False]),
        ("Direction.maximize", [True]),
        ('["maximize", "minimize"]', [True, False]),
        ("[broken", []),
    ],
)
def test_which_way_is_better_without_the_study(direction, expected):
    assert maximized(None, {} if direction is None else {"hydra.sweeper.direction": direction}) == expected


def test_which_way_is_better_the_study_knows_best():
    study = optuna.create_study(directions=["minimize", "maximize"])
    assert maximized(study, {"hydra.sweeper.direction": "maximize"}) == [False, True]


SPACE = {
    "hydra.sweeper.params.lr": "tag(log, interval(0.001, 0.3))",
    "hydra.sweeper.params.+momentum": "interval(0.8, 0.9)",
    "hydra.sweeper.params.epochs": "range(2, 11)",
    "hydra.sweeper.params.act": "choice(relu, swish)",
    "hydra.sweeper.params.fixed": "3",
    "hydra.sweeper.params.strange": "interval(",
}
FOUND = {"lr": True, "momentum": True, "epochs": False, "act": False}


@pytest.mark.parametrize(("params", "expected"), [(OURS, FOUND), (STOCK, FOUND), ({}, {})])
def test_what_was_searched_is_told_from_the_options_where_the_study_is_lost(params, expected):
    assert searched(None, params | SPACE) == expected


def test_what_was_searched_is_told_from_all_trials():
    """A custom search space suggests other things in each."""
    study = optuna.create_study()
    for name in ("lr", "+momentum"):
        study.ask().suggest_float(name, 0.1, 0.9)
    study.ask().suggest_float("decay", 0.1, 0.9, step=0.1)
    study.ask().suggest_categorical("opt", ["sgd", "adam"])
    assert searched(study, OURS | SPACE) == {"lr": True, "momentum": True, "decay": False, "opt": False}


def test_a_database_of_something_else_stays_as_it_is(tmp_path):
    """Such as MLflow's, named by mistake."""
    file = tmp_path / "other.db"
    with closing(sqlite3.connect(file)) as other:
        other.execute("CREATE TABLE runs (id INTEGER)")
    with pytest.raises(UserError, match="can't be read from"):
        find_study(None, OURS, f"sqlite:///{file}")
    with closing(sqlite3.connect(file)) as other:
        assert other.execute("SELECT name FROM sqlite_master").fetchall() == [("runs",)]
