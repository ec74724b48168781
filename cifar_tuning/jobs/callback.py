"""What happens around a run or a sweep on the machine that started it; imports nothing heavy."""

import atexit
import copy
import sys
import time
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from hydra.core.utils import JobReturn
from hydra.experimental.callback import Callback
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf

from cifar_tuning.compose import as_job, numbered, remember_from_now
from cifar_tuning.errors import ConfigError, UserError
from cifar_tuning.files import write_text
from cifar_tuning.job_folders import FIXED_FILE
from cifar_tuning.jobs.sweep_checks import job_problems, sweep_problems, warn_of_keys
from cifar_tuning.jobs.used_folder import has_trained, only_here
from cifar_tuning.overrides import key_of, parse_overrides, task_overrides, unresolved
from cifar_tuning.processes import is_worker
from cifar_tuning.targets import is_study, is_tracked, refused
from cifar_tuning.text import typed, with_comment
from cifar_tuning.tracking.callback import SweepRun
from cifar_tuning.tuning import place

# Bytes that Hydra writes into an output folder before a job begins, at most; a full disk may take an empty file.
FIRST_FILES = 1 << 16


class Sweep(Callback):
    """Before anything starts: is the output folder writable, the sweep free of mistakes? In the end: a table.

    Args:
        beside: what the callbacks are made of that Hydra makes after this one, by name.

    Raises:
        SystemExit: one of them can't be made.
    """

    def __init__(self, beside: Mapping[str, str] | None = None) -> None:
        if problems := callback_problems(beside or {}):
            print(f"error: {ConfigError(problems)}", file=sys.stderr)
            raise SystemExit(1)
        self._start = 0.0
        self._kept = ExitStack()

    def on_run_start(self, config: DictConfig, **kwargs: Any) -> None:
        """Makes the run's folder and keeps it for this process; what a run left there is not touched by a mistake."""
        with as_job(config):  # the folder's name may have `${hydra:job.name}` in it, which Hydra sets later
            folder = make_folder(config.hydra.run.dir, "hydra.run.dir")
        try:
            self._kept.enter_context(only_here(folder, "hydra.run.dir"))
            atexit.register(self._kept.close)  # Ctrl-C ends a run without its end being called
            if has_trained(folder) and (problems := job_problems(numbered(copy.deepcopy(config), 0))):
                raise ConfigError(problems)
            warn_of_keys([config])
        except UserError as error:  # Hydra would make a warning of it
            print(f"error: {error}", file=sys.stderr)
            raise SystemExit(1) from error

    def on_run_end(self, config: DictConfig, **kwargs: Any) -> None:
        """Lets others into the run's folder."""
        self._kept.close()

    def on_job_end(self, config: DictConfig, job_return: JobReturn, **kwargs: Any) -> None:
        """Drops what nobody asks for any more: launchers keep each job's return up to the end of the sweep."""
        if config.hydra.mode == RunMode.MULTIRUN:  # Hydra calls the first callback last
            job_return.cfg = job_return.hydra_cfg = None

    def on_multirun_start(self, config: DictConfig, **kwargs: Any) -> None:
        """Makes the sweep's folder, which a study's SQLite file needs, and checks the jobs' configurations."""
        remember_from_now()
        if is_worker():  # its supervisor has done all this
            return
        if problems := sweep_problems(config):
            print(f"error: {ConfigError(problems)}", file=sys.stderr)
            raise SystemExit(1)
        for ignored in (
            one for one in unresolved(config.hydra.overrides.hydra) if key_of(one).startswith("hydra.run.")
        ):
            print(f"{ignored}: of no effect on a sweep, which goes to hydra.sweep.dir={config.hydra.sweep.dir}")
        folder = make_folder(config.hydra.sweep.dir, "hydra.sweep.dir")
        self._start = time.time()  # what was refused has no end to tell of
        # What a job overrides beyond them is what tells it from the others.
        parsed = parse_overrides(task_overrides(config.hydra))
        swept = {key_of(override.get_key_element()) for override in parsed if override.is_sweep_override()}
        fixed = [key for override in parsed if (key := key_of(override.get_key_element())) not in swept]
        write_text(folder / FIXED_FILE, OmegaConf.to_yaml(OmegaConf.create(fixed)))

    def on_multirun_end(self, config: DictConfig, **kwargs: Any) -> None:
        """Prints the table of the sweep's jobs."""
        if not self._start:
            return
        from cifar_tuning.reporting.summary import print_summary, viewer

        tracked = is_tracked(config)
        uri = OmegaConf.select(config, "tracking.uri")
        if not is_study(config.hydra):
            print_summary(Path(config.hydra.sweep.dir), since=self._start, tracked=tracked, uri=uri)
            # A launcher's worker, which Ctrl-C ends as well, is not heard.
            if _stopped(sys.exc_info()[1]):  # Hydra calls while it is on its way
                folder = typed("hydra.sweep.dir", config.hydra.sweep.dir)
                print(f"Stopped. The same command with {folder} trains what is missing.")
        elif tracked:  # it sums itself up
            print("  " + with_comment(viewer(uri), "compares all runs in MLflow's UI"))


class TrackedSweep(SweepRun):
    """The sweep's run in MLflow, with what our jobs and studies know of it."""

    def sweep_key(self, hydra: Any) -> str | None:
        """Names a study by its storage: its folder is not the same on every machine."""
        return place.sweep_key(hydra)

    def sweeper_options(self, hydra: Any) -> dict[str, Any]:
        """Returns what a study's options stand for."""
        return place.sweeper_options(hydra)

    def load_classifier(self, folder: Path) -> Any:
        """Returns a job's trained classifier and an example batch."""
        from cifar_tuning.jobs.export import load_classifier

        return load_classifier(folder)


def _stopped(error: BaseException | None) -> bool:
    """Whether it is Ctrl-C's or a signal's (see `processes.stop`); what is refused ends with 1."""
    signalled = isinstance(error, SystemExit) and isinstance(error.code, int) and error.code > 128
    return signalled or isinstance(error, KeyboardInterrupt)


def callback_problems(targets: Mapping[str, str]) -> list[str]:
    """Returns a line for each callback of the user's that may not be called, or can't be found.

    Args:
        targets: what they are made of, by name.
    """
    problems = []
    for name, target in targets.items():
        if target.startswith(f"{__name__}."):
            continue
        from cifar_tuning.jobs.checks import find_target, why_not_found

        try:
            find_target(target)
        except Exception as error:
            reason = refused(error) or f"can't be imported: {why_not_found(target, error)}"
            problems.append(f"hydra.callbacks.{name}._target_={target}: {reason}")
    return problems


def make_folder(folder: str, option: str) -> Path:
    """Makes an output folder.

    Raises:
        SystemExit: it can't be made or written to. (Hydra turns a callback's other exceptions into warnings.)
    """
    path = Path(folder)
    try:
        path.mkdir(parents=True, exist_ok=True)
        probe = path / ".writable"
        try:
            probe.write_bytes(bytes(FIRST_FILES))
        finally:
            probe.unlink(missing_ok=True)  # another command may have looked at the same moment
    except OSError as error:
        print(f"error: {option}={folder} can't be written to: {error}. Choose another folder.", file=sys.stderr)
        raise SystemExit(1) from error
    return path
