"""Search spaces as they are written."""

import optuna
import pytest
from hydra.utils import execution_whitelist
from omegaconf import OmegaConf
from optuna.distributions import FloatDistribution
from optuna.trial import FixedTrial

from cifar_tuning.overrides import parse_overrides
from cifar_tuning.tuning import spaces
from cifar_tuning.tuning.dry_run import DryRunTrial
from cifar_tuning.tuning.space import SearchSpace, changes, describe, ends, fixed_part


@pytest.mark.parametrize(
    ("overrides", "problems"),
    [
        (["optimizer.lr=tag(lg,interval(0.1,0.3))"], ["lg): the only tag is log"]),
        (["a=tag(log,range(1,5))", "b=tag(log,choice(1,2))"], ["a=", "only an interval(low,high) has a tag", "b="]),
        (
            ["lr=interval(0.2,0.1)", "l2=tag(log,interval(0,1))"],
            ["lr=interval(0.2,0.1): ", "l2=tag(log,interval(0,1)): "],
        ),
    ],
)
def test_every_mistake_is_said_with_its_key(overrides, problems):
    with pytest.raises(ValueError, match=r"tag|interval") as error:
        SearchSpace.parse({}, overrides)
    assert len(str(error.value).splitlines()) == len(overrides)
    for problem in problems:
        assert problem in str(error.value)


def test_what_is_right_is_taken():
    space = SearchSpace.parse({"a": "choice(1,2)"}, ["lr=tag(log,interval(0.1,0.3))", "b=range(1,4)", "a=3", "~c"])
    assert space.distributions["lr"] == FloatDistribution(0.1, 0.3, log=True)
    assert space.distributions.keys() == {"lr", "b"}
    assert space.fixed == {"a": "3"}
    assert space.deletions == ["~c"]


@pytest.mark.parametrize(
    ("params", "arguments", "swept", "fixed"),
    [
        ({}, ["x=0.3", "x=interval(0,1)"], {"x"}, {}),
        ({}, ["x=interval(0,1)", "x=0.3"], set(), {"x": "0.3"}),
        ({"x": 0.3, "y": "1,2"}, ["x=interval(0,1)"], {"x", "y"}, {}),
        ({"x": "interval(0,1)"}, ["x=0.3"], set(), {"x": "0.3"}),
        ({"+x": 0.3}, ["x=interval(0,1)"], {"+x"}, {}),
        ({}, ["x=1,2", "++x=3"], set(), {"++x": "3"}),
        ({"opt": {"lr": "interval(0,1)", "name": "sgd"}}, [], {"opt.lr"}, {"opt.name": "sgd"}),
        (
            {"n": None, "l": [1, "a,b"], "s": "'1'", "b": True},
            [],
            set(),
            {"n": "null", "l": '[1,"a,b"]', "s": "'1'", "b": "True"},
        ),
    ],
)
def test_the_last_override_of_a_key_wins(params, arguments, swept, fixed):
    space = SearchSpace.parse(OmegaConf.create(params), arguments)
    assert (set(space.distributions), space.fixed) == (swept, fixed)


def test_what_a_deletion_takes_away_may_come_anew():
    space = SearchSpace.parse({}, ["~d", "+d=1,2"])
    assert (space.deletions, set(space.distributions)) == (["~d"], {"+d"})


@pytest.mark.parametrize(
    "override",
    [
        's=choice("1","a,b","x=y","q\\"r","true","é","a;b",abc,"a b","${x}","", "back\\\\slash")',
        "s='1',b",
        "n=null,5",
        "n=1,1.5,true",
        "l=[1,2],[3]",
        "d={a:1},{a:2}",
        "s=a\\,b,c",
    ],
)
def test_a_job_has_each_choice_as_it_was_given(override):
    space = SearchSpace.parse({}, [override])
    ((key, distribution),) = space.distributions.items()
    (given,) = parse_overrides([override])
    choices = [getattr(one, "text", one) for one in given.value().list]
    read = [parse_overrides(space.overrides({key: one}))[0] for one in distribution.choices]
    assert [one.value() for one in read] == choices


@pytest.mark.parametrize(
    ("value", "override"),
    [
        (None, "x=null"),
        ("null", "x=null"),
        (0.1, "x=0.1"),
        (False, "x=False"),
        ("relu", "x=relu"),
        ("a/b.c-1", "x=a/b.c-1"),
        ("1", 'x="1"'),
        ("nan", 'x="nan"'),
        ("a,b", 'x="a,b"'),
        (" a", 'x=" a"'),
        ("[1,2]", "x=[1,2]"),
        ("'a'", "x='a'"),
        ('say "no"', r'x="say \"no\""'),
        ("choice(1,2)", 'x="choice(1,2)"'),
    ],
)
def test_what_a_function_suggests_as_an_override(value, override):
    assert SearchSpace({}).overrides({"x": value}) == [override]


RANGES = ["lr=tag(log,interval(0.001,0.1))", "n=range(1,4)"]


