"""Optuna's storage, opened so that several processes can share it and a dead one is noticed."""

import errno
import logging
import re
import sqlite3
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cached_property, lru_cache, wraps
from inspect import isfunction
from pathlib import Path
from typing import Any

import optuna
from filelock import FileLock
from optuna.exceptions import ExperimentalWarning, StorageInternalError
from optuna.storages import BaseStorage, RDBStorage
from sqlalchemy.exc import IntegrityError, NoSuchModuleError, OperationalError, ProgrammingError, SQLAlchemyError

from cifar_tuning.databases import close_databases_at_exit, sqlite_file, with_driver
from cifar_tuning.errors import DiskError, UserError, root_cause
from cifar_tuning.processes import deferred_signals
from cifar_tuning.text import first_line, without_password

log = logging.getLogger(__name__)

# Optuna's other storages.
NO_DATABASES = ("journal", "redis", "grpc", "file")
# What a disk without locks says, such as NFS without its lock server.
NO_LOCKS = (errno.ENOLCK, errno.EOPNOTSUPP)
# Seconds that a writer waits for others before SQLite reports a locked database.
LOCK_SECONDS = 60
# What an opened storage raises when its server does not answer.
STORAGE_ERRORS = (StorageInternalError, SQLAlchemyError)
# Seconds between attempts to reach it again: it may be restarted.
WAITS = (1.0, 2.0, 4.0, 8.0, 16.0, 30.0)
# Attempts at a storage whose tables another program makes at the same moment, and seconds between them.
TABLE_ATTEMPTS, TABLE_WAIT = 20, 0.1
# Seconds to wait for the lock under which trials are taken; no sampler takes so long.
TAKING_SECONDS = 600
# Key of our advisory lock on a PostgreSQL server.
LOCK_NUMBER = 1407_2020


def without_driver(url: str) -> str:
    """Returns a database's address without the driver that reaches it: it is the same database."""
    return re.sub(r"^(\w+)\+\w+://", r"\1://", url)


class Storage(RDBStorage):
    """Optuna's, each call of which ends before Ctrl-C or SIGTERM is heard: see `deferred_signals`."""

    @cached_property
    def cached(self) -> BaseStorage:
        """Itself behind Optuna's cache of ended trials, one for all study objects: to read thousands takes seconds."""
        return optuna.storages.get_storage(self)

    def trial_id(self, study: optuna.Study, number: int) -> int:
        """Returns what the storage calls a study's trial of a number."""
        return self.cached.get_trial_id_from_study_id_trial_number(study._study_id, number)

    def fresh_session(self) -> None:
        """Leaves this thread's session to itself, which a second Ctrl-C may have broken in a statement."""
        try:
            self.remove_session()
        except SQLAlchemyError:
            self.scoped_session.registry.clear()


def _whole(call: Callable[..., Any]) -> Callable[..., Any]:
    @wraps(call)
    def whole_call(*args: Any, **kwargs: Any) -> Any:
        with deferred_signals():
            return call(*args, **kwargs)

    return whole_call


for _name, _call in vars(RDBStorage).items():
    if isfunction(_call) and not _name.startswith("__"):
        setattr(Storage, _name, _whole(_call))


@lru_cache(maxsize=8)
def open_storage(url: str, heartbeat_interval: int = 60, grace_period: int | None = None) -> Storage:
    """Opens a storage, creating its tables if it is new; one object per process and storage.

    Args:
        url: SQLAlchemy URL.
        heartbeat_interval: seconds between the signs of life of a running trial.
        grace_period: seconds of silence after which it counts as dead; None: twice the interval.

    Raises:
        UserError: the storage can't be reached or written, or is another Optuna's; says what to do.
    """
    sqlite = url.startswith("sqlite")
    file = sqlite_file(url)
    if sqlite and file is None:
        raise UserError(
            f"hydra.sweeper.storage={url}: the study sweeper's jobs find their trial through the storage, so it can't "
            "be in memory; use null for optuna.db in the sweep's folder"
        )
    scheme = url.partition(":")[0]
    if "://" not in url or scheme in NO_DATABASES:
        raise UserError(
            f"hydra.sweeper.storage={without_password(url)}: must be the address of an SQL database, such as "
            "sqlite:////data/optuna.db or postgresql://user@host/studies, in which a dead worker is noticed; null uses "
            "optuna.db in the sweep's folder"
        )
    engine: dict[str, Any] = {"connect_args": {"timeout": LOCK_SECONDS}} if sqlite else {"pool_pre_ping": True}
    arguments = {"engine_kwargs": engine, "heartbeat_interval": heartbeat_interval, "grace_period": grace_period}
    quiet_optuna()
    try:
        with warnings.catch_warnings(), _making_tables(with_driver(url), file):
            warnings.simplefilter("ignore", ExperimentalWarning)
            storage = _open_and_create(with_driver(url), arguments)
    except Exception as error:
        raise UserError(f"hydra.sweeper.storage={without_password(url)}: {_advice(error)}") from error
    if sqlite:
        _listen(storage)
    return storage


def _open_and_create(url: str, arguments: dict[str, Any]) -> Storage:
    """Opens a storage while others may do the same.

    Whoever opens a new one makes its tables, Optuna's dashboard too, which knows nothing of our lock; of two at once
    each finds tables that were not there a moment ago, or is told "locked" without any wait. Once more, and they are
    all there.
    """
    patience = time.monotonic() + LOCK_SECONDS
    for _ in range(TABLE_ATTEMPTS):
        try:
            return Storage(url, **arguments)
        except (IntegrityError, OperationalError, ProgrammingError) as error:
            locked = "database is locked" in str(error) and time.monotonic() < patience
            if not isinstance(error, IntegrityError) and "already exists" not in str(error) and not locked:
                raise
            time.sleep(TABLE_WAIT)
    return Storage(url, **arguments)


