"""Hyperparameters compared where all else is equal."""

import itertools

import numpy as np
import pytest

from cifar_tuning.reporting.comparisons import Effect, Remark
from cifar_tuning.reporting.effects import count_tests, find_effects
from cifar_tuning.reporting.response import Influence
from cifar_tuning.reporting.table import build_table
from tests.reporting.runs import SEEDS, effects_of, make_runs, seeded


def test_two_values_over_seeds():
    noise = [0.0, 0.01, -0.01, 0.02, -0.02]
    rows = [({"act": "relu", "seed": s}, 0.70 + x) for s, x in enumerate(noise)]
    rows += [({"act": "swish", "seed": s}, 0.71 + x + s / 1000) for s, x in enumerate(noise)]
    (effect,) = effects_of(*rows)
    assert effect.names == ("swish", "relu")
    assert (effect.comparison.n, effect.comparison.paired) == (5, True)
    assert effect.p == effect.comparison.p
    assert effect.text == "swish beats relu by 1.2 ± 0.2 points (p < 0.001, n = 5); paired over seeds."


def test_averaged_over_the_others_seed_by_seed_and_each_setting_by_itself():
    """Three settings of three seeds are three repetitions, not nine."""
    rows = [
        (
            {"bn": bn, "lr": lr, "seed": seed},
            0.5 + 0.1 * (bn == "true") * (lr < 0.2) + 0.01 * seed * (1 + (bn == "true")),
        )
        for bn, lr, seed in itertools.product(("true", "false"), (0.05, 0.1, 0.2), (0, 1, 2))
    ]
    effects = effects_of(*rows)
    overall = [e for e in effects if e.option == "bn" and not e.setting]
    assert [(e.comparison.n, e.basis) for e in overall] == [(3, "paired over seeds, averaged over 3 settings")]
    assert overall[0].comparison.difference == pytest.approx(0.1 * 2 / 3 + 0.01)
    at = {e.setting: e.comparison.difference for e in effects if e.option == "bn" and e.setting}
    assert at == {"lr=0.05": pytest.approx(0.11), "lr=0.1": pytest.approx(0.11), "lr=0.2": pytest.approx(0.01)}
    assert sum(e.option == "lr" for e in effects) == 3 + 6


def test_p_values_are_corrected_together():
    rows = [
        ({"x": x, "seed": s}, 0.5 + 0.01 * x + 0.001 * s * x + 0.0005 * (s % 2)) for x in (0, 1, 2) for s in range(4)
    ]
    effects = effects_of(*rows)
    assert len(effects) == 3
    assert all(e.p > e.comparison.p or e.p == max(o.p for o in effects) for e in effects)


def test_of_many_values_the_best_against_the_others():
    rows = [({"x": x, "seed": s}, 0.5 + 0.01 * x + 0.001 * s * x) for x in range(6) for s in range(3)]
    effects = effects_of(*rows)
    assert [e.names for e in effects] == [("x=5", f"x={x}") for x in (4, 3, 2, 1, 0)]
    # The best was picked in the same data: five comparisons are shown, of fifteen pairs.
    assert count_tests(effects) == 15
    surest = min(effects, key=lambda e: e.p)
    assert surest.p == pytest.approx(15 * surest.comparison.p)


@pytest.mark.parametrize(
    ("rows", "basis", "n", "paired"),
    [
        ([({"a": a, "seed": 0}, a / 10) for a in (1, 2)], "", 1, True),
        # Of a seed that only one side has nothing can be told.
        ([({"a": 1, "seed": s}, s / 10) for s in (0, 1)] + [({"a": 2, "seed": 0}, 0.5)], "", 1, True),
        (
            [({"a": a, "b": b, "seed": 0}, a / 10 + a * b / 100) for a in (1, 2) for b in (1, 2, 3)],
            "paired over settings: this speaks of other settings, with this one seed",
            3,
            True,
        ),
        (
            [({"a": a, "b": b}, a / 10 + a * b / 100 + i / 1000) for a in (1, 2) for b in (1, 2, 3) for i in (0, 1)],
            "no common seed; paired over the other hyperparameters' settings",
            3,
            True,
        ),
        ([({"a": a}, a / 10 + i / 100) for a in (1, 2) for i in range(3)], "unpaired", 3, False),
        (
            [
                ({"a": a, "b": 10 * a + i, "seed": s}, a / 10 + i / 100)
                for a in (1, 2)
                for i in range(3)
                for s in (0, 1)
            ],
            "unpaired, and the other hyperparameters differ as well: this may be their doing",
            3,
            False,
        ),
    ],
)
def test_what_is_compared(rows, basis, n, paired):
    effect = next(e for e in effects_of(*rows) if e.option == "a")
    assert isinstance(effect, Effect)
    assert (effect.basis, effect.comparison.n, effect.comparison.paired) == (basis, n, paired)


