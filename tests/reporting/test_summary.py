import json
import shlex

import pytest

from cifar_tuning import PROJECT_ROOT
from cifar_tuning.job_folders import FIXED_FILE, STUDY_FILE
from cifar_tuning.overrides import parse_overrides
from cifar_tuning.reporting import plots
from cifar_tuning.reporting.plots import confusion_matrix, learning_curves
from cifar_tuning.reporting.summary import print_summary, read_results, split_overrides
from cifar_tuning.training import EpochMetrics


def write(sweep, job, value, state="complete", overrides=(), error=None, **more):
    folder = sweep / str(job)
    folder.mkdir(parents=True, exist_ok=True)
    result = {"state": state, "value": value, "best_epoch": 1, "epochs": 2, "seconds": 3.2, "run_id": None}
    (folder / "result.json").write_text(json.dumps({**result, "overrides": list(overrides), "error": error, **more}))


def test_best_first_failed_last(tmp_path):
    write(tmp_path, 0, 0.5)
    write(tmp_path, 1, None, "failed")
    write(tmp_path, 2, 0.7)
    assert [r["job"] for r in read_results(tmp_path)] == ["2", "0", "1"]


def test_what_did_not_end_is_behind_what_did(tmp_path):
    for job, (value, state) in enumerate([(0.9, "pruned"), (0.5, "complete"), (0.6, "diverged"), (None, "failed")]):
        write(tmp_path, job, value, state)
    assert [r["job"] for r in read_results(tmp_path)] == ["2", "1", "0", "3"]


@pytest.mark.parametrize("several", [False, True])
def test_several_objectives_have_no_order_of_their_own(tmp_path, capsys, several):
    for job, value in enumerate([0.5, 0.7]):
        write(tmp_path, job, value)
        file = tmp_path / str(job) / "result.json"
        objective = {"val/acc_best": value} | ({"model/macs": 3.0 - job} if several else {})
        file.write_text(json.dumps(json.loads(file.read_text()) | {"objective": objective}))
    print_summary(tmp_path)
    said = "several objectives (val/acc_best, model/macs): ordered by the validation accuracy alone"
    assert (said in capsys.readouterr().out) == several


def test_a_trial_of_several_seeds_is_their_mean(tmp_path, capsys, monkeypatch):
    (tmp_path / STUDY_FILE).touch()
    for job, values in {0: [0.5, 0.7], 1: [0.6, 0.8], 2: [0.9]}.items():
        for seed, value in enumerate(values):
            overrides = [f"optimizer.lr=0.{job + 1}", "trainer.epochs=2", f"seed={seed}"]
            write(tmp_path, f"{job}/seed_{seed}", value, overrides=overrides)
    write(tmp_path, "3/seed_0", 0.99, "pruned", overrides=["optimizer.lr=0.4", "trainer.epochs=2", "seed=0"])
    write(tmp_path, "best_1/seed_2", 0.95, overrides=["optimizer.lr=0.2", "seed=2"])
    results = read_results(tmp_path)
    # One seed of two is no whole trial: it was pruned behind it, or trains on.
    assert [(r["job"], r["seeds"], r["state"]) for r in results] == [
        ("1", 2, "complete"),
        ("0", 2, "complete"),
        ("2", 1, "complete"),
        ("3", 1, "pruned"),
    ]
    assert results[0]["value"] == pytest.approx(0.7)
    monkeypatch.chdir(PROJECT_ROOT)
    print_summary(tmp_path)
    out = capsys.readouterr().out
    assert "python train.py optimizer.lr=0.2 trainer.epochs=2\n" in out
    assert "  make ui  # compares" in out
    assert f"python predict.py run={tmp_path}/1  # its test accuracy" in out
    assert "the same in every job: trainer.epochs=2" in out


