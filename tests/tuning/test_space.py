"""Search spaces as they are written."""

import pytest
from optuna.distributions import FloatDistribution

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
