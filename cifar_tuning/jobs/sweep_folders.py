"""Whether each job of a grid would have a folder of its own."""

import os
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from cifar_tuning.compose import as_job
from cifar_tuning.job_folders import BY_NUMBER
from cifar_tuning.text import on_one_line

# Bytes of a file's name, on every usual file system.
LONGEST_NAME = 255


def folder_problems(jobs: list[tuple[str, Any]]) -> dict[str, list[str]]:
    """Returns which jobs of a grid would have no folder, or one with others: each would train over the other's run."""
    asked = OmegaConf.to_container(jobs[0][1].hydra.sweep)
    subdir = asked.get("subdir", BY_NUMBER) if isinstance(asked, dict) else BY_NUMBER
    if subdir == BY_NUMBER:
        return {}
    places: dict[str, list[str]] = {}
    problems: dict[str, list[str]] = {}
    for label, job in jobs:
        try:
            with as_job(job):
                place = str(OmegaConf.select(job, "hydra.sweep.subdir"))
        except OmegaConfBaseException as error:
            problems.setdefault(f"hydra.sweep.subdir={subdir}: {on_one_line(str(error))}", []).append(label)
            continue
        places.setdefault(place, []).append(label)
        if (problem := _no_folder(Path(str(job.hydra.sweep.dir)), place)) is not None:
            problems.setdefault(f"hydra.sweep.subdir={subdir}: {problem}", []).append(label)
    shared = {
        f"hydra.sweep.subdir: several jobs would have the folder {place}; tell them apart by "
        "'hydra.sweep.subdir=${hydra:job.num}', the default, or by every key that is swept": labels
        for place, labels in places.items()
        if len(labels) > 1
    }
    return problems | shared


def _no_folder(sweep: Path, place: str) -> str | None:
    """Returns why a job's folder can't be made in its sweep's; None if nothing is known."""
    if long := [part for part in Path(place).parts if len(os.fsencode(part)) > LONGEST_NAME]:
        return (
            f"names a folder {long[0][:20]}… of {len(os.fsencode(long[0]))} bytes, and a name has at most "
            f"{LONGEST_NAME}; 'hydra.sweep.subdir=${{hydra:job.num}}', the default, is short"
        )
    folder = sweep / place
    file = next((one for one in (folder, *folder.parents) if one.exists() and not one.is_dir()), None)
    return None if file is None else f"{file} is a file, so there can't be a folder; choose another, or move the file"
