import errno
import fcntl
import sqlite3
import time
from concurrent.futures import ProcessPoolExecutor
from contextlib import closing
from functools import partial
from multiprocessing import get_context
from multiprocessing.synchronize import Barrier
from pathlib import Path
from unittest.mock import Mock

import optuna
import pytest
from sqlalchemy import text
from sqlalchemy.exc import IntegrityError, OperationalError

from cifar_tuning import databases
from cifar_tuning.databases import sqlite_file, sqlite_url
from cifar_tuning.errors import UserError
from cifar_tuning.tuning import storage
from cifar_tuning.tuning.place import StudyPlace
from cifar_tuning.tuning.storage import Storage, lost, open_storage

PROCESSES = 4


@pytest.fixture(autouse=True)
def _tables_are_made(monkeypatch):
    """In place of copies that other tests take."""
    for owner, name in ((storage, "_use_wal"), (optuna.storages.RDBStorage, "__init__")):
        monkeypatch.setattr(owner, name, getattr(owner, name).__wrapped__)


@pytest.mark.parametrize(
    ("installed", "url", "opened"),
    [
        (["psycopg2"], "postgresql://me:it@db/x", "postgresql+psycopg2://me:it@db/x"),
        (["psycopg2", "psycopg"], "postgresql://me@db/x", "postgresql://me@db/x"),
        (["psycopg2"], "postgresql+psycopg://me@db/x", "postgresql+psycopg://me@db/x"),
        (["psycopg2"], "mysql://me@postgresql://x", "mysql://me@postgresql://x"),
        (["psycopg2"], "sqlite:////tmp/x.db", "sqlite:////tmp/x.db"),
    ],
)
def test_an_address_without_a_driver_gets_one_that_is_installed(monkeypatch, installed, url, opened):
    monkeypatch.setattr(databases, "find_spec", lambda name: name if name in installed else None)
    assert databases.with_driver(url) == opened
    assert storage.without_driver(opened) == storage.without_driver(url)


@pytest.mark.parametrize("scheme", ["postgresql", "postgresql+psycopg2"])
def test_a_server_is_reached_by_the_driver_that_is_installed(scheme):
    pytest.importorskip("psycopg2")
    with pytest.raises(UserError, match="Is the server up, the address right") as error:
        storage.open_storage(f"{scheme}://me:hidden@127.0.0.1:9/x")
    assert f"storage={scheme}://me:***@127.0.0.1:9/x" in str(error.value)


def test_a_kind_of_database_that_there_is_not():
    with pytest.raises(UserError, match=r"storage=postgres://me:\*\*\*@db/x: .* sqlite:///, postgresql:// or mysql://"):
        open_storage("postgres://me:hidden@db/x")


@pytest.mark.parametrize("name", ["a.db", "50%.db", "a?b.db", "a%20b.db", "ä b.db"])
def test_a_file_has_its_name_in_its_address(tmp_path, name):
    assert sqlite_file(sqlite_url(tmp_path / name)) == tmp_path / name
    storage.open_storage(sqlite_url(tmp_path / name))
    assert (tmp_path / name).is_file()


def test_a_disk_without_locks(tmp_path, monkeypatch):
    def flock(file, how):
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", flock)
    with pytest.raises(UserError, match=r"No locks available\. This disk has no locks, .* on a local one"):
        open_storage(f"sqlite:///{tmp_path}/a.db")


def test_a_database_whose_disk_is_full(tmp_path):
    """SQLite says so far down, below a guess of Optuna's at what is wrong with the data."""
    opened = open_storage(f"sqlite:///{tmp_path}/a.db")
    study = optuna.create_study(storage=opened)
    with opened.engine.connect() as connection:
        connection.execute(text("PRAGMA max_page_count=1"))  # no more than it has
    with pytest.raises(storage.STORAGE_ERRORS) as refused:
        study.set_user_attr("key", list(range(2000)))
    assert str(lost(refused.value, "the same command goes on.")).startswith(
        "the study's storage: database or disk is full. Make room; the same"
    )


def test_a_disk_that_is_full_when_the_database_is_opened(tmp_path, monkeypatch):
    """In WAL mode SQLite makes a file beside it before anything else, and calls what comes of that an I/O error."""
    monkeypatch.setattr(storage, "_use_wal", Mock(side_effect=sqlite3.OperationalError("disk I/O error")))
    with pytest.raises(UserError, match=r"disk I/O error\. Is there room on the disk"):
        open_storage(f"sqlite:///{tmp_path}/a.db")


