import json

import pytest

from cifar_tuning.lab.claims import claims
from cifar_tuning.lab.conclusions import conclusions
from cifar_tuning.lab.results import Results
from cifar_tuning.lab.rules import FALSE, HOLDS, INCOMPLETE, MISSING, NOISE, PARTLY, SINGLE
from cifar_tuning.lab.verdicts import Contest, judge

LOW, SAME, HIGH = [0.60, 0.61, 0.62, 0.61, 0.60], [0.61, 0.60, 0.62, 0.60, 0.61], [0.70, 0.72, 0.71, 0.71, 0.72]
NONE, CROPS = ("lab2_augmentation", "augmentation=none"), ("lab2_augmentation", "augmentation=crop_flip")


def test_a_gap_between_accuracies_is_no_success(make_run, scale):
    variants = {"variant=lab3/l2_0": (0.95, 0.97), "variant=lab3/decay_0.1_50": (0.85, 0.86)}
    runs = [
        make_run("lab3_resnet20", variant, seed, 0.8, final_train_acc=train)
        for variant, trains in variants.items()
        for seed, train in enumerate(trains)
    ]
    (verdict,) = [v for v in conclusions(Results(scale, runs, {})) if v.name == "ResNet L2"]
    assert verdict.outcome == HOLDS
    assert verdict.evidence[0].startswith(
        "No L2 has a larger gap between training and validation accuracy than L2 of 1e-4 by 10.5 ± 6.4 points"
    )


@pytest.mark.parametrize(
    ("crops", "none", "outcome"),
    [(HIGH, LOW, HOLDS), (LOW, HIGH, FALSE), (SAME, LOW, NOISE), ([0.7], [0.6], INCOMPLETE), ([], LOW, MISSING)],
)
def test_a_verdict_follows_the_runs(make_results, crops, none, outcome):
    results = make_results({CROPS: crops, NONE: none})
    (verdict,) = [verdict for verdict in conclusions(results) if verdict.name == "augmentation"]
    assert verdict.outcome == outcome
    assert verdict.ordered
    if outcome == HOLDS:
        assert "rop and flip beats no augmentation by 10.4" in verdict.evidence[0]


def test_comparisons_that_are_not_there_leave_the_verdict_open(make_results):
    contests = [Contest(*CROPS, "augmentation=none", "crops", "none"), Contest(*CROPS, "augmentation=x", "crops", "x")]
    verdict = judge(make_results({CROPS: HIGH, NONE: LOW}), "name", "says", contests)
    assert verdict.outcome == INCOMPLETE
    assert verdict.coverage == "only 1 of 2 comparisons are tested"
    assert verdict.evidence[-1] == "Only 1 of 2 comparisons are tested"
    lost = judge(make_results({CROPS: LOW, NONE: HIGH}), "name", "says", contests)
    assert (lost.outcome, lost.coverage) == (FALSE, verdict.coverage)
    single = judge(make_results({CROPS: [0.7], NONE: [0.6]}), "name", "says", contests)
    coverage = "only 1 of 2 comparisons are there, only 1 of 5 seeds are there"
    assert (single.outcome, single.coverage) == (INCOMPLETE, coverage)


def test_a_grid_of_one_seed_has_a_word_of_its_own(make_results):
    """Nothing of it is missing, and nothing of it is tested."""
    runs = {("lab3_resnet20", f"variant=lab3/{name}"): [0.85] for name in ("decay_0.1_50", "no_decay")}
    (verdict,) = [one for one in conclusions(make_results(runs)) if one.name == "ResNet decay"]
    assert (verdict.outcome, verdict.coverage) == (SINGLE, "")


def test_a_verdict_waits_for_its_seeds_and_shows_what_is_there(make_results):
    (verdict,) = [v for v in conclusions(make_results({CROPS: HIGH[:4], NONE: LOW})) if v.name == "augmentation"]
    assert (verdict.outcome, verdict.coverage) == (INCOMPLETE, "only 4 of 5 seeds are there")
    assert verdict.evidence[verdict.decisive].startswith("Crop and flip beats no augmentation by 10.0")
    assert verdict.evidence[-1] == "Only 4 of 5 seeds are there"


