"""What tracking costs a run, on this machine: `python -m tests.tracking.measure_cost`.

Every figure is the median of many, on a fresh SQLite store in a temporary folder.
"""

import statistics
import tempfile
import time
from pathlib import Path

from cifar_tuning.tracking import MLflowTracker, RunContext, database
from cifar_tuning.tracking.store import quieten

EPOCH = [
    "train/loss",
    "train/acc",
    "val/loss",
    "val/acc",
    "val/acc_best",
    "lr",
    "images_per_second",
    "epoch_s",
]


def timed(call):
    started = time.perf_counter()
    result = call()
    return 1000 * (time.perf_counter() - started), result


def main():
    with tempfile.TemporaryDirectory() as temporary:
        root = Path(temporary)
        quieten()
        milliseconds, _ = timed(lambda: database.prepare(root / "mlflow.db", root / "mlruns"))
        print(f"new database (once, MLflow's import included)  {milliseconds:8.0f} ms")
        config = {f"group{number // 8}": {f"key{n}": n for n in range(8)} for number in range(0, 64, 8)}
        starts, ends, epochs = [], [], []
        checkpoint = root / "best.pt"
        checkpoint.write_bytes(b"0" * 400_000)
        for number in range(30):
            folder = root / str(number)
            folder.mkdir()
            tracker = MLflowTracker(root=root)
            context = RunContext(f"run {number}", config, ["optimizer.lr=0.1"], folder, seed=0)
            starts.append(timed(lambda t=tracker, c=context: t.start(c))[0])
            for step in range(10):
                metrics = dict.fromkeys(EPOCH, step / 10)
                epochs.append(timed(lambda t=tracker, m=metrics, s=step: t.log_epoch(m, s))[0])
            tracker.log_artifacts({"checkpoints/best.pt": checkpoint})
            ends.append(timed(lambda t=tracker: t.finish("complete"))[0])
        print(f"start of a process's first run                 {starts[0]:8.1f} ms")
        for name, values in (("start", starts[1:]), ("finish", ends), ("log_epoch", epochs)):
            worst = statistics.quantiles(values, n=10)[-1]
            print(f"{name:<12} median {statistics.median(values):6.1f} ms   90 % under {worst:6.1f} ms")


if __name__ == "__main__":
    main()