@pytest.mark.parametrize(
    ("jobs", "mark", "found"),
    [
        (
            ["lr_0.1/seed_0", "lr_0.1/seed_1", "lr_0.2/seed_0"],
            FIXED_FILE,
            ["lr_0.1/seed_0", "lr_0.1/seed_1", "lr_0.2/seed_0"],
        ),
        (["2/seed_0", "2/seed_1", "3/seed_0"], "multirun.yaml", ["2/seed_0", "2/seed_1", "3/seed_0"]),
        (["a/b/c=1/d", "a/b"], FIXED_FILE, ["a/b", "a/b/c=1/d"]),
        (["best_1/seed_0"], FIXED_FILE, ["best_1/seed_0"]),
        # What an earlier job left, and another sweep.
        (["a/0", "a/0/earlier/1", "earlier/1", "other/0"], FIXED_FILE, ["a/0"]),
        # Of what is below a folder of many sweeps nothing is said.
        (["2026-01-31/12-00-00", "0"], None, ["0"]),
        (["0/seed_0", "0/seed_1", "best_0/seed_2"], STUDY_FILE, ["0"]),
    ],
)
def test_jobs_are_found_wherever_their_folders_are(tmp_path, jobs, mark, found):
    for number, job in enumerate(jobs):
        write(tmp_path, job, 0.9 - number / 100)
    if mark is not None:
        (tmp_path / mark).touch()
    if "other/0" in jobs:
        (tmp_path / "other" / "multirun.yaml").touch()
    assert sorted(result["job"] for result in read_results(tmp_path)) == found


@pytest.mark.parametrize(
    ("uri", "report", "ui"),
    [
        (None, "", f"make -C {PROJECT_ROOT} ui  #"),
        (
            "sqlite:////a b/m.db",
            " 'tracking.uri=\"sqlite:////a b/m.db\"'",
            "mlflow ui --backend-store-uri 'sqlite:////a b",
        ),
        (
            "http://me:secret@host:5000",
            " 'tracking.uri=http://me:***@host:5000'",
            "http://me:***@host:5000  # compares",
        ),
    ],
)
@pytest.mark.parametrize("known", ["given", "on the command line"])
def test_the_next_commands_name_the_store(tmp_path, capsys, monkeypatch, uri, report, ui, known):
    monkeypatch.chdir(tmp_path)
    asked = known == "on the command line"
    write(tmp_path, 0, 0.5, overrides=[f"tracking.uri={uri}"] if asked and uri else [])
    print_summary(tmp_path, uri=None if asked else uri)
    next_ = capsys.readouterr().out.partition("Where to look next:")[2]
    assert f"python report.py sweep={tmp_path}{report}  # all of it" in next_
    assert f"  {ui}" in next_
    assert "secret" not in next_


@pytest.mark.parametrize(
    "typed", [r"tracking.uri=sqlite\:////m.db", 'tracking.uri="sqlite:////m.db"', "tracking.uri='${oc.env:STORE}'"]
)
def test_a_store_is_shown_without_hydra_s_quotes(tmp_path, capsys, monkeypatch, typed):
    monkeypatch.setenv("STORE", "sqlite:////m.db")
    write(tmp_path, 0, 0.5, overrides=[typed])
    print_summary(tmp_path)
    out = capsys.readouterr().out
    assert "  mlflow ui --backend-store-uri sqlite:////m.db  # compares" in out
    assert "tracking.uri=sqlite:////m.db  # all of it" in out


@pytest.mark.parametrize("name", ["seed=0", "lr=0.1,seed=0", "My sweep"])
def test_the_next_commands_can_be_typed_whatever_a_folder_is_called(tmp_path, capsys, name):
    write(tmp_path / name, name, 0.5)
    print_summary(tmp_path / name)
    printed = [line for line in capsys.readouterr().out.splitlines() if line.startswith("  python")]
    values = {}
    for command in printed[1:]:
        (parsed,) = parse_overrides(shlex.split(command, comments=True)[2:])  # pasted whole
        values[parsed.key_or_group] = parsed.value()
    assert values == {"sweep": str(tmp_path / name), "run": str(tmp_path / name / name)}


@pytest.mark.parametrize("how", ["given", "on the command line"])
def test_without_tracking_there_is_no_report(tmp_path, capsys, how):
    write(tmp_path, 0, 0.5, overrides=["tracking=none"] if how == "on the command line" else [])
    print_summary(tmp_path, tracked=how == "on the command line")
    out = capsys.readouterr().out
    assert "report.py" not in out
    assert "compares all runs" not in out


@pytest.mark.parametrize(
    ("jobs", "swept", "common"),
    [
        ([["a=1", "b=2"], ["a=1", "b=3"]], ["b"], ["a=1"]),
        ([["a=1"]], [], ["a=1"]),
        ([["optimizer=sgd", "m=1"], ["optimizer=adam"]], ["optimizer", "m"], []),
    ],
)
def test_what_differs_becomes_a_column(jobs, swept, common):
    assert split_overrides(jobs) == (swept, common)


