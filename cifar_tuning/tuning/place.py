"""Where a study lives and what a job is to it, told from Hydra's configuration alone, without Optuna."""

import copy
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

from cifar_tuning.databases import in_folder, sqlite_file, sqlite_url
from cifar_tuning.errors import ConfigError
from cifar_tuning.overrides import key_of, parse_overrides, task_overrides, value_of
from cifar_tuning.targets import is_study
from cifar_tuning.text import flatten, typed, without_password

STORAGE_FILE = "optuna.db"
# What a job is to its study, where Hydra lets a sweep say so: which of a trial's seeds it trains, or that it trains
# the winner once more. (A job's configuration may not differ from the sweep's in hydra.sweeper.)
REPEAT, RETRAIN = "hydra.job.env_set.CIFAR_TUNING_REPEAT", "hydra.job.env_set.CIFAR_TUNING_RETRAIN"
# System attributes of a trial, which neither the samplers nor Optuna's plots see: the overrides of its jobs, the
# process that has it, and whether an earlier one began it.
OVERRIDES = "cifar_tuning:overrides"
OWNER = "cifar_tuning:owner"
AGAIN = "cifar_tuning:again"
# User attributes of a trial that was not trained here: the number of the one with the same configuration; or the name
# of the study that trained it, and its number there.
SAME_AS = "same_as"
TRAINED_BY = "trained_by"


class LostTrial(SystemExit):
    """Another process has taken up this job's trial, because this one gave no sign of life for long."""


@dataclass(frozen=True)
class StudyPlace:
    """What finds a study again from any process.

    Attributes:
        storage: Optuna storage URL; a SQLite file's path in it is absolute.
        name: the study's name in the storage.
        folder: the sweep's folder, absolute.
    """

    storage: str
    name: str
    folder: Path

    @property
    def shared(self) -> bool:
        """Whether the storage is a server, which other machines reach too."""
        return not self.storage.startswith("sqlite")

    @property
    def goes_with_folder(self) -> bool:
        """Whether the storage is a file in the folder, so that who deletes the folder deletes the study."""
        file = sqlite_file(self.storage)
        return file is not None and file.is_relative_to(self.folder)


def folder_of_model(folder: Path) -> Path | None:
    """Returns where a trial's best checkpoint is: in its folder, or in its first seed's; None if it has none."""
    found = [*folder.glob("best.pt"), *sorted(folder.glob("seed_*/best.pt"))]
    return found[0].parent if found else None


def objectives_of(config: Any) -> list[str]:
    """Returns what a job's return values are called, as far as the application says; a list of one is the one."""
    named = config.get("objective")
    if named is None:
        return []
    return [str(name) for name in (named if OmegaConf.is_list(named) or isinstance(named, list) else [named])]


def is_trial(hydra: Any) -> bool:
    """Whether a job is a trial of a study (or one of a trial's seeds)."""
    return is_study(hydra) and not is_retrained(hydra) and OmegaConf.select(hydra, "job.num") is not None


def is_retrained(hydra: Any) -> bool:
    """Whether a job trains a study's winner once more."""
    return is_study(hydra) and OmegaConf.select(hydra, RETRAIN.removeprefix("hydra.")) is not None


def repeat_of(hydra: Any) -> int:
    """Returns which of its trial's seeds a job trains."""
    return int(OmegaConf.select(hydra, REPEAT.removeprefix("hydra.")) or 0)


def _cwd(hydra: Any) -> Path:
    """Returns where the command was typed; with `hydra.job.chdir` a job is elsewhere."""
    return Path(OmegaConf.select(hydra, "runtime.cwd") or Path.cwd())


def sweep_folder(hydra: Any) -> Path:
    """Returns the folder of a multirun, absolute, for its jobs too."""
    return Path(os.path.normpath(_cwd(hydra) / str(hydra.sweep.dir)))  # as Hydra does for its jobs


def study_place(hydra: Any) -> StudyPlace:
    """Returns where the study of this Hydra configuration lives."""
    cwd, folder = _cwd(hydra), sweep_folder(hydra)
    storage = hydra.sweeper.storage
    if storage is None:
        storage = sqlite_url(folder / STORAGE_FILE)
    elif not isinstance(storage, str):
        raise ConfigError([f"hydra.sweeper.storage={storage}: must be the URL of a database, or null"])
    else:
        storage = in_folder(storage, cwd)
    return StudyPlace(storage, str(hydra.sweeper.study_name or OmegaConf.select(hydra, "job.name") or "study"), folder)


def more_to_type(config: Any) -> str:
    """Returns what the same command lacks to go on with a study: ` with hydra.sweep.dir=…` where that has the time.

    Hydra's own default has it, so that the same command would begin another study. In a database it is found by name.

    Args:
        config: of the sweep, Hydra's part included.
    """
    if config.hydra.sweeper.storage is not None or not _has_the_time(config):
        return ""
    folder, cwd = sweep_folder(config.hydra), _cwd(config.hydra)
    folder = folder.relative_to(cwd) if folder.is_relative_to(cwd) else folder
    return f" with {typed('hydra.sweep.dir', folder)}"


def _has_the_time(config: Any) -> bool:
    """Whether a sweep's folder is another at another time, and not only called after a day as it was typed."""
    later = copy.deepcopy(config)
    cache = OmegaConf.get_cache(later)
    cache["now"] = dict.fromkeys(cache.get("now") or {}, "later")
    return sweep_folder(later.hydra) != sweep_folder(config.hydra)


def sweep_key(hydra: Any) -> str | None:
    """Returns what names a sweep in a tracking store where its folder may differ between machines.

    None: the folder itself does. A study in a server's database is one study wherever its processes run.
    """
    if not is_study(hydra):
        return None
    place = study_place(hydra)
    return f"{without_password(place.storage)} {place.name}" if place.shared else None


def sweeper_options(hydra: Any) -> dict[str, Any]:
    """Returns a sweeper's options as they are used: what is swept on the command line is in `params`, as typed."""
    options = OmegaConf.to_container(hydra.sweeper, resolve=True)
    assert isinstance(options, dict)
    given = task_overrides(hydra)
    params = {key_of(key): value for key, value in flatten(options.get("params") or {})}
    for override, parsed in zip(given, parse_overrides(given), strict=True):
        params.pop(key_of(override), None)
        if parsed.is_sweep_override():
            params[key_of(override)] = value_of(override)
    known = {"params": params} if params else {}
    return {str(key): value for key, value in options.items() if key != "params"} | known