@pytest.mark.parametrize(
    ("rows", "basis", "difference"),
    [
        # One of b's values lacks a seed for a = 2: its mean over seeds would be over other settings than a = 1's.
        (
            [
                ({"a": a, "b": b, "seed": s}, a * (10 if b == 3 else 1) + s / 10)
                for a in (1, 2)
                for b in (1, 2, 3)
                for s in range(4)
                if (a, b, s) != (2, 3, 3)
            ],
            "paired over seeds, averaged over 2 settings",
            1.0,
        ),
        # Of seed 1 one side knows nothing.
        (
            [({"a": a, "b": b, "seed": 0}, a + b) for a in (1, 2) for b in (1, 2, 3)]
            + [({"a": 2, "b": b, "seed": 1}, 50.0) for b in (1, 2, 3)],
            "paired over settings: this speaks of other settings, with this one seed",
            1.0,
        ),
        # No common seed, and one setting in common.
        (
            [({"a": 1, "b": 1, "seed": s}, 1.0 + s) for s in (0, 1)]
            + [({"a": 2, "b": b, "seed": 1 + b}, 4.0 * b) for b in (1, 2)],
            "no common seed; paired over the other hyperparameters' settings",
            2.5,
        ),
    ],
)
def test_only_what_both_have_is_compared(rows, basis, difference):
    effect = next(e for e in effects_of(*rows) if e.option == "a" and not e.setting)
    assert (effect.names, effect.basis) == (("a=2", "a=1"), basis)
    assert effect.comparison.difference == pytest.approx(difference)


@pytest.mark.parametrize(("seeds", "settings"), [(2, set()), (3, {"b=1", "b=2"})])
def test_of_two_seeds_no_setting_is_looked_at_by_itself(seeds, settings):
    rows = [({"a": a, "b": b, "seed": s}, a * b + s * a / 10) for a in (1, 2) for b in (1, 2) for s in range(seeds)]
    assert {e.setting for e in effects_of(*rows) if e.option == "a" and e.setting} == settings


def test_of_many_losses_the_smallest_against_the_others():
    rows = [({"x": x, "seed": s}, 0.5 + 0.01 * x + 0.001 * s * x) for x in range(6) for s in range(3)]
    effects = effects_of(*rows, maximize=False)
    assert [e.names for e in effects] == [("x=0", f"x={x}") for x in range(1, 6)]
    assert effects[0].text.startswith("x=0 ")


@pytest.mark.parametrize(
    ("derived", "option"),
    [
        ({"small": {"n_params": 1000}, "large": {"n_params": 9000}}, "model (n_params)"),
        ({"small": {"lr": 0.1}, "large": {"lr": 0.01}}, "model (lr)"),
        ({"small": {}, "large": {"momentum": 0.9}}, "model (momentum)"),
        ({"small": {}, "large": {}}, "model"),
    ],
)
def test_what_follows_from_a_value_does_not_keep_its_seeds_apart(derived, option):
    rows = [
        ({"model": m, "seed": s, **more}, seeded(s) + (m == "large") * (0.02 + 0.001 * s))
        for m, more in derived.items()
        for s in SEEDS
    ]
    (effect,) = effects_of(*rows)
    assert effect.option == option
    assert effect.text == "large beats small by 2.2 ± 0.2 points (p < 0.001, n = 5); paired over seeds."


def test_a_factor_with_its_derived_number_among_other_factors():
    rows = [
        ({"depth": d, "n_params": 100 * d, "act": act, "seed": s}, seeded(s) + 0.01 * d + 0.001 * s * d)
        for d in (1, 2, 3, 4, 5)
        for act in ("relu", "swish")
        for s in SEEDS
    ]
    effects = effects_of(*rows)
    assert {e.option for e in effects} == {"act", "depth (n_params)", "act and depth (n_params)"}
    depths = [e for e in effects if e.option == "depth (n_params)" and not e.setting]
    assert {(e.basis, e.comparison.n) for e in depths} == {("paired over seeds, averaged over 2 settings", 5)}