def test_the_table_names_failures_and_the_next_step(tmp_path, capsys):
    write(tmp_path, 0, 0.51234, overrides=["optimizer.lr=0.123456789", "x='a b'"])
    write(tmp_path, 1, None, "failed", overrides=["optimizer.lr=-1", "x='a b'"], error="ConfigError: lr")
    print_summary(tmp_path)
    out = capsys.readouterr().out
    assert "0.5123" in out
    assert "0.1235" in out
    assert "job 1 failed: ConfigError: lr" in out
    assert "python train.py optimizer.lr=0.123456789 'x='\"'\"'a b'\"'\"''" in out


def test_the_best_once_more_is_computed_as_it_was(tmp_path, capsys):
    overrides = ["trainer.precision=auto", "optimizer.lr=0.1", "trainer.memory_format=channels_last"]
    write(tmp_path, 0, 0.5, overrides=overrides, chosen={"trainer.precision": "bf16"})
    print_summary(tmp_path)
    shown = "python train.py optimizer.lr=0.1 trainer.memory_format=channels_last trainer.precision=bf16\n"
    assert shown in capsys.readouterr().out


@pytest.mark.parametrize(
    ("job", "text"),
    [(None, "No finished job"), ((None, "failed"), "No job finished"), ((0.9, "killed"), "No job finished")],
)
def test_a_sweep_without_results(tmp_path, capsys, job, text):
    if job is not None:
        write(tmp_path, 0, *job, error="E: x")
    print_summary(tmp_path)
    out = capsys.readouterr().out
    assert text in out
    assert "best configuration" not in out


def test_a_job_that_did_not_end_is_not_the_best(tmp_path, capsys):
    for job, (value, state) in enumerate([(0.9, "killed"), (0.5, "complete"), (0.5, "complete"), (0.8, "pruned")]):
        write(tmp_path, job, value, state, overrides=[f"seed={job}"])
    print_summary(tmp_path)
    out = capsys.readouterr().out
    assert "python train.py seed=1" in out
    assert f"predict.py run={tmp_path}/1 " in out


def test_a_sweep_without_validation_has_no_best_job(tmp_path, capsys):
    for job in range(2):
        write(tmp_path, job, None, overrides=[f"seed={job}", "data.val_size=0"])
    print_summary(tmp_path)
    out = capsys.readouterr().out
    assert "No job has a validation accuracy, so none is the best." in out
    assert "best first" not in out
    assert "best configuration" not in out


@pytest.fixture
def drawn(monkeypatch):
    """The figures, in place of their files."""
    figures = []
    monkeypatch.setattr(plots, "save_figure", lambda figure, file: figures.append(figure) or file)
    return figures


def outside(figure) -> list[str]:
    """Returns what is written beyond a figure's edges, or over a neighbour's frame."""
    figure.draw_without_rendering()
    page, cut = figure.bbox, []
    for axes in figure.axes:
        others = [other.get_window_extent() for other in figure.axes if other is not axes]
        labels = [axes.title, axes.xaxis.label, axes.yaxis.label]
        for axis in (axes.xaxis, axes.yaxis):
            low, high = sorted(axis.get_view_interval())
            ticks = zip(axis.get_ticklabels(), axis.get_majorticklocs(), strict=True)
            labels += [label for label, place in ticks if low <= place <= high]  # others are not drawn
        for text in (label for label in labels if label.get_text()):
            box = text.get_window_extent()
            inside = box.x0 >= 0 and box.y0 >= 0 and box.x1 <= page.x1 and box.y1 <= page.y1
            if not inside or any(box.overlaps(other) for other in others):
                cut.append(text.get_text())
    return cut


