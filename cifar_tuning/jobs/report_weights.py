"""Checkpoints for weight histograms: those that the user names, and those of a sweep's best runs."""

import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, ListConfig

from cifar_tuning.errors import UserError
from cifar_tuning.reporting.document import heading
from cifar_tuning.reporting.report import weights_blocks
from cifar_tuning.reporting.selection import Run
from cifar_tuning.reporting.table import Table
from cifar_tuning.reporting.weights import LayerWeights, draw_histograms, layer_weights, make_histograms, weight_table

# More columns would be too narrow to read.
MOST = 4
PICTURE = "weights.png"


def report_checkpoints(cfg: DictConfig, folder: Path) -> list[str]:
    """Draws the histograms of the checkpoints that the user names; returns a report of them.

    Raises:
        UserError: there is no such checkpoint.
    """
    rows, picture = named_histograms(cfg, folder)
    return [heading("Weights", 1), *weights_blocks(rows, picture)]


def named_histograms(cfg: DictConfig, folder: Path) -> tuple[list[LayerWeights], Path]:
    """Draws the histograms of the checkpoints that the user names.

    Raises:
        UserError: there is no such checkpoint.
    """
    from cifar_tuning.jobs.named_runs import find_checkpoint

    names = [str(name) for name in (cfg.checkpoint if isinstance(cfg.checkpoint, ListConfig) else [cfg.checkpoint])]
    with tempfile.TemporaryDirectory() as scratch:
        files: dict[str, Path] = {}
        for name in names:
            own = Path(tempfile.mkdtemp(dir=scratch))
            files[_label(name, files)] = find_checkpoint(name, cfg.tracking.uri, own, "checkpoint")
        return _draw(files, folder)


def best_histograms(table: Table, uri: Any, folder: Path) -> tuple[list[LayerWeights], Path | None, list[str]]:
    """Draws the histograms of each of the best configurations' best run.

    Returns:
        Statistics, the picture, and a sentence for every checkpoint that is not to be had.
    """
    notes, sign = [], 1 if table.maximize else -1
    with tempfile.TemporaryDirectory() as scratch:
        files: dict[str, Path] = {}
        for configuration in table.configurations[:MOST]:
            run = max(configuration.runs.values(), key=lambda r: sign * r.metrics[table.metric])
            try:
                files[table.label(configuration)] = _checkpoint(run, uri, Path(tempfile.mkdtemp(dir=scratch)))
            except UserError as error:
                notes.append(f"No weights of `{run.name}`: {error}")
        if not files:
            return [], None, notes
        rows, picture = _draw(files, folder)
    return rows, picture, notes


def _checkpoint(run: Run, uri: Any, scratch: Path) -> Path:
    from cifar_tuning.jobs.named_runs import find_checkpoint

    folder: Path | None = getattr(run, "folder", None)
    if folder is not None and (folder / "best.pt").is_file():
        return folder / "best.pt"
    return find_checkpoint(run.run_id, uri, scratch, "checkpoint")


def _draw(files: Mapping[str, Path], folder: Path) -> tuple[list[LayerWeights], Path]:
    weights = {label: layer_weights(file) for label, file in files.items()}
    picture = draw_histograms(make_histograms(weights), {label: label for label in files}, folder / PICTURE)
    return weight_table(weights), picture


def _label(name: str, taken: Mapping[str, Path]) -> str:
    path = Path(name)
    parts = path.parts[-3:-1] if path.suffix == ".pt" else path.parts[-2:]
    label = "/".join(part for part in parts if part not in ("/", "..", ".")) or name
    return label if label not in taken else name
