"""Databases that MLflow or Optuna opens in this process: URLs, drivers, and closing their connections at exit."""

from __future__ import annotations

import atexit
import contextlib
import os
import re
import weakref
from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import unquote

if TYPE_CHECKING:
    from sqlalchemy import Connection, Engine


def with_driver(url: str) -> str:
    """Returns a database's address with a driver that is installed: SQLAlchemy's own choice may not be (psycopg 3)."""
    bare = url.startswith("postgresql://") and find_spec("psycopg") is None
    return url.replace("postgresql:", "postgresql+psycopg2:", 1) if bare else url


def sqlite_file(url: str) -> Path | None:
    """Returns the file that a SQLite URL names; None for a database in memory or on a server."""
    scheme, _, rest = url.partition(":///")
    path = unquote(rest.partition("?")[0])
    return Path(path) if scheme.startswith("sqlite") and path and path != ":memory:" else None


def sqlite_url(file: Path) -> str:
    """Returns the URL of a SQLite file, what means something else there quoted; braces do so to Optuna."""
    return "sqlite:///" + re.sub(r"[%?{}]", lambda found: f"%{ord(found[0]):02X}", str(file))


def in_folder(url: str, folder: Path) -> str:
    """Returns the URL of a SQLite file with its path absolute: in a folder, if it was relative; another as it is."""
    file = sqlite_file(url)
    if file is None:
        return url
    scheme, _, rest = url.partition(":///")
    _, mark, query = rest.partition("?")
    return sqlite_url(folder / file).replace("sqlite:", f"{scheme}:", 1) + mark + query


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
