"""The same jobs trained in two ways: their accuracies job by job, and the time."""

import json
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

from benchmarks import measure
from benchmarks.studies import train

RATES = "optimizer.lr=0.1,0.05,0.03,0.02,0.01,0.005,0.003,0.001"
WAYS = {
    "agreement": {"fused": ["hydra/launcher=fused"], "basic": ["hydra/launcher=basic"]},
    "precision": {
        one: ["hydra/launcher=fused", f"trainer.precision={one}", "hydra.launcher.stack=8"] for one in ("bf16", "fp32")
    },
}
# Points of accuracy that the two may differ by on average.
GOAL = 0.15
# Seeds of each learning rate. The mean of 48 differences of six seeds has a standard error as large as the goal.
SEEDS = 12
COMMON = ["model.batch_norm=true", "augmentation=crop_flip", "tracking=none"]


def run(name: str, train_limit: int | None, seeds: int, epochs: int = 6) -> Path:
    """Trains eight learning rates in two ways and compares them job by job; returns the JSON file.

    Args:
        name: a key of `WAYS`.
        train_limit: training images; None: 10,000.
        seeds: of each learning rate.
        epochs: of a job.
    """
    settings = [f"data.train_limit={train_limit or 10_000}", f"trainer.epochs={epochs}"]
    grid = [RATES, "seed=" + ",".join(map(str, range(seeds)))]
    values: dict[str, list[float]] = {}
    seconds: dict[str, float] = {}
    for way, overrides in WAYS[name].items():
        with tempfile.TemporaryDirectory() as folder:
            start = time.perf_counter()
            train("-m", *overrides, *grid, *COMMON, *settings, f"hydra.sweep.dir={folder}")
            seconds[way] = round(time.perf_counter() - start, 1)
            values[way] = _values(Path(folder))
    first, second = values
    points = [100 * (a - b) for a, b in zip(values[first], values[second], strict=True)]
    figures: dict[str, Any] = {
        "jobs": len(points),
        "settings": settings,
        "points_mean": round(statistics.mean(points), 3),
        "points_standard_error": round(statistics.stdev(points) / len(points) ** 0.5, 3),
        "points_largest": round(max(map(abs, points)), 2),
        "seconds": seconds,
    }
    print(
        f"{name}  {len(points)} jobs: {first} minus {second} {figures['points_mean']:+.2f} "
        f"± {figures['points_standard_error']:.2f} points (standard error), at most {figures['points_largest']}; "
        f"{seconds[first]} against {seconds[second]} s"
    )
    return measure.write(name, figures)


def _values(folder: Path) -> list[float]:
    """Returns the best validation accuracies, 0 to 1, in the order of the jobs."""
    files = sorted(folder.glob("*/result.json"), key=lambda file: int(file.parent.name))
    return [float(json.loads(file.read_text())["value"]) for file in files]
