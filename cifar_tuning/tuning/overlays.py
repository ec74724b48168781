"""Configurations as overlays: writing one, and letting `experiment=NAME/best` mean the winner of the study NAME."""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from hydra._internal.core_plugins.file_config_source import FileConfigSource
from hydra.core.config_search_path import ConfigSearchPath
from hydra.core.global_hydra import GlobalHydra
from hydra.core.object_type import ObjectType
from hydra.core.plugins import Plugins
from hydra.errors import CompactHydraException
from hydra.plugins.config_source import ConfigResult
from hydra.plugins.search_path_plugin import SearchPathPlugin
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf

from cifar_tuning import PROJECT_ROOT
from cifar_tuning.compose import without_hydra
from cifar_tuning.files import whole_path
from cifar_tuning.job_folders import is_study
from cifar_tuning.overrides import deletes, key_of, task_overrides, unresolved
from cifar_tuning.text import SEARCHPATH, flatten, is_elsewhere, override

GROUP = "experiment/"
# The word before `://` in a search path, and who puts it there.
STUDIES = "studies"
# What a study's winner is called in its folder.
BEST = "best"
# What a group's file says of an option that has to be given.
MISSING = "???"
# Overlays that a configuration was composed with: what they set is in its values.
COMPOSED_WITH = ("study", "experiment", "variant")
# Groups that a result does not depend on, besides those that say where it was trained and kept.
NO_PART = ("hydra", "tracking", "resume", "published")


def as_overlay(config: DictConfig, header: str, without: Iterable[str] = ()) -> str:
    """Returns a composed configuration as an experiment overlay: the groups it chose, and what it set beyond them.

    What a group's file says stays the file's: in the overlay it would win over another choice of the group, by name of
    which quite another thing would be trained.

    Args:
        config: with Hydra's own part, which knows the choices.
        header: comment lines, each with its line feed.
        without: keys that are left to whoever uses the overlay.
    """
    import yaml

    choices = {str(key): value for key, value in config.hydra.runtime.choices.items()}
    groups: dict[str, str | None] = {
        g: c for g, c in choices.items() if not g.startswith("hydra/") and g not in COMPOSED_WITH and c is not None
    }
    content = OmegaConf.to_container(without_hydra(config))
    assert isinstance(content, dict)
    left = {*NO_PART, *without}
    plain: dict[str, Any] = {str(k): value for k, value in content.items() if k not in left and value is not None}
    groups |= dict.fromkeys(_deleted_from(config))
    had, chosen = _as_chosen(config, groups)
    needed = {key for key, value in flatten(chosen) if value == MISSING}
    for key, value in [(key, value) for key, value in flatten(plain) if is_elsewhere(key)]:
        group, _, option = key.partition(".")
        plain[group] = {name: value for name, value in plain[group].items() if name != option}
        if key in needed:  # the folder of one's own images, which no file knows
            plain[group][option] = str(Path(value).expanduser().absolute())
    if isinstance(weights := plain.get("model", {}).get("weights"), str):  # a file, or a name of torchvision's
        plain["model"]["weights"] = whole_path(weights)
    plain = _beyond(plain, chosen)
    parts = [(group, choice) for group, choice in groups.items() if group not in NO_PART]
    # Hydra overrides only what was there before, and wants that behind all that comes anew.
    defaults: list[Any] = [{f"/{group}": choice} for group, choice in parts if group not in had]
    defaults += [{f"override /{group}": choice} for group, choice in parts if group in had]
    if defaults:
        plain = {"defaults": [*defaults, "_self_"], **plain}
    return f"# @package _global_\n{header}{yaml.safe_dump(plain, sort_keys=False, allow_unicode=True)}"


def _deleted_from(config: DictConfig) -> list[str]:
    """Returns the groups that overrides took away, or a part of them: chosen again they would bring it back."""
    deleted = [key_of(o) for o in task_overrides(config.hydra) if deletes(o)]
    groups = set(GlobalHydra.instance().config_loader().list_groups(""))
    return sorted({key.partition(".")[0].partition("@")[0] for key in deleted} & groups)


