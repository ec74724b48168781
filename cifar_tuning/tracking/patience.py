"""A sweep's jobs wait for a store that has gone away: a server's restart must not cost a study its trials."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable

from cifar_tuning.tracking.store import Location, StoreAwayError

log = logging.getLogger(__name__)

# Seconds that a job waits at most, and between two tries.
PATIENCE, PAUSE = 1800.0, 5.0

# Stores that were waited for in vain: the sweep's other jobs do not wait as long once more.
_given_up: set[str] = set()


def patiently(call: Callable[[], None], location: Location) -> None:
    """Calls until the store takes it.

    Args:
        call: may be repeated after it has failed half-way.
        location: of the store.

    Raises:
        StoreAwayError: the store did not come back in `PATIENCE` seconds.
    """
    began: float | None = None
    while True:
        try:
            call()
        except StoreAwayError as error:
            if location.uri in _given_up:
                raise
            if began is None:
                began = time.monotonic()
                log.warning("%s Until then this job of a sweep waits, %.0f minutes at most.", error, PATIENCE / 60)
            elif time.monotonic() - began > PATIENCE:
                _given_up.add(location.uri)
                raise
            time.sleep(PAUSE)
        else:
            _given_up.discard(location.uri)
            if began is not None:
                log.warning("The tracking store %s is back.", location.shown)
            return


def is_back(location: Location, seconds: float) -> bool:
    """Wait for a store; returns whether it answers before so many seconds are over."""
    deadline, told = time.monotonic() + seconds, False
    while (problem := location.problem(timeout=1)) is not None:
        if time.monotonic() >= deadline:
            return False
        if not told:
            log.warning("The tracking store %s: %s. Waiting %.0f s for it.", location.shown, problem, seconds)
        told = True
        time.sleep(PAUSE)
    return True
