"""Runs as configurations: what varies, what repeats, what is missing, what others published."""

import csv
import math

import pytest

from cifar_tuning.reporting.images import judged_on
from cifar_tuning.reporting.table import build_table, value_in_words, write_csv
from cifar_tuning.reporting.varying import find_options, short, spell
from tests.reporting.runs import make_asked, make_runs

CROP = {"augmentation._target_": "a.CropFlip", "augmentation.padding": 4}


@pytest.mark.parametrize(
    ("rows", "expected"),
    [
        ([{"lr": 0.1}, {"lr": 0.2}], {"lr": ["0.1", "0.2"]}),
        ([{"lr": "1e-4"}, {"lr": "0.0001"}], {}),
        ([{"bn": "True"}, {"bn": "true"}], {}),
        ([{"lr": 0.1}, {}], {"lr": ["0.1", "–"]}),
        ([{"lr": 0.1, "clip": None}, {"lr": 0.2}], {"lr": ["0.1", "0.2"]}),
        ([{"clip": None}, {"clip": 1}, {}], {"clip": ["null", "1", "–"]}),
        ([{"lr": 0.1, "seed": 0}, {"lr": 0.1, "seed": 1}], {}),
        ([{"split_seed": 0, "log_dir": "/a", "x": 1}, {"split_seed": 1, "log_dir": "/b", "x": 2}], {"x": ["1", "2"]}),
        ([{"weights": "/a/b.pt", "x": 1}, {"weights": "/c.pt", "x": 2}], {"x": ["1", "2"]}),
        ([{"id": "a" * 32}, {"id": "b" * 32}], {}),
        ([{"tracking.uri": "x", "hydra.run": "y"}, {"tracking.uri": "z", "hydra.run": "w"}], {}),
        ([{"model.drop_path": "0.0"}, {"model.drop_path": "0.5"}], {"model.drop_path": ["0", "0.5"]}),
        ([{"drop_path": "null"}, {"drop_path": "0.5"}], {"drop_path": ["null", "0.5"]}),
        ([{"square_root": "true"}, {"square_root": "False"}], {"square_root": ["true", "false"]}),
        ([{"expiry_date": 1, "to-file": 3}, {"expiry_date": 2, "to-file": 4}], {"expiry_date": "12", "to-file": "34"}),
        ([{"log_path": "a"}, {"log_path": "0.5"}], {}),
        ([{"log_path": "null"}, {}], {}),
        # What is in a dataset's folder nobody knows, but for the one that is verified.
        ([{"data.root": "/a"}, {"data.root": "/b"}], {"data.root": ["/a", "/b"]}),
        ([{"data.root": r, "data._target_": "cifar_tuning.data.CIFAR10"} for r in ("/a", "/b")], {}),
        ([{"run_id": 1, "timestamp": 1.5, "x._partial_": "true"}, {"run_id": 2, "timestamp": 2.5}], {}),
    ],
)
def test_what_varies_by_parameters_alone(rows, expected):
    runs = make_runs(*((row, 0.5) for row in rows))
    options = find_options(runs)
    found = {name: [options.values[run.run_id][i] for run in runs] for i, name in enumerate(options.names)}
    assert found == {name: list(values) for name, values in expected.items()}


@pytest.mark.parametrize(
    ("rows", "expected"),
    [
        # A group's choice stands for what follows from it.
        (
            [("augmentation=none", {"augmentation": "null"}), ("augmentation=crop_flip", CROP)],
            {"augmentation": ["none", "crop_flip"]},
        ),
        # What does not follow from it stays.
        (
            [
                (
                    "regularizer=l2 regularizer.strength=1e-4",
                    {"regularizer._target_": "L2", "regularizer.strength": 1e-4},
                ),
                (
                    "regularizer=l1 regularizer.strength=1e-3",
                    {"regularizer._target_": "L1", "regularizer.strength": 1e-3},
                ),
            ],
            {"regularizer": ["l2", "l1"], "regularizer.strength": ["0.0001", "0.001"]},
        ),
        # A variant is what its overlay sets.
        (
            [
                ("variant=lab3/adam seed=0", {"optimizer._target_": "Adam", "schedule.decay": 0.1, "seed": 0}),
                ("variant=lab3/no_decay seed=1", {"optimizer._target_": "SGD", "seed": 1}),
            ],
            {"variant": ["lab3/adam", "lab3/no_decay"]},
        ),
        # Runs of different commands: what one asked for, another had by default.
        (
            [("optimizer.lr=0.1 augmentation=crop_flip", {"optimizer.lr": 0.1, **CROP}), ("", {"optimizer.lr": 0.01})],
            {"optimizer.lr": ["0.1", "0.01"], "augmentation": ["CropFlip", "none"]},
        ),
        ([("optimizer.lr=0.1", {"optimizer.lr": 0.1}), ("", {"optimizer.lr": 0.1})], {}),
        # A rate, whatever its name, and a path.
        (
            [
                (f"model.drop_path={rate} log.path=/{rate} seed={seed}", {"model.drop_path": rate, "seed": seed})
                for rate in (0.0, 0.5)
                for seed in (0, 1)
            ],
            {"model.drop_path": ["0", "0", "0.5", "0.5"]},
        ),
        # Nobody asked for anything: a class stands for its options, as far as they follow from it.
        (
            [("", CROP | {"lr": 1}), ("", {"augmentation": "null", "lr": 1}), ("", CROP | {"lr": 2})],
            {"augmentation": ["CropFlip", "none", "CropFlip"], "lr": ["1", "1", "2"]},
        ),
    ],
)
def test_what_varies_by_what_was_asked_for(rows, expected):
    runs = make_asked(*((overrides, params, 0.5) for overrides, params in rows))
    options = find_options(runs)
    assert {name: [options.values[run.run_id][i] for run in runs] for i, name in enumerate(options.names)} == expected


