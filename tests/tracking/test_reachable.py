"""Servers behind TLS, names and passwords, asked as MLflow asks them; and which errors may pass."""

import base64
import datetime
import http.server
import ipaddress
import ssl
import threading

import pytest
import requests
from mlflow.exceptions import MlflowException, get_error_code

from cifar_tuning.errors import TrackingError
from cifar_tuning.tracking import MLflowTracker
from cifar_tuning.tracking.reachable import http_problem, may_pass, said
from cifar_tuning.tracking.store import locate


class Answers(http.server.BaseHTTPRequestHandler):
    """Is healthy, and takes nobody's calls."""

    def do_GET(self):
        self.server.heard.append((self.path, self.headers.get("Authorization")))
        self.send_response(200 if self.path == "/health" else 401)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_):
        pass


@pytest.fixture
def server():
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Answers)
    server.heard = []
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


def own_certificate(folder):
    """Writes a certificate that nobody vouches for, and its key, into one file."""
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "here")])
    today = datetime.datetime.now(datetime.UTC)
    certificate = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
        .not_valid_before(today - datetime.timedelta(days=1))
        .not_valid_after(today + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), False)
        .sign(key, hashes.SHA256())
    )
    kept = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    file = folder / "own.pem"
    file.write_bytes(kept + certificate.public_bytes(serialization.Encoding.PEM))
    return file


@pytest.mark.parametrize(
    ("variable", "value", "problem"),
    [
        (None, None, "CERTIFICATE_VERIFY_FAILED"),
        ("MLFLOW_TRACKING_INSECURE_TLS", "true", None),
        ("MLFLOW_TRACKING_SERVER_CERT_PATH", "{file}", None),
    ],
)
def test_certificates_are_checked_as_mlflows_variables_say(server, tmp_path, monkeypatch, variable, value, problem):
    file = own_certificate(tmp_path)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(file)
    server.socket = context.wrap_socket(server.socket, server_side=True)
    if variable:
        monkeypatch.setenv(variable, value.format(file=file))
    found = http_problem(f"https://127.0.0.1:{server.server_port}", timeout=5)
    assert (found is None) if problem is None else problem in found


def test_a_password_in_the_address_is_used_and_never_shown(server, context):
    uri = f"http://me:secret@127.0.0.1:{server.server_port}"
    assert locate(uri, None).problem(timeout=5) is None
    with pytest.raises(TrackingError, match="MLFLOW_TRACKING_USERNAME") as caught:
        MLflowTracker(uri=uri).start(context())
    assert {told for _, told in server.heard} == {"Basic " + base64.b64encode(b"me:secret").decode()}
    assert "secret" not in str(caught.value)
    assert "secret" not in locate(uri, None).page("1", "0")


def of_a_file(status):
    return requests.HTTPError("no", response=type("Response", (), {"status_code": status})())


@pytest.mark.parametrize(
    ("error", "passing"),
    [
        (ConnectionError("gone"), True),
        (requests.ConnectionError("gone"), True),
        (MlflowException("hiccup"), True),
        *(
            (MlflowException("", error_code=get_error_code(status)), status > 500)
            for status in (400, 401, 404, 502, 503, 504)
        ),
        (of_a_file(503), True),
        (of_a_file(413), False),
        (of_a_file(403), False),
        (OSError(28, "disk full"), True),
        (PermissionError(13, "read-only"), False),
        (ImportError("boto3"), False),
    ],
)
def test_what_may_pass(error, passing):
    assert may_pass(error) is passing


def test_of_a_lost_connection_the_reason_is_said():
    refused = ConnectionRefusedError(111, "Connection refused")
    lost = MlflowException("API request to http://me:secret@host/api failed with exception HTTPConnectionPool(…)")
    assert said(lost) == "API request to http://me:***@host/api failed with exception HTTPConnectionPool(…)"
    lost.__context__ = requests.ConnectionError(
        f"http://me:secret@host: Failed to establish a new connection: {refused}"
    )
    assert said(lost) == "[Errno 111] Connection refused"
