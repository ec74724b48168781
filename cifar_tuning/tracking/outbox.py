"""What a run has to tell its store, kept until the store has taken it."""

from __future__ import annotations

import contextlib
import json
import logging
import math
import tempfile
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar
from weakref import WeakSet

from cifar_tuning.files import write_text
from cifar_tuning.processes import deferred_signals
from cifar_tuning.tracking import facts
from cifar_tuning.tracking.reachable import may_pass, said
from cifar_tuning.tracking.store import Store

if TYPE_CHECKING:
    from mlflow import MlflowClient


log = logging.getLogger(__name__)

UNSENT = "unsent.json"
# MLflow takes a thousand things a call, of which a hundred may be tags.
METRICS_A_CALL, TAGS_A_CALL = 900, 100
# MLflow's words for what will be no better when it is tried again.
REFUSALS = ("INVALID_PARAMETER_VALUE", "RESOURCE_DOES_NOT_EXIST", "INVALID_STATE")
# Of the training time, at most one part in this many goes into asking a dead store whether it is back.
ASKING_PART = 50
# Of the training time, at most one part in this many goes into telling stores about epochs that are short for it, and
# at most one in so many where a GPU computes meanwhile, unless a run would wait longer than so many seconds.
PART, IDLE_PART, LATEST = 20, 10, 30.0


@dataclass
class Pending:
    """Everything a run has not delivered yet, as plain data, so that it can wait in a file.

    Args:
        metrics: (name, value, milliseconds, step).
        tags: name to value.
        artifacts: path in the store to local file.
        status: MLflow's word for the run's end, once it has ended.
        end_time: milliseconds.
    """

    metrics: list[tuple[str, float, int, int]] = field(default_factory=list)
    tags: dict[str, str] = field(default_factory=dict)
    artifacts: dict[str, str] = field(default_factory=dict)
    status: str | None = None
    end_time: int | None = None

    def __bool__(self) -> bool:
        return bool(self.metrics or self.tags or self.artifacts or self.status)

    def deliver(self, client: MlflowClient, run_id: str) -> None:
        """Send it all, forgetting each part once it has arrived; an epoch is a single call.

        A file that the store will not have, because it is too large or nobody may write there, costs a warning: the
        run ends all the same.
        """
        from mlflow.entities import Metric, RunTag

        while self.metrics or self.tags:
            metrics = self.metrics[:METRICS_A_CALL]
            tags = dict(list(self.tags.items())[:TAGS_A_CALL])
            with deferred_signals():  # what a signal raises in a statement comes out as an error of the database's
                client.log_batch(
                    run_id,
                    metrics=[Metric(*metric) for metric in metrics],
                    tags=[RunTag(key, value) for key, value in tags.items()],
                )
                del self.metrics[: len(metrics)]
                for key in tags:
                    del self.tags[key]
        for name, file in list(self.artifacts.items()):
            if Path(file).exists():  # or else it was cleared away while the store was gone
                try:
                    _send_file(client, run_id, name, Path(file))
                except Exception as error:  # every artifact store has its own
                    if may_pass(error):
                        raise
                    log.warning(
                        "Run %s goes without %s in its store (%s); it stays in %s.", run_id, name, said(error), file
                    )
            del self.artifacts[name]
        if self.status is not None:
            with deferred_signals():
                client.set_terminated(run_id, self.status, self.end_time)
                self.status = None