def test_nobody_waits_for_the_figures_of_a_run_that_diverged(make_run, scale):
    def early(results, experiment, configuration):
        return {run.seed: run.final_val_acc for run in results.of(experiment, configuration) if run.final_val_acc}

    values = {CROPS: HIGH, NONE: LOW}
    for state, outcome in (("diverged", HOLDS), ("complete", INCOMPLETE)):
        runs = [make_run(*key, seed, value) for key, found in values.items() for seed, value in enumerate(found)]
        runs[4] = make_run(*CROPS, 4, 0.1, state=state, final_val_acc=None)
        contest = Contest(*CROPS, NONE[1], "crops", "none", early)
        assert judge(Results(scale, runs, {}), "name", "says", [contest]).outcome == outcome


def test_the_longest_training_that_both_sides_have_decides(make_results):
    swish, relu = "variant=lab3/swish", "variant=lab3/decay_0.1_50"
    short = {("lab3_resnet20", swish): LOW, ("lab3_resnet20", relu): HIGH}
    long = {("lab3_resnet20", f"{swish} trainer.epochs=200"): HIGH}
    contest = Contest("lab3_resnet20", swish, relu, "Swish", "ReLU")
    assert judge(make_results(short | long), "name", "says", [contest]).outcome == FALSE
    long[("lab3_resnet20", f"{relu} trainer.epochs=200")] = LOW
    assert judge(make_results(short | long), "name", "says", [contest]).outcome == HOLDS
    shorter = {("lab3_resnet20", f"{one} trainer.epochs=2"): values for one, values in ((swish, HIGH), (relu, LOW))}
    assert judge(make_results(short | shorter), "name", "says", [contest]).outcome == FALSE


def test_without_runs_everything_is_missing_and_says_what_to_train(make_results):
    found = conclusions(make_results({}))
    assert {verdict.outcome for verdict in found} == {MISSING}
    assert all(verdict.experiments for verdict in found)
    by_name = {verdict.name: verdict.outcome for verdict in claims(make_results({}))}
    assert by_name.pop("1.2 autograd") == "not measured"
    assert set(by_name.values()) == {MISSING}
    assert len(by_name) == 10


@pytest.mark.parametrize(
    ("ends", "outcome", "evidence"),
    [
        (["0.1", "0.1054", "0.1", "0.1", "0.1"], HOLDS, "Last epoch .1000 to .1054 in 5 runs (n = 5); chance is .1000"),
        # What one run had for one epoch, and what an untrained network has, are no training.
        (
            ["0.1", "0.1", "0.1", "0.1 after 0.1302", "diverged"],
            HOLDS,
            "Last epoch .1000 in 4 runs, 1 diverged (n = 5); chance is .1000; seed 3 was at .1302 in epoch 1",
        ),
        (["diverged"] * 5, HOLDS, "5 diverged (n = 5); chance is .1000"),
        (["0.1", "0.31", "0.1", "0.1", "0.1"], FALSE, "Last epoch .1000 to .3100 in 5 runs (n = 5); chance is .1000"),
        (["0.1", "0.1054"], INCOMPLETE, "Last epoch .1000 to .1054 in 2 runs (n = 2); chance is .1000"),
        (["0.1"], INCOMPLETE, "Last epoch .1000 in 1 run (n = 1); chance is .1000"),
    ],
)
def test_a_rate_of_one_ends_at_chance_or_not(make_run, scale, ends, outcome, evidence):
    runs = []
    for seed, (end, _, best) in enumerate(text.partition(" after ") for text in ends):
        last = None if end == "diverged" else float(end)
        runs.append(
            make_run("lab2_lr", "optimizer.lr=1", seed, float(best or last or 0.0852), final_val_acc=last, best_epoch=1)
        )
    (verdict,) = [one for one in conclusions(Results(scale, runs, {})) if one.name == "rate of 1"]
    assert (verdict.outcome, verdict.evidence) == (outcome, [evidence])


