"""What MLflow costs a run: milliseconds to open it, to log an epoch, to close it, on a fresh SQLite store."""

import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from benchmarks import measure, pipeline
from cifar_tuning.tracking import MLflowTracker, RunContext, database
from cifar_tuning.training.events import EpochMetrics

RUNS, EPOCHS = 30, 10
METRICS = EpochMetrics(1, 1.0, 0.5, 1.0, 0.5, 0.5, 0.01, 8000.0, 5.0).named()
CONFIG = {f"group{n}": {f"key{m}": m for m in range(8)} for n in range(8)}


def run() -> Path:
    """Measures and prints the medians; returns the JSON file."""
    times: dict[str, list[float]] = {"start": [], "log_epoch": [], "finish": []}
    with tempfile.TemporaryDirectory() as temporary:
        root = Path(temporary)
        database.prepare(root / "mlflow.db")
        for number in range(RUNS):
            folder = root / str(number)
            folder.mkdir()
            _one_run(root, folder, times)
    figures = {name: {"median_ms": statistics.median(values[1:])} for name, values in times.items()}
    for name, values in times.items():
        figures[name]["ninth_decile_ms"] = statistics.quantiles(values[1:], n=10)[-1]
        print(f"tracking  {name:10} {figures[name]['median_ms']:6.1f} ms  (nine in ten under ", end="")
        print(f"{figures[name]['ninth_decile_ms']:.1f} ms)")
    saving = pipeline.checkpoints()
    print(f"tracking  checkpoints {', '.join(f'{name}: {ms:.1f} ms' for name, ms in saving.items())}")
    return measure.write("tracking", {"runs": RUNS, "epochs": EPOCHS, "calls": figures, "checkpoints_ms": saving})


def _one_run(root: Path, folder: Path, times: dict[str, list[float]]) -> None:
    tracker = MLflowTracker(root=root)
    context = RunContext(folder.name, CONFIG, ["optimizer.lr=0.1"], folder, seed=0)
    times["start"].append(_milliseconds(lambda: tracker.start(context)))
    for step in range(EPOCHS):
        times["log_epoch"].append(_milliseconds(lambda step=step: tracker.log_epoch(METRICS, step)))  # type: ignore[misc]
    times["finish"].append(_milliseconds(lambda: tracker.finish("complete")))


def _milliseconds(call: Callable[[], None]) -> float:
    start = time.perf_counter()
    call()
    return 1000 * (time.perf_counter() - start)
