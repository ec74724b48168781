"""Heartbeats of the trials that a process trains, so that no other process takes them up."""

import logging
from collections.abc import Collection, Iterable, Iterator
from contextlib import contextmanager
from threading import Event, Lock, Thread

from optuna.trial import Trial

from cifar_tuning.text import first_line
from cifar_tuning.tuning.storage import Storage

log = logging.getLogger(__name__)


class Heartbeats:
    """Gives signs of life for any number of trials from one thread, which lives as long as there are some.

    Args:
        storage: of the study, with the seconds between two.
    """

    def __init__(self, storage: Storage) -> None:
        self.storage = storage
        self._numbers: dict[int, int] = {}  # of the trials, by their ids
        self._lock = Lock()
        self._over = Event()
        self._thread: Thread | None = None

    @contextmanager
    def of(self, trials: Collection[Trial]) -> Iterator[None]:
        """Gives signs of life for trials while a block trains them."""
        self.begin(trials)
        try:
            yield
        finally:
            self.end(trials)

    def begin(self, trials: Iterable[Trial]) -> None:
        """Gives signs of life for trials from now on."""
        these = {trial._trial_id: trial.number for trial in trials}
        with self._lock:
            self._numbers |= these
            if these and self._thread is None:
                self._over = Event()
                self._thread = Thread(target=self._beat, args=(self._over,), daemon=True)
                self._thread.start()

    def end(self, trials: Iterable[Trial]) -> None:
        """Gives no more of them."""
        with self._lock:
            for trial in trials:
                self._numbers.pop(trial._trial_id, None)
            if self._numbers or self._thread is None:
                return
            thread, self._thread = self._thread, None
            self._over.set()
        thread.join()

    def _beat(self, over: Event) -> None:
        silent = False
        while not over.wait(self.storage.heartbeat_interval):
            with self._lock:
                numbers = dict(self._numbers)
            failed = False
            for trial_id, number in numbers.items():
                try:
                    self.storage.record_heartbeat(trial_id)
                except Exception as error:  # a database that is away now may be back at the next
                    level = logging.DEBUG if silent or failed else logging.WARNING
                    log.log(level, "Trial %d can't give a sign of life: %s", number, first_line(error))
                    failed = True
            silent = failed
