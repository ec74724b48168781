"""Runs as plain data, made up for tests."""

from dataclasses import dataclass, field


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
