"""What a sweep's report is made of: the sweep is read, its configurations compared, its pictures drawn."""

import logging
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from omegaconf import DictConfig, OmegaConf

from cifar_tuning.errors import UserError
from cifar_tuning.jobs.best import find_best
from cifar_tuning.jobs.report_weights import best_histograms, named_histograms
from cifar_tuning.overrides import key_of
from cifar_tuning.reporting import curves, forest
from cifar_tuning.reporting.effects import Effect, find_effects
from cifar_tuning.reporting.front import front_in_words
from cifar_tuning.reporting.report import Material, number, retrained_in_words
from cifar_tuning.reporting.selection import choose_metric, choose_runs, more_is_better, objectives_of, of_training
from cifar_tuning.reporting.table import Table, build_table, write_csv

if TYPE_CHECKING:
    import optuna
    from tqdm import tqdm

    from cifar_tuning.reporting.weights import LayerWeights
    from cifar_tuning.tracking.reading import RunRecord, SweepRecord

log = logging.getLogger(__name__)

# What the progress bar counts besides the runs.
STEPS = ("comparing", "drawing curves", "drawing the study", "drawing weights")


@dataclass(frozen=True)
class _Aim:
    """What a sweep was after.

    Attributes:
        study: its study.
        lost: why that can't be read.
        objectives: whether more of each is better.
        searched: what the study chose, and whether from a continuous range.
    """

    study: "optuna.Study | None"
    lost: list[str]
    objectives: dict[str, bool]
    searched: dict[str, bool]

    @property
    def several(self) -> bool:
        """Whether it looked for several things at once, so that nothing is its best."""
        return len(self.objectives) > 1


def make_material(cfg: DictConfig, sweep: "SweepRecord", scratch: Path) -> Material:
    """Reads, compares and draws, with a progress bar.

    Args:
        cfg: the command's options.
        sweep: what to report.
        scratch: the folder of the pictures and of table.csv.

    Raises:
        UserError: nothing of the sweep can be reported, or the best configuration can't be exported.
    """
    from tqdm import tqdm

    searched = [run for run in sweep.runs if not run.retrained]
    aim = _aim(cfg, sweep, searched)
    metric, notes = choose_metric(searched, cfg.metric, list(aim.objectives))
    runs, left_out = choose_runs(searched, metric)
    with tqdm(total=len(runs) + len(STEPS), desc="reading", leave=False, disable=None) as bar:  # on a terminal only
        table = _table(cfg, sweep, runs, metric, aim, bar)
        command, overlay = _best(cfg, sweep, table, aim)
        write_csv(table, scratch / "table.csv")
        _step(bar, 0)
        effects = find_effects(table, aim.searched)
        pairs = [effect for effect in effects if isinstance(effect, Effect)]
        picture = forest.draw(pairs, table, scratch / "effects.png") if pairs else None
        _step(bar, 1)
        panels = _panels(sweep, table)
        lines = curves.draw(panels, scratch / "curves.png") if panels else None
        _step(bar, 2)
        study, study_pictures = _study(cfg, sweep, table, aim, scratch)
        _step(bar, 3)
        weights, histograms, without = _weights(cfg, table, scratch)
    return Material(
        title=f"Sweep {sweep.name}",
        sources=[_source(sweep, table)],
        table=table,
        notes=[
            *(*sweep.notes, *notes, *_no_best(table, aim), *left_out, *table.notes, *aim.lost, *without),
            *(*_few(table), *_unlike(table, runs)),
        ],
        effects=effects,
        command=command,
        overlay=overlay,
        export=Path(cfg.export) if cfg.export is not None else None,
        forest=picture,
        curves=lines,
        shown=min(curves.MOST_LINES, len(table.configurations)),
        study=study,
        study_pictures=study_pictures,
        weights=weights,
        histograms=histograms,
    )


def _aim(cfg: DictConfig, sweep: "SweepRecord", runs: "Sequence[RunRecord]") -> _Aim:
    from cifar_tuning.tuning.finding import find_study, maximized, searched

    params = sweep.parent.params if sweep.parent is not None else {}
    study, lost = None, []
    try:
        study = find_study(sweep.folder, params, cfg.storage)
    except UserError as error:
        lost.append(str(error))
    names = (study.metric_names if study is not None else None) or objectives_of(runs)
    more = maximized(study, params)
    # Without a study the words of a name tell which way is better.
    ways = more if len(more) == len(names) else [more_is_better(name) for name in names]
    return _Aim(study, lost, dict(zip(names, ways, strict=True)), searched(study, params))


