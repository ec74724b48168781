"""Gathers a sweep's report: reads the sweep, compares its configurations, draws the pictures."""

import logging
import math
from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from omegaconf import DictConfig, OmegaConf

from cifar_tuning.errors import UserError
from cifar_tuning.jobs.best import find_best
from cifar_tuning.jobs.report_choice import Aim, cautions, find_aim, why_none_is_best
from cifar_tuning.jobs.report_weights import best_histograms, named_histograms
from cifar_tuning.overrides import key_of
from cifar_tuning.ranking import ENDED
from cifar_tuning.reporting import curves, forest
from cifar_tuning.reporting.comparisons import Effect
from cifar_tuning.reporting.effects import Finding, find_effects
from cifar_tuning.reporting.latex import write_latex
from cifar_tuning.reporting.pareto import front_in_words
from cifar_tuning.reporting.report import Material, retrained_in_words
from cifar_tuning.reporting.selection import choose_metric, choose_runs
from cifar_tuning.reporting.table import Table, build_table, write_csv
from cifar_tuning.reporting.wording import number

if TYPE_CHECKING:
    from tqdm import tqdm

    from cifar_tuning.reporting.weights import LayerWeights
    from cifar_tuning.tracking.reading import RunRecord, SweepRecord

log = logging.getLogger(__name__)

# What the progress bar counts besides the runs.
STEPS = ("comparing", "drawing curves", "drawing the study", "drawing weights")


def make_material(cfg: DictConfig, sweep: "SweepRecord", scratch: Path) -> Material:
    """Reads, compares and draws, with a progress bar.

    Args:
        cfg: the command's options.
        sweep: what to report.
        scratch: the folder of the pictures and of the table's files.

    Raises:
        UserError: nothing of the sweep can be reported, or the best configuration can't be exported.
    """
    from tqdm import tqdm

    searched = [run for run in sweep.runs if not run.retrained]
    aim = find_aim(cfg, sweep, searched)
    metric, notes = choose_metric(searched, cfg.metric, list(aim.objectives))
    runs, lost, left_out = choose_runs(searched, metric)
    with tqdm(total=len(runs) + len(STEPS), desc="reading", leave=False, disable=None) as bar:  # on a terminal only
        table, last = _table(cfg, sweep, runs, lost, aim, metric, bar)
        command, overlay = _best(cfg, sweep, table, aim)
        write_csv(table, scratch / "table.csv")
        write_latex(table, scratch / "table.tex")
        _step(bar, 0)
        effects, picture = _effects(table, aim, scratch)
        _step(bar, 1)
        lines = _curves(sweep, table, scratch)
        _step(bar, 2)
        study, study_pictures = _study(table, aim, scratch)
        _step(bar, 3)
        weights, histograms, without = _weights(cfg, table, scratch)
    return Material(
        title=f"Sweep {sweep.name}",
        sources=[_source(sweep, table, aim.way(metric, cfg.maximize))],
        table=table,
        notes=[
            *(*why_none_is_best(table, aim, cfg), *sweep.notes, *notes, *left_out, *table.notes, *aim.lost, *without),
            *cautions(table, runs, last, aim.of_study),
        ],
        effects=effects,
        command=command,
        overlay=overlay,
        export=Path(cfg.export) if cfg.export is not None else None,
        forest=picture,
        curves=lines,
        retrained=_retrained(sweep, metric, cfg.seed_key),
        study=study,
        study_pictures=study_pictures,
        weights=weights,
        histograms=histograms,
    )


def _step(bar: "tqdm[Any]", number: int) -> None:
    bar.set_description(STEPS[number])
    bar.update()


def _table(
    cfg: DictConfig,
    sweep: "SweepRecord",
    runs: "Sequence[RunRecord]",
    lost: "Sequence[RunRecord]",
    aim: Aim,
    metric: str,
    bar: "tqdm[Any]",
) -> tuple[Table, dict[str, int]]:
    """Returns the configurations, and the last step of each run that has a curve, by its id."""
    maximize = aim.way(metric, cfg.maximize)
    runs = [replace(record, seconds=_seconds(sweep, record)) for record in runs]
    epochs, last, reported = dict[str, int](), dict[str, int](), True
    for record in runs:
        curve = sweep.curves(metric, [record])[record.run_id]
        step = curves.best_step(curve, maximize is not False)
        if step is not None:
            epochs[record.run_id] = step
            last[record.run_id] = curve[-1][0]
            # A loss, say, is the last epoch's: another epoch beside it would seem to be where it comes from.
            reported = reported and dict(curve)[step] == curve[-1][1]
        bar.update()
    table = build_table(
        runs,
        metric,
        maximize=maximize,
        seed_key=cfg.seed_key,
        best_epochs=epochs if reported else {},
        published=sweep.published,
        has_best=not aim.unfit(metric, cfg) and (metric == cfg.metric or any(run.state in ENDED for run in runs)),
        lost=lost,
    )
    return replace(table, others=[name for name in aim.objectives if name != metric] if aim.several else []), last


def _seconds(sweep: "SweepRecord", run: "RunRecord") -> float | None:
    """Returns how long a run trained: between its start and its end it may have been interrupted for hours."""
    epochs = sweep.curves("epoch_seconds", [run]).get(run.run_id, [])
    return math.fsum(seconds for _, seconds in epochs) if epochs else run.seconds