def batch_norm_runs(gains, normed=(0.72, 0.70, 0.68, 0.60)):
    """Accuracies of five seeds at 0.01, 0.05, 0.1 and 0.2, with batch norm and so many points lower without."""
    rows = {}
    for place, (rate, gain, mean) in enumerate(zip(("0.01", "0.05", "0.1", "0.2"), gains, normed, strict=True)):
        for norm, value, step in (("true", mean, 1), ("false", mean - gain, place + 1)):
            key = ("lab2_bn_lr", f"model.batch_norm={norm} optimizer.lr={rate}")
            key = ("lab2_batch_norm", f"model.batch_norm={norm}") if rate == "0.01" else key
            rows[key] = [value + 0.001 * (step * seed % 5 - 2) for seed in range(5)]  # each rate's seeds vary otherwise
    return rows


@pytest.mark.parametrize(
    ("gains", "outcome"),
    [
        ((0.02, 0.06, 0.15, 0.32), HOLDS),
        ((0.06, 0.06, 0.06, 0.06), NOISE),  # batch norm is better everywhere, which says nothing of rates
        ((0.02, 0.06, 0.15, -0.1), PARTLY),
        ((0.06, 0.02, 0.02, 0.02), FALSE),
    ],
)
def test_batch_norm_allows_large_rates_if_its_gain_grows(make_results, gains, outcome):
    results = make_results(batch_norm_runs(gains))
    (verdict,) = [one for one in conclusions(results) if one.name == "large rates"]
    assert verdict.outcome == outcome
    if outcome == HOLDS:
        assert verdict.evidence[0].startswith(
            "A rate of 0.05 has a larger gain by batch norm than a rate of 0.01 by 4.0"
        )
    assert verdict.evidence[-1] == (
        "With batch norm the mean accuracy itself falls with the rate: .7200 at 0.01, .7000 at 0.05, .6800 at 0.1, "
        ".6000 at 0.2"
    )
    assert list(verdict.experiments) == ["lab2_bn_lr", "lab2_batch_norm"]


@pytest.mark.parametrize(
    ("mean", "outcome", "sentence"),
    [
        (0.68, FALSE, "Ours have .6800 ± .0016; one more would hardly be at 70 % or above (p < 0.001, n = 5)"),
        (0.71, HOLDS, "Ours have .7100 ± .0016; one more would hardly be at 70 % or below (p = 0.0045, n = 5)"),
        # That the mean is below is sure; that a run is, is not.
        (0.698, NOISE, "Ours have .6980 ± .0016; one more could be at 70 % (p = 0.31, n = 5)"),
    ],
)
def test_a_level_is_judged_as_one_more_run(make_results, mean, outcome, sentence):
    results = make_results(batch_norm_runs((0.02, 0.06, 0.15, 0.32), (0.72, 0.7, mean, 0.75)))
    found = {one.name: one for one in conclusions(results)}
    assert found["above 70 %"].outcome == outcome
    assert found["above 70 %"].evidence == [sentence]
    assert found["above 70 %"].setting.startswith("ours lie ")
    assert found["large rates"].evidence[-1].startswith("With batch norm the mean accuracy itself is: ")


@pytest.mark.parametrize(
    ("leaky", "outcome"),
    [([0.1 * i for i in range(10)], HOLDS), ([0.5 + 1e-5 * i for i in range(10)], FALSE), ([0.6] * 2, INCOMPLETE)],
    ids=["wilder", "calmer", "too few"],
)
def test_leaky_relus_spread_is_judged_by_its_variance(make_results, leaky, outcome):
    relu = [0.6 + 0.01 * (i % 5) for i in range(10)]
    rates = [f"optimizer.lr={rate} model.activation=" for rate in ("0.01", "0.05")]
    rows = {("claim_leaky_relu", f"{rates[0]}relu"): relu, ("claim_leaky_relu", f"{rates[0]}leaky_relu"): leaky}
    if outcome == HOLDS:
        # Six of ten seeds show the same, and four more may turn it.
        some = {(name, rate): values[:6] for (name, rate), values in rows.items()}
        some |= {("claim_leaky_relu", f"{rates[1]}{activation}"): relu for activation in ("relu", "leaky_relu")}
        (early,) = [verdict for verdict in claims(make_results(some)) if verdict.name == "1.7 leaky ReLU"]
        assert (early.outcome, early.coverage) == (INCOMPLETE, "only 6 of 10 seeds are there")
        assert early.evidence[early.decisive].startswith("Standard deviations at learning rate 0.01: ")
        (half,) = [verdict for verdict in claims(make_results(rows)) if verdict.name == "1.7 leaky ReLU"]
        assert (half.outcome, half.coverage) == (INCOMPLETE, "only 1 of 2 comparisons are tested")
        rows |= {("claim_leaky_relu", f"{rates[1]}{activation}"): relu for activation in ("relu", "leaky_relu")}
    assert [v.outcome for v in claims(make_results(rows)) if v.name == "1.7 leaky ReLU"] == [outcome]