def test_configurations_over_seeds_best_first(tmp_path):
    runs = make_runs(
        ({"lr": 0.1, "seed": 0}, 0.70),
        ({"lr": 0.1, "seed": 1}, 0.72),
        ({"lr": 0.01, "seed": 0}, 0.80),
    )
    table = build_table(runs, "val/acc_best", best_epochs={"0": 3, "1": 5})
    assert table.names == ["lr"]
    first, second = table.configurations
    assert (first.values, first.summary.n, first.summary.std, first.best_epoch) == (("0.01",), 1, None, None)
    assert (second.summary.mean, second.best_epoch, second.seconds) == (pytest.approx(0.71), 4, 60)
    assert [table.label(c) for c in table.configurations] == ["lr=0.01", "lr=0.1"]
    rows = list(csv.reader(write_csv(table, tmp_path / "t.csv").open()))
    assert rows[0] == ["lr", "mean", "std", "n", "best_epoch", "seconds", "published", "lost", "diverged"]
    assert rows[1:] == [
        ["0.01", "0.8", "", "1", "", "60.0", "", "0", "0"],
        ["0.1", "0.71", repr(second.summary.std), "2", "4", "60.0", "", "0", "0"],
    ]


def test_less_can_be_better():
    runs = make_runs(({"lr": 0.1}, 0.7), ({"lr": 0.2}, 0.5), metric="val/loss")
    assert [c.values for c in build_table(runs, "val/loss").configurations] == [("0.2",), ("0.1",)]
    assert build_table(runs, "val/loss", maximize=True).best.values == ("0.1",)


def test_the_latest_run_of_a_seed_counts_and_it_is_said():
    table = build_table(make_runs(({"seed": 0}, 0.1), ({"seed": 0}, 0.7)), "val/acc_best")
    assert (table.best.summary.mean, table.best.summary.n) == (0.7, 1)
    assert "1 run repeats a seed" in table.notes[0]


def test_runs_without_seeds_are_repetitions():
    table = build_table(make_runs(({"lr": 1}, 0.1), ({"lr": 1}, 0.3), ({"lr": 2}, 0.3)), "val/acc_best")
    assert [c.summary.n for c in table.configurations] == [1, 2]
    assert "`seed_key=…` names another" in " ".join(table.notes)


@pytest.mark.parametrize("seed_key", ["seed", "run"])
def test_seeds_by_another_name(seed_key):
    runs = make_runs(({"run": 0, "lr": 1}, 0.1), ({"run": 1, "lr": 1}, 0.3))
    assert build_table(runs, "val/acc_best", seed_key=seed_key).names == (["run"] if seed_key == "seed" else [])


PUBLISHED = [
    {"optimizer.lr": 1e-5, "model.batch_norm": True, "val/acc_best": 0.61},
    {"optimizer.lr": 0.1, "augmentation": "none", "val/acc_best": 0.62},
    {"augmentation": "crop_flip", "optimizer.lr": 0.1, "val/acc_best": 0.63},
    {"variant": "lab3/adam", "val/acc_best": 0.64},
    {"schedule.decay_epochs": None, "variant": "x", "val/acc_best": 0.65},
    {"optimizer.lr": 3, "val/acc_best": 0.66},
]


