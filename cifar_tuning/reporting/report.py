"""A sweep's report: which sections it has, and what they say."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from cifar_tuning.reporting import forest
from cifar_tuning.reporting.comparisons import Effect
from cifar_tuning.reporting.curves import MOST_LINES
from cifar_tuning.reporting.document import code, grid, heading, items, picture
from cifar_tuning.reporting.effects import Finding, count_tests
from cifar_tuning.reporting.images import judged_on
from cifar_tuning.reporting.interactions import Interaction, unsure_in_words
from cifar_tuning.reporting.response import Influence
from cifar_tuning.reporting.statistics import summarize
from cifar_tuning.reporting.table import Configuration, Table
from cifar_tuning.reporting.varying import short
from cifar_tuning.reporting.weights import LayerWeights
from cifar_tuning.reporting.winner import winner_in_words
from cifar_tuning.reporting.wording import mean_and_std, number, signed

# Rows of the table in the report; table.csv has all.
TOP = 30
# Optuna's pictures in the order in which they are read.
STUDY_PICTURES = {
    "pareto_front": "The objectives of each trial, and the Pareto front",
    "history": "Each trial's value, and the best until then",
    "importances": "Importances of the hyperparameters; a bar that ends before the dotted line may be noise",
    "slice": "The value by each hyperparameter: a dot is a complete trial, and the lighter it is, the later it came",
    "parallel_coordinates": "Each complete trial as a line; the better its first objective, the darker",
    "intermediate_values": "Each trial's value while it was trained",
    "timeline": "When each trial was trained, and how it ended",
}


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
        retrained: sentences: what a study's winner reached when it was trained again.
        study: sentences about the study; its pictures by their names.
        study_pictures: Optuna's plots.
        weights: statistics of checkpoints' layers.
        histograms: their picture.
    """

    title: str
    sources: list[str]
    table: Table
    notes: list[str] = field(default_factory=list)
    effects: Sequence[Finding] = ()
    command: str | None = None
    overlay: str = ""
    export: Path | None = None
    forest: Path | None = None
    curves: Path | None = None
    retrained: Sequence[str] = ()
    study: Sequence[str] = ()
    study_pictures: Sequence[Path] = ()
    weights: Sequence[LayerWeights] = ()
    histograms: Path | None = None


def blocks(material: Material) -> list[str]:
    """Returns the whole report."""
    parts: list[str] = [heading(material.title, 1), *material.sources, *material.retrained]
    if material.notes:
        parts += [heading("What is missing"), items(material.notes)]
    parts += _best(material)
    parts += [heading("Configurations"), *_table(material.table)]
    parts += _effects(material)
    if material.curves is not None:
        count = len(material.table.configurations)
        of_all = f" of the {material.table.leading} {MOST_LINES} of {count} configurations"
        which = "" if count <= MOST_LINES else of_all
        of_seeds = (
            "mean over the seeds, as far as all have come (× where one ended early); the band is one standard "
            "deviation to either side"
        )
        lines = of_seeds if _has_spread(material.table) else "a single run of each (× where it ended early)"
        caption = f"Learning curves{which}, in the order of the table: {lines}."
        parts += [heading("Learning curves"), picture(material.curves, caption)]
    parts += _study(material)
    if material.histograms is not None:
        parts += [heading("Weights"), *weights_blocks(material.weights, material.histograms)]
    return parts + _overlay(material)


def weights_blocks(rows: Sequence[LayerWeights], file: Path) -> list[str]:
    """Returns histograms of checkpoints' weights and the figures that go with them."""
    header = ["checkpoint", "layer", "weights", "near zero", "std", "excess kurtosis"]
    cells = [
        [row.checkpoint, row.layer, f"{row.count:,}", f"{row.near_zero:.1%}", _figure(row.std), _figure(row.kurtosis)]
        for row in rows
    ]
    return [picture(file, "Histograms of the weights, layer by layer."), grid(header, cells, left=2)]


def row(configuration: Configuration, table: Table) -> list[str]:
    """Returns a configuration's cells, as `header` names them."""
    summary = configuration.summary
    n = f"{summary.n} of {summary.n + configuration.lost}" if configuration.lost else str(summary.n)
    cells = [*map(short, configuration.values), mean_and_std(summary), *_others(configuration, table), n]
    if _has_diverged(table):
        cells.append(str(configuration.diverged or ""))
    cells.append("" if configuration.best_epoch is None else f"{configuration.best_epoch:.3g}")
    cells.append("" if configuration.seconds is None else duration(configuration.seconds))
    if _has_published(table):
        ours, theirs = summary.mean, configuration.published
        cells += ["", ""] if theirs is None else [number(theirs), _difference(ours - theirs, table.unit)]
    return cells


def header(table: Table) -> list[str]:
    """Returns the table's columns."""
    columns = [*table.names, table.metric, *table.others, "n", *(["diverged"] if _has_diverged(table) else [])]
    columns += ["best epoch", "time"]
    return columns + (["published", "difference"] if _has_published(table) else [])


