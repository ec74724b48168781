"""Where the jobs of a sweep left their files, found from its folder alone."""

import os
from collections.abc import Iterator
from pathlib import Path

from omegaconf import OmegaConf
from yaml import YAMLError

# Files that mark a sweep's folder: the keys that it fixes, Hydra's own record, the study's name and storage.
FIXED_FILE, STUDY_FILE = "fixed_overrides.yaml", "study.yaml"
SWEEP_FILES = (FIXED_FILE, "multirun.yaml", STUDY_FILE)
# A job's folder in its sweep's, as conf/config.yaml has it.
BY_NUMBER = "${hydra.job.num}"
# Folder in a job's folder for what another job left there before.
EARLIER = "earlier"


def is_sweep(folder: Path) -> bool:
    """Whether a folder is a sweep's, as far as it says so itself."""
    return any((folder / name).is_file() for name in SWEEP_FILES)


def is_study(folder: Path) -> bool:
    """Whether a folder is a study's: its trials have numbers, and a folder for each seed where they have several."""
    return (folder / STUDY_FILE).is_file()


def study_in(folder: Path) -> tuple[str, str] | None:
    """Returns the name and the storage that a study's folder names; None of another folder, or a damaged file."""
    try:
        content = OmegaConf.load(folder / STUDY_FILE)
        return str(content.study_name), str(content.storage)
    except (OSError, ValueError, AttributeError, YAMLError):
        return None


def files_of_jobs(sweep: Path, name: str) -> list[Path]:
    """Returns the files of a name that the jobs of a sweep left in their folders.

    They are wherever `hydra.sweep.subdir` says. What an earlier job left in a folder is not the job's, and a study's
    retrained winner is none of its trials. Of a folder that does not say that it is a sweep's only those right below
    it are meant: further down they may be of many sweeps.
    """
    if not is_study(sweep):
        return sorted(_below(sweep, name, deep=is_sweep(sweep)))
    seeds = [file for file in sweep.glob(f"*/seed_*/{name}") if file.parent.parent.name.isdigit()]
    return sorted([*sweep.glob(f"*/{name}"), *seeds])


def _below(folder: Path, name: str, deep: bool) -> Iterator[Path]:
    try:
        with os.scandir(folder) as entries:
            inside = [Path(entry) for entry in entries if entry.is_dir() and not entry.name.startswith(".")]
    except OSError:  # it is gone, or somebody else's
        return
    for child in inside:
        if child.name == EARLIER or is_sweep(child):
            continue
        if (child / name).is_file():
            yield child / name
        if deep and not child.is_symlink():
            yield from _below(child, name, deep)
