"""What a download by Python's or PyTorch's own means lacks."""

import os
import socket
import ssl
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


def lend_certificates() -> None:
    """Gives Python the certificates of `certifi` where it has none: python.org's for Macs, as it is installed."""
    known = ssl.get_default_verify_paths()
    if not known.cafile and not (known.capath and any(Path(known.capath).iterdir())):
        import certifi

        os.environ["SSL_CERT_FILE"] = certifi.where()


@contextmanager
def socket_timeout(seconds: float) -> Iterator[None]:
    """The downloaders of torchvision and PyTorch set none; without one a black-holed network hangs for minutes."""
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(seconds)
    try:
        yield
    finally:
        socket.setdefaulttimeout(before)
