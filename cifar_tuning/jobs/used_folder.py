"""What an earlier command left in a job's folder, and how it is kept."""

import logging
from collections.abc import Sequence
from pathlib import Path

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
    aside = folder / "earlier" / str(len(list(folder.glob("earlier/*"))) + 1)
    aside.mkdir(parents=True)
    for file in list(folder.iterdir()):
        if file.is_file() and file.suffix != ".log":  # the log is this job's already
            file.replace(aside / file.name)
    theirs = [] if known is None else known.overrides
    there = [override for override in theirs if override not in overrides]
    asked = [override for override in overrides if override not in theirs]
    log.warning(
        "Another job was in %s: it had %s, this one has %s. It is kept in %s; %s would give each its place.",
        folder,
        " ".join(there) or ("an unknown end" if known is None else "nothing else on its command line"),
        " ".join(asked) or "none of that",
        aside,
        advice,
    )