def _as_chosen(config: DictConfig, groups: Mapping[str, str | None]) -> tuple[set[str], dict[str, Any]]:
    """Returns which of the groups are in the defaults anyway, and the configuration that choosing them all gives.

    Those of the primary config are, and what one of them brings with it where that is chosen.
    """
    had: set[str] = set()
    chosen = {group: choice for group, choice in groups.items() if choice is not None}
    composed = _composed(config, [])
    while found := {group for group in groups if group in composed.hydra.runtime.choices} - had:
        had |= found
        composed = _composed(config, [override(group, choice) for group, choice in chosen.items() if group in had])
    if chosen.keys() - had:
        composed = _composed(config, [override(g if g in had else f"+{g}", choice) for g, choice in chosen.items()])
    content = OmegaConf.to_container(without_hydra(composed))
    assert isinstance(content, dict)
    return had, {str(key): value for key, value in content.items() if groups.get(str(key), "") is not None}


def _composed(config: DictConfig, overrides: list[str]) -> DictConfig:
    """Returns what other overrides make of the configuration that one was composed from, in the same places."""
    places = [one for one in unresolved(config.hydra.overrides.hydra) if key_of(one) == SEARCHPATH]
    loader = GlobalHydra.instance().config_loader()
    return loader.load_configuration(config.hydra.job.config_name, [*places, *overrides], run_mode=RunMode.RUN)


def _beyond(content: Mapping[str, Any], known: Mapping[str, Any]) -> dict[str, Any]:
    """Returns what of nested options is not known, or known otherwise."""
    left: dict[str, Any] = {}
    for key, value in content.items():
        if key in known and known[key] == value:
            continue
        before = known.get(key)
        if not isinstance(value, dict) or not isinstance(before, dict):
            left[key] = value
        elif beyond := _beyond(value, before):
            left[key] = beyond
    return left


class StudiesSource(FileConfigSource):
    """The overlays below a folder of sweeps, as configs of the group `experiment`."""

    @staticmethod
    def scheme() -> str:
        """The word before `://` in a search path."""
        return STUDIES

    def available(self) -> bool:
        """Always: before the first study there is just nothing in it."""
        return True

    def is_group(self, config_path: str) -> bool:
        """Only `experiment` and folders in it."""
        if config_path.rstrip("/") == GROUP.rstrip("/"):
            return Path(self.path).is_dir()
        return config_path.startswith(GROUP) and super().is_group(config_path.removeprefix(GROUP))

    def is_config(self, config_path: str) -> bool:
        """Only files of `experiment`.

        Raises:
            CompactHydraException: it would be a study's winner, and the study has none.
        """
        if not config_path.startswith(GROUP):
            return False
        asked = Path(self.path) / config_path.removeprefix(GROUP)
        found = super().is_config(config_path.removeprefix(GROUP))
        if not found and asked.stem == BEST and is_study(asked.parent):  # Hydra asks this source last
            raise CompactHydraException(
                f"error: experiment={config_path.removeprefix(GROUP)}: the study in {asked.parent} has no winner yet; "
                "it has one when a command has ended with a complete trial (and never of several objectives)"
            )
        return found

    def load_config(self, config_path: str) -> ConfigResult:
        """Reads an overlay."""
        return super().load_config(config_path.removeprefix(GROUP))

    def list(self, config_path: str, results_filter: ObjectType | None) -> list[str]:
        """Names the studies that have a winner; asked for by `--help` and shell completion."""
        if config_path.rstrip("/") != GROUP.rstrip("/") or results_filter == ObjectType.GROUP:
            return []
        root = Path(self.path)
        return sorted(str(file.relative_to(root).with_suffix("")) for file in root.glob(f"*/{BEST}.yaml"))


class StudiesSearchPath(SearchPathPlugin):
    """Has Hydra look for `experiment=STUDY/best` among the project's studies; a config's own search path stays free."""

    def manipulate_search_path(self, search_path: ConfigSearchPath) -> None:
        """Adds the folder of the studies, behind all others."""
        search_path.append(provider=STUDIES, path=f"{STUDIES}://{PROJECT_ROOT / 'multirun'}")


def looks_for_studies() -> bool:
    """Whether this command looks for `experiment=STUDY/best`: it is `train.py`, or starts as that does."""
    path = GlobalHydra.instance().config_loader().get_search_path().get_path()
    return any(element.provider == STUDIES for element in path)


def register() -> None:
    """Makes `studies://FOLDER` a search path that Hydra understands, and looks in."""
    Plugins.instance().register(StudiesSource)
    Plugins.instance().register(StudiesSearchPath)
