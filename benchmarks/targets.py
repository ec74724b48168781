"""What a GPU trains within seconds: the lab report's learning rates as one stack, and ResNet-20 to 90 %."""

import json
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import torch

from benchmarks import measure
from benchmarks.studies import train
from cifar_tuning.errors import UserError

RATES = ("1.0", "0.1", "0.05", "0.01", "0.005", "0.001")
TARGET, EPOCHS = 0.9, 25


def run() -> Path:
    """Trains both by the commands that users type, and reads their epochs; returns the JSON file.

    Raises:
        UserError: there is no GPU.
    """
    if not torch.cuda.is_available():
        raise UserError("no CUDA device here; what this measures takes a CPU hours")
    with tempfile.TemporaryDirectory() as folder:
        table, resnet = _table(Path(folder) / "table"), _resnet(Path(folder) / "resnet20")
    print(
        f"targets  learning rates: {table['seconds']} s; ResNet-20: 90 % in {resnet['to_90']} s, {resnet['accuracy']}"
    )
    return measure.write("targets", {"table": table, "resnet20": resnet})


def _table(folder: Path) -> dict[str, Any]:
    """Six runs of 30 epochs with batch norm, crop and flip, stacked."""
    options = ["model.batch_norm=true", "augmentation=crop_flip", "trainer.epochs=30", "hydra/launcher=fused"]
    start = time.perf_counter()
    train("-m", *options, f"optimizer.lr={','.join(RATES)}", f"hydra.sweep.dir={folder}", "tracking=none")
    wall = time.perf_counter() - start
    epochs = [_epochs(folder / str(job)) for job in range(len(RATES))]
    best = {rate: max(one["val/acc_best"] for one in run) for rate, run in zip(RATES, epochs, strict=True)}
    # They go side by side; one that diverges leaves early.
    seconds = max(sum(one["epoch_seconds"] for one in run) for run in epochs)
    return {"seconds": round(seconds, 2), "wall": round(wall, 1), "best": best}


def _resnet(folder: Path) -> dict[str, Any]:
    options = ["experiment=lab3_past_90", f"trainer.epochs={EPOCHS}", "seed=0", "hydra/launcher=basic", "tracking=none"]
    train(*options, f"hydra.run.dir={folder}")
    epochs = _epochs(folder)
    passed = next((i for i, one in enumerate(epochs) if one["val/acc"] > TARGET), None)
    # Smaller images come first; these are whole.
    whole = statistics.median(one["epoch_seconds"] for one in epochs[-EPOCHS // 5 :])
    return {
        "epochs": EPOCHS,
        "accuracy": epochs[-1]["val/acc_best"],
        "to_90": None if passed is None else round(sum(one["epoch_seconds"] for one in epochs[: passed + 1]), 2),
        "epoch": round(whole, 4),
        "whole": round(200 * whole, 1),
    }


def _epochs(folder: Path) -> list[dict[str, Any]]:
    """Returns the figures of a run's epochs, but for the look before training."""
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [line for line in lines if line["step"] > 0]