def test_published_values_find_their_configurations():
    runs = make_asked(
        ("optimizer.lr=1e-5", {"optimizer.lr": "1e-05", "model.batch_norm": "true"}, 0.5),
        ("optimizer.lr=.1", {"optimizer.lr": "0.1", "augmentation": "null"}, 0.4),
        ("optimizer.lr=.1", {"optimizer.lr": "0.1", **{k: str(v) for k, v in CROP.items()}}, 0.3),
        ("variant=lab3/adam", {}, 0.2),
        ("variant=x", {"schedule.decay_epochs": "null"}, 0.1),
    )
    table = build_table(runs, "val/acc_best", published=PUBLISHED)
    assert [c.published for c in table.configurations] == [0.61, 0.62, 0.63, 0.64, 0.65]
    assert [note for note in table.notes if "counterpart" in note] == [
        "The published row optimizer.lr=3, val/acc_best=0.66 has no counterpart among these runs."
    ]


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        ("model.activation", "swish", "swish"),
        ("optimizer.lr", "0.01", "lr=0.01"),
        ("optimizer.lr", "0.0123456", "lr=0.01235"),
        ("model.batch_norm", "true", "batch_norm=true"),
        ("augmentation", "none", "augmentation=none"),
        ("schedule._target_", "cifar_tuning.training.schedules.step", "step"),
    ],
)
def test_values_in_words(name, value, expected):
    assert value_in_words(name, value) == expected


@pytest.mark.parametrize(
    ("value", "expected"),
    [(None, "null"), ("None", "null"), (True, "true"), ("1e-05", "1e-05"), ("8.0", "8"), ("a", "a")],
)
def test_spelling(value, expected):
    assert spell(value) == expected


def test_short():
    assert [short(value) for value in ("30", "0.1234567", "lab3/adam", "1e-05", "a: 1\nb: 2\n")] == [
        "30",
        "0.1235",
        "lab3/adam",
        "1e-05",
        "a: 1 b: 2",
    ]


def test_what_lost_seeds_stands_behind_what_is_whole(tmp_path):
    """The last of lr=1 came through in a second attempt, and of another width nothing is known."""
    rows = [({"lr": 0.1, "seed": s}, 0.7) for s in (0, 1)] + [({"lr": 1, "seed": s}, 0.8) for s in (0, 3)]
    lost = make_runs(
        *(({"lr": 1, "seed": s, **more}, math.nan) for s, more in ((1, {}), (2, {}), (3, {}), (4, {"w": 2})))
    )
    runs = make_runs(*rows)
    runs[0].state = "diverged"
    table = build_table(runs, "val/acc_best", lost=lost)
    assert [(c.values, c.summary.n, c.lost, c.diverged) for c in table.configurations] == [
        (("0.1",), 2, 0, 1),
        (("1",), 2, 2, 0),
    ]
    assert "They stand behind those that are whole" in " ".join(table.notes)


CIFAR = {"data._target_": "cifar_tuning.data.CIFAR10", "data.val_size": 5000}


@pytest.mark.parametrize(
    ("rows", "differing", "said"),
    [
        ([CIFAR, CIFAR], [], "All runs are judged on the same images"),
        ([CIFAR, CIFAR | {"data.val_size": 100}], ["data.val_size"], "different images (data.val_size)"),
        ([{"data.dataset": "SVHN"}, {"data.dataset": "MNIST"}], ["data.dataset"], "different images (data.dataset)"),
        ([CIFAR, CIFAR | {"data._target_": "Other"}], ["data._target_"], "different images (data._target_)"),
        ([CIFAR | {"data.root": "/a"}, CIFAR | {"data.root": "/b"}], [], "All runs are judged on the same images"),
        ([{"data.root": "/a"}, {"data.root": "/b"}], ["data.root"], "is not known: they differ in data.root"),
        ([{}, {}], [], "is not known: they have no parameter of data.*"),
    ],
)
def test_different_images_have_no_best(rows, differing, said):
    runs = make_runs(*(({**row, "lr": lr, "seed": s}, 0.5) for lr, row in enumerate(rows) for s in (0, 1)))
    table = build_table(runs, "val/acc_best")
    assert (list(table.images), table.has_best) == (differing, not differing)
    assert said in judged_on(runs)


def test_a_split_for_each_seed_leaves_configurations_comparable():
    runs = make_runs(*(({"lr": lr, "seed": s, "data.split_seed": s}, 0.5) for lr in (1, 2) for s in (0, 1)))
    assert build_table(runs, "val/acc_best").has_best
    assert "judged on different images (data.split_seed)" in judged_on(runs)
