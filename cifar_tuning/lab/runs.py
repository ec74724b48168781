"""The numbers behind the page: one row a run in `runs.csv`, the curves in `curves.csv`."""

import csv
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import astuple, dataclass, fields
from pathlib import Path
from typing import Any

from cifar_tuning.files import written
from cifar_tuning.lab.experiments import EXPERIMENTS

RUNS_FILE, CURVES_FILE = "runs.csv", "curves.csv"

# Experiment, configuration, seed.
Key = tuple[str, str, int]
# The quantity's value after each epoch, the first before training; None where it is not finite.
Curves = dict[str, list[float | None]]


@dataclass(frozen=True)
class Run:
    """A finished run.

    Attributes:
        experiment: its overlay.
        configuration: what tells it from the others but for the seed, as overrides.
        seed: of weights, order and augmentation.
        state: complete or diverged.
        val_acc: best validation accuracy of all epochs, 0 to 1.
        best_epoch: the epoch it belongs to.
        epochs: finished ones.
        final_train_acc, final_val_acc: of the last epoch; training accuracy is measured on the augmented images
            while the weights still change. None if the run diverged.
        initial_loss: validation cross-entropy before training.
        test_acc: accuracy of the best weights on the test set; None for all but the winners.
        seconds: the epochs' together; runs trained in one stack share them.
        precision: `fp32`, `bf16` or `not known`.
        machine: processor and threads, or the GPU, or `not known`.
    """

    experiment: str
    configuration: str
    seed: int
    state: str
    val_acc: float
    best_epoch: int
    epochs: int
    final_train_acc: float | None
    final_val_acc: float | None
    initial_loss: float | None
    test_acc: float | None
    seconds: float
    precision: str
    machine: str

    @property
    def key(self) -> Key:
        """What a run is known by."""
        return self.experiment, self.configuration, self.seed


def merge_runs(old: Iterable[Run], new: Iterable[Run]) -> list[Run]:
    """Returns all runs, sorted; a new one takes the place of the old one with its key, unless it is the same run.

    A run that was read before keeps its row as it was: whoever reads it again may sit at another machine.
    """
    merged = {run.key: run for run in old}
    for run in new:
        known = merged.get(run.key)
        if known is None or _measured(known) != _measured(run):
            merged[run.key] = run
    return sorted(merged.values(), key=lambda run: (EXPERIMENTS.index(run.experiment), *run.key[1:]))


def _measured(run: Run) -> tuple[Any, ...]:
    return run.val_acc, run.best_epoch, run.epochs, run.final_train_acc, run.test_acc, run.seconds


def load_runs(folder: Path) -> list[Run]:
    """Reads `runs.csv`; an empty list if there is none. Rows of experiments that are no more are left out."""
    rows = _rows(folder / RUNS_FILE)
    runs = [Run(**{field.name: _read(row[field.name], field.type) for field in fields(Run)}) for row in rows]
    return [run for run in runs if run.experiment in EXPERIMENTS]


def _read(text: str, kind: Any) -> Any:
    """Returns a field's value; of `float | None` nothing is None."""
    return kind(text) if kind in (int, str) else float(text) if text else None


def save_runs(runs: Iterable[Run], folder: Path) -> None:
    """Writes `runs.csv`, all or nothing."""
    _write(folder / RUNS_FILE, [field.name for field in fields(Run)], map(astuple, runs))


def load_curves(folder: Path) -> dict[Key, Curves]:
    """Reads `curves.csv`; empty if there is none."""
    curves: dict[Key, Curves] = {}
    for row in _rows(folder / CURVES_FILE):
        key = row["experiment"], row["configuration"], int(row["seed"])
        values = [None if value == "nan" else float(value) for value in row["values"].split()]
        curves.setdefault(key, {})[row["quantity"]] = values
    return curves


def save_curves(curves: Mapping[Key, Curves], order: Iterable[Run], folder: Path) -> None:
    """Writes `curves.csv`, a row for each run and quantity, in the order of the runs."""
    header = ["experiment", "configuration", "seed", "quantity", "values"]
    rows = (
        [*map(str, run.key), name, " ".join("nan" if value is None else f"{value:.5g}" for value in values)]
        for run in order
        for name, values in curves.get(run.key, {}).items()
    )
    _write(folder / CURVES_FILE, header, rows)


def _rows(file: Path) -> Iterator[dict[str, str]]:
    if file.is_file():
        with file.open(newline="", encoding="utf-8") as stream:
            yield from csv.DictReader(stream)


def _write(file: Path, header: list[str], rows: Iterable[Sequence[Any]]) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    with written(file) as partial, partial.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.writer(stream, lineterminator="\n")
        writer.writerow(header)
        writer.writerows(rows)