def _step(bar: "tqdm[Any]", number: int) -> None:
    bar.set_description(STEPS[number])
    bar.update()


def _table(
    cfg: DictConfig, sweep: "SweepRecord", runs: "Sequence[RunRecord]", metric: str, aim: _Aim, bar: "tqdm[Any]"
) -> Table:
    maximize = aim.objectives.get(metric, more_is_better(metric)) if cfg.maximize is None else cfg.maximize
    epochs, reported = {}, True
    for record in runs:
        curve = sweep.curves(metric, [record])[record.run_id]
        step = curves.best_step(curve, maximize)
        if step is not None:
            epochs[record.run_id] = step
            # A loss, say, is the last epoch's: another epoch beside it would seem to be where it comes from.
            reported = reported and dict(curve)[step] == curve[-1][1]
        bar.update()
    return build_table(
        runs,
        metric,
        maximize=maximize,
        seed_key=cfg.seed_key,
        best_epochs=epochs if reported else {},
        published=sweep.published,
        has_best=metric == cfg.metric or (not aim.several and (metric in aim.objectives or not of_training(metric))),
    )


def _source(sweep: "SweepRecord", table: Table) -> str:
    count, kinds = len(table.runs), len(table.configurations)
    runs = f"{count} run{'s' if count > 1 else ''} of {kinds} configuration{'s' if kinds > 1 else ''}"
    way = "more" if table.maximize else "less"
    now = datetime.now().strftime("%Y-%m-%d %H:%M")
    return f"{runs}, judged by `{table.metric}` ({way} is better). Read from `{sweep.location.shown}` on {now}."


def _no_best(table: Table, aim: _Aim) -> list[str]:
    if table.has_best:
        return []
    if aim.several:
        wanted = ", ".join(f"`{name}`" for name in aim.objectives)
        return [
            f"The sweep has several objectives ({wanted}): by `{table.metric}` alone none is called the best. "
            f"`metric={table.metric}` chooses by it all the same."
        ]
    return [
        f"`{table.metric}` is of the images that were trained on: by it no configuration is called the best. "
        f"`metric={table.metric}` chooses by it all the same."
    ]


def _unlike(table: Table, runs: "Sequence[RunRecord]") -> list[str]:
    """Says so where runs were computed in different ways: `auto` measures for each model and batch size by itself."""
    kinds = Counter(run.tags["precision"] for run in runs if "precision" in run.tags)
    if "trainer.precision" in table.names or len(kinds) < 2:
        return []
    shown = ", ".join(f"{kind} ({count})" for kind, count in kinds.most_common())
    return [
        f"The runs were not computed in one precision: {shown}. Part of what their options seem to do may be that; "
        "trainer.precision=fp32 trains all alike."
    ]


def _few(table: Table) -> list[str]:
    if len(table.runs) == 1:
        return ["There is one run only: its figures stand below, but there is nothing to compare it with."]
    if len(table.configurations) > 1 and all(c.summary.n == 1 for c in table.configurations):
        return [
            "Every configuration ran once: how much is chance can't be told. Several seeds would, as in `seed=0,1,2`."
        ]
    return []


def _best(cfg: DictConfig, sweep: "SweepRecord", table: Table, aim: _Aim) -> tuple[str | None, str]:
    """Returns the best configuration as a command, if train.py made it, and as YAML; nothing where none is the best."""
    if not table.has_best:
        if cfg.export is not None:
            raise UserError(f"export={cfg.export}: {' '.join(_no_best(table, aim)).replace('`', '')}")
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


def _panels(sweep: "SweepRecord", table: Table) -> dict[str, dict[str, curves.Band]]:
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
    return panels


def _study(
    cfg: DictConfig, sweep: "SweepRecord", table: Table, aim: _Aim, scratch: Path
) -> tuple[list[str], list[Path]]:
    """Returns sentences about the study, and its pictures."""
    from cifar_tuning.reporting.study import write_plots

    words = _retrained(sweep, table.metric, cfg.seed_key)
    if aim.several:
        words += front_in_words(table, aim.objectives, curves.MOST_LINES)
    if aim.study is None:
        return words, []
    # The pictures are of the values that its trials returned, whatever the report is judged by.
    name, *more = aim.objectives or ["objective"]
    files = write_plots(aim.study, scratch, "objective" if more else name)
    if files and not more and name in aim.objectives and name != table.metric:
        does = "maximises" if aim.objectives[name] else "minimises"
        words.append(f"The study's pictures show `{name}`, which the study {does}, and not `{table.metric}`.")
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