def duration(seconds: float) -> str:
    """Returns `58 s`, `12 min 31 s` or `2 h 05 min`."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    return (
        f"{whole // 60} min {whole % 60:02d} s" if whole < 3600 else f"{whole // 3600} h {whole % 3600 // 60:02d} min"
    )


def _others(configuration: Configuration, table: Table) -> list[str]:
    return ["" if (found := configuration.over_seeds(name)) is None else mean_and_std(found) for name in table.others]


def _has_published(table: Table) -> bool:
    return any(c.published is not None for c in table.configurations)


def _has_diverged(table: Table) -> bool:
    return any(c.diverged for c in table.configurations)


def _has_spread(table: Table) -> bool:
    return any(c.summary.n > 1 for c in table.configurations)


def _difference(value: float, unit: str) -> str:
    return f"{signed(100 * value, '+.1f')} points" if unit == "points" else signed(value, "+.4g")


def _figure(value: float | None) -> str:
    return "" if value is None else signed(value, ".3g")


def _table(table: Table) -> list[str]:
    shown = table.configurations[:TOP]
    texts = []
    if len(shown) < len(table.configurations):
        count = f"{TOP} of {len(table.configurations)}"
        texts.append(f"The {table.leading} {count}; `table.csv` has all, with all digits.")
    return [grid(header(table), [row(c, table) for c in shown], left=len(table.names)), *texts, what_is_shown(table)]


def what_is_shown(table: Table) -> str:
    """Returns what the table's figures are, as a sentence."""
    metrics = ", ".join(f"`{name}`" for name in (table.metric, *table.others))
    if not _has_spread(table):
        return f"{metrics}: of a single run each, so that nothing tells how much is chance."
    epochs = "; best epoch and time are means" if any(c.best_epoch is not None for c in table.configurations) else ""
    return f"{metrics}: mean ± standard deviation over n runs that differ in their seed alone{epochs}."


def _best(material: Material) -> list[str]:
    table, best = material.table, material.table.best
    if not table.has_best:
        return []
    text = f"`{table.metric}` {mean_and_std(best.summary)} (n = {best.summary.n})"
    count = len(table.configurations) + table.pruned  # a pruned one was given up on its figures, so it competed
    of_them = f", {table.pruned} of them pruned" if table.pruned else ""
    flatters = f", the best of {count}{of_them}. Being the best of {count} flatters it: judge it by new seeds."
    chosen = flatters if count > 1 else "."
    parts: list[str] = [heading("The best configuration"), f"{table.label(best)}: {text}{chosen}"]
    parts += winner_in_words(table)
    if material.command is not None:
        parts.append(code(material.command, "console"))
    if material.command is None and material.overlay:
        parts.append(code(material.overlay, "yaml"))
    return parts


def _overlay(material: Material) -> list[str]:
    if material.command is None or not material.overlay:
        return []
    where = f"Written to `{material.export}`." if material.export is not None else "`export=…` writes it to a file."
    return [heading("The best configuration as an overlay"), where, code(material.overlay, "yaml")]


def _effects(material: Material) -> list[str]:
    table, effects = material.table, material.effects
    parts: list[str] = [heading("What each hyperparameter does")]
    if not effects:
        why = "There is one run only" if len(table.runs) == 1 else "All runs have the same hyperparameters"
        nothing = f"{why}, so there is nothing to compare."
        unlike = "No two values could be compared, and no trend can be told."
        return [*parts, unlike if len(table.configurations) > 1 else nothing]
    pairs = [effect for effect in effects if isinstance(effect, Interaction)]
    single = [effect for effect in effects if not isinstance(effect, Interaction)]
    if material.forest is not None:
        count = sum(isinstance(effect, Effect) for effect in effects)
        which = f": {forest.MOST} of {count}, the surest first" if count > forest.MOST else ""
        caption = f"Differences with their 95 % intervals{which}."
        parts.append(picture(material.forest, caption))
    for option in dict.fromkeys(effect.option for effect in single):
        depends = [pair.text for pair in pairs if pair.sure and option in pair.options]
        parts += [heading(option, 3), items([*depends, *(e.text for e in single if e.option == option)])]
    if unsure := [pair for pair in pairs if not pair.sure]:
        parts += [heading("Two at once", 3), unsure_in_words(unsure)]
    return [*parts, _method(material)]


def _method(material: Material) -> str:
    """Says what the intervals and p values are of; docs/reports.md says it at length."""
    kinds = {type(effect) for effect in material.effects}
    tests = count_tests(material.effects)
    texts = []
    if Effect in kinds:
        texts.append(
            "± is a 95 % interval of the single comparison: Student's t of paired differences, Welch's where nothing "
            "can be paired. Pairs of seeds speak of other seeds, pairs of settings of other settings."
        )
    if Influence in kinds:
        texts.append("Hyperparameters that were drawn are tested in one model of all; p values are of permutations.")
    if tests > 1:
        texts.append(f"p values are corrected for the {tests} tests of this report (Holm).")
    if sum(isinstance(effect, Interaction) for effect in material.effects) > 1:
        texts.append("Those of two hyperparameters at once are corrected by themselves.")
    return " ".join([*texts, judged_on(material.table.runs)])


def _study(material: Material) -> list[str]:
    if not material.study and not material.study_pictures:
        return []
    parts: list[str] = [heading("The study"), *material.study]
    by_name = {file.stem: file for file in material.study_pictures}
    parts += [picture(by_name[name], caption) for name, caption in STUDY_PICTURES.items() if name in by_name]
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
