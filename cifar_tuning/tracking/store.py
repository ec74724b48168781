"""Which MLflow store a URI names, whether it can be reached, and a client for it."""

from __future__ import annotations

import logging
import os
import re
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

from cifar_tuning.databases import in_folder, sqlite_file, sqlite_url, with_driver
from cifar_tuning.errors import TrackingError, UserError
from cifar_tuning.text import without_password
from cifar_tuning.tracking import database
from cifar_tuning.tracking.reachable import http_problem, may_pass, port_problem, said

if TYPE_CHECKING:
    from mlflow import MlflowClient

HTTP = ("http", "https")
# Databases MLflow speaks to itself, and the port each listens on unless the URI says otherwise.
SERVERS = {"postgresql": 5432, "mysql": 3306, "mssql": 1433}
# MLflow refuses more at once.
PARAMS_A_CALL = 100
ADVICE = (
    "Start the server, give another store (tracking.uri=sqlite:///path/to/mlflow.db), or train without one "
    "(tracking=none)."
)
# What is refused to somebody unknown, by MLflow's words.
NOT_ALLOWED = ("UNAUTHENTICATED", "PERMISSION_DENIED")
WHO_YOU_ARE = (
    "Say who you are with MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD, or with MLFLOW_TRACKING_TOKEN, in the "
    "environment."
)
# MLflow retries a request for minutes by default, which would hold the training up that long; what
# can't be sent is kept and sent later anyway. Telemetry would phone home from every run.
ENVIRONMENT = {
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "10",
    "MLFLOW_HTTP_REQUEST_BACKOFF_FACTOR": "1",
    "MLFLOW_HTTP_REQUEST_BACKOFF_JITTER": "0.1",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_LOGGING_LEVEL": "WARNING",
}


class StoreAwayError(TrackingError):
    """The store can't be used now, but perhaps in a while."""


@dataclass(frozen=True)
class Location:
    """A store before it is opened.

    Args:
        uri: absolute; what MLflow is given.
        file: the SQLite file, if it is one.
        artifacts: where the files of new experiments go; None where the server decides.
    """

    uri: str
    file: Path | None
    artifacts: Path | None

    @property
    def shown(self) -> str:
        """The URI without its password, for messages."""
        return without_password(self.uri)

    def page(self, experiment_id: str, run_id: str) -> str | None:
        """Returns where a server shows a run; None of a store that no server is known for."""
        if self.uri.split(":", 1)[0] not in HTTP:
            return None
        return f"{re.sub('://[^/]*@', '://', self.uri)}/#/experiments/{experiment_id}/runs/{run_id}"

    def problem(self, timeout: float) -> str | None:
        """Ask quickly whether the store can be reached; None if so, else what is wrong."""
        scheme = self.uri.split(":", 1)[0].split("+")[0]
        if scheme in HTTP:
            return http_problem(self.uri, timeout)
        if scheme in SERVERS:
            return port_problem(self.uri, SERVERS[scheme], timeout)
        if self.file is not None and not self.file.exists():
            return f"{self.file} does not exist"
        return None


@dataclass(frozen=True)
class Store:
    """An opened store: where it is, how to speak to it, and the experiment that runs go into."""

    location: Location
    client: MlflowClient
    experiment: str
    experiment_id: str

    def log_params(self, run_id: str, params: Mapping[str, str]) -> None:
        """Log parameters, as many at a time as MLflow takes."""
        from mlflow.entities import Param

        pairs = [Param(key, value) for key, value in params.items()]
        for start in range(0, len(pairs), PARAMS_A_CALL):
            self.client.log_batch(run_id, params=pairs[start : start + PARAMS_A_CALL])

    def reopen(self, run_id: str, tags: Mapping[str, str]) -> None:
        """Go on with a run.

        Args:
            run_id: which.
            tags: of the process that does; they come first, or who looks in between sees a running run of a process
                that is gone.
        """
        from mlflow.entities import RunTag

        self.client.log_batch(run_id, tags=[RunTag(key, value) for key, value in tags.items()])
        self.client.update_run(run_id, status="RUNNING")


