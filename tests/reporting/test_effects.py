"""Hyperparameters compared where all else is equal."""

import itertools

import numpy as np
import pytest
from scipy.stats import f, spearmanr

from cifar_tuning.reporting.comparisons import Effect, Remark
from cifar_tuning.reporting.effects import count_tests, find_effects
from cifar_tuning.reporting.interactions import Interaction
from cifar_tuning.reporting.response import Influence
from cifar_tuning.reporting.table import build_table
from cifar_tuning.reporting.trends import FEWEST_FOR_TREND, Trend, find_trend
from tests.reporting.runs import make_runs


def effects_of(*rows, searched=None, **options):
    return find_effects(build_table(make_runs(*rows), "val/acc_best", **options), searched)


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


SEEDS = range(5)


def seeded(s):
    """What a seed does to a run: more than the differences that are looked for."""
    return 0.5 + 0.02 * s + 0.001 * (s % 2)


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


def test_a_name_of_its_own_for_every_trial_hides_no_trend():
    rows = [({"tag": f"t{i}", "lr": 1.3**i, "seed": 0}, 0.5 + i / 100 + (i * 7 % 5) / 1000) for i in range(12)]
    effects = effects_of(*rows)
    assert [e.text[:10] for e in effects if e.option == "lr"] == ["lr matters"]


def test_a_setting_that_only_one_value_has_does_not_count():
    rows = [({"a": a, "b": 0, "seed": s}, a + s / 10) for a in (0, 1) for s in (0, 1)]
    rows += [({"a": 1, "b": 9, "seed": s}, 50.0) for s in (0, 1)]
    effect = next(e for e in effects_of(*rows) if e.option == "a")
    assert effect.comparison.difference == pytest.approx(1)


@pytest.mark.parametrize("count", [10, 20])
@pytest.mark.parametrize(("slope", "way"), [(1, "higher"), (-1, "lower"), (0, "")])
def test_values_drawn_from_a_range(slope, way, count):
    """Of ten configurations a model of two numbers would leave nothing to judge it by."""
    rows = [
        ({"lr": 0.001 * 1.3**i, "l2": 1.7 ** (i * 3 % count)}, 0.5 + slope * i / 100 + (i * 7 % 5) / 1000)
        for i in range(count)
    ]
    found, _ = sorted(effects_of(*rows), key=lambda effect: effect.option != "lr")
    assert isinstance(found, Trend if count == 10 else Influence)
    assert found.n == count
    assert ("a best value in between was not looked for" in found.text) is (count == 10)
    if way:
        assert f"arger lr goes with a {way} " in found.text
    else:
        assert found.text.startswith(("No rising or falling trend", "No influence of lr can be told, neither"))


def drawn(count, value, seed=0):
    """Runs of a study that draws all by chance, in the order in which they began."""
    noise = np.random.default_rng(seed)
    rows = []
    for _ in range(count):
        params = {
            "lr": 10 ** noise.uniform(-4, 0),
            "wd": 10 ** noise.uniform(-6, -2),
            "act": noise.choice(["relu", "swish"]),
        }
        rows.append(({**params, "seed": 0}, value(params) + noise.normal() / 200))
    return rows


SPACE = {"lr": True, "wd": True, "act": False}


@pytest.mark.parametrize(
    ("value", "maximize", "said"),
    [
        (
            lambda p: 0.7 - 0.05 * (np.log10(p["lr"]) + 2) ** 2 + 0.02 * (p["act"] == "swish"),
            True,
            {
                "lr": "highest near 0.00983, inside the range",
                "act": "with swish `val/acc_best` is 2.",
                "wd": "No influence of wd can be told",
            },
        ),
        (
            lambda p: 0.3 + 0.05 * (np.log10(p["lr"]) + 2) ** 2,
            False,
            {"lr": "lowest near 0.01", "act": "No influence of act can be told (", "wd": "No influence of wd"},
        ),
        # What fell apart is in the test of lr, and out of the fit, which it would rule.
        (
            lambda p: (
                0.1 if p["lr"] > 0.2 else 0.7 - 0.03 * (np.log10(p["lr"]) + 2) ** 2 + 0.02 * (p["act"] == "swish")
            ),
            True,
            {"lr": "lr matters", "act": "that fell far behind are left out of the fit", "wd": "No influence of wd"},
        ),
        (lambda p: 0.7, True, {"lr": "No influence", "act": "No influence", "wd": "No influence"}),
    ],
)
def test_a_study_s_hyperparameters_are_told_apart_by_one_model(value, maximize, said):
    effects = effects_of(*drawn(50, value), searched=SPACE, maximize=maximize)
    assert {e.option for e in effects} == set(said)
    for effect in effects:
        assert said[effect.option] in effect.text
        assert (effect.p < 0.05) is not effect.text.startswith("No influence")


