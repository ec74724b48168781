from collections import Counter

import pytest
from omegaconf import OmegaConf

from cifar_tuning.lab.experiments import REPORT, load_experiment
from cifar_tuning.lab.published import mean_offset, offsets, order, published_chances, published_runs, shortfalls

CROPS, BATCH_NORM = ("lab2_augmentation", "augmentation=crop_flip"), ("lab2_batch_norm", "model.batch_norm=true")
AT_01 = ("lab2_lr", "optimizer.lr=0.01")


@pytest.fixture
def everything(make_results):
    """A run of each configuration that the report has."""
    pairs = [(name, one) for name in REPORT for one in load_experiment(name).configurations]
    return make_results({pair: [0.5] for pair in pairs})


def test_the_reports_runs_are_counted_once(everything):
    runs = published_runs(everything)
    assert Counter(value for value, _ in runs).pop(0.91) == 4  # four schedules of one table
    assert len(runs) == 3 + 16 + 4
    assert [name for name, _ in runs[0.74, 0]] == ["lab2_batch_norm", "lab2_swish", "lab2_lr", "lab2_l2"]


@pytest.mark.slow
def test_rows_of_one_published_run_are_trained_alike(everything, configure):
    """They are known by their accuracy; this is what makes that right."""
    for rows in published_runs(everything).values():
        settings = []
        for name, row in rows:
            config = OmegaConf.to_container(configure(f"experiment={name}", *row.configuration.split()), resolve=False)
            kept = {key: value for key, value in config.items() if key not in ("published", "experiment")}
            if kept["schedule"].get("decay_epochs", 0) is None:  # a step that never comes
                kept["schedule"] = configure("schedule=constant").schedule
            settings.append(kept)
        assert all(setting == settings[0] for setting in settings)


def test_longer_trainings_have_the_same_published_run(make_results):
    rows = {("lab1_baseline", ""): [0.66], ("lab1_baseline", "trainer.epochs=60"): [0.67]}
    assert [len(found) for found in published_runs(make_results(rows)).values()] == [2]


@pytest.mark.parametrize(
    ("ours", "epochs", "expected"),
    [
        (
            [0.70, 0.701, 0.70, 0.701, 0.70],
            30,
            "would hardly lie as far off (p < 0.001, n = 5): the published one was a lucky run, had easier",
        ),
        (
            [0.66, 0.72, 0.74],
            30,
            "can't be told from chance: one more run of ours could lie as far off (p = 0.69",
        ),
        # Three standard deviations away, of which three runs know little: t = 2.6 on 2 degrees of freedom.
        ([0.690, 0.700, 0.709], 30, "could lie as far off (p = 0.12, n = 3)"),
        ([0.70], 30, "1 run of ours: too few to tell"),
        ([0.70, 0.7001], 30, "2 runs of ours: too few to tell"),
        ([0.70, 0.70, 0.70], 30, "no spread to judge it by"),
        ([0.70, 0.71, 0.70], 200, "Ours had 30 epochs, the report's up to 200"),
        ([0.72, 0.72, 0.71], 30, None),
    ],
)
def test_a_row_below_the_published_value_says_why(make_results, ours, epochs, expected):
    found = shortfalls(
        make_results({("lab2_augmentation", "augmentation=crop_flip"): ours}), "lab2_augmentation", epochs
    )
    assert len(found) == (expected is not None)
    assert expected is None or (expected in found[0] and found[0].startswith("Crop and flip: ours is"))


def test_published_runs_are_judged_together(make_results):
    """One row's p is corrected for the other runs of the report: among many single runs one is lucky."""
    rows = {CROPS: [0.700, 0.702, 0.704, 0.702]}
    alone = published_chances(make_results(rows))
    others = {("lab2_lr", f"optimizer.lr={rate}"): [0.70, 0.71, 0.72] for rate in ("0.1", "0.05", "0.01")}
    together = published_chances(make_results(rows | others))
    ((key, p),) = alone.items()
    assert p < 0.05
    assert together[key] == pytest.approx(4 * p)


def test_a_published_run_has_one_p_that_of_the_least_sure_table(make_results):
    sure, unsure = [0.700, 0.702, 0.704, 0.702], [0.70, 0.71, 0.72, 0.73]
    ((_, p),) = published_chances(make_results({AT_01: unsure})).items()
    assert published_chances(make_results({BATCH_NORM: sure, AT_01: unsure})) == {BATCH_NORM: p, AT_01: p}
    # Two runs, and runs without a spread, have nothing to say.
    ((_, p),) = published_chances(make_results({BATCH_NORM: sure})).items()
    assert published_chances(make_results({BATCH_NORM: sure, AT_01: [0.7, 0.71]})) == {BATCH_NORM: p}
    assert published_chances(make_results({BATCH_NORM: sure, AT_01: [0.7] * 3})) == {BATCH_NORM: p, AT_01: p}


