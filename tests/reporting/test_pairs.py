"""What is held equal between two values, and averaged over where only one of them has it."""

from cifar_tuning.reporting.pairs import two_sides
from cifar_tuning.reporting.varying import MISSING as NONE


def sides(a, b):
    return [(side.metrics, list(side.own), side.settings) for side in two_sides(("a", "b"), {"a": a, "b": b})]


def test_what_one_value_alone_has_is_averaged_over():
    sgd = [(("0.9", lr), s, v) for lr, s, v in (("1", 0, 0.1), ("1", 1, 0.2))] + [(("0.8", "1"), 0, 0.3)]
    adam = [((NONE, "1"), 0, 0.5)]
    assert sides(sgd, adam) == [
        ({((NONE, "1"), 0): 0.2, ((NONE, "1"), 1): 0.2}, [0], 2),
        ({((NONE, "1"), 0): 0.5}, [], 1),
    ]


def test_a_setting_that_lacks_a_seed_of_the_others_is_left_out():
    """Unless all do: then each counts for what it has."""
    adam = [((NONE,), seed, 0.5) for seed in (0, 1)]
    whole, half = [(("0.9",), 0, 0.1), (("0.9",), 1, 0.2)], [(("0.8",), 0, 0.9)]
    assert sides(whole + half, adam)[0] == ({((NONE,), 0): 0.1, ((NONE,), 1): 0.2}, [0], 1)
    assert sides(whole[1:] + half, adam)[0] == ({((NONE,), 0): 0.9, ((NONE,), 1): 0.2}, [0], 2)
    # A seed that the other value does not have asks for nothing.
    more = [*whole, *half, (("0.8",), 1, 0.4), (("0.9",), 7, 0.6)]
    assert sides(more, adam)[0][0] == {((NONE,), 0): 0.5, ((NONE,), 1): 0.30000000000000004, ((NONE,), 7): 0.6}


def test_an_option_that_it_has_at_times_is_held_equal():
    some = [(("0.9",), 0, 0.1), ((NONE,), 0, 0.2)]
    other = [((NONE,), 0, 0.5)]
    assert sides(some, other)[0] == ({(("0.9",), 0): 0.1, ((NONE,), 0): 0.2}, [], 1)