class Outbox:
    """One run's way to its store; a store that goes away costs a warning, never the training.

    Args:
        store: where the run lives.
        run_id: which run.
        folder: where to leave what the store never took.
    """

    # Of this process: each run waits for the others' calls, too.
    _open: ClassVar[WeakSet[Outbox]] = WeakSet()
    # Of this process: of runs that ended while their store was away.
    _left: ClassVar[list[Outbox]] = []

    def __init__(self, store: Store, run_id: str, folder: Path) -> None:
        self.store = store
        self.run_id = run_id
        self.folder = Path(folder)
        self.pending = Pending()
        self._down = self._refused = False
        self._ask_again_at = 0.0
        # When the last call began, and how many seconds it took.
        self._called, self._took = -math.inf, 0.0
        Outbox._open.add(self)

    def add_metrics(self, metrics: Mapping[str, float], step: int, milliseconds: int | None = None) -> None:
        """Queue one epoch's metrics; of now, unless the time is given in milliseconds since the epoch."""
        now = int(time.time() * 1000) if milliseconds is None else milliseconds
        self.pending.metrics += [(facts.safe_key(key), float(value), now, step) for key, value in metrics.items()]

    def add_tags(self, tags: Mapping[str, str]) -> None:
        """Queue tags."""
        self.pending.tags.update({facts.safe_key(key): str(value)[: facts.MAX_TAG] for key, value in tags.items()})

    def add_artifacts(self, files: Mapping[str, Path]) -> None:
        """Queue files; they are read when the store takes them."""
        self.pending.artifacts.update({name: facts.absolute(path) for name, path in files.items()})

    def close(self, status: str, tags: Mapping[str, str]) -> None:
        """Queue the run's end, try once more, and leave on disk what can't be sent."""
        Outbox._open.discard(self)
        self.add_tags(tags)
        self.pending.status = status
        self.pending.end_time = int(time.time() * 1000)
        if self.flush(last=True):
            return
        with contextlib.suppress(OSError):
            write_text(self.folder / UNSENT, json.dumps(asdict(self.pending)))
        Outbox._left.append(self)
        log.warning(
            "The tracking store %s has not come back. What it lacks of run %s is kept in %s and is "
            "delivered by the next run tracked there from this machine.",
            self.store.location.shown,
            self.run_id,
            self.folder / UNSENT,
        )

    @classmethod
    def deliver_left(cls, store: Store) -> None:
        """Send what this process's ended runs could not: nobody else does while it lives."""
        for outbox in [one for one in cls._left if one.store.location == store.location]:
            if outbox.flush(last=True):
                cls._left.remove(outbox)
                with contextlib.suppress(OSError):
                    (outbox.folder / UNSENT).unlink()

    def flush(self, last: bool = False, may_wait: bool = False, idle: bool = False) -> bool:
        """Send what is pending; returns whether everything has arrived.

        Args:
            last: try even a store that was found dead a moment ago.
            may_wait: leave it for later where it would take too much of the training time: a GPU trains several epochs
                of a small network in the time that one call takes.
            idle: the same, but less of it is training time, because a GPU computes meanwhile.
        """
        if self._refused and not last:  # a run that was deleted may be restored before its end
            return True
        if not self.pending:
            return True
        began = time.monotonic()
        part = IDLE_PART if idle else PART if may_wait else 0
        if part and began < self._called + min(LATEST, part * len(Outbox._open) * self._took):
            return False
        try:
            return self._send(last)
        finally:
            self._called, self._took = began, time.monotonic() - began

    def _send(self, last: bool) -> bool:
        if (self._down or self.store.location.file) and not self._reachable(last):
            return False
        try:
            self.pending.deliver(self.store.client, self.run_id)
        except Exception as error:  # the network, SQLAlchemy, a full disk: none of them may stop a training
            if getattr(error, "error_code", None) in REFUSALS:
                self._was_refused(error, last)
                return True
            self._went_down(error)
            return False
        if self._down or self._refused:
            log.warning("The tracking store %s is back; nothing is missing.", self.store.location.shown)
            self._down = self._refused = False
        return True

    def _reachable(self, last: bool) -> bool:
        started = time.monotonic()
        if started < self._ask_again_at and not last:
            return False
        problem = self.store.location.problem(timeout=1)
        now = time.monotonic()
        if problem is None:
            return True
        self._went_down(problem)
        self._ask_again_at = now + ASKING_PART * (now - started)
        return False

    def _was_refused(self, refusal: Exception, last: bool) -> None:
        """Keeps what the store will not have until the run's end: the run was deleted, as a rule."""
        if not self._refused:
            log.warning(
                "The tracking store %s refuses run %s (%s), and is told no more of it before its end. Training goes "
                "on; the metrics are in %s.",
                self.store.location.shown,
                self.run_id,
                said(refusal),
                self.folder / "metrics.jsonl",
            )
        self._refused = True
        if last:
            # It may take the run's end all the same, where it was some figure that it would not have.
            state = {key: value for key, value in self.pending.tags.items() if key == facts.STATE}
            end = Pending(tags=state, status=self.pending.status, end_time=self.pending.end_time)
            self.pending = Pending()
            with contextlib.suppress(Exception):
                end.deliver(self.store.client, self.run_id)

    def _went_down(self, reason: Exception | str) -> None:
        if not self._down:
            log.warning(
                "The tracking store %s does not answer (%s). Training goes on; the metrics are in %s, and "
                "the store gets them when it is back.",
                self.store.location.shown,
                said(reason),
                self.folder / "metrics.jsonl",
            )
        self._down = True


def read_unsent(folder: Path) -> Pending | None:
    """Read what an earlier process could not deliver; None if there is nothing (readable)."""
    try:
        raw: dict[str, Any] = json.loads((Path(folder) / UNSENT).read_text(encoding="utf-8"))
        pending = Pending(**raw)
    except (OSError, ValueError, TypeError):
        return None
    # JSON has no tuples, and Metric(*values) must not get a list of lists by accident.
    pending.metrics = [(key, value, when, step) for key, value, when, step in pending.metrics]
    return pending


def _send_file(client: MlflowClient, run_id: str, name: str, file: Path) -> None:
    folder, _, base = name.rpartition("/")
    if base == file.name:
        client.log_artifact(run_id, str(file), folder or None)
        return
    with tempfile.TemporaryDirectory() as temporary:  # MLflow keeps the local file's name
        renamed = Path(temporary) / base
        renamed.symlink_to(file)
        client.log_artifact(run_id, str(renamed), folder or None)
