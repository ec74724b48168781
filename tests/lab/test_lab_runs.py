import json

import pytest

from cifar_tuning.lab.collect import TEST_FILE, read_sweeps
from cifar_tuning.lab.experiments import EXPERIMENTS, load_experiment
from cifar_tuning.lab.results import Results
from cifar_tuning.lab.runs import load_curves, load_runs, merge_runs, save_curves, save_runs


def test_rows_come_back_as_they_were(tmp_path, make_run):
    runs = [
        make_run("lab1_baseline", "", 1, 0.6614, test_acc=0.66),
        make_run("lab2_lr", "optimizer.lr=1", 0, 0.1, state="diverged", final_val_acc=None, initial_loss=None),
    ]
    save_runs(runs, tmp_path)
    assert load_runs(tmp_path) == runs
    save_curves({runs[0].key: {"val_acc": [0.1, None, 0.5]}, ("gone", "", 0): {"val_acc": [0.1]}}, runs, tmp_path)
    assert load_curves(tmp_path) == {runs[0].key: {"val_acc": [0.1, None, 0.5]}}


def test_nothing_there_is_nothing(tmp_path):
    assert load_runs(tmp_path) == []
    assert load_curves(tmp_path) == {}


def test_merging_keeps_other_rows_and_their_machines(make_run):
    old = [make_run("lab2_lr", "optimizer.lr=1", 0), make_run("lab1_baseline", "", 0, 0.66, machine="a GPU")]
    same = make_run("lab1_baseline", "", 0, 0.66, machine="a laptop")
    added, better = make_run("lab1_baseline", "", 1), make_run("lab2_lr", "optimizer.lr=1", 0, 0.7)
    assert merge_runs(old, [better, same, added]) == [old[1], added, better]


@pytest.fixture
def make_job(tmp_path):
    def make(number=0, state="complete", epochs=1, lines=2, experiment="lab2_lr", extra=(), **options):
        folder = tmp_path / "sweep" / str(number)
        folder.mkdir(parents=True)
        overrides = [f"seed={number}", "optimizer.lr=1.0", f"experiment={experiment}", "data=synthetic"]
        result = {"state": state, "value": 0.4, "best_epoch": 1, "epochs": epochs, "seconds": 9.0}
        overrides += extra
        result |= {"overrides": overrides, "run_id": None}
        (folder / "result.json").write_text(json.dumps(result | options))
        figures = [
            {"step": s, "val/acc": 0.4, "train/acc": 0.5, "val/loss": 2.3, "epoch_seconds": 3} for s in range(lines)
        ]
        (folder / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in figures))
        (folder / "train.log").write_text("[x] - device cpu, 2 threads, bf16, channels_last\n")
        return folder

    return make


def test_a_finished_job_becomes_a_row(tmp_path, make_job):
    (make_job() / TEST_FILE).write_text('{"test_acc": 0.39}')
    ((key, found),) = read_sweeps(tmp_path, ["data=synthetic"]).items()
    assert key == ("lab2_lr", "optimizer.lr=1", 0)
    assert (found.run.val_acc, found.run.epochs, found.run.seconds, found.run.test_acc) == (0.4, 1, 6.0, 0.39)
    assert found.run.precision == "bf16"
    assert found.run.machine.endswith("2 threads")
    assert found.curves["val_acc"] == [0.4, 0.4]
    assert found.curves["train_loss"] == [None, None]


@pytest.mark.parametrize("log", ["another program's log\n", None], ids=["other words", "no log"])
def test_a_log_that_does_not_say_where_it_was_trained_is_not_this_machines(tmp_path, make_job, log):
    file = make_job() / "train.log"
    file.unlink() if log is None else file.write_text(log)
    (found,) = read_sweeps(tmp_path, ["data=synthetic"]).values()
    assert (found.run.machine, found.run.precision) == ("not known", "not known")


@pytest.mark.parametrize(
    "options",
    [
        {"extra": ["data.batch_size=64"]},
        {"extra": ["trainer.epochs=2"]},
        {"state": "failed"},
        {"state": "pruned"},
        {"value": None},
        {"experiment": "my_own"},
        {"lines": 1},
        {"lines": 0},
    ],
    ids=["another option", "shorter", "failed", "pruned", "no value", "another's", "trained anew", "no metrics"],
)
def test_other_jobs_are_left_out(tmp_path, make_job, options):
    make_job(0)
    make_job(1, **options)
    assert [key[2] for key in read_sweeps(tmp_path, ["data=synthetic"])] == [0]


def test_a_run_that_two_tables_have_is_trained_once(make_results, make_run):
    base = "variant=lab3/decay_0.1_50"
    results = make_results({("lab3_resnet20", base): [0.9], ("lab3_resnet20", "variant=lab3/swish"): [0.91]})
    assert (base, 0) not in results.missing("lab3_untried")
    assert len(results.missing("lab3_untried")) == 4
    assert results.values("lab3_untried", base) == {0: 0.9}
    # Its own run comes first, and a longer training is another one.
    own = Results(results.scale, [*results.runs, make_run("lab3_untried", base, 0, 0.88)], {})
    assert own.values("lab3_untried", base) == {0: 0.88}
    assert own.values("lab3_resnet20", base) == {0: 0.9}
    longer = make_results({("lab3_resnet20", f"{base} trainer.epochs=200"): [0.9]})
    assert len(longer.missing("lab3_untried")) == 5


def test_counts_add_up(make_results, make_run):
    base, grids = "variant=lab3/decay_0.1_50", sum(len(load_experiment(name).runs) for name in EXPERIMENTS)
    results = make_results(
        {
            ("lab3_resnet20", base): [0.9],
            ("lab1_baseline", ""): [0.65] * 6,
            ("lab3_past_90", "trainer.epochs=60"): [0.9],
        }
    )
    # The run that two tables have is one of the wanted ones; the sixth seed and the longer training are none.
    assert results.count() == (1 + 5, grids - 1)
    assert [run.seed for run in results.outside("lab1_baseline")] == [5]
    assert len(results.outside("lab3_past_90")) == 1
    assert results.outside("lab3_resnet20") == results.outside("lab3_untried") == []
    # Wherever it was trained, and if it was trained for both.
    other = make_results({("lab3_untried", base): [0.9]})
    assert other.count() == (1, grids - 1)
    assert make_results({(name, base): [0.9] for name in ("lab3_untried", "lab3_resnet20")}).count() == (1, grids - 1)


def test_overlays_with_other_settings_share_nothing(make_results):
    assert make_results({("claim_separable", "model.separable=false"): [0.8]}).missing("claim_shortcut")
