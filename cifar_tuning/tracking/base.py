"""What a training job tells whatever keeps its record."""

from __future__ import annotations

import contextlib
import json
import math
import traceback
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cifar_tuning.files import write_text
from cifar_tuning.text import without_password

if TYPE_CHECKING:
    import numpy as np
    from torch import nn

# What a job that failed or was stopped leaves in its folder: where.
TRACEBACK = "traceback.txt"
# How a job's end is spelled in MLflow. A diverged run ended by itself and returned its best accuracy, so
# it is finished; a pruned one was stopped from outside before its end.
STATUS_OF_STATE = {
    "complete": "FINISHED",
    "diverged": "FINISHED",
    "pruned": "KILLED",
    "killed": "KILLED",
    "failed": "FAILED",
}


@dataclass(frozen=True)
class RunContext:
    """What is known about a job before it trains.

    Args:
        name: the run's name, such as the job's override string.
        config: the resolved configuration as plain nested containers.
        overrides: what the user (or the sweeper) asked for.
        folder: the job's output folder; it exists.
        seed: the job's seed.
        sweep_dir: the multirun's folder, absolute; None for a single run.
        job_num: the job's number in its multirun, or None.
        tags: extra tags.
        run_id: continue this run if it is in the store and has the same configuration.
        again: the job may have been begun by a process that died: its run is looked for in the sweep.
        sweep_key: names the sweep where its folder is not the same on every machine.
        group_dir: folder of the jobs that make one trial of the sweep; their runs are nested in the trial's.
    """

    name: str
    config: dict[str, Any]
    overrides: list[str]
    folder: Path
    seed: int
    sweep_dir: Path | None = None
    job_num: int | None = None
    tags: dict[str, str] = field(default_factory=dict)
    run_id: str | None = None
    again: bool = False
    sweep_key: str | None = None
    group_dir: Path | None = None


class MetricsFile:
    """`metrics.jsonl` in a run's folder: one line an epoch, whatever becomes of the store.

    A job that starts again in the same folder replaces the lines from its first step on, so the file
    reads as if there had been no interruption.
    """

    NAME = "metrics.jsonl"

    def __init__(self, folder: Path) -> None:
        self.path = Path(folder) / self.NAME
        self._opened = False

    def write(self, metrics: Mapping[str, float], step: int) -> None:
        """Append one line; NaN and infinities become null, which every JSON reader accepts."""
        if not self._opened:
            self._drop_from(step)
            self._opened = True
        line = {"step": step} | {key: _finite(value) for key, value in metrics.items()}
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(line, allow_nan=False) + "\n")

    def read(self) -> list[dict[str, Any]]:
        """Return the lines that can be read; the last one of a killed process may be cut short."""
        lines = []
        with contextlib.suppress(OSError):
            for text in self.path.read_text(encoding="utf-8").splitlines():
                with contextlib.suppress(ValueError):
                    line = json.loads(text)
                    if isinstance(line, dict) and isinstance(line.get("step"), int):
                        lines.append(line)
        return lines

    def _drop_from(self, step: int) -> None:
        if not self.path.exists():
            return
        kept = [json.dumps(line, allow_nan=False) + "\n" for line in self.read() if line["step"] < step]
        write_text(self.path, "".join(kept))


class Tracker:
    """What a job tells about itself; one tracker serves one run. This one keeps nothing but `metrics.jsonl`.

    Attributes:
        run_id: the run's name in the store; None before `start` and where there is no store.
        continued: whether `start` went on with an earlier run instead of opening a new one.
    """

    def __init__(self) -> None:
        self.run_id: str | None = None
        self.continued = False
        self._metrics: MetricsFile | None = None

    def wants_model(self, worth_keeping: bool) -> bool:
        """Tell whether the job should call `log_model` at its end, which decides by its worth under `auto`."""
        return False

    def start(self, context: RunContext) -> None:
        """Open the run; raises `TrackingError` when the store can't be used."""
        self._metrics = MetricsFile(context.folder)

    def log_epoch(self, metrics: Mapping[str, float], step: int) -> None:
        """Record one epoch's metrics."""
        if self._metrics is not None:
            self._metrics.write(metrics, step)

    def deliver(self) -> None:
        """Tell the store what it was not told yet; called while a GPU computes and the host would only wait."""

    def log_facts(self, facts: Mapping[str, float | str]) -> None:
        """Record what is known once: numbers become metrics at step 0, texts become tags."""

    def log_artifacts(self, files: Mapping[str, Path]) -> None:
        """Keep files; maps the path in the store to the local file."""

    def log_model(self, model: nn.Module, input_example: np.ndarray) -> str | None:
        """Keep a classifier of raw uint8 images as a loadable model; returns its id in the store."""
        return None

    def finish(self, state: str, of_trial: str | None = None) -> None:
        """Close the run. Never raises because of the store.

        Args:
            state: complete, diverged, pruned, killed or failed.
            of_trial: how the trial ends that the job is one of several seeds of, if that is known; a whole seed may
                be the last because its trial is pruned behind it.
        """

    def fail(self, error: BaseException) -> None:
        """Close the run after an error; an interrupt counts as killed."""
        if self._metrics is not None:
            write_traceback(self._metrics.path.parent, error)

    def abandon(self) -> None:
        """Leave the run as it is: another process goes on with it."""


class NoTracker(Tracker):
    """`tracking=none`."""


def state_of_error(error: BaseException) -> str:
    """Name the end an exception stands for; Ctrl-C and a terminated process are no failures of the run."""
    return "killed" if isinstance(error, KeyboardInterrupt | SystemExit) else "failed"


def write_traceback(folder: Path, error: BaseException) -> Path | None:
    """Write `traceback.txt`; None when the folder can't be written (a full disk may be the error itself)."""
    path = Path(folder) / TRACEBACK
    try:
        path.write_text(without_password("".join(traceback.format_exception(error))), encoding="utf-8")
    except OSError:
        return None
    return path


def _finite(value: float) -> float | int | None:
    # Plain numbers only: NumPy's and PyTorch's scalars aren't JSON.
    if isinstance(value, int):
        return value
    number = float(value)
    return number if math.isfinite(number) else None