def test_a_number_that_one_choice_alone_has_is_fitted_where_it_is():
    noise = np.random.default_rng(3)
    rows = []
    for i in range(60):
        lr = 10 ** noise.uniform(-4, 0)
        own = {"momentum": noise.uniform(0.5, 1)} if i % 2 else {}
        value = 0.6 + 0.1 * own.get("momentum", 0.75) - 0.03 * (i % 2) + noise.normal() / 200
        rows.append(({"opt": "sgd" if own else "adam", "lr": lr, "seed": 0, **own}, value))
    said = {
        effect.option: effect for effect in effects_of(*rows, searched={"opt": False, "lr": True, "momentum": True})
    }
    assert "a larger momentum goes with a higher `val/acc_best`" in said["momentum"].text
    assert said["momentum"].n == 30
    assert "with adam `val/acc_best` is 2." in said["opt"].text
    assert said["lr"].text.startswith("No influence")


def test_a_choice_that_one_value_alone_has_counts_where_it_is():
    noise = np.random.default_rng(3)
    rows = []
    for i in range(60):
        lr, more = 10 ** noise.uniform(-4, 0), {"nesterov": ("false", "true")[i // 2 % 2]} if i % 2 else {}
        value = 0.6 + 0.05 * (more.get("nesterov") == "true") - 0.02 * np.log10(lr) + noise.normal() / 1000
        rows.append(({"opt": "sgd" if more else "adam", "lr": lr, "seed": 0, **more}, value))
    said = {e.option: e for e in effects_of(*rows, searched={"opt": False, "lr": True, "nesterov": False})}
    assert (said["lr"].n, said["nesterov"].n) == (60, 30)
    assert said["lr"].text.startswith("lr matters (p < 0.001, n = 60): a larger lr goes with a lower ")
    # None of 4,999 permutations goes as far, and there are three tests.
    assert said["lr"].p == pytest.approx(3 / 5000)


@pytest.mark.parametrize("searched", [{"act": False, "decay": False}, None])
def test_of_a_study_two_runs_that_differ_in_more_are_not_compared(searched):
    effects = effects_of(({"act": "relu", "decay": "2"}, 0.5), ({"act": "swish", "decay": "1"}, 0.7), searched=searched)
    assert bool(effects) == (searched is None)


@pytest.mark.parametrize(("searched", "claims"), [({"lr": True, "l2": True}, 0), (None, 1)])
def test_what_a_sampler_draws_ever_closer_to_the_best_is_no_trend(searched, claims):
    """The metric rises from trial to trial because the sampler learns lr; l2 is drawn ever smaller and does nothing."""
    noise = np.random.default_rng(0)
    rows = [
        ({"lr": noise.uniform(), "l2": 1 / (i + 5 * noise.uniform()), "seed": 0}, 0.5 + i / 100 + noise.normal() / 20)
        for i in range(1, 41)
    ]
    runs = make_runs(*rows)
    for i, run in enumerate(runs):
        run.began = float(i)
    effects = find_effects(build_table(runs, "val/acc_best"), searched)
    assert sum(effect.text.startswith("l2 matters") for effect in effects) == claims


@pytest.mark.parametrize("of_study", [False, True])
def test_a_trend_is_a_rank_correlation(of_study):
    """Of a study it is partial, the order of the trials held constant, where that is known."""
    x, y, begun = ([3, 1, 4, 1.5, 9, 2, 6, 5], [0.3, 0.2, 0.5, 0.1, 0.4, 0.25, 0.6, 0.7], [5, 2, 8, 1, 7, 3, 4, 6])
    runs = make_runs(*(({"lr": a, "seed": 0}, b) for a, b in zip(x, y, strict=True)))
    known = find_trend(build_table(runs, "val/acc_best"), 0, of_study)
    assert known.rho == pytest.approx(spearmanr(x, y).statistic)
    for run, moment in zip(runs, begun, strict=True):
        run.began = float(moment)
    found = find_trend(build_table(runs, "val/acc_best"), 0, of_study)
    xy, xt, yt = spearmanr(x, y).statistic, spearmanr(x, begun).statistic, spearmanr(y, begun).statistic
    partial = (xy - xt * yt) / np.sqrt((1 - xt**2) * (1 - yt**2))
    assert found.rho == pytest.approx(partial if of_study else xy)
    assert (found.n, found.low < found.rho < found.high) == (8, True)


@pytest.mark.parametrize(
    ("count", "same", "there"),
    [(FEWEST_FOR_TREND, False, True), (FEWEST_FOR_TREND - 1, False, False), (12, True, False)],
)
def test_a_trend_needs_some_configurations(count, same, there):
    runs = make_runs(*(({"lr": i, "seed": 0}, 0.5 if same else i / 10) for i in range(1, count + 1)))
    assert (find_trend(build_table(runs, "val/acc_best"), 0) is not None) == there


def test_a_few_that_happen_to_be_in_order_are_no_certainty():
    """Student's distribution has p = 0 where ranks agree; one order of six in 360 is this one or its reverse."""
    rows = [({"lr": 1.3**i, "l2": 0.9**i * (1 + i % 2 / 100), "seed": 0}, 0.5 + i / 100) for i in range(6)]
    assert all(effect.p > 0.002 for effect in effects_of(*rows))


def test_a_study_whose_trials_are_several_seeds():
    rows = [({"lr": 0.1 + i, "l2": 1 / (i + 1), "seed": s}, 0.5 + i / 100 + s / 1000) for i in range(6) for s in (0, 1)]
    effects = effects_of(*rows)
    assert [(type(e), e.option, e.n) for e in effects] == [(Trend, "l2", 6), (Trend, "lr", 6)]


@pytest.mark.parametrize("more", [{}, {"act": "relu swish"}, {"momentum": "0.9 0.8 0.7 0.6 0.5 0.4"}])
def test_drawn_numbers_have_a_trend_however_many_seeds_repeat_them(more):
    rows = [
        (
            {"lr": 1.3**i, "seed": s, **{key: values.split()[i % len(values.split())] for key, values in more.items()}},
            0.5 + i / 100 + (i * 7 % 5) / 50 + s / 1000,
        )
        for i in range(20)
        for s in range(3)
    ]
    effects = effects_of(*rows)
    (found,) = [e for e in effects if e.option == "lr"]
    assert isinstance(found, Influence)
    assert found.n == 20
    assert count_tests(effects) <= 1 + 15


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


def test_a_number_drawn_for_one_value_alone_has_a_trend():
    rows = [
        ({"opt": "sgd", "momentum": 0.8 + i / 100, "lr": 1.3**i, "seed": 0}, 0.5 + i / 50)
        if i % 2
        else ({"opt": "adam", "lr": 1.3**i, "seed": 0}, 0.5 + i / 100)
        for i in range(24)
    ]
    effects = effects_of(*rows)
    assert all(isinstance(effect, Influence) for effect in effects)
    assert [(e.option, e.n) for e in effects] == [("lr", 24), ("momentum", 12), ("opt", 24)]


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


# Four trials of `study=simplenn`: what the first one has is typed, what the others have is drawn.
FEW_TRIALS = [
    ({"lr": 0.0398068704, "strength": 5.62793204e-05, "decay_epochs": 10, "seed": 0}, 0.3186),
    ({"lr": 0.0914532028, "strength": 0.0001304907, "decay_epochs": 7, "seed": 0}, 0.2874),
    ({"lr": 0.0228811366, "strength": 0.0007257005, "decay_epochs": 7, "seed": 0}, 0.2872),
    ({"lr": 0.01, "strength": 0.0001, "decay_epochs": 10, "seed": 0}, 0.2834),
]


@pytest.mark.parametrize("searched", [None, {"lr": True, "strength": True, "decay_epochs": False}])
@pytest.mark.parametrize("seeds", [1, 3])
@pytest.mark.parametrize("count", [2, 3, 4])
def test_few_numbers_drawn_each_by_itself_are_neither_twins_nor_compared(searched, seeds, count):
    """In four configurations each number decides the others by coincidence, however many seeds repeat it."""
    rows = [({**p, "seed": s}, value + s / 1000) for p, value in FEW_TRIALS[:count] for s in range(seeds)]
    effects = effects_of(*rows, searched=searched)
    assert {e.option for e in effects} <= {"decay_epochs"}
    assert all("the other hyperparameters differ as well" in e.text for e in effects)


def test_what_a_study_draws_is_a_draw_also_where_it_looks_typed():
    rows = [({"lr": lr, "l2": l2}, lr) for lr, l2 in ((0.1, 0.02), (0.2, 0.01), (0.3, 0.04))]
    assert effects_of(*rows, searched={"lr": True, "l2": True}) == []


@pytest.mark.parametrize("act", [("relu", "swish"), ("relu", "relu")])
def test_draws_are_compared_where_all_else_is_equal(act):
    """There is one other option: where that agrees, nothing but the draw differs."""
    rows = [
        ({"act": a, "lr": lr, "seed": s}, lr + seeded(s) + s * lr / 100)
        for a, lr in zip((*act, "tanh"), (0.0123456, 0.0234567, 0.0345678), strict=True)
        for s in (0, 1)
    ]
    rates = [e for e in effects_of(*rows, searched={"act": False, "lr": True}) if e.option == "lr"]
    assert [e.basis for e in rates] == (["paired over seeds"] if act[0] == act[1] else [])


def test_choices_of_a_study_that_coincide_are_not_one():
    rows = [({"act": act, "lr": lr, "seed": s}, lr + seeded(s)) for act, lr in (("a", 0.1), ("b", 0.2)) for s in SEEDS]
    assert {e.option for e in effects_of(*rows)} == {"act (lr)"}
    effects = effects_of(*rows, searched={"act": False, "lr": False})
    assert {e.option for e in effects} == {"act", "lr"}
    assert all("the other hyperparameters differ as well" in e.text for e in effects)


def test_numbers_of_which_every_configuration_has_its_own_may_coincide():
    """Nobody said that they were drawn: they are compared, with the warning."""
    rows = [
        ({"lr": lr, "l2": l2, "seed": s}, lr + seeded(s) + s * lr / 100)
        for lr, l2 in ((0.1, 5e-4), (0.05, 1e-4), (0.2, 2e-3))
        for s in SEEDS
    ]
    effects = effects_of(*rows)
    assert {e.option for e in effects} == {"lr", "l2"}
    assert all(
        "paired over seeds, but the other hyperparameters differ as well: this may be their doing" in e.text
        for e in effects
    )


def test_what_follows_from_a_choice_of_a_study_is_still_no_other_hyperparameter():
    rows = [
        ({"act": act, "model": model, "n_params": n, "seed": s}, seeded(s) + n / 1e5 + s * n / 1e6)
        for model, n in (("small", 1000), ("large", 9000))
        for act in ("relu", "swish")
        for s in SEEDS
    ]
    effects = effects_of(*rows, searched={"act": False, "model": False})
    assert {e.option for e in effects} == {"act", "model (n_params)", "act and model (n_params)"}


@pytest.mark.parametrize("rows", [[({"lr": 1}, 0.5)], [({"lr": 1, "seed": s}, 0.5) for s in (0, 1)]])
def test_nothing_to_compare(rows):
    assert effects_of(*rows) == []


def test_a_study_of_few_trials_and_equal_values():
    rows = [({"lr": i, "act": "ab"[i % 2], "seed": 0}, 0.1) for i in range(10)]
    (effect,) = effects_of(*rows)
    assert effect.option == "act"
    assert "do not differ at all" in effect.text


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


def grid(seeds, more=lambda lr, width, act: 0.0):
    noise = np.random.default_rng(0)
    return [
        (
            {"lr": lr, "width": width, "act": act, "seed": seed},
            0.6 + 0.03 * (lr == 0.1) + more(lr, width, act) + noise.normal() / 250,
        )
        for seed in range(seeds)
        for lr in (0.1, 0.01)
        for width in (16, 32, 64)
        for act in ("relu", "swish")
    ]


@pytest.mark.parametrize(
    ("seeds", "n", "basis"),
    [
        (1, 6, "paired over settings: this speaks of other settings, with this one seed"),
        (2, 6, "paired over settings: this speaks of other settings, with these 2 seeds"),
        (4, 4, "paired over seeds, averaged over 6 settings"),
    ],
)
def test_a_second_seed_takes_no_evidence_away(seeds, n, basis):
    effect = next(e for e in effects_of(*grid(seeds)) if e.option == "lr" and not e.setting)
    assert (effect.comparison.n, effect.basis) == (n, basis)
    assert effect.p < 0.05


@pytest.mark.parametrize("seeds", [1, 4])
def test_what_depends_on_another_hyperparameter_leads(seeds):
    crossed = lambda lr, width, act: 0.03 * ((act == "swish") == (width > 16))  # noqa: E731
    first, *others = effects_of(*grid(seeds, crossed))
    assert isinstance(first, Interaction)
    assert first.text.startswith("What act does depends on width (p < 0.001): relu − swish is +")
    acts = [effect for effect in others if effect.option == "act"]
    assert acts[-1].text.startswith("On average only: ")
    assert all(effect.setting for effect in acts[:-1])
    assert {e.option for e in others if isinstance(e, Interaction)} == {"act and lr", "lr and width"}


@pytest.mark.parametrize("blocks", [True, False], ids=["common_seeds", "own_seeds"])
def test_the_analysis_of_variance_of_a_textbook(blocks):
    """Two-way with replications; seeds are blocks where settings have them in common."""
    noise = np.random.default_rng(1)
    y = 0.6 + 0.01 * noise.normal(size=(2, 3, 4)) + (0.05 * np.arange(4) if blocks else 0)
    y[0, 2] += 0.02
    rows = [
        ({"lr": lr, "width": width, "seed": s if blocks else f"{lr}{width}{s}"}, y[lr, width, s])
        for lr, width, s in np.ndindex(y.shape)
    ]
    means = y.mean(2)
    both = means - means.mean(1, keepdims=True) - means.mean(0, keepdims=True) + means.mean()
    rest = y - means[..., None] - (y.mean((0, 1)) - y.mean() if blocks else 0)
    left = (2 * 3 - 1) * 3 if blocks else 2 * 3 * 3
    expected = f.sf((4 * (both**2).sum() / 2) / ((rest**2).sum() / left), 2, left)
    (found,) = [e for e in effects_of(*rows) if isinstance(e, Interaction)]
    assert found.p == pytest.approx(expected)
    assert 0.001 < expected < 0.5


def test_seeds_say_what_noise_is_though_three_depend_on_each_other():
    signs = [{True: 1, False: -1}[x] for x in (True, False)]
    three = lambda lr, width, act: (  # noqa: E731
        0.03 * ((act == "swish") == (width > 16)) + 0.2 * signs[lr > 0.05] * signs[width > 16] * signs[act == "relu"]
    )
    found = {e.option: e for e in effects_of(*grid(4, three)) if isinstance(e, Interaction)}
    assert found["act and width"].p < 0.001


@pytest.mark.parametrize("seeds", [1, 3])
@pytest.mark.parametrize("same", [0.1, 0.5, 0.7342])
def test_where_all_is_the_same_nothing_depends_on_anything(seeds, same):
    rows = [
        ({"lr": lr, "width": width, "act": act, "seed": s}, same)
        for lr, width, act, s in itertools.product((0.1, 0.01, 0.001), (16, 32), ("relu", "swish", "elu"), range(seeds))
    ]
    found = effects_of(*rows)
    assert found
    assert not any(isinstance(effect, Interaction) for effect in found)


def test_an_interaction_names_the_values_whose_difference_changes_most():
    value = {("a", 1): 0.9, ("a", 2): 0.95, ("b", 1): 0.5, ("b", 2): 0.5, ("c", 1): 0.48, ("c", 2): 0.6}
    rows = [
        ({"x": x, "y": y, "seed": s}, v + s / 100 + (s * y % 3) / 1000) for (x, y), v in value.items() for s in range(4)
    ]
    (found,) = [e for e in effects_of(*rows) if isinstance(e, Interaction)]
    assert ": b − c is +2.0 points at y=1, but −10.0 points at y=2" in found.text


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