@pytest.mark.parametrize(
    ("losses", "accuracies"),
    [
        ((2.3, 0.9), (0.1, 0.7)),
        ((2.3, 123456.0), (0.1, 0.7)),
        ((2.3, 1e30), (0.1, 0.1)),
        ((0.00021, 0.0001), (0.99, 0.9923)),
        ((2.30258, 2.302585), (0.9999, 0.99991)),
    ],
)
def test_nothing_of_learning_curves_is_cut_off(drawn, tmp_path, losses, accuracies):
    pairs = enumerate(zip(losses, accuracies, strict=True))
    history = [EpochMetrics(epoch, loss, acc, loss, acc, acc, 1.0, 0.0, 0.0) for epoch, (loss, acc) in pairs]
    learning_curves(history, tmp_path / "c.png")
    assert outside(drawn[0]) == []
    loss, accuracy = drawn[0].axes
    assert all(tick == round(tick) for tick in loss.get_xticks())
    assert accuracy.get_title() == f"accuracy (best: {max(accuracies):.4f}, epoch {accuracies.index(max(accuracies))})"


@pytest.mark.parametrize(
    "names",
    [
        ["a", "b"],
        ["airplane", "automobile", "bird"],
        ["MAMMOGRAM_MALIGNANT_MASS"] * 10,
        ["W" * 25, "", "W"],
        ["tench, " * 12] * 3,
        [f"class {number}" for number in range(100)],
    ],
    ids=["two", "cifar", "capitals", "wide", "long", "hundred"],
)
def test_nothing_of_a_confusion_matrix_is_cut_off(drawn, tmp_path, names):
    counts = [[int(i == j) for j in range(len(names))] for i in range(len(names))]
    confusion_matrix(counts, names, tmp_path / "m.png")
    (figure,) = drawn
    assert outside(figure) == []
    assert max(figure.get_size_inches()) < 9
    assert len(figure.axes[0].get_yticks()) <= plots.MOST_IN_FIGURES


def test_pictures_are_pngs_even_of_a_diverged_run(tmp_path):
    nan = float("nan")
    history = [
        EpochMetrics(0, 2.3, 0.1, 2.3, 0.1, 0.1, 1.0, 0.0, 0.0),
        EpochMetrics(1, nan, 0.1, nan, nan, 0.1, 1.0, 10.0, 1.0),
    ]
    curves = learning_curves(history, tmp_path / "c.png")
    without = learning_curves(
        [EpochMetrics(e, 2.3 - e, 0.1, None, None, None, 1.0, 0.0, 0.0) for e in (0, 1)], tmp_path / "w.png"
    )
    matrix = confusion_matrix([[3, 1], [0, 0]], ["a", "b"], tmp_path / "m.png")
    for file in (curves, without, matrix):
        assert file.read_bytes().startswith(b"\x89PNG")
        assert file.stat().st_size > 5000
    assert sorted(p.name for p in tmp_path.iterdir()) == ["c.png", "m.png", "w.png"]


GRID = {(0.1, 0): 0.9, (0.1, 1): 0.5, (0.01, 0): 0.72, (0.01, 1): 0.78, (1.0, 0): 0.95, (1.0, 1): None}


@pytest.mark.parametrize("loss", [False, True])
def test_a_grid_with_several_seeds_shows_their_means(tmp_path, capsys, loss):
    for job, ((lr, seed), value) in enumerate(GRID.items()):
        objective = {"objective": {"val/loss": None if value is None else 1 - value}} if loss else {}
        state = "failed" if value is None else "complete"
        write(tmp_path, job, value, state, overrides=[f"optimizer.lr={lr}", f"seed={seed}"], **objective)
    print_summary(tmp_path)
    out = capsys.readouterr().out
    table = out[out.index("over the seeds") : out.index("The best configuration")].splitlines()
    rows = [[cell.strip() for cell in line.split("│")[1:-1]] for line in table if line.startswith("│")]
    means = ("0.2500", "0.3000", "0.0500") if loss else ("0.7500", "0.7000", "0.9500")
    assert rows == [
        [f"{means[0]} ± 0.0424", "2", "0.01"],
        [f"{means[1]} ± 0.2828", "2", "0.1"],
        [means[2], "1 of 2", "1"],
    ]


@pytest.mark.parametrize("jobs", [["seed=0"], ["optimizer.lr=0.1 seed=0", "optimizer.lr=0.2 seed=1"]])
def test_without_several_seeds_of_a_configuration_there_are_no_means(tmp_path, capsys, jobs):
    for job, given in enumerate(jobs):
        write(tmp_path, job, 0.5, overrides=given.split())
    print_summary(tmp_path)
    assert "over the seeds" not in capsys.readouterr().out