ALONE = [0.65, 0.66, 0.64, 0.65, 0.66]


@pytest.mark.parametrize(
    ("with_dropout", "outcome", "setting"),
    [
        ((HIGH, HIGH, LOW), HOLDS, "it helps in 2 of 3 combinations"),  # that it may hurt takes one that does
        ((HIGH, HIGH, HIGH), FALSE, "it helps in 3 of 3 combinations"),
        ((ALONE, HIGH, ALONE), NOISE, "it helps in 1 of 3 combinations"),
        (([], HIGH, LOW), HOLDS, "it helps in 1 of 3 combinations"),
        (([], HIGH, HIGH), INCOMPLETE, "it helps in 2 of 3 combinations"),
    ],
)
def test_dropout_may_hurt_l2_in_any_of_its_combinations(make_results, with_dropout, outcome, setting):
    both = "regularizer.strength=0.001 model.dropout="
    cells = [("claim_l2_dropout", f"{both}0.2"), *(("claim_dropout", f"model.dropout={rate}") for rate in (0.2, 0.5))]
    rows = dict(zip(cells, with_dropout, strict=True))
    rows |= {("claim_l2_dropout", f"{both}0"): ALONE, ("claim_dropout", "model.dropout=0"): ALONE}
    (verdict,) = [one for one in claims(make_results(rows)) if one.name == "1.5 L2 and dropout"]
    assert (verdict.outcome, verdict.setting) == (outcome, setting)


def test_what_augmentation_costs_in_a_short_training_is_said_beside_what_it_brings_in_a_long_one(make_results):
    few = "data.train_limit=1000 augmentation="
    rows = {("claim_augmentation", few + "none"): HIGH[:3], ("claim_augmentation", few + "crop_flip"): LOW[:3]}
    (verdict,) = [one for one in claims(make_results(rows | {CROPS: HIGH, NONE: LOW})) if one.name[:3] == "1.3"]
    assert verdict.setting.startswith("all in 10 epochs; in 30: crop and flip beats no augmentation by 10.4")


@pytest.mark.parametrize(("step", "outcome"), [(0.01, HOLDS), (-0.01, FALSE)])
def test_what_still_rises_has_not_converged(make_results, step, outcome):
    rates = [("lab2_lr", f"optimizer.lr={rate}") for rate in ("0.005", "0.001")]
    curves = {
        (*rate, seed): {"val_acc": [0.4 + step * epoch + 0.001 * seed * (epoch > 25) for epoch in range(31)]}
        for rate in rates
        for seed in range(5)
    }
    results = make_results(dict.fromkeys(rates, [0.7] * 5), curves)
    (verdict,) = [one for one in conclusions(results) if one.name == "small rates"]
    assert verdict.outcome == outcome
    # A curve that ends early, as a network's that diverged, has no last epochs to be read.
    for key in [key for key in curves if key[2] != 0]:
        curves[key]["val_acc"] = curves[key]["val_acc"][:20]
    assert len(results.curve_means(*rates[0], slice(-5, None))) == 1


def test_weights_are_judged_layer_by_layer(make_results, scale):
    scale.data.mkdir()
    counts = {"conv1": 600, "conv2": 1152, "fc1": 69120, "fc2": 10080, "fc3": 840}
    rows = [
        {"configuration": f"regularizer={kind} regularizer.strength=0.0001", "seed": seed, "layer": layer}
        | {"count": count, "near_zero": 0.1, "std": width * (1 + 0.01 * seed), "kurtosis": kurtosis + 0.01 * seed}
        for layer, count in counts.items()
        for kind, width, kurtosis in (("l1", 0.1 if layer != "fc3" else 0.3, 5.0), ("l2", 0.2, 0.5))
        for seed in range(5)
    ]
    (scale.data / "weights.json").write_text(json.dumps({"statistics": rows}))
    found = {one.name: one.outcome for one in conclusions(make_results({}))}
    # Of normality every seed says exactly the same here, so nothing is tested.
    assert (found["weights"], found["width"], found["normality"]) == (HOLDS, PARTLY, INCOMPLETE)