def test_the_tables_of_an_older_optuna_are_refused(tmp_path):
    optuna.storages.RDBStorage(f"sqlite:///{tmp_path}/a.db").engine.dispose()
    with closing(sqlite3.connect(tmp_path / "a.db")) as connection:
        connection.execute("UPDATE alembic_version SET version_num = 'v1.3.0.a'")
        connection.commit()
    with pytest.raises(UserError, match="Upgrade a copy of it"):
        open_storage(f"sqlite:///{tmp_path}/a.db")


@pytest.mark.parametrize("whole", [0, 4096], ids=["no database", "malformed"])
def test_a_damaged_database(tmp_path, whole):
    """As a power cut may leave it; its study can begin anew beside what its trials left."""
    file = tmp_path / "a.db"
    open_storage(f"sqlite:///{file}").engine.dispose()
    open_storage.cache_clear()
    file.write_bytes(file.read_bytes()[:whole] + bytes(file.stat().st_size - whole))
    for beside in tmp_path.glob("a.db-*"):
        beside.unlink()
    with pytest.raises(UserError, match=r"(not a database|malformed)\. Restore the file, or move it away"):
        open_storage(f"sqlite:///{file}")


def _barrier(barrier: Barrier) -> None:
    global together
    together = barrier


def _open(folder: Path, number: int) -> int:
    together.wait(timeout=60)
    return len(open_storage(f"sqlite:///{folder}/{number}.db").get_all_studies())


@pytest.mark.slow
def test_several_processes_make_the_same_file(tmp_path):
    context = get_context("spawn")
    with ProcessPoolExecutor(PROCESSES, context, _barrier, (context.Barrier(PROCESSES),)) as pool:
        for number in range(4):
            assert list(pool.map(partial(_open, tmp_path), [number] * PROCESSES)) == [0] * PROCESSES


def _open_as_a_dashboard_does(folder: Path, files: int) -> None:
    together.wait(timeout=60)
    for number in range(files):
        file = folder / f"{number}.db"
        while not (folder / f"{number}.done").exists():
            if file.exists():
                try:
                    optuna.storages.RDBStorage(f"sqlite:///{file}")
                except Exception:  # it has no lock: what it runs into is its own
                    time.sleep(0.001)


@pytest.mark.parametrize(
    "error",
    [
        IntegrityError("INSERT INTO version_info", None, Exception("UNIQUE constraint failed")),
        OperationalError("CREATE TABLE studies", None, Exception("table studies already exists")),
        OperationalError("CREATE TABLE studies", None, Exception("database is locked")),
    ],
)
def test_tables_that_another_program_makes_are_found_at_the_next_attempt(tmp_path, monkeypatch, error):
    errors = [error, error]

    class Contended(Storage):
        def __init__(self, *args, **kwargs):
            if errors:
                raise errors.pop()
            super().__init__(*args, **kwargs)

    monkeypatch.setattr(storage, "Storage", Contended)
    monkeypatch.setattr(storage, "TABLE_WAIT", 0)
    assert open_storage(f"sqlite:///{tmp_path}/optuna.db").get_all_studies() == []


@pytest.mark.slow
def test_another_program_opens_the_new_file_at_the_same_moment(tmp_path):
    """Optuna's dashboard, say, or a script that waits for the study; it knows nothing of a lock, and makes tables."""
    context, files = get_context("spawn"), 30
    barrier = context.Barrier(2)
    with ProcessPoolExecutor(1, context, _barrier, (barrier,)) as pool:
        other = pool.submit(_open_as_a_dashboard_does, tmp_path, files)
        barrier.wait(timeout=60)
        try:
            for number in range(files):
                assert open_storage(f"sqlite:///{tmp_path}/{number}.db").get_all_studies() == []
                (tmp_path / f"{number}.done").touch()
        finally:
            for number in range(files):
                (tmp_path / f"{number}.done").touch()
            other.result(timeout=60)


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("sqlite:////lab/anna/optuna.db", True),
        ("sqlite:////lab/optuna.db", False),
        ("sqlite:////lab/anna2/optuna.db", False),
        ("postgresql://db/lab", False),
    ],
)
def test_whether_who_deletes_a_folder_deletes_the_study(url, expected):
    assert StudyPlace(url, "lab", Path("/lab/anna")).goes_with_folder == expected