def locate(uri: str | None, root: Path) -> Location:
    """Make a tracking URI absolute.

    Args:
        uri: None for the default, `mlflow.db` and `mlruns/` under `root`.
        root: the project's folder.

    Raises:
        TrackingError: MLflow has no such store.
    """
    if uri is None:
        file = root.resolve() / "mlflow.db"
        return Location(sqlite_url(file), file, database.artifacts_of(file))
    scheme, separator, rest = uri.partition("://")
    if re.fullmatch(r"[\w.-]+:\d+/?", uri):
        raise TrackingError(
            f"tracking.uri={without_password(uri)}: a server's address begins with http:// or https://, as http://{uri}"
        )
    if scheme in ("databricks", "databricks-uc", "uc"):
        raise TrackingError(f"tracking.uri={without_password(uri)}: Databricks' own stores are not spoken to. {ADVICE}")
    if not separator or scheme == "file":
        raise TrackingError(
            f"tracking.uri={without_password(uri)}: MLflow no longer keeps runs in plain folders. "
            f"Give a database file instead: tracking.uri=sqlite:///{Path(rest or uri).absolute()}/mlflow.db"
        )
    dialect = scheme.split("+")[0]
    if dialect == "sqlite":
        if rest in ("", "/", "/:memory:"):
            raise TrackingError(f"tracking.uri={without_password(uri)}: runs need a file, such as sqlite:///mlflow.db")
        address = in_folder(uri, Path.cwd())
        named = sqlite_file(address)
        if named is None:
            raise TrackingError(f"tracking.uri={uri}: three slashes come before a relative path, four before another")
        return Location(address, named, database.artifacts_of(named))
    if dialect in HTTP:
        return Location(uri.rstrip("/"), None, None)
    if dialect in SERVERS:
        return Location(with_driver(uri), None, root.resolve() / "mlruns")
    raise TrackingError(
        f"tracking.uri={without_password(uri)}: unknown kind of store {scheme!r}; "
        f"MLflow knows sqlite, {', '.join([*SERVERS, *HTTP])}. {ADVICE}"
    )


def open_store(location: Location, experiment: str, check: bool = True) -> Store:
    """Open a store, creating the database and the experiment where they are missing.

    Args:
        location: where it is.
        experiment: the experiment's name.
        check: ask whether it is up; a run's end must not depend on that.

    Raises:
        TrackingError: it can't be reached or written; the message says what to do.
    """
    if check and location.file is None:
        _demand(location)  # at every run: a server may have gone since the last one
    store = _open(location, experiment)
    if check and location.file is not None:
        _demand(location)
    return store


def _demand(location: Location) -> None:
    problem = location.problem(timeout=3)
    if problem is not None:
        raise StoreAwayError(f"tracking.uri={location.shown}: {problem}. {ADVICE}")


@lru_cache(maxsize=32)
def _open(location: Location, experiment: str) -> Store:
    client = connect(location)
    with store_errors(location):
        return Store(location, client, experiment, _experiment_id(client, location, experiment))


def connect(location: Location) -> MlflowClient:
    """Make a client for a store, and the database if it is a file that isn't there yet."""
    quieten()
    with store_errors(location):
        if location.file is not None:
            database.prepare(location.file)
            database.listen()
        from mlflow import MlflowClient

        _quieten_loggers()
        # urllib3 says it of each request where MLFLOW_TRACKING_INSECURE_TLS is set.
        warnings.filterwarnings("once", message="Unverified HTTPS request")
        # It opens the store, and migrates a database of an earlier MLflow as it does so.
        with nullcontext() if location.file is None else database.alone(location.file):
            return MlflowClient(tracking_uri=location.uri, registry_uri=location.uri)


def quieten() -> None:
    """Set MLflow's defaults for this process and its children; what the user has set stays."""
    for key, value in ENVIRONMENT.items():
        os.environ.setdefault(key, value)


@contextmanager
def store_errors(location: Location, advice: str = ADVICE) -> Iterator[None]:
    """Turn whatever MLflow raises before training starts into one clear error, with what to do about it."""
    try:
        yield
    except UserError:
        raise
    except Exception as error:  # MLflow lets SQLAlchemy's, requests' and its own exceptions through
        kind = StoreAwayError if may_pass(error) else TrackingError
        if getattr(error, "error_code", None) in NOT_ALLOWED:
            advice = WHO_YOU_ARE
        raise kind(f"tracking.uri={location.shown}: {said(error)}. {advice}") from error


def _experiment_id(client: MlflowClient, location: Location, name: str) -> str:
    from mlflow.exceptions import MlflowException

    found = client.get_experiment_by_name(name)
    if found is None:
        try:
            return _create_experiment(client, location, name)
        except MlflowException:  # another job may have been faster
            found = client.get_experiment_by_name(name)
            if found is None:
                raise
    if found.lifecycle_stage != "active":
        raise TrackingError(
            f"tracking.experiment={name}: this experiment was deleted. Restore it with "
            f"`mlflow experiments restore --experiment-id {found.experiment_id}` or give another name."
        )
    return str(found.experiment_id)


def _create_experiment(client: MlflowClient, location: Location, name: str) -> str:
    if location.artifacts is None:
        return str(client.create_experiment(name))
    # The client would put the files of a database store under the current directory. The store takes
    # the root as an argument and keeps MLflow's layout, mlruns/<experiment id>/<run id>/artifacts.
    from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore

    return str(SqlAlchemyStore(location.uri, str(location.artifacts)).create_experiment(name))


def _quieten_loggers() -> None:
    for name, level in {
        "mlflow": logging.WARNING,
        "alembic": logging.WARNING,
        # These report each failed attempt, with a traceback; the outbox says it once.
        "mlflow.store.db.utils": logging.CRITICAL,
        "urllib3.connectionpool": logging.ERROR,
    }.items():
        logging.getLogger(name).setLevel(level)
