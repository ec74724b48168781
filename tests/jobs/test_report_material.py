"""What a report is made of."""

from types import SimpleNamespace

import pytest

from cifar_tuning.jobs.report_material import _table
from tests.reporting.runs import make_runs


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
    sweep = SimpleNamespace(curves=lambda name, records: {r.run_id: known[r.run_id] for r in records}, published=[])
    cfg = SimpleNamespace(maximize=None, seed_key="seed", metric=metric)
    aim = SimpleNamespace(objectives={}, several=False)
    table = _table(cfg, sweep, runs, metric, aim, SimpleNamespace(update=lambda: None))
    assert {configuration.best_epoch for configuration in table.configurations} == epochs