def test_what_follows_without_deciding_is_named():
    """Two optimizers share a rate: the rate follows from the optimizer, not the optimizer from the rate."""
    rates = {"adam": 0.001, "rms": 0.001, "sgd": 0.1}
    rows = [
        ({"opt": opt, "lr": lr, "seed": s}, seeded(s) + 0.01 * len(opt) + 0.0001 * s * len(opt) + 0.01 * (opt == "rms"))
        for opt, lr in rates.items()
        for s in SEEDS
    ]
    effects = effects_of(*rows)
    by_names = {frozenset(e.names): e for e in effects if e.option == "opt"}
    assert by_names[frozenset({"adam", "rms"})].basis == "paired over seeds"
    assert by_names[frozenset({"adam", "sgd"})].basis == "paired over seeds; lr changed with it"
    (rate,) = [e for e in effects if e.option == "lr"]
    assert rate.basis == "paired over seeds, but the other hyperparameters differ as well: this may be their doing"
    assert (rate.comparison.n, rate.comparison.paired) == (5, True)


def test_a_setting_that_only_one_value_has_does_not_count():
    rows = [({"a": a, "b": 0, "seed": s}, a + s / 10) for a in (0, 1) for s in (0, 1)]
    rows += [({"a": 1, "b": 9, "seed": s}, 50.0) for s in (0, 1)]
    effect = next(e for e in effects_of(*rows) if e.option == "a")
    assert effect.comparison.difference == pytest.approx(1)


SGD_ADAM = [
    ({"opt": opt, "lr": lr, "seed": s, **own}, seeded(s) + (0.1 + 0.01 * s) * (opt == "sgd") + lr + bonus)
    for s in range(4)
    for lr in (0.1, 0.2)
    for opt, own, bonus in (("adam", {}, 0), ("sgd", {"momentum": 0.8}, 0.03), ("sgd", {"momentum": 0.9}, 0.05))
]


def test_an_option_that_one_value_alone_has_is_averaged_over():
    effects = effects_of(*SGD_ADAM)
    assert not [e.text for e in effects if "–" in e.text or "differ as well" in e.text]
    of = {option: [e for e in effects if e.option == option] for option in ("opt", "lr", "momentum")}
    overall, *by_setting = of["opt"]
    assert overall.names == ("sgd", "adam")
    assert (overall.comparison.n, overall.comparison.paired) == (4, True)
    assert overall.comparison.difference == pytest.approx(0.1 + 0.015 + 0.04)
    assert overall.basis == "paired over seeds, averaged over 2 settings; of sgd the mean over 2 settings of momentum"
    assert {e.setting for e in by_setting} == {"lr=0.1, momentum averaged", "lr=0.2, momentum averaged"}
    assert [e.names for e in of["momentum"] if not e.setting] == [("momentum=0.9", "momentum=0.8")]
    assert of["momentum"][0].comparison.difference == pytest.approx(0.02)
    assert len([e for e in effects if isinstance(e, Effect)]) == 4 + 3 + 3


def test_an_average_is_over_the_same_settings_with_every_seed():
    """One of the momenta ran with two of four seeds: it is left out where all seeds are compared."""
    rows = [(params, value) for params, value in SGD_ADAM if params.get("momentum") != 0.9 or params["seed"] < 2]
    effect = next(e for e in effects_of(*rows) if e.option == "opt")
    assert effect.comparison.n == 4
    assert effect.comparison.difference == pytest.approx(0.1 + 0.015 + 0.03)
    assert effect.basis == "paired over seeds, averaged over 2 settings; momentum changed with it"


def test_an_option_that_some_values_have():
    """Neither regularizer's strengths are anything to the runs without one; with each other they are compared."""
    rows = [
        (
            {"reg": reg, "seed": s} | ({} if strength is None else {"strength": strength}),
            seeded(s) + len(reg) * (0.01 + 0.001 * s) + (strength or 0) / 10,
        )
        for reg, strengths in (("no", [None]), ("l1", [0.1, 0.2]), ("l2x", [0.1, 0.2]))
        for strength in strengths
        for s in SEEDS
    ]
    effects = effects_of(*rows)
    by_names = {frozenset(e.names): e.basis for e in effects if e.option == "reg" and not e.setting}
    assert by_names == {
        frozenset({"l1", "l2x"}): "paired over seeds, averaged over 2 settings",
        frozenset({"l1", "no"}): "paired over seeds; of l1 the mean over 2 settings of strength",
        frozenset({"l2x", "no"}): "paired over seeds; of l2x the mean over 2 settings of strength",
    }
    assert {e.setting for e in effects if e.option == "reg" and e.setting} == {"strength=0.1", "strength=0.2"}
    strengths = [e for e in effects if e.option == "strength"]
    assert {(*sorted(e.names), e.setting) for e in strengths} == {
        ("strength=0.1", "strength=0.2", setting) for setting in ("", "l2x", "l1")
    }


