"""What is checked of a search space and of the first configurations before any trial."""

import pytest
from hydra.utils import execution_whitelist, instantiate
from omegaconf import OmegaConf
from optuna import TrialPruned
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

from cifar_tuning.errors import ConfigError
from cifar_tuning.tuning import dry_run
from cifar_tuning.tuning.space import SearchSpace

DECLARED = {
    "lr": FloatDistribution(1e-3, 0.3, log=True),
    "decay": IntDistribution(2, 10, step=2),
    "activation": CategoricalDistribution(["relu", 1]),
}


@pytest.fixture
def config():
    made = OmegaConf.create({"lr": 0.05, "decay": 12, "activation": "swish", "null": None, "trainer": {"lr": 1.0}})
    OmegaConf.set_struct(made, True)
    return made


@pytest.fixture
def space(monkeypatch):
    """A search space with a function of the test's own."""

    def make(function=None, **declared) -> SearchSpace:
        if function is not None:
            monkeypatch.setattr(dry_run.SearchSpace, "suggest", lambda _, trial, config: function(config, trial))
        return SearchSpace(declared, custom="my.space" if function else None)

    return make


def optimizer(config, trial) -> None:
    high = 1.0 if trial.suggest_categorical("optimizer", ["sgd", "adam"]) == "sgd" else 0.01
    trial.suggest_float("rate", 1e-3, high)


def forbidden() -> None:
    with execution_whitelist(("torch.*",)):
        instantiate({"_target_": "shutil.rmtree", "_partial_": True})


@pytest.mark.parametrize(
    ("function", "message"),
    [
        (lambda config, trial: config.trainer.max_lr, "ConfigAttributeError: Key 'max_lr' is not in struct"),
        (lambda config, trial: trial.sugest_float("lr", 0, 1), "AttributeError: 'DryRunTrial' object has no attribute"),
        (lambda config, trial: "".lowercase(), "AttributeError: 'str' object has no attribute 'lowercase'"),
        (lambda config, trial: 1 / 0, "ZeroDivisionError: division by zero"),
        (lambda config, trial: forbidden(), "if you trust it, export CIFAR_TUNING_TRUST='shutil.rmtree'"),
    ],
)
def test_a_mistake_in_a_function_is_told_with_its_name(space, config, function, message):
    for asked in (dry_run.dry_run, dry_run.default_params):
        with pytest.raises(ConfigError, match=r"custom_search_space=my\.space: ") as error:
            asked(space(function), config)
        assert message in str(error.value)
    assert "my.space" in dry_run.entry_problems(space(function), config, {"lr": 1})[0]


def test_a_function_that_asks_its_trial_for_its_study_is_left_to_the_trials(space, config):
    asking = space(lambda config, trial: trial.study.best_value, lr=DECLARED["lr"])
    with pytest.raises(dry_run.NeedsTrialError):
        dry_run.dry_run(asking, config)
    assert dry_run.default_params(asking, config) == {}
    assert "not tried first: the defaults" in (dry_run.defaults_left_out(asking, config) or "")
    assert dry_run.entry_problems(asking, config, {"lr": 0.1}) == []
    assert "lr=1: must be in its range" in dry_run.entry_problems(asking, config, {"lr": 1})[0]


def nested(config, trial) -> None:
    """A mistake two choices away from the defaults, and a branch that is not wanted."""
    kind = trial.suggest_categorical("kind", ["a", "b", "c"])
    if kind == "c":
        raise TrialPruned
    if kind == "b" and trial.suggest_categorical("sub", [1, 2]) == 2:
        config.trainer.max_lr  # noqa: B018


@pytest.mark.parametrize(
    ("function", "points", "problems"),
    [
        (
            nested,
            [{"kind": "a"}, {"kind": "b", "sub": 1}],
            ["(with kind=b, sub=2)"],
        ),
        (optimizer, [{"optimizer": "sgd", "rate": 1e-3}, {"optimizer": "adam", "rate": 1e-3}], []),
        (lambda config, trial: config.nothing, [], ["Key 'nothing'"]),
        (lambda config, trial: trial.study.best_value, [], []),
        (lambda config, trial: trial.suggest_categorical("n", range(50)), [{"n": n} for n in range(32)], []),
    ],
)
def test_every_choice_of_a_function_is_tried_once(space, config, function, points, problems):
    found, said = dry_run.branches(space(function), config)
    assert found == points
    assert len(said) == len(problems)
    assert all(problem in line for problem, line in zip(problems, said, strict=True))


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ({"lr": 0.5}, "lr=0.5: must be in its range, interval 0.001 to 0.3, log; give another value"),
        ({"lr": 0}, "lr=0: must be"),
        ({"lr": "high"}, "lr=high: must be"),
        ({"lr": None}, "lr=null: must be"),
        ({"decay": 5}, "decay=5: must be in its range, integers 2 to 10 in steps of 2"),
        ({"activation": "swisch"}, "activation=swisch: must be in its range, choice(relu, 1)"),
        ({"momentum": 0.5}, "momentum is not in the search space: lr, decay, activation"),
    ],
)
def test_a_first_configuration_outside_its_range_is_refused(space, config, entry, message):
    (problem,) = dry_run.entry_problems(space(**DECLARED), config, entry)
    assert problem.startswith(f"hydra.sweeper.enqueue: {message}")


