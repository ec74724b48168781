"""The runs that this process has open, and what closes those that nobody closed before the interpreter ends."""

from __future__ import annotations

import atexit
import contextlib
import os
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from cifar_tuning.tracking.mlflow_tracker import MLflowTracker

_trackers: list[tuple[int, MLflowTracker]] = []


def register(tracker: MLflowTracker) -> None:
    """Have a tracker's run closed in the end."""
    if not _trackers:
        atexit.unregister(_close_left_open)
        atexit.register(_close_left_open)
    _trackers.append((os.getpid(), tracker))


def unregister(tracker: MLflowTracker) -> None:
    """Leave a tracker's run alone from now on."""
    _trackers[:] = [(pid, other) for pid, other in _trackers if other is not tracker]


def _close_left_open() -> None:
    for pid, tracker in list(_trackers):
        if pid == os.getpid():  # a forked child inherits the list, not the runs
            with contextlib.suppress(Exception):
                tracker.finish("killed")
