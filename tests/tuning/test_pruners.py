from functools import partial

import optuna
import pytest
from omegaconf import OmegaConf

from cifar_tuning.tuning.plugin import PRUNERS
from cifar_tuning.tuning.pruners import MedianPruner, PercentilePruner


def looks(pruner, epochs: int) -> list[int]:
    """Returns the steps after which a hopeless trial would be pruned."""
    study = optuna.create_study(direction="maximize", pruner=pruner)
    for _ in range(6):
        trial = study.ask()
        for step in range(1, epochs + 1):
            trial.report(0.5, step)
        study.tell(trial, 0.5)
    found, trial = [], study.ask()
    for step in range(1, epochs + 1):
        trial.report(0.1, step)
        if trial.should_prune():
            found.append(step)
    return found


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({}, [1, 2, 3, 4, 5, 6, 7, 8]),
        ({"n_warmup_steps": 2, "interval_steps": 2}, [2, 4, 6, 8]),
        ({"n_last_steps": 3}, [1, 2, 3]),
        ({"n_warmup_steps": 2, "interval_steps": 2, "n_last_steps": 5}, [2, 4]),
        ({"n_last_steps": 1, "n_seed_steps": 4}, [1, 4, 8]),
        ({"n_startup_trials": 7}, []),
        ({"n_startup_trials": 7, "n_seed_steps": 2}, []),
    ],
)
def test_when_it_looks(options, expected):
    assert looks(MedianPruner(**options), 8) == expected


@pytest.mark.parametrize(
    ("epochs", "expected"),
    [
        (1, [1]),
        (3, [1, 3]),
        (10, [1, 2, 3, 10]),
        (15, [1, 3, 5, 15]),
        (30, [2, 6, 10, 30]),
        (200, [13, 39, 65, 200]),
    ],
)
@pytest.mark.parametrize("name", ["median", "percentile"])
def test_the_defaults_by_the_length_of_a_trial(epochs, expected, name):
    config = OmegaConf.create({"trainer": {"epochs": epochs}, "pruner": PRUNERS[name]})
    options = OmegaConf.to_container(config.pruner, resolve=True)
    target = options.pop("_target_").rpartition(".")[2]
    assert (
        looks({"MedianPruner": MedianPruner, "PercentilePruner": PercentilePruner}[target](**options), epochs)
        == expected
    )


@pytest.mark.parametrize("epochs", [15, 20, 25, 40])
def test_a_trial_of_several_seeds_is_looked_at_behind_each(epochs):
    config = OmegaConf.create({"trainer": {"epochs": epochs}, "pruner": PRUNERS["median"]})
    options = OmegaConf.to_container(config.pruner, resolve=True)
    del options["_target_"]
    early = [step for step in looks(MedianPruner(**options), 3 * epochs) if step < epochs]
    assert early == looks(MedianPruner(**options), epochs - 1)
    assert looks(MedianPruner(**options), 3 * epochs) == [*early, epochs, 2 * epochs, 3 * epochs]


def test_the_patient_one_prunes_what_gets_worse():
    from hydra.utils import instantiate

    config = OmegaConf.create({"trainer": {"epochs": 10}, "pruner": PRUNERS["patient"]})
    pruner = instantiate(config, _execution_whitelist_=["optuna.pruners.*"]).pruner
    study = optuna.create_study(direction="maximize", pruner=pruner)
    for _ in range(6):
        trial = study.ask()
        for step in range(1, 11):
            trial.report(0.5, step)
        study.tell(trial, 0.5)
    trial, found = study.ask(), []
    for step in range(1, 11):
        trial.report(0.4 - 0.01 * step, step)
        found.append(trial.should_prune())
    assert found.index(True) + 1 == 5


def test_an_application_without_epochs_is_pruned_at_every_step():
    config = OmegaConf.create({"pruner": PRUNERS["median"]})
    options = OmegaConf.to_container(config.pruner, resolve=True)
    del options["_target_"]
    assert looks(MedianPruner(**options), 4) == [1, 2, 3, 4]


