"""A sweep's report: which sections it has, and what they say."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from cifar_tuning.reporting.document import Block, Code, Grid, Heading, Items, Picture, Text
from cifar_tuning.reporting.effects import Effect, count_tests
from cifar_tuning.reporting.statistics import Summary, summarize
from cifar_tuning.reporting.table import Configuration, Table
from cifar_tuning.reporting.trends import Trend
from cifar_tuning.reporting.varying import short
from cifar_tuning.reporting.weights import LayerWeights

# Rows of the table in the report; table.csv has all.
TOP = 30
# Optuna's pictures in the order in which they are read.
STUDY_PICTURES = {
    "history": "Optimisation history",
    "importances": "Importances of the hyperparameters",
    "slice": "Objective by hyperparameter",
    "parallel_coordinates": "Parallel coordinates",
    "intermediate_values": "Intermediate values",
    "timeline": "Timeline",
    "pareto_front": "Pareto front",
}

# Options of a dataset that decide which images validate.
DECIDE_THE_IMAGES = ("_target_", "split_seed", "val_size", "data_seed")


@dataclass(frozen=True)
class Material:
    """What a report is made of.

    Attributes:
        title: the sweep's name.
        sources: sentences: what was read, and where.
        table: the configurations.
        notes: sentences: what is missing.
        effects: comparisons.
        command: trains the best configuration; None for runs that were not made by this project.
        overlay: the best configuration as YAML, or its parameters.
        export: where the overlay was written.
        forest: picture of the comparisons.
        curves: picture of the learning curves.
        shown: how many configurations the curves show.
        study: sentences about the study; its pictures by their names.
        study_pictures: Optuna's plots.
        weights: statistics of checkpoints' layers.
        histograms: their picture.
    """

    title: str
    sources: list[str]
    table: Table
    notes: list[str] = field(default_factory=list)
    effects: Sequence[Effect | Trend] = ()
    command: str | None = None
    overlay: str = ""
    export: Path | None = None
    forest: Path | None = None
    curves: Path | None = None
    shown: int = 0
    study: Sequence[str] = ()
    study_pictures: Sequence[Path] = ()
    weights: Sequence[LayerWeights] = ()
    histograms: Path | None = None


def blocks(material: Material) -> list[Block]:
    """Returns the whole report."""
    parts: list[Block] = [Heading(material.title, 1), *(Text(text) for text in material.sources)]
    if material.notes:
        parts += [Heading("What is missing"), Items(material.notes)]
    parts += _best(material)
    parts += [Heading("Configurations"), *_table(material.table)]
    parts += _effects(material)
    if material.curves is not None:
        count = len(material.table.configurations)
        of_all = f" of the {material.table.leading} {material.shown} of {count} configurations"
        which = "" if material.shown >= count else of_all
        caption = f"Learning curves{which}: mean over the seeds; the band is one standard deviation."
        parts += [Heading("Learning curves"), Picture(material.curves, caption)]
    parts += _study(material)
    if material.histograms is not None:
        parts += [Heading("Weights"), *weights_blocks(material.weights, material.histograms)]
    return parts + _overlay(material)


def weights_blocks(rows: Sequence[LayerWeights], picture: Path) -> list[Block]:
    """Returns histograms of checkpoints' weights and the figures that go with them."""
    header = ["checkpoint", "layer", "weights", "near zero", "std", "excess kurtosis"]
    cells = [
        [row.checkpoint, row.layer, f"{row.count:,}", f"{row.near_zero:.1%}", _figure(row.std), _figure(row.kurtosis)]
        for row in rows
    ]
    return [Picture(picture, "Histograms of the weights, layer by layer."), Grid(header, cells, left=2)]


def row(configuration: Configuration, table: Table) -> list[str]:
    """Returns a configuration's cells, as `header` names them."""
    summary = configuration.summary
    cells = [*map(short, configuration.values), mean_and_std(summary), str(summary.n)]
    cells.append("" if configuration.best_epoch is None else f"{configuration.best_epoch:.3g}")
    cells.append("" if configuration.seconds is None else duration(configuration.seconds))
    if _has_published(table):
        ours, theirs = summary.mean, configuration.published
        cells += ["", ""] if theirs is None else [number(theirs), _difference(ours - theirs, table.unit)]
    return cells


def header(table: Table) -> list[str]:
    """Returns the table's columns."""
    columns = [*table.names, table.metric, "n", "best epoch", "time"]
    return columns + (["published", "difference"] if _has_published(table) else [])


def mean_and_std(summary: Summary) -> str:
    """Returns `0.7056 ± 0.0072`, or the mean alone of a single run."""
    if summary.std is None:
        return number(summary.mean)
    return f"{number(summary.mean)} ± {number(summary.std, beside=summary.mean)}"


def number(value: float, beside: float | None = None) -> str:
    """Returns a metric's value with four decimals, or four digits that count where it is large or small.

    Args:
        value: to be shown.
        beside: the value whose spread it is, which says whether it is small.
    """
    if 0 < abs(value if beside is None else beside) < 0.01:
        return f"{value:.4g}"
    return f"{value:.4f}" if abs(value) < 100 else f"{value:,.4g}"


