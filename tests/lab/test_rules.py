import pytest

from cifar_tuning.lab import rules
from cifar_tuning.lab.rules import FALSE, HOLDS, INCOMPLETE, NOISE, PARTLY, Outcome


@pytest.mark.parametrize(
    ("rule", "sides", "outcome"),
    [
        ("all_ahead", ["ahead", "ahead"], HOLDS),
        ("all_ahead", ["ahead", "level"], PARTLY),
        ("all_ahead", ["level"], NOISE),
        ("all_ahead", ["behind", "level"], FALSE),
        ("none_behind", ["level", "ahead"], HOLDS),
        ("none_behind", ["level", "level"], NOISE),
        ("none_behind", ["behind", "ahead"], FALSE),
        ("some_behind", ["behind", "ahead"], HOLDS),
        ("some_behind", ["level", "ahead"], NOISE),
        ("some_behind", ["ahead", "ahead"], FALSE),
        ("all_ahead", ["ahead", "missing"], INCOMPLETE),
        ("all_ahead", ["ahead", "untested"], INCOMPLETE),
        ("all_ahead", ["level", "missing"], INCOMPLETE),
        ("all_ahead", ["ahead", "level", "missing"], PARTLY),
        ("all_ahead", ["behind", "missing"], FALSE),
        ("none_behind", ["ahead", "missing"], INCOMPLETE),
        ("none_behind", ["behind", "missing"], FALSE),
        ("some_behind", ["ahead", "missing"], INCOMPLETE),
        ("some_behind", ["level", "untested"], INCOMPLETE),
        ("some_behind", ["behind", "missing"], HOLDS),
        ("all_level", ["level", "missing"], INCOMPLETE),
        ("all_level", ["ahead", "missing"], FALSE),
        ("is_extreme", ["ahead", "ahead"], HOLDS),
        ("is_extreme", ["ahead", "level"], NOISE),
        ("is_extreme", ["ahead", "ahead", "behind"], FALSE),
        ("is_extreme", ["ahead", "missing"], INCOMPLETE),
        ("is_extreme", ["level", "missing"], INCOMPLETE),
        ("is_extreme", ["behind", "missing"], FALSE),
        ("all_level", ["level"], NOISE),
        ("all_level", ["level", "ahead"], FALSE),
    ],
)
def test_a_rule_decides_both_ways(rule, sides, outcome):
    assert getattr(rules, rule)([Outcome(side, side, 0.5) for side in sides]).outcome == outcome


@pytest.mark.parametrize(
    ("rule", "contests", "by"),
    [
        ("all_ahead", ["ahead 0.01", "ahead 0.04"], 1),  # the least certain of all that were needed
        ("all_ahead", ["ahead 0.01", "level 0.3", "level 0.9"], 2),
        ("all_ahead", ["ahead 0.01", "behind 0.02", "behind 0.03"], 1),
        ("all_ahead", ["level 0.9", "level 0.3"], 1),  # not even the clearest can be told
        ("none_behind", ["level 0.9", "ahead 0.03", "ahead 0.01"], 2),
        ("none_behind", ["ahead 0.01", "behind 0.03"], 1),
        ("some_behind", ["ahead 0.001", "behind 0.03"], 1),
        ("some_behind", ["ahead 0.001", "level 0.3"], 1),
        ("some_behind", ["ahead 0.001", "ahead 0.01"], 1),
        ("all_level", ["level 0.9", "ahead 0.03", "behind 0.01"], 2),
        ("all_level", ["level 0.9", "level 0.1"], 1),
        ("all_ahead", ["missing 1", "ahead 0.01"], 1),
        ("is_extreme", ["ahead 0.001", "behind 0.03", "behind 0.01"], 2),
        ("is_extreme", ["ahead 0.001", "level 0.3", "level 0.9"], 2),  # the nearest rival
    ],
)
def test_the_contest_that_is_shown_is_the_one_that_decided(rule, contests, by):
    outcomes = [Outcome(side, "", float(p)) for side, p in (contest.split() for contest in contests)]
    assert getattr(rules, rule)(outcomes).by is outcomes[by]


@pytest.mark.parametrize(
    ("rule", "sides", "outcome"),
    [
        ("all_ahead", ["ahead", "ahead lacks seeds"], INCOMPLETE),
        ("all_ahead", ["ahead", "level lacks seeds"], INCOMPLETE),
        ("all_ahead", ["level lacks seeds"], INCOMPLETE),
        ("all_ahead", ["behind lacks seeds"], INCOMPLETE),
        ("all_ahead", ["ahead lacks seeds", "ahead", "level"], PARTLY),
        ("all_ahead", ["level lacks seeds", "behind"], FALSE),
        ("some_behind", ["behind", "ahead lacks seeds"], HOLDS),
        ("some_behind", ["behind lacks seeds", "ahead"], INCOMPLETE),
        ("all_level", ["level", "level lacks seeds"], INCOMPLETE),
        ("is_extreme", ["ahead lacks seeds", "level"], INCOMPLETE),
        ("is_extreme", ["ahead lacks seeds", "behind"], FALSE),
    ],
)
def test_a_ruling_stands_without_the_contests_that_lack_seeds(rule, sides, outcome):
    outcomes = [
        Outcome(side, "", 0.5, (4 if lacks else 5, 5))
        for side, lacks, _ in (text.partition(" lacks") for text in sides)
    ]
    ruling = rules.rule_on(outcomes, getattr(rules, rule))
    assert ruling.outcome == outcome
    assert ruling.by == getattr(rules, rule)(outcomes).by
