"""What importances are found, what chance gives, and what is said of it."""

import importlib

import optuna
import pytest
from optuna.trial import TrialState, create_trial

from cifar_tuning.reporting.importances import Importances, find_importances, importances_in_words
from tests.reporting.studies import STUDIES, made


@pytest.mark.parametrize("matters", [False, True])
def test_importances_stand_beside_what_chance_gives(monkeypatch, matters: bool) -> None:
    monkeypatch.setattr("cifar_tuning.reporting.importances.MOST", 40)

    def objective(trial: optuna.Trial) -> float:
        values = [trial.suggest_float(name, 0.0, 1.0) for name in "abcd"]
        return values[0] if matters else (trial.number * 7 % 20) / 20

    study = made(objective, 60 if matters else 20, direction="maximize")
    importances = find_importances(study)
    assert importances is not None
    assert sum(importances.found.values()) == pytest.approx(1)
    assert 0.4 < importances.chance < 1
    (sentence,) = importances_in_words(importances, study)
    assert (
        "): a. The picture" in sentence if matters else sentence.startswith("No importance is larger than chance makes")
    )


def test_chance_is_of_the_best_trials_whichever_way_is_better(monkeypatch) -> None:
    """Many trials collapsed to one value: shuffled, too, the best are few."""
    monkeypatch.setattr("cifar_tuning.reporting.importances.MOST", 40)

    def objective(trial: optuna.Trial) -> float:
        values = [trial.suggest_float(name, 0.0, 1.0) for name in "ab"]
        return sum(values) if trial.number % 2 else 0.0

    high, low = (
        find_importances(made(lambda trial, sign=sign: sign * objective(trial), 12, direction=direction))
        for sign, direction in ((1, "maximize"), (-1, "minimize"))
    )
    assert high is not None
    assert high == low


@pytest.mark.parametrize(
    ("kind", "said"),
    [
        ("none", []),
        ("same value", []),
        ("one", []),
        ("two objectives", []),
        ("pruned", ["No importances are shown: of 6 complete trials (fewer than 10) they would be noise."]),
    ],
)
def test_no_importances_where_there_is_nothing_to_weigh(kind: str, said: list[str]) -> None:
    study = STUDIES[kind][0]()
    assert find_importances(study) is None
    assert importances_in_words(None, study) == said


@pytest.mark.parametrize(
    ("count", "second", "values", "found"),
    [
        (10, 2, 2, True),
        (9, 2, 2, False),
        (10, 1, 2, False),
        (10, 2, 1, False),
    ],
    ids=["enough", "few trials", "one parameter", "one value"],
)
def test_importances_need_ten_trials_two_parameters_and_two_values(monkeypatch, count, second, values, found) -> None:
    asked = []

    def shares(study: optuna.Study, *, params: list[str], **options) -> dict[str, float]:
        asked.append(params)
        return dict.fromkeys(params, 1 / len(params))

    monkeypatch.setattr(importlib.import_module("optuna.importance"), "get_param_importances", shares)

    def objective(trial: optuna.Trial) -> float:
        trial.suggest_float("b", 0.0, 1.0)
        trial.suggest_float("a", 0.0, second - 1.0)
        trial.suggest_float("c", 1.0, 1.0)
        return float(trial.number % values)

    importances = find_importances(study := made(objective, count))
    assert (importances is not None) == found
    if importances is None:
        assert bool(importances_in_words(None, study)) == (count < 10)
        return
    assert (importances.found, importances.chance) == ({"a": 0.5, "b": 0.5}, 0.5)
    assert set(map(tuple, asked)) == {("a", "b")}
    beyond = Importances({"a": 0.7, "b": 0.3}, 0.2)
    assert importances_in_words(beyond, study) == ["More important than chance makes the largest of 2 (0.20): a, b."]


@pytest.mark.parametrize(("chance", "begins"), [(0.5, "More important than chance"), (0.9, "No importance is larger")])
def test_importances_say_that_pruned_trials_are_not_weighed(chance: float, begins: str) -> None:
    (sentence,) = importances_in_words(Importances({"x": 0.7, "lr": 0.3}, chance), STUDIES["pruned"][0]())
    assert sentence.startswith(begins)
    assert sentence.endswith(
        " 12 pruned trials are not weighed, so what made those worse is more important than this says."
    )


def test_a_single_pruned_trial_is_one() -> None:
    study = made(lambda trial: trial.suggest_float("x", 0.0, 1.0), 2)
    study.add_trial(create_trial(state=TrialState.PRUNED))
    (sentence,) = importances_in_words(Importances({"x": 0.7, "lr": 0.3}, 0.5), study)
    assert sentence.endswith(" 1 pruned trial is not weighed, so what made it worse is more important than this says.")
