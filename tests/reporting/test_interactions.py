"""Hyperparameters whose effect depends on another one."""

import itertools

import numpy as np
import pytest
from scipy.stats import f

from cifar_tuning.reporting.interactions import Interaction
from tests.reporting.runs import effects_of


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
