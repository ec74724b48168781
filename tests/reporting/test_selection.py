"""The metric that is reported, what its name says of it, and the runs that count."""

import math

import pytest

from cifar_tuning.errors import UserError
from cifar_tuning.reporting.metric_names import larger_is_better, of_test, of_training, unit_of
from cifar_tuning.reporting.selection import choose_metric, choose_runs, objectives_of
from tests.reporting.runs import FakeRun

BOTH = {"val/acc_best": 1, "val/loss": 1, "model/macs": 1}


@pytest.mark.parametrize(
    ("asked", "objective", "metrics", "expected", "said"),
    [
        (None, None, [{"val/acc_best": 1}, {}], "val/acc_best", ""),
        ("b", None, [{"b": 1, "val/acc_best": 1}], "b", ""),
        (None, None, [{"loss": 1, "test_accuracy": 1}, {"loss": 1}], "test_accuracy", "chooses another: `loss`"),
        (None, None, [{"score": 1}], "score", "the last value of `score` is reported."),
        # What is to judge what was chosen comes behind all that may choose.
        (None, None, [{"val_loss": 1, "test_acc": 1}], "val_loss", "chooses another: `test_acc`"),
        (None, None, [{"val/ece": 1, "test/acc": 1, "acc": 1, "val/seconds": 1}], "val/ece", "chooses another"),
        (None, None, [{"val/seconds": 1, "test/score": 1}], "test/score", "chooses another: `val/seconds`"),
        # What was trained on is the last thing to judge by.
        (None, None, [{"train/acc": 1, "val/loss": 1}], "val/loss", "No run has `val/acc_best`"),
        (None, None, [{"train/acc": 1, "lr": 1}], "train/acc", "No run has `val/acc_best`"),
        # What the runs were optimised for.
        (None, "val/loss", [BOTH, BOTH, {}], "val/loss", ""),
        ("val/acc_best", "val/loss", [BOTH], "val/acc_best", ""),
        (
            None,
            '["model/macs", "val/acc_best"]',
            [BOTH],
            "val/acc_best",
            "`val/acc_best` is reported, of the objectives `model/macs`, `val/acc_best`",
        ),
        (None, '["model/macs", "val/loss"]', [BOTH], "model/macs", "of the objectives"),
        (None, "val/loss", [{"val/acc_best": 1}], "val/acc_best", "No run has `val/loss`, so"),
        (None, "[broken", [BOTH], "val/acc_best", ""),
    ],
)
def test_the_metric(asked, objective, metrics, expected, said):
    params = {} if objective is None else {"objective": objective}
    runs = [FakeRun("r", params if found else {}, found) for found in metrics]
    name, notes = choose_metric(runs, asked, objectives_of(runs))
    assert name == expected
    assert said in " ".join(notes)
    assert bool(said) == bool(notes)


@pytest.mark.parametrize(
    ("asked", "metrics", "expected"),
    [
        ("x", [{"b": 1, "a": 1}], "metric=x: none of the 1 runs has it; they have a, b"),
        (None, [{}, {"a": math.nan}], "None of the 2 runs has a metric"),
    ],
)
def test_no_metric(asked, metrics, expected):
    with pytest.raises(UserError, match=expected):
        choose_metric([FakeRun("r", {}, found) for found in metrics], asked)


@pytest.mark.parametrize(
    ("states", "chosen", "said"),
    [
        (["complete", "diverged"], "01", ""),
        (
            ["complete", "pruned", "failed"],
            "0",
            "1 run is left out, being pruned: `run 1`. Pruning leaves out the worse|1 run is left out, being failed",
        ),
        (["complete", "lacking"], "0", "1 run is left out, having no `m`: `run 1`."),
        (["running", "killed"], "01", "No run has ended yet"),
        (["running", "failed"], "0", "No run has ended yet|being failed: `run 1`"),
    ],
)
def test_the_runs_that_count(states, chosen, said):
    runs = [FakeRun(str(i), state=state, metrics={"m": 1.0}) for i, state in enumerate(states)]
    for run in runs:
        if run.state == "lacking":
            run.state, run.metrics = "complete", {"m": math.inf}
    found, lost, notes = choose_runs(runs, "m")
    assert "".join(run.run_id for run in found) == chosen
    counted = not said.startswith("No run")
    assert "".join(run.run_id for run in lost) == (
        "".join(c for c in "012"[: len(states)] if c not in chosen) if counted else ""
    )
    assert all(part in " ".join(notes) for part in said.split("|"))


