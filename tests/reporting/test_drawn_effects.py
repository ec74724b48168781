"""Hyperparameters whose values a study draws."""

import numpy as np
import pytest
from scipy.stats import spearmanr

from cifar_tuning.reporting.effects import count_tests, find_effects
from cifar_tuning.reporting.response import Influence
from cifar_tuning.reporting.table import build_table
from cifar_tuning.reporting.trends import FEWEST_FOR_TREND, Trend, find_trend
from tests.reporting.runs import SEEDS, effects_of, make_runs, seeded


def test_a_name_of_its_own_for_every_trial_hides_no_trend():
    rows = [({"tag": f"t{i}", "lr": 1.3**i, "seed": 0}, 0.5 + i / 100 + (i * 7 % 5) / 1000) for i in range(12)]
    effects = effects_of(*rows)
    assert [e.text[:10] for e in effects if e.option == "lr"] == ["lr matters"]


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


def test_a_study_of_few_trials_and_equal_values():
    rows = [({"lr": i, "act": "ab"[i % 2], "seed": 0}, 0.1) for i in range(10)]
    (effect,) = effects_of(*rows)
    assert effect.option == "act"
    assert "do not differ at all" in effect.text
