import json
import math

import pytest

from cifar_tuning.lab import pictures
from cifar_tuning.lab.experiments import EXPERIMENTS, load_experiment
from cifar_tuning.lab.page import write_page
from cifar_tuning.lab.pictures import draw_all
from cifar_tuning.lab.results import Results
from cifar_tuning.lab.runs import save_curves, save_runs
from cifar_tuning.lab.tables import describe, table, untrained


def test_a_table_has_all_rows_and_says_what_is_missing(make_results):
    lines = table(make_results({("lab2_lr", "optimizer.lr=0.1"): [0.69, 0.71]}), "lab2_lr")
    assert len(lines) == 2 + 6
    assert "| 0.1 | .7012 | .7000 ± .0141 (2 of 5) | −.0012 | 20 of 30 |" in lines
    assert "| 1 | .1054 | missing |  |  |" in lines


def test_longer_trainings_get_rows_of_their_own(make_results):
    longer = "variant=lab3/swish trainer.epochs=200"
    results = make_results(
        {("lab3_resnet20", longer): [0.92], ("lab3_resnet20", "variant=lab3/swish data.val_size=9"): [0.1]}
    )
    assert [line for line in table(results, "lab3_resnet20") if "200" in line] == [
        "| Swish | 200 |  | .9200 (1) |  | 20 of 30 |"
    ]
    assert len(table(results, "lab3_resnet20")) == 2 + 8 + 1


def test_a_best_epoch_of_0_is_explained(make_run, scale):
    runs = [make_run("lab2_lr", "optimizer.lr=1", seed, 0.1, best_epoch=int(seed == 2)) for seed in range(3)]
    runs.append(make_run("lab2_lr", "optimizer.lr=0.1", 0, 0.7))
    results = Results(scale, runs, {})
    (sentence,) = untrained(results, "lab2_lr")
    assert sentence.startswith("Learning rate 1: epoch 0 is the network before training. In 2 of 3 runs no epoch was")
    write_page(results, {})
    assert f"- {sentence}" in scale.page.read_text()


@pytest.mark.parametrize(
    ("ours", "difference"),
    [(0.6570, "+.0000"), (0.65698, "+.0000"), (0.65706, "+.0001"), (0.6559, "−.0011")],
)
def test_a_difference_that_rounds_to_nothing_has_no_minus(make_results, ours, difference):
    lines = table(make_results({("lab1_baseline", ""): [ours]}), "lab1_baseline")
    assert lines[-1].split(" | ")[2] == difference


@pytest.mark.parametrize(
    ("configuration", "words"),
    [
        ("model.batch_norm=false optimizer.lr=0.2", "no batch norm, learning rate 0.2"),
        ("schedule.decay_epochs=null", "no decay"),
        ("data.train_limit=45000 augmentation=crop_flip", "45,000 training images, crop and flip"),
        ("regularizer=l2 regularizer.strength=1e-05", "L2, strength 1e-5"),
    ],
)
def test_configurations_in_words(configuration, words):
    assert describe(configuration) == words


def test_without_any_run_the_page_names_every_experiment_and_its_command(make_results, scale):
    results = make_results({})
    write_page(results, {})
    page = scale.page.read_text()
    for name in EXPERIMENTS:
        assert f"**{name} is missing**" in page
        assert f"`make results ONLY={name}` trains the rest" in page
        assert f"`python train.py -m experiment={name}`" in page


def test_the_page_says_which_checkpoints_read_the_test_set(make_results, scale):
    write_page(make_results({}), {})
    page = " ".join(scale.page.read_text().split())
    assert "On this page the test set is read by one configuration alone" in page
    assert "by each seed's best checkpoint, once" in page


def test_an_incomplete_experiment_says_how_many_runs_are_there(make_results, scale):
    write_page(make_results({("lab2_lr", "optimizer.lr=1"): [0.1, 0.1, 0.1]}), {})
    assert "**lab2_lr is incomplete**: 3 of 30 runs are there" in scale.page.read_text()


def test_runs_beyond_the_grids_are_counted_by_themselves(make_results, scale):
    write_page(make_results({("lab3_past_90", ""): [0.90] * 3, ("lab3_past_90", "trainer.epochs=60"): [0.91] * 3}), {})
    page = scale.page.read_text()
    assert "3 of 305 runs are there, and 3 more than the tables ask for, such as longer ones. Trained on" in page
    assert "a laptop, 1 thread, fp32 (6 runs)" in page
    assert "| lab3_past_90 | 3 of 3, 3 more | 2 |" in page
    assert "**302 runs are missing**" in page


