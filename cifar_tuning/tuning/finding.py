"""Opens the study of a finished sweep, read-only, from what the sweep left."""

import json
import os
import sqlite3
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import quote

import optuna
from optuna.distributions import BaseDistribution, FloatDistribution
from optuna.storages import RDBStorage
from sqlalchemy.engine import make_url

from cifar_tuning.databases import in_folder, sqlite_file, sqlite_url, with_driver
from cifar_tuning.errors import UserError, root_cause
from cifar_tuning.job_folders import study_in
from cifar_tuning.overrides import key_of
from cifar_tuning.text import first_line, without_password
from cifar_tuning.tuning.place import STORAGE_FILE
from cifar_tuning.tuning.space import SearchSpace
from cifar_tuning.tuning.storage import quiet_optuna

SWEEPER = "hydra.sweeper."
RANGES = f"{SWEEPER}params."
STUDIES = ("OptunaSweeper", "StudySweeper")


def find_study(folder: Path | None, params: Mapping[str, str], storage: str | None = None) -> optuna.Study | None:
    """Opens the study that chose a sweep's jobs, ours or the stock plugin's; None if a grid did.

    Args:
        folder: the sweep's, if it is on this machine.
        params: of the sweep's run: the sweeper's options.
        storage: where the study is, if not where the sweep says.

    Raises:
        UserError: there was a study, but its storage can't be read; says why, and what to do.
    """
    name, found = _place(folder, params)
    if name is None:
        return None
    url = storage or found
    if url is None:
        raise UserError(f"The study {name} was kept in memory, so Optuna's plots are gone with its process.")
    shown = without_password(url)
    if ":***@" in url:
        raise UserError(f"The study {name} is in {shown}, whose password is not kept: give storage=… with it.")
    file = sqlite_file(url)
    if url.startswith("sqlite") and (file is None or not file.is_file()):
        raise UserError(
            f"The study {name} is in {shown}, which is not there: give storage=sqlite:///… if it was moved."
        )
    quiet_optuna()
    try:
        make_url(url)
        # Opened the usual way Optuna would make its tables, in whatever database was named by mistake.
        opened = RDBStorage(with_driver(url), _unwritable(file), skip_table_creation=True)
        return optuna.load_study(study_name=name, storage=opened)
    except Exception as error:  # every database has its own way to say no
        reason = first_line(root_cause(error)).rstrip(".")
        raise UserError(
            f"The study {name} can't be read from {shown} ({reason}): start the server, or give storage=…"
        ) from error


def _unwritable(file: Path | None) -> dict[str, Any]:
    """Returns how SQLAlchemy is to open a file in a folder that is read only.

    SQLite makes files beside a database in WAL mode even to read it, unless it is told that nobody writes there.
    """
    if file is None or os.access(file.parent, os.W_OK) or file.with_name(f"{file.name}-wal").exists():
        return {}
    address = f"file:{quote(str(file.absolute()))}?immutable=1"
    return {"creator": lambda: sqlite3.connect(address, uri=True)}


def maximized(study: optuna.Study | None, params: Mapping[str, str]) -> list[bool]:
    """Returns for each objective of a sweep whether more of it is better, as far as is known: nothing of a grid's.

    Args:
        study: the sweep's; None where it can't be read.
        params: of the sweep's run: the sweeper's options, which say it as well.
    """
    if study is not None:
        return [direction == optuna.study.StudyDirection.MAXIMIZE for direction in study.directions]
    text = params.get(f"{SWEEPER}direction", "[]")
    try:
        given = json.loads(text) if text.startswith("[") else [text]
    except ValueError:
        return []
    # The stock plugin's option is one of an enumeration: Direction.maximize.
    return [str(direction).rpartition(".")[2] == "maximize" for direction in given]


def searched(study: optuna.Study | None, params: Mapping[str, str]) -> dict[str, bool]:
    """Returns the keys that a study chose, each by itself, and whether it drew them from a continuous range.

    Args:
        study: the sweep's; None where it can't be read: then what its parent run says of the space has to do.
        params: of the sweep's run: the sweeper's options.
    """
    found: dict[str, bool] = {}
    for name, distribution in _distributions(study, params):
        key = key_of(name)
        continuous = isinstance(distribution, FloatDistribution) and distribution.step is None
        found[key] = found.get(key, False) or continuous
    return found


def _distributions(study: optuna.Study | None, params: Mapping[str, str]) -> Iterator[tuple[str, BaseDistribution]]:
    if study is not None:
        for trial in study.get_trials(deepcopy=False):
            yield from trial.distributions.items()
    elif params.get(f"{SWEEPER}_target_", "").endswith(STUDIES):
        for key in (key for key in params if key.startswith(RANGES)):
            try:
                space = SearchSpace.parse({key.removeprefix(RANGES): params[key]}, [])
            except Exception:  # whatever another version's plugin could express: what is not known is told from values
                continue
            yield from space.distributions.items()


def _place(folder: Path | None, params: Mapping[str, str]) -> tuple[str | None, str | None]:
    """Returns the study's name and storage; no name where there is no study, no storage where it was in memory."""
    if folder is not None and (known := study_in(folder)) is not None:
        # The marker names a file in the study's folder relatively, so that the folder can be moved.
        return known[0], in_folder(known[1], folder)
    target = params.get(f"{SWEEPER}_target_", "")
    if not target.endswith(STUDIES):
        return None, None
    name, storage = params.get(f"{SWEEPER}study_name", "null"), params.get(f"{SWEEPER}storage", "null")
    if storage != "null":
        return name, storage
    if target.endswith("StudySweeper"):
        return name, sqlite_url((folder or Path()) / STORAGE_FILE)
    return name, None