@pytest.mark.slow
@pytest.mark.parametrize(("seeds", "outcome"), [(1, INCOMPLETE), (4, INCOMPLETE), (5, HOLDS)])
def test_what_is_read_off_the_baseline_wants_all_its_seeds(make_results, seeds, outcome):
    found = conclusions(make_results({("lab1_baseline", ""): [0.65 + 0.001 * seed for seed in range(seeds)]}))
    by_name = {verdict.name: verdict for verdict in found}
    assert [by_name[name].outcome for name in ("initial loss", "early peak")] == [outcome] * 2
    assert by_name["overfitting"].outcome == outcome
    assert by_name["early peak"].evidence[0].endswith(f"(n = {seeds})")


@pytest.mark.parametrize(
    ("accuracies", "outcome"),
    [([0.91], INCOMPLETE), ([0.91, 0.92], INCOMPLETE), ([0.91, 0.92, 0.91], HOLDS), ([0.91, 0.92, 0.899], FALSE)],
)
def test_past_ninety_wants_every_seed(make_results, accuracies, outcome):
    found = conclusions(make_results({("lab3_past_90", ""): accuracies}))
    assert [verdict.outcome for verdict in found if verdict.name == "past 90 %"] == [outcome]


@pytest.mark.parametrize(("longer", "outcome"), [([0.89] * 3, FALSE), ([0.91], INCOMPLETE), ([0.91] * 3, HOLDS)])
def test_past_ninety_may_take_longer(make_results, longer, outcome):
    recipe = {("lab3_past_90", ""): [0.91, 0.92, 0.899], ("lab3_past_90", "trainer.epochs=60"): longer}
    (verdict,) = [one for one in conclusions(make_results(recipe)) if one.name == "past 90 %"]
    assert verdict.outcome == outcome
    assert len(verdict.evidence) == 2
    # What the page shows as decisive is the length that has this outcome.
    assert verdict.decisive == (outcome != FALSE)


@pytest.mark.parametrize(
    ("seen", "new", "outcome", "reason"),
    [
        (0.206, 0.200, HOLDS, "running averages"),  # other images add nothing
        (0.05, 0.20, HOLDS, None),
        (0.0, 0.0, FALSE, None),
    ],
)
def test_batch_norms_means_are_read_on_both_sets_of_images(make_results, scale, seen, new, outcome, reason):
    scale.data.mkdir()
    means = {("training", "train"): 0.0, ("training", "eval"): seen, ("validation", "train"): 0.0}
    means[("validation", "eval")] = new
    entries = [
        {"layer": "norm1", "images": images, "mode": mode, "normalised": [0.0, -mean], "output": [0.3, 0.1 - mean]}
        for (images, mode), mean in means.items()
    ]
    (scale.data / "batch_norm.json").write_text(json.dumps({"0": entries}))
    (verdict,) = [verdict for verdict in claims(make_results({})) if verdict.name == "1.1 batch norm"]
    assert verdict.outcome == outcome
    assert f"{seen:.3f} on training images and {new:.3f} on validation images (1 network)" in verdict.evidence[1]
    assert (reason is not None) == (len(verdict.evidence) == 3)
    assert reason is None or reason in verdict.evidence[2]


def test_one_pair_of_surfaces_is_no_test(make_results, scale):
    scale.data.mkdir()
    for name, losses in (("shortcut", [[3, 1, 3]] * 3), ("plain", [[1, 3, 1]] * 3)):
        surface = {"alphas": [-1, 0, 1], "betas": [-1, 0, 1], "losses": losses, "accuracies": [[0.1] * 3] * 3}
        (scale.data / f"surface_{name}.json").write_text(json.dumps(surface))
    (verdict,) = [verdict for verdict in claims(make_results({})) if verdict.name == "1.10 shortcuts"]
    assert verdict.outcome == SINGLE
    assert verdict.evidence[0].startswith("0% of the slice is not convex with shortcuts, 100% without")
