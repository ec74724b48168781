"""Where the default store is, how it is made, and what happens where it can't be."""

import contextlib
import socket
import sqlite3
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from cifar_tuning import databases
from cifar_tuning.errors import TrackingError
from cifar_tuning.tracking import MLflowTracker, database, download_artifact
from cifar_tuning.tracking.store import connect, locate


def journal_mode(file):
    with contextlib.closing(sqlite3.connect(file)) as connection:
        return connection.execute("PRAGMA journal_mode").fetchone()[0]


def test_the_default_store_is_independent_of_the_current_directory(started, client, root, tmp_path, monkeypatch):
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    monkeypatch.chdir(elsewhere)
    tracker = started()
    tracker.finish("complete")
    run = client.get_run(tracker.run_id)
    layout = root / "mlruns" / run.info.experiment_id / run.info.run_id / "artifacts"
    assert run.info.artifact_uri == str(layout)
    assert (layout / "config.yaml").exists()
    assert list(elsewhere.iterdir()) == []
    # A meta.yaml here would make MLflow's own default turn back to its retired file store.
    assert not list(root.glob("mlruns/*/meta.yaml"))


@pytest.mark.parametrize(
    ("uri", "expected", "artifacts"),
    [
        (None, "sqlite:////project/mlflow.db", "/project/mlruns"),
        ("sqlite:///runs.db", "sqlite:///{cwd}/runs.db", "{cwd}/mlruns"),
        ("sqlite:////data/runs.db", "sqlite:////data/runs.db", "/data/mlruns"),
        ("sqlite:///a%20b.db?timeout=30", "sqlite:///{cwd}/a b.db?timeout=30", "{cwd}/mlruns"),
        ("http://127.0.0.1:5000/", "http://127.0.0.1:5000", None),
        ("postgresql+psycopg://u:p@db/x", "postgresql+psycopg://u:p@db/x", "/project/mlruns"),
    ],
)
def test_locations(uri, expected, artifacts, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    location = locate(uri, Path("/project"))
    assert location.uri == expected.format(cwd=tmp_path)
    assert location.artifacts == (Path(artifacts.format(cwd=tmp_path)) if artifacts else None)


def test_passwords_are_not_shown():
    assert locate("mysql+pymysql://me:secret@db/x", Path("/")).shown == "mysql+pymysql://me:***@db/x"
    assert locate("http://me:se@cret@host", Path("/")).page("1", "2") == "http://host/#/experiments/1/runs/2"


@pytest.mark.parametrize(
    ("installed", "opened"), [(False, "postgresql+psycopg2://me@db/x"), (True, "postgresql://me@db/x")]
)
def test_a_server_is_reached_by_the_driver_that_is_installed(monkeypatch, installed, opened):
    """SQLAlchemy takes psycopg 3 where none is named."""
    monkeypatch.setattr(databases, "find_spec", lambda name: installed or None)
    assert locate("postgresql://me@db/x", Path("/")).uri == opened


@pytest.mark.parametrize(
    ("uri", "message"),
    [
        ("mlruns", "no longer keeps runs in plain folders"),
        ("file:///tmp/mlruns", "tracking.uri=sqlite:////tmp/mlruns/mlflow.db"),
        ("databricks://team", "Databricks' own stores are not spoken to"),
        ("ftp://host/x", "unknown kind of store 'ftp'"),
        ("sqlite://", "runs need a file"),
        ("sqlite://runs.db", "three slashes"),
        ("127.0.0.1:5000", "as http://127.0.0.1:5000"),
        ("sqlite:///:memory:", "runs need a file"),
    ],
)
def test_stores_mlflow_does_not_have(uri, message, context):
    with pytest.raises(TrackingError, match=message):
        MLflowTracker(uri=uri).start(context())


@pytest.mark.parametrize("uri", ["http://127.0.0.1:{port}", "postgresql+psycopg2://user:secret@127.0.0.1:{port}/runs"])
def test_a_server_that_is_down_is_an_error_at_once(uri, context):
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))  # bound but not listening: nobody else can take the port
        uri = uri.format(port=listener.getsockname()[1])
        started = time.monotonic()
        with pytest.raises(TrackingError) as caught:
            MLflowTracker(uri=uri).start(context())
    assert time.monotonic() - started < 20  # to try again and again would take minutes
    message = str(caught.value)
    assert uri.replace("secret", "***") in message
    assert "tracking=none" in message
    assert "secret" not in message