@contextmanager
def study_lock(storage: RDBStorage, folder: Path) -> Iterator[None]:
    """Lets one process at a time do what no database does atomically: draw a trial and say whose it is.

    Args:
        storage: of the study. The lock lies where all that use it meet: in the server, or beside the SQLite file,
            which studies of several folders may share.
        folder: of the study, for other databases.
    """
    if storage.engine.dialect.name == "postgresql":
        with _advisory_lock(storage.engine):
            yield
        return
    file = sqlite_file(str(storage.url)) or folder / "study"
    with FileLock(file.with_name(f".{file.name}.trials.lock"), timeout=TAKING_SECONDS, poll_interval=0.005):
        yield


@contextmanager
def _advisory_lock(engine: Any) -> Iterator[None]:
    from sqlalchemy import text

    # The lock belongs to the connection: it goes when the process does.
    with engine.connect() as connection:
        connection.execute(text(f"SELECT pg_advisory_lock({LOCK_NUMBER})"))
        try:
            yield
        finally:
            connection.execute(text(f"SELECT pg_advisory_unlock({LOCK_NUMBER})"))


@contextmanager
def _making_tables(url: str, file: Path | None) -> Iterator[None]:
    """Optuna's tables are made by the first process; a second one that starts with it must wait."""
    if file is not None:
        file.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(file.with_name(f".{file.name}.lock"), timeout=LOCK_SECONDS):
            _use_wal(file)
            yield
        return
    if not url.startswith("postgresql"):
        yield
        return
    from sqlalchemy import create_engine

    engine = create_engine(url)
    try:
        with _advisory_lock(engine):
            yield
    finally:
        engine.dispose()


def patiently(call: Callable[[], object]) -> None:
    """Calls a storage, and for a minute again while it does not answer.

    Raises:
        StorageInternalError, SQLAlchemyError: it has not come back.
    """
    for wait in WAITS:
        try:
            call()
            return
        except STORAGE_ERRORS as error:
            log.warning("The study's storage does not answer (%s); trying again.", first_line(error))
            time.sleep(wait)
    call()


def lost(error: Exception, again: str) -> UserError:
    """Returns what to say of an opened storage that has raised one of `STORAGE_ERRORS`.

    Args:
        error: one of them.
        again: how to go on, as a sentence that begins in the midst of one.
    """
    cause = root_cause(error)  # Optuna says the same of each: that the data may be at fault
    why = without_password(first_line(cause).rstrip("."))
    if getattr(cause, "sqlite_errorcode", None) == sqlite3.SQLITE_FULL:
        return DiskError(f"the study's storage: {why}. Make room; {again}")
    return UserError(f"the study's storage does not answer any more: {why}. Once it does, {again}")


def quiet_optuna() -> None:
    """Leaves Optuna's own lines to warnings: the display and the log of the trials say the same."""
    optuna.logging.set_verbosity(optuna.logging.WARNING)


def _use_wal(file: Path) -> None:
    # In WAL mode readers and one writer don't wait for each other, and a commit costs 4 ms instead of 17. The mode
    # is kept in the file. Of two processes that set it at once, one is told "locked" without any wait.
    connection = sqlite3.connect(file, timeout=LOCK_SECONDS)
    try:
        connection.execute("PRAGMA journal_mode=WAL")
        connection.execute("BEGIN IMMEDIATE")  # a lock is only given on a file that can be written
        connection.rollback()
    finally:
        connection.close()


def _listen(storage: RDBStorage) -> None:
    import sqlalchemy

    def on_connect(connection: sqlite3.Connection, _record: object) -> None:
        connection.execute("PRAGMA synchronous=NORMAL")  # safe in WAL mode, and saves a disk flush per commit

    sqlalchemy.event.listen(storage.engine, "connect", on_connect)
    close_databases_at_exit()
    storage.engine.dispose()  # connections made before this line


def _advice(error: Exception) -> str:
    said = root_cause(error) if isinstance(error, StorageInternalError) else error  # it says the same of everything
    message = first_line(said).rstrip(".")
    lowered = message.lower()
    if "no longer compatible" in lowered or "storage upgrade" in lowered:
        return f"{message}. Upgrade a copy of it, or give another storage."
    if getattr(error, "errno", None) in NO_LOCKS or "locking protocol" in lowered:
        return f"{message}. This disk has no locks, as many network disks: give sqlite:////FILE on a local one."
    if "locked" in lowered:
        return f"{message}. Another program keeps it locked; close that, or give another storage."
    if "not a database" in lowered or "malformed" in lowered:
        return f"{message}. Restore the file, or move it away: then the study begins anew, beside what its trials left."
    if "disk i/o" in lowered or "is full" in lowered or getattr(error, "errno", None) == errno.ENOSPC:
        return f"{message}. Is there room on the disk? Another one is given as sqlite:////FILE."
    if isinstance(error, NoSuchModuleError):
        return f"{message}. An address begins with the kind of database: sqlite:///, postgresql:// or mysql://."
    if isinstance(error, ImportError):
        return f"{message}. Install the database's driver, such as psycopg2-binary for PostgreSQL or pymysql for MySQL."
    return f"{message}. Is the server up, the address right, the folder writable? null puts it in the sweep's folder."
