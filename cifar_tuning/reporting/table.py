"""A sweep's runs as a table of configurations: what varies, mean and spread over the seeds, epochs and time."""

import csv
import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import astuple, dataclass, field, replace
from pathlib import Path
from typing import Any

from cifar_tuning.reporting.images import differing_images
from cifar_tuning.reporting.metric_names import larger_is_better, unit_of
from cifar_tuning.reporting.published import published_value, unmatched
from cifar_tuning.reporting.selection import Run
from cifar_tuning.reporting.statistics import Summary, summarize
from cifar_tuning.reporting.varying import MISSING, Options, find_options, short, spelled


@dataclass(frozen=True)
class Configuration:
    """Runs that differ in their seeds alone.

    Attributes:
        values: of the hyperparameters that vary, in the table's order.
        runs: one a seed; the keys are the seeds, or the run's id where none was recorded.
        summary: of the metric.
        lost: how many seeds more began, but failed, were pruned or stopped, or ended without the metric.
        best_epoch: mean over the runs; None where no run has a curve.
        seconds: mean over the runs.
        published: what others found, if an overlay says so.
    """

    values: tuple[str, ...]
    runs: Mapping[object, Run]
    summary: Summary
    best_epoch: float | None = None
    seconds: float | None = None
    published: float | None = None
    lost: int = 0

    def over_seeds(self, metric: str) -> Summary | None:
        """Another metric than the table's; None where a run lacks it, or it is not finite."""
        values = [run.metrics.get(metric, math.nan) for run in self.runs.values()]
        return summarize(values) if all(map(math.isfinite, values)) else None

    @property
    def began(self) -> float:
        """When the first of its runs began, in seconds since 1970; 0 where that is not known."""
        return min((run.began for run in self.runs.values() if run.began is not None), default=0.0)

    @property
    def diverged(self) -> int:
        """How many of its runs diverged: what they reached was reached before."""
        return sum(run.state == "diverged" for run in self.runs.values())


@dataclass(frozen=True)
class Table:
    """A sweep's configurations, the best first.

    Attributes:
        metric: what they are judged by.
        maximize: whether more of it is better.
        unit: `points` where differences are shown in percentage points.
        names: the hyperparameters that vary.
        configurations: sorted by the metric's mean; those that lost seeds behind those that are whole.
        notes: sentences about what is missing.
        has_best: whether the first is called the best; not where the metric can't choose, as one of the training.
        images: options that differ between the configurations and decide which images they are judged on.
        others: metrics that are shown beside, as a study's other objectives.
        pruned: configurations of which nothing ended, because they were pruned: candidates that are not shown.
    """

    metric: str
    maximize: bool
    unit: str
    names: list[str]
    configurations: list[Configuration]
    notes: list[str] = field(default_factory=list)
    has_best: bool = True
    images: Sequence[str] = ()
    others: Sequence[str] = ()
    pruned: int = 0

    @property
    def best(self) -> Configuration:
        """The configuration with the best mean of all that are whole."""
        return self.configurations[0]

    @property
    def leading(self) -> str:
        """What the configurations at the top are called."""
        return "best" if self.has_best else "first"

    @property
    def runs(self) -> list[Run]:
        """All runs that count."""
        return [run for configuration in self.configurations for run in configuration.runs.values()]

    def label(self, configuration: Configuration) -> str:
        """Returns a configuration's name in legends: its options, without their groups."""
        pairs = zip(self.names, configuration.values, strict=True)
        return ", ".join(value_in_words(name, value) for name, value in pairs) or "all runs"


def value_in_words(name: str, value: str) -> str:
    """Returns `swish`, or `lr=0.01`: a word speaks for itself, a number and a switch need their option."""
    shown = short(value)
    if shown[:1].isalpha() and shown not in ("true", "false", "null", "none"):
        return shown
    return f"{name.rpartition('.')[2]}={shown}"


