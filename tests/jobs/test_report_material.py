"""What a report is made of."""

from types import SimpleNamespace

import pytest

from cifar_tuning.jobs.report_choice import Aim, cautions, why_none_is_best
from cifar_tuning.jobs.report_material import _table
from cifar_tuning.reporting.table import build_table
from tests.reporting.runs import make_runs


def table_of(runs, curves, metric, aim=None, asked=None):
    """Builds a report's table of runs; `curves` are known by metric and run."""
    found = SimpleNamespace(curves=lambda name, records: curves.get(name, {}), published=[])
    cfg, bar = SimpleNamespace(maximize=None, seed_key="seed", metric=asked), SimpleNamespace(update=lambda: None)
    return _table(cfg, found, runs, [], aim or Aim(None, [], {}, {}), metric, bar)


@pytest.mark.parametrize(
    ("metric", "curves", "epochs"),
    [
        ("val/acc_best", [[(0, 0.1), (1, 0.5), (2, 0.5)], [(0, 0.1), (1, 0.2), (2, 0.3)]], {2, 1}),
        ("val/loss", [[(0, 2.3), (1, 2.1), (2, 2.2)], [(0, 2.3), (1, 2.2), (2, 2.1)]], {None}),  # the last epoch's
        ("val/loss", [[(0, 2.3), (1, 2.2)], [(0, 2.3), (1, 2.1)]], {1}),
    ],
)
def test_the_best_epoch_is_the_one_that_the_reported_value_is_of(metric, curves, epochs):
    values = [curve[-1][1] for curve in curves]
    runs = make_runs(*(({"lr": str(index)}, value) for index, value in enumerate(values)), metric=metric)
    known = {run.run_id: curve for run, curve in zip(runs, curves, strict=True)}
    table, last = table_of(runs, {metric: known}, metric, asked=metric)
    assert last == {run_id: curve[-1][0] for run_id, curve in known.items()}
    assert {configuration.best_epoch for configuration in table.configurations} == epochs


@pytest.mark.parametrize(("epochs", "seconds"), [([(1, 2.0), (2, 2.5)], 4.5), ([], 3600.0)])
def test_the_time_is_that_of_the_epochs_not_of_an_interruption(epochs, seconds):
    (run,) = make_runs(({"lr": "1"}, 0.1))
    run.seconds = 3600.0
    curves = {"val/acc_best": [(0, 0.1)]} | ({"epoch_seconds": epochs} if epochs else {})
    table, _ = table_of([run], {name: {run.run_id: curve} for name, curve in curves.items()}, "val/acc_best")
    assert table.best.seconds == seconds


@pytest.mark.parametrize(
    ("state", "asked", "best"),
    [("complete", None, True), ("running", None, False), ("killed", None, False), ("killed", "val/acc_best", True)],
)
def test_what_has_not_ended_is_not_the_best(state, asked, best):
    runs = make_runs(({"lr": "1"}, 0.1), ({"lr": "2"}, 0.2))
    for run in runs:
        run.state = state
    aim = Aim(None, [], {}, {})
    table, _ = table_of(runs, {"val/acc_best": {run.run_id: [(0, 0.1)] for run in runs}}, "val/acc_best", aim, asked)
    assert table.has_best == best
    assert [
        reason.partition(",")[0]
        for reason in why_none_is_best(table, aim, SimpleNamespace(metric=asked, maximize=None))
    ] == ([] if best else ["What has not ended can't be ranked"])


@pytest.mark.parametrize(
    ("metric", "asked", "maximize", "objectives", "expected"),
    [
        ("val/acc", None, None, {}, ""),
        ("foo", None, None, {}, "does not tell whether more or less of it is better"),
        ("foo", "foo", None, {}, "`maximize=true` or `maximize=false` says so"),
        ("foo", "foo", False, {}, ""),
        ("foo", None, None, {"foo": True}, ""),
        ("test/acc", None, None, {}, "of the images of the test set"),
        ("test/acc", "test/acc", None, {}, ""),
        ("test/acc", None, None, {"test/acc": True}, ""),
        ("train/acc", None, None, {}, "of the images that were trained on"),
        ("val/acc", None, None, {"val/acc": True, "model/macs": False}, "several objectives (`val/acc`, `model/macs`)"),
    ],
)
def test_what_can_t_choose_a_best(metric, asked, maximize, objectives, expected):
    reason = Aim(None, [], objectives, {}).unfit(metric, SimpleNamespace(metric=asked, maximize=maximize))
    assert expected in reason
    assert bool(expected) == bool(reason)


@pytest.mark.parametrize(
    ("of_study", "advice", "other"),
    [(False, "seed=0,1,2", "hydra.sweeper.repeats"), (True, "hydra.sweeper.repeats=3", "seed=0,1,2")],
)
def test_a_study_is_not_told_to_choose_among_seeds(of_study, advice, other):
    runs = make_runs(({"lr": 1}, 0.5), ({"lr": 2}, 0.6))
    for run in runs:
        run.tags = {}
    (sentence,) = cautions(build_table(runs, "val/acc_best"), runs, {}, of_study)
    assert advice in sentence
    assert other not in sentence


@pytest.mark.parametrize(
    ("metric", "option", "last", "said", "stopped"),
    [
        ("test/acc", "lr", {}, "The best was chosen on test images (`test/acc`)", False),
        ("val/acc", "lr", {"0": 29, "1": 2}, "The runs are not equally long: their last steps are 2 to 29", False),
        ("val/acc", "lr", {"0": 29, "1": 2}, "", True),  # which says why
        ("val/acc", "trainer.epochs", {"0": 29, "1": 2}, "", False),
        ("val/acc", "lr", {"0": 2, "1": 2}, "", False),
    ],
)
def test_cautions(metric, option, last, said, stopped):
    runs = make_runs(*(({option: value, "seed": s}, 0.5) for value in (1, 2) for s in (0, 1)), metric=metric)
    for number, run in enumerate(runs):
        run.tags = {"stopped": "after epoch 2: …"} if stopped and number == 1 else {}
    sentences = cautions(build_table(runs, metric), runs, last)
    assert [sentence.startswith(said) for sentence in sentences] == ([True] if said else [])