def test_what_is_left_out_is_told_by_its_number():
    """The name of a study's job is all that was drawn for it."""
    runs = [
        FakeRun(str(i), state="killed" if i else "complete", metrics={"m": 1.0}, job=str(i // 2)) for i in range(46)
    ]
    _, _, (note,) = choose_runs(runs, "m")
    assert note == f"45 runs are left out, being killed: jobs {', '.join(map(str, range(20)))} and 3 more."


@pytest.mark.parametrize("states", [["complete"], ["failed", "running"], []])
def test_no_run_has_the_metric(states):
    with pytest.raises(UserError, match=r"No run that did not fail has m \("):
        choose_runs([FakeRun(str(i), state=state) for i, state in enumerate(states)], "m")


def test_all_runs_failed():
    with pytest.raises(UserError, match=r"All 2 runs failed.*run a.*traceback"):
        choose_metric([FakeRun("a", state="failed"), FakeRun("b", state="failed")], None)


@pytest.mark.parametrize(
    ("expected", "metrics"),
    [
        (True, "val/acc_best sentiment_acc val/terrain_acc f1-score Accuracy time_accuracy top1.acc val_f1 mAP r2"),
        (True, "images_per_second tokens_per_sec neg_log_loss log_likelihood val/score throughput"),
        (
            False,
            "val/loss top-1.error test_err epoch_seconds model/macs valLoss MSELoss loss_per_token",
        ),
        (False, "val/ece fid wer val/ppl logloss val_ce neg_log_lik latency_ms peak_memory_mb flops val/brier val/kl"),
        (
            False,
            "regret val/rmse top1_err cross_entropy crossEntropy val/bits_per_dim fid_score recall_loss",
        ),
        (None, "foo val/margin entropy lr epoch true_negative_rate"),
    ],
)
def test_which_way_is_better(expected, metrics):
    assert {metric: larger_is_better(metric) for metric in metrics.split()} == dict.fromkeys(metrics.split(), expected)


def test_a_report_looks_for_what_a_study_does():
    from cifar_tuning.jobs.checks import FIGURES
    from cifar_tuning.ranking import SMALLER_IS_BETTER

    assert [metric for metric in FIGURES if larger_is_better(metric) is False] == [
        m for m in FIGURES if m in SMALLER_IS_BETTER
    ]


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (None, []),
        ("", []),
        ("null", []),
        ("val/loss", ["val/loss"]),
        ('["val/acc", "model/macs"]', ["val/acc", "model/macs"]),
        ("[not ours", []),
    ],
)
def test_objectives_as_their_parameter_has_them(given, expected):
    params = {} if given is None else {"objective": given}
    without = FakeRun("s", {"objective": "what has no figures does not count"})
    assert objectives_of([FakeRun("r", params, {"a": 1}), without]) == expected


def test_objectives_that_differ_are_none():
    assert objectives_of([FakeRun("r", {"objective": name}, {"a": 1}) for name in "ab"]) == []


@pytest.mark.parametrize(
    ("metric", "expected"),
    [
        *[("train/acc", (True, False)), ("training_loss", (True, False)), ("val/acc", (False, False))],
        *[("train_val_acc", (False, False)), ("accuracy", (False, False)), ("testAcc", (False, True))],
    ],
)
def test_of_which_images_a_metric_is(metric, expected):
    assert (of_training(metric), of_test(metric)) == expected


def test_units():
    assert unit_of("val/acc", [0.1, 0.9]) == "points"
    assert unit_of("val/acc", [10.0, 90.0]) == unit_of("loss", [0.1]) == unit_of("vacc/rate", [0.1]) == ""