def build_table(
    runs: Sequence[Run],
    metric: str,
    *,
    maximize: bool | None = None,
    seed_key: str = "seed",
    best_epochs: Mapping[str, int] | None = None,
    published: Sequence[Mapping[str, Any]] = (),
    has_best: bool = True,
    lost: Sequence[Run] = (),
) -> Table:
    """Groups runs into configurations.

    Args:
        runs: that have the metric, at least one.
        metric: what to judge by.
        maximize: whether more is better; None asks the metric's name, and where that says nothing, takes it so.
        seed_key: the parameter that tells repetitions apart.
        best_epochs: by run id.
        published: rows of an overlay.
        has_best: whether the metric can choose among them; not either where they are judged on different images.
        lost: runs that began and don't count.
    """
    maximize = larger_is_better(metric) is not False if maximize is None else maximize
    options = find_options(runs, seed_key)
    groups: dict[tuple[str, ...], dict[object, Run]] = {}
    repeated = 0
    for run in runs:
        group = groups.setdefault(options.values[run.run_id], {})
        key = options.repetition[run.run_id] or run.run_id
        repeated += key in group
        group[key] = run  # runs come in the order in which they began: the latest stands
    configurations = [
        _configuration(values, group, options.names, metric, best_epochs or {}, published)
        for values, group in groups.items()
    ]
    pruned = 0
    if lost:
        configurations, pruned = _with_lost(configurations, lost, find_options([*runs, *lost], seed_key))
    # Those seeds that were lucky enough to end would flatter their configuration.
    configurations.sort(key=lambda c: (c.lost > 0, -c.summary.mean if maximize else c.summary.mean))
    notes = _notes(options.names, configurations, repeated, seed_key)
    examples = [(next(iter(c.runs.values())), dict(zip(options.names, c.values, strict=True))) for c in configurations]
    notes += [f"The published row {row} has no counterpart among these runs." for row in unmatched(published, examples)]
    unit = unit_of(metric, [run.metrics[metric] for run in runs])
    images = differing_images([list(c.runs.values()) for c in configurations])
    has_best = has_best and not images
    return Table(metric, maximize, unit, options.names, configurations, notes, has_best, images, pruned=pruned)


def write_csv(table: Table, file: Path) -> Path:
    """Writes all configurations with all digits, one a line."""
    with file.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.writer(stream, lineterminator="\n")
        columns = ["mean", "std", "n", "best_epoch", "seconds", "published", "lost", "diverged"]
        writer.writerow([*table.names, *columns, *table.others])
        for c in table.configurations:
            rest = c.best_epoch, c.seconds, c.published, c.lost, c.diverged
            others = [found and found.mean for found in map(c.over_seeds, table.others)]
            writer.writerow([*c.values, *astuple(c.summary), *rest, *others])
    return file


def _configuration(
    values: tuple[str, ...],
    runs: dict[object, Run],
    names: list[str],
    metric: str,
    best_epochs: Mapping[str, int],
    published: Sequence[Mapping[str, Any]],
) -> Configuration:
    epochs = [best_epochs[run.run_id] for run in runs.values() if run.run_id in best_epochs]
    seconds = [run.seconds for run in runs.values() if run.seconds is not None]
    example = next(iter(runs.values()))
    return Configuration(
        values=values,
        runs=runs,
        summary=summarize(run.metrics[metric] for run in runs.values()),
        best_epoch=statistics.mean(epochs) if epochs else None,
        seconds=statistics.mean(seconds) if seconds else None,
        published=published_value(published, example, names, values, metric) if published else None,
    )


def _with_lost(
    configurations: list[Configuration], lost: Sequence[Run], all_options: Options
) -> tuple[list[Configuration], int]:
    """Counts for each configuration the seeds that began and are lost: runs with its parameters, the seeds apart.

    Beside them it counts the configurations that were pruned and have no other run.

    A parameter that differs between runs of one configuration, as a time or a result, tells nothing of a lost run.
    """
    alike = [
        key
        for key in all_options.counted
        if all(len({spelled(run, key) for run in c.runs.values()}) == 1 for c in configurations)
    ]
    missed: dict[tuple[str, ...], set[object]] = {}
    for run in lost:
        seed = all_options.seed_of(run) or run.run_id
        missed.setdefault(tuple(spelled(run, key) for key in alike), set()).add(seed)
    pruned = {tuple(spelled(run, key) for key in alike) for run in lost if run.state == "pruned"}
    found = []
    for c in configurations:
        example = next(iter(c.runs.values()))
        kind = tuple(spelled(example, key) for key in alike)
        pruned.discard(kind)
        seeds = missed.get(kind, set())
        ended = {all_options.seed_of(run) for run in c.runs.values()}
        found.append(replace(c, lost=len(seeds - ended)))
    return found, len(pruned)


def _notes(names: list[str], configurations: list[Configuration], repeated: int, seed_key: str) -> list[str]:
    notes = []
    if repeated:
        which = "run repeats a seed" if repeated == 1 else "runs repeat a seed"
        notes.append(f"{repeated} {which} of the same configuration; the latest of each counts.")
    for place, name in enumerate(names):
        lacking = sum(len(c.runs) for c in configurations if c.values[place] == MISSING)
        if lacking:
            notes.append(f"`{name}` is missing in {lacking} run{'s' if lacking > 1 else ''} (shown as {MISSING}).")
    if any(c.lost for c in configurations):
        notes.append(
            "Some configurations lost seeds (n: those that ended, of those that began). They stand behind those that "
            "are whole, because the seeds that came through may be the lucky ones."
        )
    unseeded = any(run.run_id == key for c in configurations for key, run in c.runs.items())
    if unseeded and any(len(c.runs) > 1 for c in configurations):
        notes.append(
            f"Runs without a parameter `{seed_key}` (`seed_key=…` names another) can't be paired over seeds; "
            "each counts as a repetition of its configuration."
        )
    return notes