def test_where_the_differences_lie(make_results):
    rows = {("lab1_baseline", ""): [0.66, 0.66], ("lab2_augmentation", "augmentation=none"): [0.65]}
    assert offsets(make_results(rows)) == []
    rows[CROPS] = [0.7086]
    rows[("lab1_decay", "schedule.decay_epochs=10")] = [0.6782]
    # The baseline stands in two tables, 0.3 points above and 0.7 below: one run, 0.2 below.
    sentence, how = offsets(make_results(rows))
    assert sentence == (
        "SimpleNN without augmentation is −0.2 points from the published values on average (0.2 standard errors of "
        "0.9), below 2 of 2 published runs; with crop and flip it is −2.0 points from the published values on average "
        "(2.2 standard errors of 0.9), below 1 of 1 published run."
    )
    assert "the choice of 5,000 validation images" in how
    rows[("lab1_decay", "schedule.decay_epochs=null")] = [0.655]
    rows[("lab1_decay", "schedule.decay_epochs=10")] = [0.6862]
    assert "augmentation is +0.2 points" in offsets(make_results(rows))[0]
    rows[("lab1_decay", "schedule.decay_epochs=10")] = [0.6819]
    assert "augmentation is 0.0 points from" in offsets(make_results(rows))[0]


def test_other_validation_images_alone_are_no_offset(make_results):
    """All rows lie 0.9 points lower, sixteen of sixteen: one standard error of what two sets of images differ by."""
    rows = {("lab1_baseline", ""): [0.657, 0.66]}
    for name in (name for name in REPORT if name.startswith("lab2")):
        grid = load_experiment(name)
        for configuration in grid.configurations:
            if (published := grid.published_value(configuration)) is not None:
                rows[name, configuration] = [published - 0.009]
    results = make_results(rows)
    assert (
        "is −0.9 points from the published values on average (1.0 standard errors of 0.9), below 16 of 16"
        in (offsets(results)[0])
    )
    assert mean_offset(results) == pytest.approx(-0.9)
    assert mean_offset(make_results({})) is None


@pytest.mark.parametrize(
    ("accuracies", "expected"),
    [
        (
            {"null": [0.65, 0.651, 0.652], "10": [0.70, 0.7012, 0.7019], "15": [0.67, 0.6711, 0.6722]},
            "The published order is reproduced: all 3 pairs of rows lie as there, each beyond chance.",
        ),
        (
            {"null": [0.65, 0.66, 0.67], "10": [0.70, 0.7102, 0.7199], "15": [0.64, 0.68, 0.665]},
            "All 3 pairs of rows lie as published, 1 of them beyond chance (corrected for all pairs).",
        ),
        # Without a spread nothing is tested.
        ({"null": [0.65, 0.66], "10": [0.70, 0.71], "15": [0.67, 0.68]}, "as published, none of them beyond chance"),
        ({"null": [0.65, 0.66, 0.67], "10": [0.66, 0.655, 0.68]}, "Both rows lie as published, which may be chance."),
        ({"null": [0.65, 0.66, 0.67], "10": [0.70, 0.711, 0.72]}, "both rows lie as there, beyond chance."),
        ({"null": [0.65, 0.66], "10": [0.67, 0.68], "15": [0.675, 0.678]}, "within noise"),
        ({"null": [0.65, 0.66], "10": [0.67, 0.68], "15": [0.7001, 0.71]}, "which is beyond chance"),
        ({"null": [0.65], "10": [0.67], "15": [0.675]}, "by 0.5, which is not tested (n = 1)"),
        ({"null": [0.65, 0.66]}, None),
    ],
)
def test_the_published_order_is_compared_pair_by_pair(make_results, accuracies, expected):
    values = {("lab1_decay", f"schedule.decay_epochs={epochs}"): found for epochs, found in accuracies.items()}
    sentences = order(make_results(values), "lab1_decay")
    assert bool(sentences) == (expected is not None)
    assert expected is None or expected in sentences[-1]


def test_a_pair_the_other_way_round_was_picked_from_all_pairs(make_results):
    """Here p = 0.037 by itself: among three pairs such a one is no news."""
    accuracies = {"null": [0.60, 0.61, 0.62], "10": [0.67, 0.68, 0.69], "15": [0.68, 0.685, 0.697]}
    values = {("lab1_decay", f"schedule.decay_epochs={epochs}"): found for epochs, found in accuracies.items()}
    count, other = order(make_results(values), "lab1_decay")
    assert count.startswith("2 of 3 pairs of rows lie as published, ")
    assert "within noise" in other