def duration(seconds: float) -> str:
    """Returns `58 s`, `12 min 31 s` or `2 h 05 min`."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    return (
        f"{whole // 60} min {whole % 60:02d} s" if whole < 3600 else f"{whole // 3600} h {whole % 3600 // 60:02d} min"
    )


def _has_published(table: Table) -> bool:
    return any(c.published is not None for c in table.configurations)


def _difference(value: float, unit: str) -> str:
    text = f"{100 * value:+.1f} points" if unit == "points" else f"{value:+.4g}"
    return text.replace("-", "−")


def _figure(value: float | None) -> str:
    return "" if value is None else f"{value:.3g}"


def _table(table: Table) -> list[Block]:
    shown = table.configurations[:TOP]
    texts: list[Block] = []
    if len(shown) < len(table.configurations):
        count = f"{TOP} of {len(table.configurations)}"
        texts.append(Text(f"The {table.leading} {count}; `table.csv` has all, with all digits."))
    spread = "mean ± standard deviation over n runs that differ in their seed alone"
    epochs = "; best epoch and time are means" if any(c.best_epoch is not None for c in shown) else ""
    texts.append(Text(f"`{table.metric}`: {spread}{epochs}."))
    return [Grid(header(table), [row(c, table) for c in shown], left=len(table.names), ranked=table.has_best), *texts]


def _best(material: Material) -> list[Block]:
    table, best = material.table, material.table.best
    if not table.has_best:
        return []
    text = f"`{table.metric}` {mean_and_std(best.summary)} (n = {best.summary.n})"
    count = len(table.configurations)
    chosen = (
        f", the best of {count}. Being the best of {count} flatters it: judge it by new seeds." if count > 1 else "."
    )
    parts: list[Block] = [Heading("The best configuration"), Text(f"{table.label(best)}: {text}{chosen}")]
    if material.command is not None:
        parts.append(Code(material.command, "console"))
    if material.command is None and material.overlay:
        parts.append(Code(material.overlay, "yaml"))
    return parts


def _overlay(material: Material) -> list[Block]:
    if material.command is None or not material.overlay:
        return []
    where = f"Written to `{material.export}`." if material.export is not None else "`export=…` writes it to a file."
    return [Heading("The best configuration as an overlay"), Text(where), Code(material.overlay, "yaml")]


def _effects(material: Material) -> list[Block]:
    table, effects = material.table, material.effects
    parts: list[Block] = [Heading("What each hyperparameter does")]
    if not effects:
        why = "There is one run only" if len(table.runs) == 1 else "All runs have the same hyperparameters"
        nothing = f"{why}, so there is nothing to compare."
        unlike = "No two values could be compared, and no trend can be told."
        return [*parts, Text(unlike if len(table.configurations) > 1 else nothing)]
    options = dict.fromkeys(effect.option for effect in effects)
    for option in options:
        parts += [Heading(f"{option}", 3), Items([e.text for e in effects if e.option == option])]
    if material.forest is not None:
        caption = "Differences with their 95 % intervals; blue: p < 0.05 after the correction."
        parts.append(Picture(material.forest, caption))
    tests = count_tests(effects)
    corrected = f" p values are corrected for the {tests} tests of this report (Holm)." if tests > 1 else ""
    method = (
        "± is a 95 % interval of the single comparison: Student's t of paired differences, Welch's where nothing can "
        f"be paired.{corrected} {_judged_on(table)}"
    )
    parts.append(Text(method))
    return parts


def _judged_on(table: Table) -> str:
    """Says whether the runs were judged on the same images; what is not ours may name its options otherwise."""
    options: dict[str, set[str]] = {}
    for run in table.runs:
        for key, value in run.params.items():
            if key.startswith("data.") and key.rpartition(".")[2] in DECIDE_THE_IMAGES:
                options.setdefault(key, set()).add(value)
    if differing := [key for key, values in options.items() if len(values) > 1]:
        return f"The runs are judged on different images ({', '.join(differing)}): part of a difference may be theirs."
    if not options:
        return "Whether all runs were judged on the same images is not known: they have no parameter of data.* for it."
    return "All runs are judged on the same images: this speaks of other seeds, not other images."


def _study(material: Material) -> list[Block]:
    if not material.study and not material.study_pictures:
        return []
    parts: list[Block] = [Heading("The study"), *(Text(text) for text in material.study)]
    by_name = {file.stem: file for file in material.study_pictures}
    parts += [Picture(by_name[name], caption) for name, caption in STUDY_PICTURES.items() if name in by_name]
    return parts


def retrained_in_words(metrics: Sequence[Mapping[str, float]], metric: str, how: str = "") -> list[str]:
    """Returns what a study's winner reached when it was trained again; nothing if it was not.

    Args:
        metrics: of each of its seeds.
        metric: the reported one, beside the accuracy on the test set.
        how: overrides that tell these runs from others that a winner had.
    """
    sentences = []
    for name, words in ((metric, f"`{metric}`"), ("test/acc", "test accuracy")):
        values = [found[name] for found in metrics if name in found]
        if values:
            summary = summarize(values)
            sentences.append(f"{words} {mean_and_std(summary)} (n = {summary.n})")
    if not sentences:
        return []
    again = f"trained again (`{how}`)" if how else "trained again"
    return [f"The winner, {again} with seeds that took no part in the search: {', '.join(sentences)}."]
