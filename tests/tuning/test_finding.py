"""A sweep's study, found again from what the sweep left."""

import optuna
import pytest
from omegaconf import OmegaConf

from cifar_tuning.errors import UserError
from cifar_tuning.tuning.finding import find_study, maximized

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
        (None, STOCK | {"hydra.sweeper.storage": "URL"}, None),
        (None, STOCK, "URL"),
        ("postgresql://me:***@host/db", {}, "URL"),
    ],
)
def test_found(url, tmp_path, marker, params, storage):
    if marker:
        content = {"study_name": "mine", "storage": marker.replace("URL", url)}
        OmegaConf.save(OmegaConf.create(content), tmp_path / "study.yaml")
    given = {key: value.replace("URL", url) for key, value in params.items()}
    study = find_study(tmp_path, given, storage and url)
    assert study is not None
    assert len(study.trials) == 1


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
    with pytest.raises(UserError, match=expected) as error:
        find_study(None, given)
    assert "***" in str(error.value) or "me:" not in str(error.value)


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
