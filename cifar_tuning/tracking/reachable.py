"""Whether a store answers, asked quickly; and of an error of its, whether it may be better in a while."""

from __future__ import annotations

import errno
import socket
import urllib.parse
import warnings

from cifar_tuning.text import first_line, without_password

# MLflow's words for what another try may mend: a server that is being started again, or has too much to do.
PASSING = (
    "INTERNAL_ERROR",
    "TEMPORARILY_UNAVAILABLE",
    "DEADLINE_EXCEEDED",
    "RESOURCE_EXHAUSTED",
    "REQUEST_LIMIT_EXCEEDED",
)
UNKNOWN_USER, TIMED_OUT, TOO_MANY = 401, 408, 429


def http_problem(uri: str, timeout: float) -> str | None:
    """Asks a server for its health; returns what is wrong, None if it answers.

    MLflow asks, so that its certificates, users and tokens, of the environment or in the address, are those of every
    other call.
    """
    from mlflow.exceptions import MlflowException
    from mlflow.utils.credentials import get_default_host_creds
    from mlflow.utils.rest_utils import http_request

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # urllib3's, of certificates that the user said not to look at
            answer = http_request(
                get_default_host_creds(uri), "/health", "GET", max_retries=0, timeout=timeout, raise_on_status=False
            )
    except MlflowException as error:
        return f"no MLflow server answers there ({_cause(error)})"
    # Somebody answers; a proxy may hide /health, and then MLflow's own call decides.
    return None if answer.status_code < 500 else f"the server answers with error {answer.status_code}"


def port_problem(uri: str, default_port: int, timeout: float) -> str | None:
    """Tries a database server's port; returns what is wrong, None if somebody listens."""
    # SQLAlchemy's connection would be tried ten times by MLflow, for 100 seconds.
    parts = urllib.parse.urlsplit(uri)
    try:
        with socket.create_connection((parts.hostname or "localhost", parts.port or default_port), timeout):
            return None
    except (OSError, ValueError) as error:
        return f"no database server answers there ({error})"


def may_pass(error: Exception) -> bool:
    """Tells whether an error of a store's may be gone at another try, such as a network's; a refusal stays one."""
    code = getattr(error, "error_code", None)
    if isinstance(code, str):  # MLflow's
        return code in PASSING
    status = getattr(getattr(error, "response", None), "status_code", None)
    if status is not None:  # that of a request for a file
        return status >= 500 or status in (UNKNOWN_USER, TIMED_OUT, TOO_MANY)
    # An OSError is a requests', too.
    return isinstance(error, OSError) and error.errno not in (errno.EACCES, errno.EPERM, errno.EROFS)


def said(error: BaseException | str) -> str:
    """Returns what a store said, or why it said nothing, in a line and without the password of its address."""
    if isinstance(error, BaseException) and isinstance(error.__cause__ or error.__context__, OSError):
        return _cause(error)  # MLflow's own line has the address twice, and the reason at its end
    return without_password(first_line(error))


def _cause(error: BaseException) -> str:
    """Returns what a connection failed of, from the innermost of the errors that were made of each other."""
    inner = error.__cause__ or error.__context__ or error
    while (deeper := getattr(inner, "reason", None) or (inner.args[0] if inner.args else None)) is not None:
        if not isinstance(deeper, BaseException):
            break
        inner = deeper
    return said(str(inner)).rpartition("Failed to establish a new connection: ")[2]