def test_a_files_address_may_be_quoted_and_have_options(context, tmp_path):
    tracker = MLflowTracker(uri=f"sqlite:///{tmp_path}/a%20b%3F.db?timeout=30")
    tracker.start(context())
    tracker.finish("complete")
    assert [file.name for file in tmp_path.glob("*.db*") if file.suffix == ".db"] == ["a b?.db"]


def test_a_database_that_another_process_makes_for_too_long_is_an_error(context, tmp_path, monkeypatch):
    monkeypatch.setattr(database, "WAIT", 0.0)
    with database.alone(tmp_path / "mlflow.db"), pytest.raises(TrackingError, match="If none is running, delete it"):
        MLflowTracker(uri=f"sqlite:///{tmp_path}/mlflow.db").start(context())


def test_an_unwritable_place_is_an_error(context, tmp_path):
    (tmp_path / "file").write_text("not a folder")
    with pytest.raises(TrackingError, match="can't write there"):
        MLflowTracker(uri=f"sqlite:///{tmp_path}/file/mlflow.db").start(context())


def test_a_file_that_is_no_database_is_an_error(context, tmp_path):
    (tmp_path / "mlflow.db").write_text("x" * 4096)
    with pytest.raises(TrackingError, match="not a database"):
        MLflowTracker(uri=f"sqlite:///{tmp_path}/mlflow.db").start(context())


def test_a_database_of_another_program_is_left_alone(context, tmp_path):
    with contextlib.closing(sqlite3.connect(tmp_path / "study.db")) as connection:
        connection.execute("CREATE TABLE trials (number INTEGER)")
    with pytest.raises(TrackingError, match="belongs to another program"):
        MLflowTracker(uri=f"sqlite:///{tmp_path}/study.db").start(context())


def test_a_plain_database_is_switched_to_wal(root):
    with contextlib.closing(sqlite3.connect(root / "mlflow.db")) as connection:
        connection.execute("PRAGMA journal_mode=DELETE")
    assert database.prepare(root / "mlflow.db") is False
    assert journal_mode(root / "mlflow.db") == "wal"


def test_the_store_is_in_wal_mode_with_few_flushes(started, root):
    tracker = started()
    tracker.finish("complete")
    assert journal_mode(root / "mlflow.db") == "wal"
    from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore

    engine = SqlAlchemyStore(f"sqlite:///{root / 'mlflow.db'}", str(root / "mlruns")).engine
    with engine.connect() as connection:
        assert connection.exec_driver_sql("PRAGMA synchronous").scalar() == 1  # NORMAL


@pytest.mark.slow
def test_two_jobs_create_one_database(tmp_path):
    file = tmp_path / "new" / "mlflow.db"
    created = []
    threads = [threading.Thread(target=lambda: created.append(database.prepare(file))) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(created) == [False, True]
    assert journal_mode(file) == "wal"
    assert {path.name for path in file.parent.iterdir()} <= {"mlflow.db", "mlflow.db.lock"}


def test_a_database_is_opened_by_one_process_at_a_time(root, monkeypatch):
    """MLflow migrates an older one as it opens it, and two that did so at once would break it."""
    monkeypatch.setattr(database, "WAIT", 0.0)
    with database.alone(root / "mlflow.db"), pytest.raises(TrackingError, match="held by another process"):
        connect(locate(None, root))
    connect(locate(None, root))


def test_the_command_is_quick_where_the_store_exists(root):
    script = f"""
import sys, pathlib, cifar_tuning.tracking.__main__ as command
command.PROJECT_ROOT = pathlib.Path({str(root)!r})
code = command.main()
print("mlflow" in sys.modules, code)
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines() == [f"MLflow store: {root / 'mlflow.db'} (there already)", "False 0"]


def test_a_file_comes_back(started, root, tmp_path):
    tracker = started()
    (tmp_path / "best.pt").write_bytes(b"weights")
    tracker.log_artifacts({"checkpoints/best.pt": tmp_path / "best.pt"})
    tracker.finish("complete")
    target = tmp_path / "target"
    target.mkdir()
    file = download_artifact(None, tracker.run_id, "checkpoints/best.pt", target, root=root)
    assert file.read_bytes() == b"weights"
    assert file.is_relative_to(target)
    with pytest.raises(TrackingError, match=r"has no last.pt \(it keeps checkpoints, config.yaml"):
        download_artifact(None, tracker.run_id, "last.pt", target, root=root)
    with pytest.raises(TrackingError, match="knows no run"):
        download_artifact(None, "0" * 32, "last.pt", target, root=root)
    with pytest.raises(TrackingError, match="does not exist"):
        download_artifact(f"sqlite:///{tmp_path}/other.db", "0" * 32, "last.pt", target)
    assert not (tmp_path / "other.db").exists()
