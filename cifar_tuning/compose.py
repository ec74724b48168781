"""Composing a sweep's jobs without reading and merging the same files for each of them.

Trials differ in values, so what Hydra makes of the config files before it sets those values is the same for all that
choose the same groups. It is more than half of the time that Hydra takes for a job.
"""

import copy
import pickle
import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from weakref import WeakKeyDictionary

from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra._internal.config_repository import CachingConfigRepository, IConfigRepository
from hydra.core.config_loader import ConfigLoader
from hydra.core.default_element import ResultDefault
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from hydra.core.object_type import ObjectType
from hydra.core.override_parser.types import Override
from hydra.core.utils import env_override
from hydra.plugins.config_source import ConfigResult
from hydra.types import HydraContext
from omegaconf import DictConfig, OmegaConf, open_dict, read_write

from cifar_tuning.overrides import spelled
from cifar_tuning.text import flatten, override


def remember_files(context: HydraContext) -> HydraContext:
    """Returns the same context with a `sweep_loader`."""
    kept = copy.copy(context)
    kept.config_loader = sweep_loader(context.config_loader)
    return kept


def remember_from_now() -> None:
    """Has Hydra itself compose this command's jobs so: its own sweeper and launcher do it once each for every job."""
    hydra: Any = GlobalHydra.instance().hydra
    hydra.config_loader = sweep_loader(hydra.config_loader)


def sweep_loader(loader: ConfigLoader) -> ConfigLoader:
    """Returns a loader that composes as Hydra's does and keeps what it has read; somebody else's stays as it is."""
    if type(loader) is not ConfigLoaderImpl:
        return loader
    if loader not in _of:
        _of[loader] = SweepLoader(loader)
    return _of[loader]


def numbered(config: DictConfig, number: int) -> DictConfig:
    """Gives a job's configuration its number, as launchers do; returns it."""
    with read_write(config.hydra), open_dict(config):
        config.hydra.job.id, config.hydra.job.num = str(number), number
    return config


def without_hydra(config: DictConfig) -> DictConfig:
    """Returns what of a job's or a sweep's configuration is the application's own."""
    return OmegaConf.masked_copy(config, [str(key) for key in config if key != "hydra"])


@contextmanager
def as_job(config: DictConfig) -> Iterator[None]:
    """Sets Hydra's global configuration and the environment to a job's for a while: its values are as they will be.

    `${hydra:job.num}` and `${oc.env:NAME}` may stand in a job's configuration, the latter for what is in
    `hydra.job.env_set`. Hydra's part belongs to the configuration here.
    """
    instance: Any = HydraConfig.instance()
    before, instance.cfg = instance.cfg, OmegaConf.masked_copy(config, "hydra")
    try:
        with env_override(OmegaConf.select(instance.cfg, "hydra.job.env_set") or {}):
            yield
    finally:
        instance.cfg = before


def having(group: str, option: str) -> str:
    """Returns in words which choices of a group have an option, to be added to a sentence; nothing where none has."""
    found = [name for name, file in _choices(group).items() if option in file]
    if not found:
        return ""
    return f"; {', '.join(override(group, name) for name in found)} {'has' if len(found) == 1 else 'have'} it"


def way_out(error: Exception, config: DictConfig) -> str:
    """Returns what to do about an option that could not be set, behind what Hydra says, which only knows of adding.

    That is a choice of the group that has it, a condition where a study searches the group too, and to vary it no more
    where an overlay does.
    """
    found = re.search(r"Could not override '(\w+)\.(\w+)'", str(error))
    if found is None:
        return ""
    group, option = found.groups()
    key, params = f"{group}.{option}", config.hydra.sweeper.get("params") or {}
    dropped = rf"; '~hydra.sweeper.params.{group}\.{option}' leaves it out of the sweep" if key in params else ""
    typed = [one.partition("=")[2] for one in config.hydra.overrides.task if one.startswith(f"{group}=")]
    searched = re.findall(r"\w+", (typed or [str(params.get(group, ""))])[-1])
    with_it = [name for name, file in _choices(group).items() if option in file and name in searched]
    if "conditions" in config.hydra.sweeper and with_it and len(searched) > 1:
        condition = f"""'hydra.sweeper.conditions={{{key}:"{group}={",".join(with_it)}"}}'"""
        return f"{having(group, option)}; {condition} searches it with {' and '.join(with_it)} alone{dropped}"
    return having(group, option) + dropped


