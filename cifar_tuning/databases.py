"""Databases that MLflow or Optuna opens in this process: which driver reaches them, and that they are closed."""

from __future__ import annotations

import atexit
import contextlib
import os
import weakref
from functools import lru_cache
from importlib.util import find_spec
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sqlalchemy import Connection, Engine


def with_driver(url: str) -> str:
    """Returns a database's address with a driver that is installed: SQLAlchemy's own choice may not be (psycopg 3)."""
    bare = url.startswith("postgresql://") and find_spec("psycopg") is None
    return url.replace("postgresql:", "postgresql+psycopg2:", 1) if bare else url


@lru_cache(maxsize=1)
def close_databases_at_exit() -> None:
    """Has SQLAlchemy close the connections that this process makes from now on, when it ends.

    Whoever closes a SQLite file last writes its WAL back into it. Nothing else would close it: MLflow has no way to
    close a store, and the commands leave objects to themselves at their end (`jobs.process.start`).
    """
    import sqlalchemy

    engines: weakref.WeakSet[Engine] = weakref.WeakSet()

    def on_connection(connection: Connection) -> None:
        engines.add(connection.engine)

    sqlalchemy.event.listen(sqlalchemy.engine.Engine, "engine_connect", on_connection)
    atexit.register(_dispose, engines, os.getpid())


def _dispose(engines: weakref.WeakSet[Engine], pid: int) -> None:
    if os.getpid() != pid:  # a forked child has its parent's connections
        return
    for engine in list(engines):
        with contextlib.suppress(Exception):
            engine.dispose()
