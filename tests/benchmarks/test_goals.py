import pytest

from benchmarks import goals

MACHINE = {"machine": {"gpu": None, "processor": "Abacus"}}


@pytest.mark.parametrize(
    ("name", "content", "cells"),
    [
        ("start", {"over_imports": 1.0}, "at most 1.0 s | 1.00 s | holds | Abacus"),
        ("start", {"over_imports": 1.01}, "at most 1.0 s | 1.01 s | **missed** | Abacus"),
        ("waiting", {"ratio": 0.76}, "at most 0.75 | 0.76 | **missed** | Abacus"),
        ("overhead", {"ms_per_trial": 149.4}, "at most 150 ms | 149 ms | holds | Abacus"),
        ("pipeline", {"networks": {"simplenn": {"ours": {"ratio": 5}}}}, "5 | 5.00 | holds | Abacus"),
        ("stacks", {"networks": {"simplenn": {"stacked": {"ratio": 7.99}}}}, "8 | 7.99 | **missed** | Abacus"),
        (
            "agreement",
            {"points_mean": -0.2, "points_standard_error": 0.1, "jobs": 8},
            "within 0.15 | -0.20 ± 0.10, 8 runs | **missed** | Abacus",
        ),
        ("gpu_targets", {"resnet20": {"to_90": None}}, "under 30 s | not reached | **missed** | Abacus"),
    ],
)
def test_a_figure_holds_its_goal_or_misses_it(name, content, cells):
    rows = goals.table({name: content | MACHINE})
    command = name.removeprefix("gpu_")
    assert [row for row in rows if f"{cells} | `python -m benchmarks {command}` |" in row]


def test_what_nobody_measured_is_said_to_be_so():
    measured = [row for row in goals.table({}) if "`python -m benchmarks" in row and "154 s" not in row]
    assert len(measured) > 20
    assert all(f" |  | {goals.ABSENT} |  | " in row for row in measured)