def choice_of(group: str, options: Any) -> str | None:
    """Returns the overrides that choose a group as it is, such as `augmentation=crop_flip augmentation.cutout=8`.

    Args:
        group: a config group of one constructor.
        options: its resolved options; what a file refers to (`${trainer.epochs}`) is not looked at.

    Returns:
        None where no file of the group, or more than one, has its constructor.
    """
    target = options.get("_target_") if isinstance(options, dict) else None
    found = {name: file for name, file in _choices(group).items() if file.get("_target_") == target}
    if len(found) != 1:
        return None
    ((name, file),) = found.items()
    before = dict(flatten(file))
    others = [
        f"{group}.{key}={spelled(value)}"
        for key, value in flatten(options)
        if before.get(key) != value and "${" not in str(before.get(key))
    ]
    return " ".join([override(group, name), *others])


def _choices(group: str) -> dict[str, dict[Any, Any]]:
    """The unresolved contents of a group's files, by name; none where no command of Hydra's is running."""
    loader = GlobalHydra.instance().config_loader() if GlobalHydra.instance().is_initialized() else None
    if not isinstance(loader, ConfigLoaderImpl):
        return {}
    names = loader.get_group_options(group, results_filter=ObjectType.CONFIG)
    files = {name: loader.repository.load_config(f"{group}/{name}") for name in names}
    contents = {name: OmegaConf.to_container(file.config) for name, file in files.items() if file is not None}
    return {name: content for name, content in contents.items() if isinstance(content, dict)}


class SweepLoader(ConfigLoaderImpl):
    """Hydra's loader for a sweep's jobs, whose config files don't change while it runs."""

    def __init__(self, loader: ConfigLoader) -> None:
        vars(self).update(vars(loader))
        self._kept: CachingConfigRepository | None = None
        self._merged: dict[tuple[Any, ...], bytes] = {}

    def __getstate__(self) -> dict[str, Any]:  # launchers send it to other processes
        return vars(self) | {"_kept": None, "_merged": {}}

    def _parse_overrides_and_create_caching_repo(
        self, config_name: str | None, overrides: list[str], parsed_overrides: list[Override] | None = None
    ) -> tuple[list[Override], CachingConfigRepository]:
        elsewhere = any("searchpath" in override for override in overrides)
        if self._kept is None or elsewhere:
            parsed, repository = super()._parse_overrides_and_create_caching_repo(
                config_name, overrides, parsed_overrides
            )
            self._kept = None if elsewhere else repository
            return parsed, repository
        return parsed_overrides or self.parse_overrides(config_name, overrides), self._kept

    def _compose_config_from_defaults_list(self, defaults: list[ResultDefault], repo: IConfigRepository) -> DictConfig:
        if self._kept is None or repo is not self._kept:
            return super()._compose_config_from_defaults_list(defaults, repo)
        key = tuple((d.config_path, d.package, d.parent, d.is_self, d.primary) for d in defaults)
        if key not in self._merged:
            merged = super()._compose_config_from_defaults_list(defaults, _Copies(self._kept))
            self._merged[key] = pickle.dumps(merged)  # to read it takes a sixth of copying it
        config: DictConfig = pickle.loads(self._merged[key])
        return config


class _Copies(CachingConfigRepository):
    """Gives out copies: Hydra makes the nodes that it has read parts of the job's configuration."""

    def __init__(self, delegate: CachingConfigRepository) -> None:
        self.delegate, self.cache = delegate, {}

    def load_config(self, config_path: str) -> ConfigResult | None:
        return copy.deepcopy(self.delegate.load_config(config_path))


# One loader for checking the jobs of a command and for composing them to be trained.
_of: WeakKeyDictionary[ConfigLoader, SweepLoader] = WeakKeyDictionary()
