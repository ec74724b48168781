"""Lets `experiment=NAME/best` mean the winner of the study in multirun/NAME, without copying its file to conf/."""

from pathlib import Path

from hydra._internal.core_plugins.file_config_source import FileConfigSource
from hydra.core.object_type import ObjectType
from hydra.core.plugins import Plugins
from hydra.plugins.config_source import ConfigResult

GROUP = "experiment/"


class StudiesSource(FileConfigSource):
    """The overlays below a folder of sweeps, as configs of the group `experiment`."""

    @staticmethod
    def scheme() -> str:
        """The word before `://` in a search path."""
        return "studies"

    def available(self) -> bool:
        """Always: before the first study there is just nothing in it."""
        return True

    def is_group(self, config_path: str) -> bool:
        """Only folders of `experiment`."""
        return config_path.startswith(GROUP) and super().is_group(config_path.removeprefix(GROUP))

    def is_config(self, config_path: str) -> bool:
        """Only files of `experiment`."""
        return config_path.startswith(GROUP) and super().is_config(config_path.removeprefix(GROUP))

    def load_config(self, config_path: str) -> ConfigResult:
        """Reads an overlay."""
        return super().load_config(config_path.removeprefix(GROUP))

    def list(self, config_path: str, results_filter: ObjectType | None) -> list[str]:
        """Names the studies that have a winner; asked for by `--help` and shell completion."""
        if config_path.rstrip("/") != GROUP.rstrip("/") or results_filter == ObjectType.GROUP:
            return []
        root = Path(self.path)
        return sorted(str(file.relative_to(root).with_suffix("")) for file in root.glob("*/best.yaml"))


def register() -> None:
    """Makes `studies://FOLDER` a search path that Hydra understands."""
    Plugins.instance().register(StudiesSource)