def test_the_summary_says_how_many_comparisons_a_verdict_rests_on(make_results, scale):
    rows = {("lab2_lr", f"optimizer.lr={rate}"): [0.7 + high, 0.71 + high] for rate, high in (("0.01", 0.1), ("1", 0))}
    write_page(make_results(rows), {})
    (row,) = [line for line in scale.page.read_text().splitlines() if line.startswith("| 0.01 is the best")]
    assert row.endswith("; only 1 of 5 comparisons are there, only 2 of 5 seeds are there |  |  |")


@pytest.mark.parametrize(("last", "cell"), [(0.002, "the same"), (0, "**within noise**")])
def test_the_summary_says_what_the_last_epoch_makes_of_a_verdict(make_run, scale, last, cell):
    runs = [
        make_run("lab2_augmentation", f"augmentation={name}", seed, 0.7 + lead * (1 + seed), final_val_acc=0.6 + end)
        for name, lead in (("none", 0), ("crop_flip", 0.001))
        for seed in range(5)
        for end in [last * (lead > 0) * (1 + seed)]
    ]
    write_page(Results(scale, runs, {}), {})
    (row,) = [line for line in scale.page.read_text().splitlines() if line.startswith("| Crop and flip help")]
    assert row.startswith("| Crop and flip help | **holds** | Crop and flip beats no augmentation by 0.3 ± 0.2 points")
    assert row.endswith(f" | 0.013 | {cell} |")


def test_the_legend_stands_in_the_order_of_the_lines_and_names_what_diverged(make_results, monkeypatch, tmp_path):
    figures = []
    monkeypatch.setattr(pictures, "save_figure", lambda figure, file: figures.append(figure))
    ends = {"optimizer.lr=1": math.nan, "optimizer.lr=0.1": 0.6, "optimizer.lr=0.05": 0.7}
    results = make_results({("lab2_lr", configuration): [0.5] for configuration in ends})
    for run in results.runs:
        results.curves[run.key] = {"val_acc": [0.1, 0.3, 0.5, ends[run.configuration]]}
    next(picture for picture in pictures.PICTURES if picture.name == "lab2_lr").draw(results, tmp_path / "a.png")
    (legend,), (axes,) = figures[0].legends, figures[0].axes
    names = [text.get_text() for text in legend.get_texts()]
    assert names == ["learning rate 0.05", "learning rate 0.1", "learning rate 1 (diverged)"]
    assert 0.4 < axes.get_ylim()[0] < 0.5


@pytest.mark.slow
def test_page_and_pictures_are_drawn_from_the_files_alone(make_run, scale):
    runs = [
        make_run(name, configuration, seed, 0.6 + 0.001 * seed + 0.01 * number)
        for name in EXPERIMENTS
        for number, configuration in enumerate(load_experiment(name).configurations)
        for seed in load_experiment(name).seeds
    ]
    curve = [0.1, 0.4, 0.6, 0.6, 0.6, 0.6]
    drawn = [run for run in runs if run.experiment in ("lab1_baseline", "claim_dropout")]
    scale.data.mkdir()
    save_runs(runs, scale.data)
    save_curves(
        {r.key: dict.fromkeys(("train_acc", "val_acc", "train_loss", "val_loss"), curve) for r in drawn},
        runs,
        scale.data,
    )
    (scale.data / "notes.md").write_text("## A note\n")
    (scale.data / "surface_plain.json").write_text(
        json.dumps(
            {"alphas": [-1, 0, 1], "betas": [-1, 0, 1], "losses": [[3, 2, 3]] * 3, "accuracies": [[0.1] * 3] * 3}
        )
    )
    results = Results.load(scale)
    there = draw_all(results)
    write_page(results, there)
    page = scale.page.read_text()
    # Here both of the third lab's tables have trained the run that they share.
    assert f"{len(runs) - 1} of {len(runs) - 1} runs are there, and 1 more than the tables ask for" in page
    assert "missing |" not in page
    assert "runs are missing" not in page
    assert page.endswith("## A note\n")
    assert {p.name for of in there.values() for p in of} == {"overview", "baseline", "claim_dropout", "surfaces"}
    assert all((scale.pictures / f"{name}.png").stat().st_size > 0 for name in ("overview", "baseline", "surfaces"))
    assert "![Every published value and ours](images/overview.png)" in page
    write_page(results, there)
    assert scale.page.read_text() == page