@pytest.mark.parametrize(
    ("overrides", "expected"),
    [
        ([], [{}]),
        (RANGES, [{"lr": 0.001, "n": 1}, {"lr": 0.1, "n": 3}]),
        (["c=a,b"], [{}, {"c": "a"}, {"c": "b"}]),
        (["n=range(1,4)", "p=5,6"], [{"n": 1}, {"n": 3}, {"p": 5}, {"p": 6}]),
    ],
)
def test_what_is_checked_before_the_first_trial(overrides, expected):
    assert ends(SearchSpace.parse({}, overrides)) == expected


def test_of_very_many_choices_some_are_checked():
    assert len(ends(SearchSpace.parse({}, [f"c={','.join(map(str, range(100)))}"]))) == 1 + 40


def test_what_all_trials_of_a_study_share():
    config = OmegaConf.create(
        {
            "optimizer": {"lr": 0.1, "betas": [0.9, 0.99]},
            "opt": 1,
            "model": {"act": "relu", "depth": float("nan")},
            "tracking": {"uri": "x"},
            "hydra": {"job": 1},
        }
    )
    space = SearchSpace.parse({}, ["+optimizer@o=a,b", "model.act=a,b"])
    assert fixed_part(config, space) == {"opt": "1", "model.depth": "nan"}
    assert "optimizer.lr" in fixed_part(config, SearchSpace({}))


def test_images_of_ones_own_are_known_by_their_classes():
    OmegaConf.register_resolver("names_in", lambda root: list(root), replace=True)
    data = {"root": "ab", "classes": "${names_in:${.root}}"}
    config = OmegaConf.create({"data": data, "hydra": {}})
    assert fixed_part(config, SearchSpace({})) == {"data.classes": "['a', 'b']"}
    config.data.root = "abc"
    assert fixed_part(config, SearchSpace({})) == {"data.classes": "['a', 'b', 'c']"}
    config.data.root = "???"  # the jobs say so
    assert fixed_part(config, SearchSpace({})) == {"data.classes": data["classes"]}


def test_what_differs_has_a_line():
    assert changes({"a": 1, "b": 2, "c": 3}, {"b": 2, "c": 4, "d": 5}) == [
        "a: 1 before, (absent) now",
        "c: 3 before, 4 now",
        "d: (absent) before, 5 now",
    ]


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("x=a,null,1", "choice(a, null, 1)"),
        ("x=interval(0,1)", "interval 0.0 to 1.0"),
        ("x=tag(log,interval(0.1,1))", "interval 0.1 to 1.0, log"),
        ("x=range(1,9)", "integers 1 to 8"),
        ("x=range(1,9,step=2)", "integers 1 to 7 in steps of 2"),
    ],
)
def test_a_distribution_in_words(override, words):
    assert SearchSpace.parse({}, [override], "f.g").described() == {"x": words, "custom_search_space": "f.g"}


def test_a_function_may_not_suggest_what_the_command_fixes():
    space = SearchSpace({}, {"x": "1"}, custom="tests.tuning.test_space.suggests_x")
    with (
        execution_whitelist(["tests.tuning.*"]),
        pytest.raises(ValueError, match=r"suggests_x suggests x, which the command fixes"),
    ):
        space.suggest(optuna.create_study().ask(), OmegaConf.create())


@pytest.mark.filterwarnings("error")
def test_an_application_that_trusts_all_is_warned_once():
    space = SearchSpace({}, custom="tests.tuning.test_space.nothing")
    with pytest.warns(UserWarning, match="whitelist"):
        space.suggest(FixedTrial({}), OmegaConf.create())
    space.suggest(FixedTrial({}), OmegaConf.create())


def nothing(config, trial):
    """Suggests nothing."""


def suggests_x(config, trial):
    assert trial.user_attrs == {"x": "1"}  # as under the stock plugin
    trial.suggest_int("x", 1, 2)


def ranges(trial):
    """The ranges a trial was drawn from, in words."""
    return {name: describe(distribution) for name, distribution in trial.distributions.items()}


@pytest.mark.parametrize(
    ("epochs", "schedule", "more"),
    [
        (5, "step", {"schedule.decay_epochs": "integers 1 to 4", "schedule.decay": "choice(0.1, 0.2, 0.5)"}),
        (1, "step", {"schedule.decay_epochs": "integers 1 to 1", "schedule.decay": "choice(0.1, 0.2, 0.5)"}),
        (5, "cosine", {}),
    ],
)
def test_a_schedule_brings_its_own_numbers(epochs, schedule, more):
    trial = optuna.trial.FixedTrial({"schedule": schedule, "schedule.decay_epochs": 1, "schedule.decay": 0.2})
    spaces.schedules(OmegaConf.create({"trainer": {"epochs": epochs}}), trial)
    assert ranges(trial) == {"schedule": "choice(constant, step, cosine, onecycle)", **more}


