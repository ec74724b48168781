"""Search spaces as they are written."""

import pytest
from omegaconf import OmegaConf
from optuna.distributions import FloatDistribution

from cifar_tuning.overrides import parse_overrides
from cifar_tuning.tuning.space import SearchSpace


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
