"""The front of a study that looks for several things at once."""

from dataclasses import replace

import pytest

from cifar_tuning.reporting.pareto import front_in_words, pareto_front
from cifar_tuning.reporting.report import header, row
from cifar_tuning.reporting.table import build_table, write_csv
from tests.reporting.runs import make_runs


@pytest.mark.parametrize(
    ("points", "maximize", "front"),
    [
        ([(1, 5), (2, 4), (3, 6), (0, 9)], (True, False), [1, 2]),
        ([(1, 5), (2, 4), (3, 6), (0, 9)], (True, True), [2, 3]),
        ([(1, 1), (1, 1), (0, 1)], (True, True), [0, 1]),
        ([(1, 0), (2, 0), (2, 1)], (False, False), [0]),
        ([], (True, True), []),
    ],
)
def test_what_no_other_point_beats(points, maximize, front):
    assert pareto_front(points, maximize) == front


def test_in_words():
    runs = make_runs(({"lr": 1, "seed": 0}, 0.6), ({"lr": 2, "seed": 0}, 0.7), ({"lr": 3, "seed": 0}, 0.65))
    for run, macs in zip(runs, (10_000, 20_000, 30_000), strict=True):
        run.metrics["model/macs"] = macs
    table = replace(build_table(runs, "val/acc_best"), others=["model/macs"])
    assert header(table)[:3] == ["lr", "val/acc_best", "model/macs"]
    assert row(table.best, table)[:3] == ["2", "0.7000", "20,000"]
    first, front = front_in_words(table, {"val/acc_best": True, "model/macs": False}, most=8)
    assert (
        first
        == "The study looked for more `val/acc_best` and less `model/macs`: none of its configurations is the best."
    )
    assert "2 of 3 configurations" in front
    assert "lr=2 (val/acc_best 0.7000, model/macs 20,000); lr=1 (val/acc_best 0.6000, model/macs 10,000)." in front
    (_, shorter) = front_in_words(table, {"val/acc_best": True, "model/macs": False}, most=1)
    assert shorter.endswith("lr=2 (val/acc_best 0.7000, model/macs 20,000); and 1 more.")


def test_a_configuration_without_a_figure_is_on_no_front(tmp_path):
    runs = make_runs(*(({"lr": lr, "seed": s}, lr / 10) for lr in (1, 2) for s in (0, 1)))
    for run, macs in zip(runs, (10, 10, 30, None), strict=True):
        run.metrics |= {} if macs is None else {"model/macs": macs}
    words = " ".join(front_in_words(build_table(runs, "val/acc_best"), {"val/acc_best": True, "model/macs": False}, 8))
    assert "1 of 1 configurations" in words
    assert "lr=1 (val/acc_best 0.1000, model/macs 10.0000)" in words
    table = replace(build_table(runs, "val/acc_best"), others=["model/macs"])
    assert [row(c, table)[2] for c in table.configurations] == ["", "10.0000 ± 0.0000"]
    lines = write_csv(table, tmp_path / "table.csv").read_text().splitlines()
    assert [line.rpartition(",")[2] for line in lines] == ["model/macs", "", "10.0"]
