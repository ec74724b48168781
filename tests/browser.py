"""MLflow's UI and a headless Chromium to look at it, for tests of what a person sees."""

import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from selenium.webdriver import Chrome

HOST = "127.0.0.1"
FLAGS = [
    "--headless=new",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--disable-quic",
    "--disable-sync",
    "--disable-background-networking",
    "--disable-component-update",
    "--no-first-run",
    "--force-color-profile=srgb",
    f"--host-resolver-rules=MAP * ~NOTFOUND , EXCLUDE {HOST}",  # nothing but this machine
]
# MLflow opens its assistant beside the runs at the first visit; this browser has been here before.
SEEN = """
localStorage.setItem("mlflow.assistant.fab.autoOpenedOnFirstLoad_v1", "true");
localStorage.setItem("mlflow.assistant.panelOpen_v1", "false");
"""


def missing() -> str | None:
    """Say what a test in a browser lacks here; None if nothing."""
    if chromium_path() is None:
        return "no Chromium on this machine"
    if shutil.which("chromedriver") is None:
        return "no chromedriver on this machine"
    try:
        import selenium  # noqa: F401
    except ImportError:
        return "the Python package selenium is not installed"
    return None


def chromium_path() -> str | None:
    """Where Chromium is, under the names that distributions give it."""
    names = ("chromium", "chromium-browser", "google-chrome")
    return next((path for path in map(shutil.which, names) if path), None)


@contextmanager
def chromium(folder: Path, width: int, height: int) -> Iterator["Chrome"]:
    """A new, empty headless Chromium whose window shows `width` × `height` pixels of a page."""
    from selenium.webdriver import Chrome, ChromeOptions
    from selenium.webdriver.chrome.service import Service

    options = ChromeOptions()
    options.binary_location = chromium_path() or ""
    for flag in [*FLAGS, f"--user-data-dir={folder}"]:
        options.add_argument(flag)
    driver = Chrome(options=options, service=Service(shutil.which("chromedriver")))
    try:
        size = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": False}
        driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
        driver.execute_cdp_cmd("Page.addScriptToEvaluateOnNewDocument", {"source": SEEN})
        yield driver
    finally:
        driver.quit()


@contextmanager
def mlflow_ui(uri: str, log: Path, patience: float = 120) -> Iterator[str]:
    """`mlflow ui` on a free port; gives its address once it answers, and ends it with all its workers."""
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        port = probe.getsockname()[1]
    command = [sys.executable, "-m", "mlflow", "ui", "--backend-store-uri", uri]
    command += ["--host", HOST, "--port", str(port), "--workers", "1"]
    environment = os.environ | {"MLFLOW_DISABLE_TELEMETRY": "true", "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}
    with log.open("w") as output:
        server = subprocess.Popen(
            command, cwd=log.parent, env=environment, stdout=output, stderr=output, start_new_session=True
        )
    try:
        address = f"http://{HOST}:{port}"
        _wait_until_healthy(address, server, log, patience)
        yield address
    finally:
        _end(server)


def _wait_until_healthy(address: str, server: subprocess.Popen, log: Path, patience: float) -> None:
    deadline = time.monotonic() + patience
    while time.monotonic() < deadline and server.poll() is None:
        with suppress(urllib.error.URLError, OSError), urllib.request.urlopen(f"{address}/health", timeout=5):
            return
        time.sleep(0.2)
    raise AssertionError(f"mlflow ui did not come up:\n{log.read_text()[-3000:]}")


def _end(server: subprocess.Popen) -> None:
    for how in (signal.SIGTERM, signal.SIGKILL):
        with suppress(ProcessLookupError):
            os.killpg(server.pid, how)  # its own session, so the group is the server and its workers alone
        with suppress(subprocess.TimeoutExpired):
            server.wait(timeout=10)
