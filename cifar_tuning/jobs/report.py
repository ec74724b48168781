"""The report command: reads a sweep, compares, draws, and puts everything in its place at once."""

import glob
import logging
import re
import shutil
import tempfile
import time
from collections.abc import Iterator, Set
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

from omegaconf import DictConfig

from cifar_tuning import PROJECT_ROOT
from cifar_tuning.errors import ConfigError, TrackingError, UserError
from cifar_tuning.jobs import best
from cifar_tuning.jobs.report_material import make_material
from cifar_tuning.jobs.report_weights import report_checkpoints
from cifar_tuning.reporting import document
from cifar_tuning.reporting.drawing import VECTOR, also_as
from cifar_tuning.reporting.report import blocks
from cifar_tuning.reporting.terminal import print_files, print_report
from cifar_tuning.tracking.reading import read_sweep

if TYPE_CHECKING:
    from cifar_tuning.tracking.reading import SweepRecord

log = logging.getLogger(__name__)

FOLDER = "report"
# Seconds without a new file after which an unfinished report was killed: none is written for a day.
ABANDONED = 24 * 3600.0


def run(cfg: DictConfig) -> Path:
    """Writes a report and returns its folder.

    Raises:
        ConfigError: an option is wrong.
        UserError: there is no such sweep, store or checkpoint, or nothing that can be reported.
    """
    if problems := find_problems(cfg):
        raise ConfigError(problems)
    with also_as(cfg.figures):
        return _of_checkpoints(cfg) if cfg.sweep is None else _of_sweep(cfg)


def _of_sweep(cfg: DictConfig) -> Path:
    """Writes a sweep's report."""
    sweep = read_sweep(str(cfg.sweep), cfg.tracking.uri)
    folder = Path(cfg.output) if cfg.output is not None else default_folder(sweep, cfg.metric)
    with written_at_once(folder) as scratch:
        material = make_material(cfg, sweep, scratch)
        document.write(blocks(material), scratch, ranked=material.table.has_best)
        if cfg.export is not None:
            best.write(Path(cfg.export), material.overlay)
        names = sorted(file.name for file in scratch.iterdir())
    files = [folder / name for name in names]
    if cfg.keep:
        _keep(sweep, files, FOLDER if cfg.metric is None else f"{FOLDER}/{_as_name(cfg.metric)}")
    print_report(material, folder)
    return folder


def _of_checkpoints(cfg: DictConfig) -> Path:
    """Writes the histograms of checkpoints alone."""
    folder = Path(cfg.output) if cfg.output is not None else PROJECT_ROOT / "reports" / "weights"
    with written_at_once(folder) as scratch:
        document.write(report_checkpoints(cfg, scratch), scratch)
    print_files(folder)
    return folder


def find_problems(cfg: DictConfig) -> list[str]:
    """Returns a line for each option that is wrong; empty if all are right."""
    problems = []
    if cfg.sweep is None and cfg.checkpoint is None:
        problems.append(
            "sweep: is missing; give a sweep's folder or name, a study or an experiment, such as sweep=tune"
        )
    for name in ("maximize", "weights", "keep"):
        if not isinstance(cfg[name], bool) and not (name == "maximize" and cfg[name] is None):
            problems.append(f"{name}={cfg[name]}: must be true or false")
    if cfg.figures not in (None, *VECTOR):
        problems.append(f"figures={cfg.figures}: must be pdf or svg, or null for none beside PNG")
    if cfg.export is not None and (problem := best.export_problem(cfg.export)):
        problems.append(problem)
    if cfg.export is not None and cfg.sweep is None:
        problems.append("export: needs a sweep to have a best configuration of")
    if cfg.output is not None and Path(str(cfg.output)).is_file():
        problems.append(f"output={cfg.output}: must be a folder, not a file")
    return problems


def default_folder(sweep: "SweepRecord", metric: str | None = None) -> Path:
    """Returns where a sweep's report goes: into its folder, or, if that is not on this machine, into reports/.

    Args:
        sweep: the sweep.
        metric: that was asked for; by it a report has a folder of its own in there, to replace none by another.
    """
    folder = sweep.folder / FOLDER if sweep.folder is not None else PROJECT_ROOT / "reports" / _as_name(sweep.name)
    return folder if metric is None else folder / _as_name(metric)


def _as_name(text: str) -> str:
    return re.sub(r"[^\w.-]+", "_", text).strip("._")


@contextmanager
def written_at_once(folder: Path) -> Iterator[Path]:
    """Yields an empty folder whose files are moved to `folder` in the end, each finished; none after an error.

    Raises:
        UserError: the folder can't be written.
    """
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        prefix = f".{folder.name}-unfinished-"
        for old in folder.parent.glob(f"{glob.escape(prefix)}*"):
            with suppress(FileNotFoundError):  # another report has just ended
                if time.time() - old.stat().st_mtime > ABANDONED:
                    shutil.rmtree(old, ignore_errors=True)
        place = tempfile.TemporaryDirectory(prefix=prefix, dir=folder.parent)
    except OSError as error:
        raise UserError(f"output={folder} can't be written: {error}. Choose another folder.") from error
    with place as scratch:
        yield Path(scratch)
        try:
            folder.mkdir(exist_ok=True)
            names = {file.name for file in Path(scratch).iterdir()}
            for file in sorted(Path(scratch).iterdir()):
                file.replace(folder / file.name)
            _say_outdated(folder, names)
        except OSError as error:
            raise UserError(f"output={folder} can't be written: {error}. Choose another folder.") from error


def _say_outdated(folder: Path, names: Set[str]) -> None:
    """Warns of vector pictures beside new PNGs that an earlier report left: they may show fewer runs."""
    for kind in VECTOR:
        others = [str(Path(name).with_suffix(f".{kind}")) for name in names if name.endswith(".png")]
        if old := sorted(name for name in others if name not in names and (folder / name).exists()):
            log.warning("%s: not of this report, but of an earlier one; figures=%s renews it", ", ".join(old), kind)


def _keep(sweep: "SweepRecord", files: list[Path], folder: str) -> None:
    try:
        sweep.keep(files, folder)
    except TrackingError as error:  # a store that may only be read
        log.warning("The report was not put on the sweep's run: %s", error)
