"""A job's folder that was used before: earlier files are kept aside, and one process at a time may train there."""

import hashlib
import logging
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from filelock import FileLock, Timeout

from cifar_tuning.errors import UserError
from cifar_tuning.job_folders import EARLIER
from cifar_tuning.jobs.result import JobResult

log = logging.getLogger(__name__)


def has_trained(folder: Path) -> bool:
    """Whether a run left weights in a folder."""
    return any((folder / name).is_file() for name in ("last.pt", "best.pt"))


def put_aside(folder: Path, overrides: Sequence[str], advice: str) -> None:
    """Keeps what another job left in a job's folder, in `earlier/`.

    Args:
        folder: the job's.
        overrides: of the job that begins there now.
        advice: the override that would have given each a folder of its own.
    """
    known = JobResult.read(folder)
    aside = folder / EARLIER / str(len(list(folder.glob(f"{EARLIER}/*"))) + 1)
    aside.mkdir(parents=True)
    for file in list(folder.iterdir()):
        if file.is_file() and file.suffix != ".log":  # the log is this job's already
            file.replace(aside / file.name)
    theirs = [] if known is None else known.overrides
    there = [override for override in theirs if override not in overrides]
    asked = [override for override in overrides if override not in theirs]
    if not there and not asked and known is not None:
        log.warning("The same command was run in %s before. What it left is kept in %s.", folder, aside)
        return
    log.warning(
        "Another job was in %s: it had %s, this one has %s. It is kept in %s; %s would give each its place.",
        folder,
        " ".join(there) or ("an unknown end" if known is None else "nothing else on its command line"),
        " ".join(asked) or "none of that",
        aside,
        advice,
    )


@contextmanager
def only_here(folder: Path, option: str) -> Iterator[None]:
    """Keeps a job's folder for this process, as far as this machine goes: two that train there would mix their runs.

    Args:
        folder: the job's.
        option: which names the folder, for the message.

    Raises:
        UserError: another process works there.
    """
    name = hashlib.sha256(str(folder.resolve()).encode()).hexdigest()[:32]
    # Not in the folder, where it would stay, and where a network disk may know no locks.
    lock = FileLock(Path(tempfile.gettempdir()) / f"cifar_tuning-{name}.lock", mode=0o666)
    try:
        lock.acquire(timeout=0)
    except Timeout as error:
        raise UserError(
            f"{option}={folder} is in use: another process trains there. Wait for its end, or choose another folder."
        ) from error
    except OSError as error:  # another user's file, say
        log.debug("%s can't be kept for this process: %s", folder, error)
    try:
        yield
    finally:
        if lock.is_locked:
            with suppress(OSError):
                Path(lock.lock_file).unlink()
            lock.release()
