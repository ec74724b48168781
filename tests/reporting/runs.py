"""Runs as plain data, made up for tests, and what they have in common."""

from dataclasses import dataclass, field

from cifar_tuning.reporting.effects import find_effects
from cifar_tuning.reporting.table import build_table


@dataclass
class FakeRun:
    run_id: str
    params: dict = field(default_factory=dict)
    metrics: dict = field(default_factory=dict)
    overrides: list = field(default_factory=list)
    config_flags: list = field(default_factory=list)
    state: str = "complete"
    seconds: float | None = 60.0
    began: float | None = None
    job: str | None = None

    @property
    def name(self) -> str:
        return f"run {self.run_id}"


def make_runs(*rows, metric="val/acc_best"):
    """One run for each (parameters, value); the parameters' text is how MLflow would have it."""
    return [
        FakeRun(str(number), {key: str(value) for key, value in params.items()}, {metric: result})
        for number, (params, result) in enumerate(rows)
    ]


def make_asked(*rows):
    """One run for each (overrides, parameters, value)."""
    runs = make_runs(*((params, value) for _, params, value in rows))
    for run, (overrides, _, _) in zip(runs, rows, strict=True):
        run.overrides = overrides.split()
    return runs


def effects_of(*rows, searched=None, **options):
    """The effects that are found in a table of `make_runs`."""
    return find_effects(build_table(make_runs(*rows), "val/acc_best", **options), searched)


SEEDS = range(5)


def seeded(s):
    """What a seed does to a run: more than the differences that are looked for."""
    return 0.5 + 0.02 * s + 0.001 * (s % 2)