@pytest.mark.parametrize("seeds", [{}, {"n_seed_steps": 1}], ids=["one seed", "several"])
@pytest.mark.parametrize(
    ("pruner", "goes_on"),
    [
        (partial(PercentilePruner, 25.0), 2),
        (partial(PercentilePruner, 50.0), 4),
        (partial(PercentilePruner, 75.0), 6),
        (MedianPruner, 4),
    ],
    ids=["25", "50", "75", "median"],
)
def test_the_percentile_is_the_share_that_goes_on(pruner, goes_on, seeds):
    study = optuna.create_study(direction="maximize", pruner=pruner(n_startup_trials=1, **seeds))
    for value in range(8):
        trial = study.ask()
        trial.report(value, 1)
        study.tell(trial, value)
    kept = 0
    for value in range(8):
        trial = study.ask()
        trial.report(value, 1)
        kept += not trial.should_prune()
        study.tell(trial, state=optuna.trial.TrialState.PRUNED)
    assert kept == goes_on


@pytest.mark.parametrize(
    ("options", "values", "expected"),
    [
        ({}, [0.5, 0.4, 0.3, 0.2, 0.1, 0.4, 0.2], []),  # none is complete
        ({"count_incomplete": True}, [0.5, 0.4, 0.3, 0.2, 0.1, 0.4, 0.2], [4, 6]),  # behind .35, and behind .35 again
        ({"count_incomplete": True, "n_startup_trials": 5}, [0.5, 0.4, 0.3, 0.2, 0.1, 0.4, 0.2], [6]),
        ({"count_incomplete": True, "n_warmup_steps": 2}, [0.5, 0.4, 0.3, 0.2, 0.1], []),
        ({"count_incomplete": True, "n_startup_trials": 1}, [0.1, 0.2, 0.3], []),
        ({"count_incomplete": True, "n_startup_trials": 0}, [0.3, 0.2, 0.1], [1, 2]),
    ],
)
@pytest.mark.parametrize("direction", ["maximize", "minimize"])
def test_trials_side_by_side_before_enough_are_complete(options, values, expected, direction):
    pruner = MedianPruner(**{"n_startup_trials": 3, **options})
    study, sign = optuna.create_study(direction=direction, pruner=pruner), 1 if direction == "maximize" else -1
    pruned = []
    for trial, value in [(study.ask(), value) for value in values]:
        trial.report(sign * value, 1)
        if trial.should_prune():
            pruned.append(trial.number)
            study.tell(trial, state=optuna.trial.TrialState.PRUNED)
    assert pruned == expected


def test_complete_trials_alone_count_once_there_are_enough():
    study = optuna.create_study(
        direction="maximize", pruner=MedianPruner(2, n_last_steps=1, count_incomplete=True, n_warmup_steps=1)
    )
    for value in (0.4, 0.5):
        trial = study.ask()
        trial.report(value, 1)
        study.tell(trial, value)
    for value in (0.1, 0.1, 0.1, 0.1):
        study.ask().report(value, 1)
    trial = study.ask()
    trial.report(0.3, 1)
    assert trial.should_prune()


def test_trials_one_after_the_other_are_pruned_as_by_complete_ones():
    pruned = []
    for counted in (False, True):
        study = optuna.create_study(direction="maximize", pruner=MedianPruner(3, count_incomplete=counted))
        for number in range(20):
            trial = study.ask()
            for step in range(1, 4):
                trial.report((number * 7 % 20 + step) / 30, step)
                if trial.should_prune():
                    study.tell(trial, state=optuna.trial.TrialState.PRUNED)
                    break
            else:
                study.tell(trial, 0.5)
        pruned.append([trial.number for trial in study.trials if trial.state == optuna.trial.TrialState.PRUNED])
    assert pruned[0] == pruned[1] != []


def test_an_end_before_the_beginning_is_refused():
    with pytest.raises(ValueError, match="n_last_steps=5 is before n_warmup_steps=6: no trial would be pruned"):
        MedianPruner(n_warmup_steps=6, n_last_steps=5)


@pytest.mark.parametrize(
    "options", [{"n_last_steps": 0}, {"n_seed_steps": -1}, {"n_last_steps": 2.5}, {"n_last_steps": True}]
)
def test_bad_options(options):
    (name,) = options
    with pytest.raises(ValueError, match=f"{name} must be a whole number, 1 or above, or null"):
        MedianPruner(**options)


def test_a_switch_that_is_no_switch():
    with pytest.raises(ValueError, match="count_incomplete must be true or false, but got 4"):
        MedianPruner(count_incomplete=4)