@pytest.mark.parametrize("entry", [{}, {"lr": 0.3, "decay": 4, "activation": "relu"}, {"lr": "0.1"}])
def test_a_first_configuration_within_its_range_is_taken(space, config, entry):
    assert dry_run.entry_problems(space(**DECLARED), config, entry) == []


def test_a_choice_is_enqueued_as_the_space_writes_it(space, config):
    assert dry_run.entry_params(space(**DECLARED), config, {"activation": "1", "lr": 5}) == {"activation": 1, "lr": 5}


@pytest.mark.parametrize(
    ("entry", "said"),
    [
        ({"lr": 0.1, "activation": "relu"}, ["lr: is only searched if activation=1, which does not hold"]),
        ({"lr": 0.1, "activation": 1}, []),
        ({"lr": 0.1}, []),  # the sampler may draw what it takes
    ],
)
def test_a_first_configuration_keeps_to_conditions(config, entry, said):
    space = SearchSpace(DECLARED, conditions={"lr": {"activation": [1]}})
    assert dry_run.entry_problems(space, config, entry) == [f"hydra.sweeper.enqueue: {line}" for line in said]


@pytest.mark.parametrize(
    ("entry", "refused"),
    [
        ({"optimizer": "rmsprop"}, True),
        ({"optimizer": "adam", "rate": 0.5}, True),
        ({"optimizer": "sgd", "rate": 0.5}, False),
        ({"rate": 5.0}, False),  # its range follows from an optimizer that the trial draws
    ],
)
def test_a_functions_ranges_count_as_far_as_they_are_known(space, config, entry, refused):
    assert bool(dry_run.entry_problems(space(optimizer), config, entry)) == refused


def test_defaults_outside_their_range_are_named(space, config):
    assert dry_run.default_params(space(**DECLARED), config) == {"lr": 0.05}
    assert dry_run.defaults_left_out(space(**DECLARED), config) == (
        "tried first: the defaults, without decay=12, activation=swish, which are outside their ranges"
    )
    null = space(lr=DECLARED["lr"], null=DECLARED["decay"])
    assert dry_run.defaults_left_out(null, config) == (
        "tried first: the defaults, without null=null, which is outside its range"
    )
    one = space(lr=DECLARED["lr"], decay=DECLARED["decay"], lost=DECLARED["decay"])
    assert dry_run.defaults_left_out(one, config) == (
        "tried first: the defaults, without decay=12, which is outside its range and without lost, which has no default"
    )
    assert dry_run.defaults_left_out(space(lr=DECLARED["lr"]), config) is None


@pytest.mark.parametrize(
    ("default", "choices", "found"),
    [
        (None, ("null", 5), "null"),
        (None, (None, 5), None),
        ([1, 2], ("[1,2]", "[3]"), "[1,2]"),
        ([1, 2], ("[1, 2]", "[3]"), "[1, 2]"),
        ({"a": 1}, ("{a:1}", "{a:2}"), "{a:1}"),
        ("a,b", ("a,b", "c"), "a,b"),
        ("1", ("'1'", "b"), "'1'"),
        (True, (False, True), True),
    ],
)
def test_a_default_is_found_among_the_choices(space, default, choices, found):
    config = OmegaConf.create({"key": default})
    one = space(key=CategoricalDistribution(choices))
    assert dry_run.default_params(one, config) == {"key": found}
    assert dry_run.defaults_left_out(one, config) is None
    entry = OmegaConf.create({"key": default})
    assert dry_run.entry_problems(one, config, entry) == []
    assert dry_run.entry_params(one, config, entry) == {"key": found}


def test_a_word_is_not_null(space):
    config = OmegaConf.create({"key": None})
    assert dry_run.default_params(space(key=CategoricalDistribution(["None", "'null'"])), config) == {}


@pytest.mark.parametrize(
    ("entry", "found"), [({"n": None}, {"n": None}), ({"l": [1, 2], "n": "5"}, {"l": "[1,2]", "n": 5})]
)
def test_null_and_lists_are_enqueued_for_a_function(space, config, entry, found):
    def function(config, trial) -> None:
        trial.suggest_categorical("n", [None, 5])
        trial.suggest_categorical("l", ["[1,2]", "[3]"])

    given = OmegaConf.create(entry)
    assert dry_run.entry_problems(space(function), config, given) == []
    assert dry_run.entry_params(space(function), config, given) == found
