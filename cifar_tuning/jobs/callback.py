"""What happens around a run or a sweep on the machine that started it; imports nothing heavy."""

import sys
from pathlib import Path
from typing import Any

from hydra.experimental.callback import Callback
from omegaconf import DictConfig, OmegaConf

# The sweep's own overrides; what a job has beyond them is what tells it from the others.
OVERRIDES_FILE = "overrides.yaml"


class Sweep(Callback):
    """Checks that the output folder can be written before anything starts; sums a sweep up when it ends."""

    def on_run_start(self, config: DictConfig, **kwargs: Any) -> None:
        """Makes the run's folder."""
        make_folder(config.hydra.run.dir, "hydra.run.dir")

    def on_multirun_start(self, config: DictConfig, **kwargs: Any) -> None:
        """Makes the sweep's folder, which a study's SQLite file needs before the first job."""
        make_folder(config.hydra.sweep.dir, "hydra.sweep.dir")
        OmegaConf.save(config.hydra.overrides.task, Path(config.hydra.sweep.dir) / OVERRIDES_FILE)

    def on_multirun_end(self, config: DictConfig, **kwargs: Any) -> None:
        """Prints the table of the sweep's jobs."""
        from cifar_tuning.reporting.summary import print_summary

        print_summary(Path(config.hydra.sweep.dir))


def make_folder(folder: str, option: str) -> None:
    """Makes an output folder.

    Raises:
        SystemExit: it can't be made or written to. (Hydra turns a callback's other exceptions into warnings.)
    """
    path = Path(folder)
    try:
        path.mkdir(parents=True, exist_ok=True)
        probe = path / ".writable"
        probe.touch()
        probe.unlink()
    except OSError as error:
        print(f"error: {option}={folder} can't be written to: {error}. Choose another folder.", file=sys.stderr)
        raise SystemExit(1) from error