@pytest.mark.parametrize(
    ("rows", "names"),
    [
        # Nothing decides that it is missing: to have it is the choice.
        ([({"nesterov": "true"}, 0.5), ({}, 0.4)], [{"nesterov=true", "nesterov=–"}]),
        ([({"x": 1}, 0.5), ({"x": 2}, 0.4), ({}, 0.3)], [{"x=1", "x=2"}]),
        # The one that is always there stands for the one that comes with it.
        ([({"a": 5, "b": 1}, 0.5), ({"b": 2}, 0.4)], [{"b=1", "b=2"}]),
        ([({"a": 5}, 0.5), ({"b": 2}, 0.4)], [{"a=5", "a=–"}]),
    ],
)
def test_a_missing_value(rows, names):
    assert [set(e.names) for e in effects_of(*rows)] == names


@pytest.mark.parametrize("rows", [[({"lr": 1}, 0.5)], [({"lr": 1, "seed": s}, 0.5) for s in (0, 1)]])
def test_nothing_to_compare(rows):
    assert effects_of(*rows) == []


RATES = [0.0001, 0.0003, 0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1, 3]


@pytest.mark.parametrize(("seeds", "kind"), [(3, Effect), (1, Influence)])
def test_many_typed_numbers_are_compared_where_they_share_seeds(seeds, kind):
    """The best is in between: a trend would be none."""
    noise = np.random.default_rng(0)
    rows = [
        ({"lr": lr, "seed": s}, 0.7 - 0.03 * (np.log10(lr) + 2) ** 2 + 0.01 * s + noise.normal() / 300)
        for lr in RATES
        for s in range(seeds)
    ]
    effects = effects_of(*rows)
    assert {type(effect) for effect in effects} == {kind}
    if kind is Effect:
        assert [e.names[0] for e in effects] == ["lr=0.01"] * 9
        assert count_tests(effects) == 45
    else:
        assert "highest near 0.0" in effects[0].text


def test_comparisons_that_are_left_out_are_counted():
    rows = [
        ({"a": a, "b": b, "seed": s}, seeded(s) + a * s / 100 + b / 50)
        for a in (0, 1)
        for b in range(13)
        for s in (0, 1, 2)
    ]
    remarks = [e for e in effects_of(*rows) if isinstance(e, Remark)]
    assert remarks[0].option == "a"
    assert remarks[0].text.startswith("The 13 comparisons under each setting of the others are left out")


def test_an_average_that_no_seed_has_is_not_claimed():
    rows = [({"a": a, "b": s % 2, "seed": s}, seeded(s) + a * s / 100) for a in (0, 1) for s in range(3)]
    effect = next(e for e in effects_of(*rows) if e.option == "a")
    assert effect.basis == "paired over seeds, of which none ran all 2 settings"


def test_what_decides_the_images_is_not_compared():
    rows = [
        ({"data._target_": data, "lr": lr, "seed": s}, seeded(s) + lr * (1 + s / 10) + len(data) / 10)
        for data in ("Easy", "Difficult")
        for lr in (0.1, 0.2)
        for s in SEEDS
    ]
    effects = effects_of(*rows)
    assert {effect.option for effect in effects} == {"lr"}
    assert effects[0].text.startswith("lr=0.2 beats lr=0.1")


def test_lost_runs_are_said_where_values_are_compared():
    runs = make_runs(*(({"lr": lr, "seed": s}, lr + s / 10 + lr * s / 50) for lr in (0.1, 0.2) for s in (0, 1, 2)))
    (effect,) = find_effects(build_table(runs[:5], "val/acc_best", lost=runs[5:]))
    assert effect.basis.endswith("; this leaves out the runs that were lost, 1 of lr=0.2")
