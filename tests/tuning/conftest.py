"""A study in a database of its own, and who takes its trials."""

import optuna
import pytest

from cifar_tuning.tuning.claims import Claims
from cifar_tuning.tuning.endings import Endings
from cifar_tuning.tuning.storage import open_storage


@pytest.fixture
def endings(tmp_path):
    storage = open_storage(f"sqlite:///{tmp_path}/optuna.db")
    return Endings(optuna.create_study(storage=storage, study_name="s"), storage, tmp_path, repeats=1, objectives=1)


@pytest.fixture
def claims(endings):
    return Claims(endings, 4, 3)