SGD_RATES, ADAM_RATES = "interval 0.01 to 0.5, log", "interval 0.0001 to 0.01, log"
MOMENTUM = "interval 0.8 to 0.98"


@pytest.mark.parametrize(
    ("fixed", "drawn", "expected"),
    [
        ({}, "sgd", {"optimizer", "optimizer.lr", "optimizer.momentum"}),
        ({}, "adam", {"optimizer", "optimizer.lr"}),
        ({"optimizer": "adamw"}, "sgd", {"optimizer.lr"}),
        ({"optimizer": "sgd"}, "adam", {"optimizer.lr", "optimizer.momentum"}),
        ({"optimizer.lr": "0.1"}, "sgd", {"optimizer", "optimizer.momentum"}),
        ({"optimizer.momentum": "0.9"}, "sgd", {"optimizer", "optimizer.lr"}),
    ],
)
def test_an_optimizer_brings_its_own_numbers(fixed, drawn, expected):
    trial = optuna.trial.FixedTrial({"optimizer": drawn, "optimizer.lr": 0.01, "optimizer.momentum": 0.9})
    for name, value in fixed.items():
        trial.set_user_attr(name, value)
    spaces.resnet20(OmegaConf.create(), trial)
    rates = SGD_RATES if fixed.get("optimizer", drawn) == "sgd" else ADAM_RATES
    known = {"optimizer": "choice(sgd, adam, adamw)", "optimizer.lr": rates, "optimizer.momentum": MOMENTUM}
    assert ranges(trial) == {name: known[name] for name in expected}


CONDITIONAL = ["+momentum=interval(0.8,0.9)", "opt=sgd,adam", "nesterov=true,false", "depth=range(1,5)"]
CONFIG = OmegaConf.create({"opt": "sgd", "depth": 2, "augment": {"flip": True}})


@pytest.mark.parametrize(
    ("conditions", "fixed", "drawn", "asked"),
    [
        ({"+momentum": "opt=sgd"}, [], {"opt": "sgd"}, {"+momentum", "nesterov", "depth"}),
        ({"+momentum": "opt=sgd"}, [], {"opt": "adam"}, {"nesterov", "depth"}),
        ({"+momentum": "opt=sgd"}, ["opt=adam"], {}, {"nesterov", "depth"}),
        ({"+momentum": "opt=sgd"}, ["+momentum=0.9"], {"opt": "adam"}, {"nesterov", "depth"}),
        ({"+momentum": "opt=sgd,adam"}, [], {"opt": "adam"}, {"+momentum", "nesterov", "depth"}),
        ({"+momentum": "opt=sgd depth=3,4"}, [], {"opt": "sgd", "depth": 2}, {"nesterov"}),
        ({"+momentum": "opt=sgd depth=3,4"}, [], {"opt": "sgd", "depth": 3}, {"+momentum", "nesterov"}),
        ({"+momentum": "augment.flip=true"}, [], {"opt": "sgd"}, {"+momentum", "nesterov", "depth"}),
        ({"nesterov": "depth=1", "depth": "opt=sgd"}, [], {"opt": "adam"}, {"+momentum"}),  # its own does not hold
        ({"nesterov": "depth=1", "depth": "opt=sgd"}, [], {"opt": "sgd"}, {"+momentum", "depth", "nesterov"}),
    ],
)
def test_a_key_is_searched_where_its_condition_holds(conditions, fixed, drawn, asked):
    space = SearchSpace.parse({}, [*CONDITIONAL, *fixed], conditions=conditions)
    trial = DryRunTrial(CONFIG, {"depth": 1, **drawn}, space.distributions)
    space.suggest(trial, CONFIG)
    assert trial.params.keys() - drawn.keys() - {"opt"} == asked
    assert not any(name.partition("=")[0] in trial.params for name in fixed)


@pytest.mark.parametrize(
    ("conditions", "problem"),
    [
        ({"lr": "opt=sgd"}, "lr is not in the search space: .momentum, opt, nesterov, depth"),
        ({"depth": "nesterov=true", "nesterov": "depth=1"}, "depth depends on itself\n.*nesterov depends on itself"),
        ({"depth": "opt"}, "depth: opt: must be as optimizer=sgd,adam"),
        ({"depth": "opt=interval(0,1)"}, "must be as optimizer=sgd,adam: it needs single values"),
    ],
)
def test_a_condition_that_makes_no_sense_is_refused(conditions, problem):
    with pytest.raises(ValueError, match=problem):
        SearchSpace.parse({}, CONDITIONAL, conditions=conditions)


def test_a_range_under_a_condition_is_looked_at_where_that_holds():
    space = SearchSpace.parse({}, CONDITIONAL, conditions={"+momentum": "opt=adam"})
    assert [point for point in ends(space) if point.get("opt") == "adam" and "+momentum" in point] == [
        {"opt": "adam", "+momentum": 0.8},
        {"opt": "adam", "+momentum": 0.9},
    ]
    assert space.described()["+momentum"] == "interval 0.8 to 0.9, only if opt=adam"
