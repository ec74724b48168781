"""The SQLite file behind the default store: created and migrated by one process, whole, and in WAL mode."""

from __future__ import annotations

import contextlib
import os
import sqlite3
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path

from cifar_tuning.databases import close_databases_at_exit, sqlite_url
from cifar_tuning.errors import TrackingError

# Journalling per file. NORMAL is safe in WAL mode (a power cut may cost the last metrics, never the
# database) and saves a disk flush per commit, of which one batch of metrics makes three.
_synchronous: dict[str, str] = {}
# Seconds that a process waits for another one that creates or migrates the same file.
WAIT = 300.0


def prepare(file: Path) -> bool:
    """Make sure an MLflow database is at `file`, in WAL mode; its default experiment keeps its files beside it.

    MLflow builds a new database in some thirty migrations. They run on a temporary file that takes its
    place only when complete, and under a lock, so that jobs starting together neither see half a
    database nor build it twice.

    Args:
        file: where the database is or will be.

    Returns:
        Whether it was created now.

    Raises:
        TrackingError: the place can't be written, or the file is something else.
    """
    _synchronous[str(file.resolve())] = "NORMAL"
    if _complete(file):
        _use_wal(file)
        return False
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        with alone(file):
            if _complete(file):
                return False
            _build(file)
            return True
    except OSError as error:
        raise TrackingError(
            f"tracking.uri=sqlite:///{file}: can't write there ({error.strerror or error}). "
            "Give another file (tracking.uri=sqlite:///path/to/mlflow.db) or tracking=none."
        ) from error


def artifacts_of(file: Path) -> Path:
    """Returns where the files of a database's runs are, in MLflow's own layout."""
    return file.parent / "mlruns"


@contextlib.contextmanager
def alone(file: Path) -> Iterator[None]:
    """Keeps other processes from creating a database, and from migrating it; MLflow itself does not.

    Raises:
        TrackingError: another process has been at it for `WAIT` seconds.
    """
    from filelock import FileLock, Timeout

    try:
        lock = FileLock(f"{file}.lock", timeout=WAIT).acquire()
    except Timeout as error:
        raise TrackingError(
            f"{file}.lock is held by another process for {WAIT:.0f} s. If none is running, delete it."
        ) from error
    with lock:
        yield


def _build(file: Path) -> None:
    from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore

    temporary = file.with_name(f".{file.name}.{os.getpid()}.tmp")
    _discard(temporary)
    listen()
    # Nothing to protect yet: a crash leaves a file nobody reads.
    _synchronous[str(temporary.resolve())] = "OFF"
    try:
        store = SqlAlchemyStore(sqlite_url(temporary), str(artifacts_of(file)))
        store.engine.dispose()
        _use_wal(temporary)
        temporary.replace(file)
    finally:
        _discard(temporary)


def _discard(file: Path) -> None:
    for suffix in ("", "-journal", "-wal", "-shm"):
        Path(f"{file}{suffix}").unlink(missing_ok=True)


def _complete(file: Path) -> bool:
    """Tell whether MLflow's tables are there and writable, without importing MLflow."""
    try:
        if not file.exists() or file.stat().st_size == 0:
            return False
        with contextlib.closing(sqlite3.connect(file, timeout=20)) as connection:
            tables = {name for (name,) in connection.execute("SELECT name FROM sqlite_master")}
            # A lock is only given on a file that can be written.
            connection.execute("BEGIN IMMEDIATE")
            connection.rollback()
    except (sqlite3.Error, OSError) as error:
        raise TrackingError(
            f"tracking.uri=sqlite:///{file}: {error}. "
            "Give another file (tracking.uri=sqlite:///path/to/mlflow.db) or tracking=none."
        ) from error
    if tables and "experiments" not in tables:
        raise TrackingError(
            f"tracking.uri=sqlite:///{file}: this database belongs to another program. Give MLflow a file of its own."
        )
    return bool(tables)


def _use_wal(file: Path) -> None:
    # The mode is kept in the file. A database in use keeps its mode for now, and network file systems
    # refuse it: both only cost speed.
    with (
        contextlib.suppress(sqlite3.Error),
        contextlib.closing(sqlite3.connect(file, timeout=1)) as connection,
    ):
        connection.execute("PRAGMA journal_mode=WAL")


@lru_cache(maxsize=1)
def listen() -> None:
    """Apply the journalling to MLflow's own connections; SQLAlchemy offers no way through the URI."""
    import sqlalchemy

    def on_connect(connection: object, _record: object) -> None:
        if not isinstance(connection, sqlite3.Connection):
            return
        # Other SQLite users of this process, such as Optuna's storage, come by here too.
        file = connection.execute("PRAGMA database_list").fetchone()[2]
        if mode := _synchronous.get(file):
            connection.execute(f"PRAGMA synchronous={mode}")

    sqlalchemy.event.listen(sqlalchemy.engine.Engine, "connect", on_connect)
    close_databases_at_exit()
