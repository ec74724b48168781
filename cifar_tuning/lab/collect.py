"""Reads the finished runs from the sweeps' folders, wherever and whenever they were trained."""

import json
import math
import os
import platform
import re
from collections.abc import Collection
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from cifar_tuning.jobs.result import RESULT_FILE, JobResult
from cifar_tuning.lab.experiments import EXPERIMENTS, configuration_of, load_experiment
from cifar_tuning.lab.runs import Curves, Key, Run
from cifar_tuning.overrides import key_of, value_of
from cifar_tuning.ranking import ENDED
from cifar_tuning.tracking.base import MetricsFile

# In a tested run's folder; `lab.winners` puts there what the predict command found.
TEST_FILE = "test.json"
CURVES = {"train_loss": "train/loss", "train_acc": "train/acc", "val_loss": "val/loss", "val_acc": "val/acc"}
NOT_KNOWN = "not known"
START_LINE = re.compile(r"device (?P<device>.+?), (?:(?P<threads>\d+) threads?, )?(?P<precision>fp32|bf16),")


@dataclass(frozen=True)
class Found:
    """A run with what only its folder has."""

    run: Run
    curves: Curves
    folder: Path


def read_sweeps(root: Path, without: Collection[str] = ()) -> dict[Key, Found]:
    """Reads the finished runs of all sweeps under a folder; those of no experiment of the report are left out.

    Args:
        root: `multirun`; each folder in it may be a sweep's.
        without: overrides that all its jobs have.
    """
    found: dict[Key, Found] = {}
    for file in sorted(root.glob(f"*/*/{RESULT_FILE}")):
        one = _read_job(file.parent, without)
        if one is not None:
            found[one.run.key] = one
    return found


def _read_job(folder: Path, without: Collection[str]) -> Found | None:
    result = JobResult.read(folder)
    if result is None or result.state not in ENDED or result.value is None:
        return None
    names = [value_of(o) for o in result.overrides if key_of(o) == "experiment"]
    if not names or names[-1] not in EXPERIMENTS:
        return None
    experiment = load_experiment(names[-1])
    configuration = configuration_of(result.overrides, experiment, without)
    lines = MetricsFile(folder).read()
    if not experiment.has(configuration):  # somebody tried something
        return None
    if not lines or lines[-1]["step"] != result.epochs:  # it is being trained anew
        return None
    seeds = [value_of(o) for o in result.overrides if key_of(o) == "seed"]
    last, machine = lines[-1], _machine(folder)
    run = Run(
        experiment=experiment.name,
        configuration=configuration,
        seed=int(seeds[-1]) if seeds else 0,
        state=result.state,
        val_acc=round(result.value, 6),
        best_epoch=result.best_epoch or 0,
        epochs=result.epochs,
        final_train_acc=_rounded(last.get("train/acc")) if result.state == "complete" else None,
        final_val_acc=_rounded(last.get("val/acc")) if result.state == "complete" else None,
        initial_loss=_rounded(lines[0].get("val/loss")),
        test_acc=_rounded(_test_accuracy(folder)),
        seconds=round(sum(line.get("epoch_seconds") or 0.0 for line in lines), 1),
        precision=machine[1],
        machine=machine[0],
    )
    curves = {name: [_rounded(line.get(public), 4) for line in lines] for name, public in CURVES.items()}
    return Found(run, curves, folder)


def _rounded(value: float | None, digits: int = 6) -> float | None:
    return None if value is None or not math.isfinite(value) else round(value, digits)


def _test_accuracy(folder: Path) -> float | None:
    try:
        return float(json.loads((folder / TEST_FILE).read_text())["test_acc"])
    except (OSError, ValueError, KeyError):
        return None


def _machine(folder: Path) -> tuple[str, str]:
    """Returns where a run was trained and in which precision, by what its log says at its start.

    Where the log does not say it, nothing is known: the run may be another machine's.
    """
    try:
        starts = list(START_LINE.finditer((folder / "train.log").read_text(encoding="utf-8", errors="replace")))
    except OSError:
        starts = []
    if not starts:
        return NOT_KNOWN, NOT_KNOWN
    start = starts[-1]
    threads = start["threads"]
    where = start["device"] if threads is None else f"{processor()}, {threads} thread{'s' * (threads != '1')}"
    return where, start["precision"]


@lru_cache(maxsize=1)
def processor() -> str:
    """Returns this machine's processor and its number of cores."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    except OSError:
        names = []
    return f"{names[0] if names else platform.processor() or platform.machine()}, {os.cpu_count()} cores"