def _source(sweep: "SweepRecord", table: Table, way: bool | None) -> str:
    count, kinds = len(table.runs), len(table.configurations)
    runs = f"{count} run{'s' if count > 1 else ''} of {kinds} configuration{'s' if kinds > 1 else ''}"
    better = {True: "more is better", False: "less is better", None: "which way is better is not known"}[way]
    now = datetime.now().strftime("%Y-%m-%d %H:%M")
    return f"{runs}, judged by `{table.metric}` ({better}). Read from `{sweep.location.shown}` on {now}."


def _best(cfg: DictConfig, sweep: "SweepRecord", table: Table, aim: Aim) -> tuple[str | None, str]:
    """Returns the best configuration as a command, if train.py made it, and as YAML; nothing where none is the best."""
    if not table.has_best:
        if cfg.export is not None:
            raise UserError(f"export={cfg.export}: {' '.join(why_none_is_best(table, aim, cfg)).replace('`', '')}")
        return None, ""
    found = find_best(list(table.best.runs.values()), cfg.seed_key)
    if found is None:
        if cfg.export is not None:
            raise UserError(
                f"export={cfg.export}: these runs have no command line of train.py, so there is no overlay; "
                "without export=… the report lists the best one's parameters."
            )
        pairs = dict(zip(table.names, table.best.values, strict=True))
        return None, OmegaConf.to_yaml(OmegaConf.create(pairs)) if pairs else ""
    header = f"# The best of the sweep {sweep.name}: {table.metric} {number(table.best.summary.mean)}.\n"
    try:
        return found.command, found.overlay(header)
    except UserError as error:
        if cfg.export is not None:
            raise
        log.warning("%s", error)
        return found.command, ""


def _effects(table: Table, aim: Aim, scratch: Path) -> tuple[Sequence[Finding], Path | None]:
    """Returns what was found out about each hyperparameter, and a picture of the differences, if there are any."""
    effects = find_effects(table, aim.searched)
    pairs = [effect for effect in effects if isinstance(effect, Effect)]
    return effects, forest.draw(pairs, table, scratch / "effects.png") if pairs else None


def _curves(sweep: "SweepRecord", table: Table, scratch: Path) -> Path | None:
    """Draws the curves of the best configurations; returns the picture, if there are any."""
    shown: dict[str, list[Any]] = {
        table.label(c): list(c.runs.values()) for c in table.configurations[: curves.MOST_LINES]
    }
    having: dict[str, Any] = {}
    for run in (run for runs in shown.values() for run in runs):
        for name in run.metrics:
            having.setdefault(name, run)
    # One run's curve tells whether a metric has any; reading all of all runs would take long.
    samples = {name: sweep.curves(name, [run])[run.run_id] for name, run in having.items()}
    panels = {}
    for name in curves.worth_drawing(samples, table.metric):
        found = {label: list(sweep.curves(name, runs).values()) for label, runs in shown.items()}
        panels[name] = {label: curves.band(lines) for label, lines in found.items() if lines}
    return curves.draw(panels, scratch / "curves.png") if panels else None


def _study(table: Table, aim: Aim, scratch: Path) -> tuple[list[str], list[Path]]:
    """Returns sentences about the study, and its pictures."""
    from cifar_tuning.reporting.importances import find_importances, importances_in_words
    from cifar_tuning.reporting.study import write_plots

    words = front_in_words(table, aim.ways, curves.MOST_LINES) if aim.several else []
    if aim.study is None:
        return words, []
    # The pictures are of the values that its trials returned, whatever the report is judged by.
    name, *more = aim.objectives or ["objective"]
    importances = find_importances(aim.study)
    files = write_plots(aim.study, scratch, name, importances, list(aim.objectives))
    if files and not more and name in aim.objectives and name != table.metric:
        does = "maximises" if aim.objectives[name] else "minimises"
        words.append(f"The study's pictures show `{name}`, which the study {does}, and not `{table.metric}`.")
    words += importances_in_words(importances, aim.study)
    if files:
        words.append("`study.html`, beside this report, has these pictures to explore.")
    return words, files


def _retrained(sweep: "SweepRecord", metric: str, seed_key: str) -> list[str]:
    """Returns a sentence for each configuration that was a retrained winner: other trials', other overrides'."""
    of_kind: dict[tuple[str, ...], list[RunRecord]] = {}
    for run in sweep.runs:
        if run.retrained:
            kind = tuple(o for o in run.overrides if key_of(o) != seed_key)
            of_kind.setdefault(kind, []).append(run)
    common = set.intersection(*map(set, of_kind)) if of_kind else set()
    return [
        sentence
        for kind, runs in of_kind.items()
        for sentence in retrained_in_words(
            [run.metrics for run in runs], metric, " ".join(o for o in kind if o not in common)
        )
    ]


def _weights(cfg: DictConfig, table: Table, scratch: Path) -> "tuple[list[LayerWeights], Path | None, list[str]]":
    if cfg.checkpoint is not None:
        return *named_histograms(cfg, scratch), []
    return best_histograms(table, cfg.tracking.uri, scratch) if cfg.weights else ([], None, [])
