"""The report's tables with ours beside them, in Markdown."""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

from cifar_tuning.lab.experiments import REPORT, options_of
from cifar_tuning.lab.results import Results
from cifar_tuning.lab.verdicts import compare_seeds
from cifar_tuning.reporting.statistics import CONFIDENCE, Summary, holm, p_in_words, p_of_another, summarize
from cifar_tuning.text import counted

# A mean this far below the published value wants an explanation.
TOLERANCE = 0.02
# Of fewer runs the spread is anybody's guess.
FEWEST = 3
STRENGTH = "regularizer.strength"
NAMES = {
    "augmentation": "augmentation",
    "data.train_limit": "training images",
    "model.activation": "activation",
    "model.batch_norm": "batch norm",
    "model.dropout": "dropout",
    "model.separable": "separable",
    "model.shortcut": "shortcuts",
    "optimizer.lr": "learning rate",
    "regularizer": "regularizer",
    "regularizer.strength": "strength",
    "schedule.decay_epochs": "decay every (epochs)",
    "trainer.epochs": "epochs",
    "variant": "variant",
}
VALUES = {
    "true": "yes",
    "false": "no",
    "null": "never",
    "crop_flip": "crop and flip",
    "leaky_relu": "leaky ReLU",
    "0.0001": "1e-4",
}
VALUES |= {"relu": "ReLU", "swish": "Swish", "trivial_augment": "TrivialAugment", "l1": "L1", "l2": "L2"}


# Values that need no name before them.
SELF_EVIDENT = ("augmentation", "model.activation", "regularizer", "variant")
VALUES |= {
    "decay_0.1_50": "0.1 every 50",
    "decay_0.1_40": "0.1 every 40",
    "decay_0.2_40": "0.2 every 40",
    "decay_0.1_66": "0.1 every 66",
    "no_decay": "no decay",
    "no_decay_lr_0.01": "no decay, learning rate 0.01",
    "l2_0": "0.1 every 50, no L2",
    "adam": "Adam",
    "momentum_0.5": "momentum 0.5",
    "momentum_0.95": "momentum 0.95",
}


@dataclass(frozen=True)
class Row:
    """A row of a table.

    Attributes:
        configuration: of the experiment.
        published: the report's accuracy, if it has one.
        ours: of the runs that are there; None if there is none.
        epochs: the longest run's.
        best_epochs: the mean of the runs' best epochs.
    """

    configuration: str
    published: float | None
    ours: Summary | None
    epochs: int
    best_epochs: float


def rows_of(results: Results, experiment: str) -> list[Row]:
    """Returns a row for each configuration that should be there or is."""
    grid, rows = results.experiment(experiment), []
    for configuration in results.configurations(experiment):
        runs = results.of(experiment, configuration)
        rows.append(
            Row(
                configuration,
                grid.published_value(configuration),
                summarize(run.val_acc for run in runs) if runs else None,
                max((run.epochs for run in runs), default=0),
                summarize(run.best_epoch for run in runs).mean if runs else 0.0,
            )
        )
    return rows


def table(results: Results, experiment: str) -> list[str]:
    """Returns the lines of an experiment's table."""
    rows = rows_of(results, experiment)
    keys = list(dict.fromkeys(key for row in rows for key, _ in options_of(row.configuration)))
    published = any(row.published is not None for row in rows)
    header = [*(NAMES.get(key, key) for key in keys), *(["published"] if published else [])]
    header += ["ours: mean ± std (runs)", *(["difference"] if published else []), "best epoch"]
    lines = [line(header), "|" + "---|" * len(header)]
    seeds = len(results.experiment(experiment).seeds)
    for row in rows:
        options = {"trainer.epochs": str(row.epochs or ""), **dict(options_of(row.configuration))}
        cells = [spell_value(options.get(key, ""), key) for key in keys]
        cells += [accuracy(row.published)] if published else []
        cells.append(mean_and_std(row.ours, seeds))
        cells += [_difference(row)] if published else []
        cells.append(f"{row.best_epochs:.0f} of {row.epochs}" if row.ours else "")
        lines.append(line(cells))
    return lines


def untrained(results: Results, experiment: str) -> list[str]:
    """Returns a sentence for each row with runs whose best accuracy is the one before training."""
    sentences = []
    for row in rows_of(results, experiment):
        runs = results.of(experiment, row.configuration)
        if never := sum(run.best_epoch == 0 for run in runs):
            name = describe(row.configuration) or "the only row"
            sentences.append(
                f"{name[:1].upper()}{name[1:]}: epoch 0 is the network before training. In {never} of "
                f"{counted(len(runs), 'run')} no epoch was better, so their accuracy is that of untrained weights."
            )
    return sentences


def shortfalls(results: Results, experiment: str, published_epochs: int) -> list[str]:
    """Returns a sentence for each row that lies more than two points below the published value, saying why.

    Args:
        results: all of them.
        experiment: the table's.
        published_epochs: what the report trained for.
    """
    chances = published_chances(results)
    return [
        _shortfall(row, published_epochs, chances.get((experiment, row.configuration)))
        for row in rows_of(results, experiment)
        if row.published is not None and row.ours is not None and row.ours.mean < row.published - TOLERANCE
    ]


def published_chances(results: Results) -> dict[tuple[str, str], float | None]:
    """Returns how likely a further run of ours would lie as far off as the published one.

    By experiment and configuration, corrected for all rows of the page that have runs enough: among so many published
    single runs some are lucky ones.
    """
    found: dict[tuple[str, str], float | None] = {}
    for name in REPORT:
        for row in rows_of(results, name):
            if row.published is not None and row.ours is not None and row.ours.n >= FEWEST:
                found[name, row.configuration] = p_of_another(row.ours, row.published)
    return dict(zip(found, holm(list(found.values())), strict=True))


def offsets(results: Results) -> str | None:
    """Returns a sentence on how SimpleNN's rows lie to the published ones, without and with augmentation.

    A published run that stands in several tables, as the baseline does, counts once; it is known by its accuracy.
    """
    differences: dict[bool, dict[float, list[float]]] = {False: {}, True: {}}
    for name in (name for name in REPORT if name.startswith(("lab1", "lab2"))):
        for row in rows_of(results, name):
            if row.published is not None and row.ours is not None:
                augmented = name.startswith("lab2") and "augmentation=none" not in row.configuration
                points = 100 * (row.ours.mean - row.published)
                differences[augmented].setdefault(row.published, []).append(points)
    if not all(differences.values()):
        return None
    means = [[summarize(points).mean for points in found.values()] for found in differences.values()]
    without, with_crops = (
        f"{summarize(found).mean:+.1f} points ({counted(len(found), 'published run')})".replace("-", "−")
        for found in means
    )
    where = "from the published values on average"
    return f"SimpleNN without augmentation is {without} {where}, with crop and flip {with_crops}."


def _shortfall(row: Row, published_epochs: int, p: float | None) -> str:
    assert row.ours is not None
    assert row.published is not None
    name = describe(row.configuration) or "the only row"
    points = 100 * (row.published - row.ours.mean)
    below = f"{name[:1].upper()}{name[1:]}: ours is {points:.1f} points below the published value."
    if row.epochs < published_epochs:
        below += f" Ours had {row.epochs} epochs, the report's up to {published_epochs}."
    if row.ours.n < FEWEST:
        return f"{below} {counted(row.ours.n, 'run')} of ours: too few to tell whether that is chance."
    if p is None:
        return f"{below} Our {row.ours.n} runs have no spread to judge it by."
    chance = f"({p_in_words(p)}, n = {row.ours.n})"
    if p >= 1 - CONFIDENCE:
        return f"{below} The published single run may be chance: one more run of ours could lie as far off {chance}."
    return (
        f"{below} One more run of ours would hardly lie as far off {chance}: the published one was a lucky run, or was "
        "trained otherwise than the report says."
    )


def order(results: Results, experiment: str) -> list[str]:
    """Returns sentences on whether the published order is reproduced; none where nothing can be ordered."""
    pairs = _ordered_pairs(results, experiment)
    if not pairs:
        return []
    means = {row.configuration: row.ours.mean for row in rows_of(results, experiment) if row.ours}
    reversed_pairs = [(a, b) for a, b in pairs if means[a.configuration] < means[b.configuration]]
    if not reversed_pairs:
        which = "both rows lie" if len(pairs) == 1 else f"all {len(pairs)} pairs of rows lie"
        return [f"The published order is reproduced: {which} as there."]
    found = [
        compare_seeds(results.values(experiment, b.configuration), results.values(experiment, a.configuration))
        for a, b in reversed_pairs
    ]
    count = f"{len(pairs) - len(reversed_pairs)} of {len(pairs)} pairs of rows lie as published. The others:"
    sentences = [count]
    for (a, b), comparison, p in zip(reversed_pairs, found, holm([c.p for c in found]), strict=True):
        if p is None:
            judged = f"which is not tested (n = {comparison.n})"
        else:
            judged = f"which is {'no chance' if p < 1 - CONFIDENCE else 'within noise'} ({p_in_words(p)})"
        sentences.append(
            f"{describe(a.configuration)} before {describe(b.configuration)} there, by "
            f"{100 * ((a.published or 0) - (b.published or 0)):.1f} points; here the other way round by "
            f"{100 * comparison.difference:.1f}, {judged}"
        )
    return sentences


def _ordered_pairs(results: Results, experiment: str) -> list[tuple[Row, Row]]:
    """Returns pairs of rows that both have runs, the better published one first.

    Rows are compared only where they agree in the options that the report's table does not have.
    """
    named = {key for options, _ in results.experiment(experiment).published for key in options}
    rows = [row for row in rows_of(results, experiment) if row.published is not None and row.ours is not None]

    def others(row: Row) -> list[tuple[str, str]]:
        return [(key, value) for key, value in options_of(row.configuration) if key not in named]

    pairs = []
    for a, b in itertools.combinations(rows, 2):
        if others(a) == others(b) and a.published != b.published:
            pairs.append((a, b) if (a.published or 0) > (b.published or 0) else (b, a))
    return pairs


def mean_and_std(ours: Summary | None, seeds: int) -> str:
    """Returns `.7056 ± .0072 (5)`, or `(3 of 5)` where runs are missing."""
    if ours is None:
        return "missing"
    count = str(ours.n) if ours.n >= seeds else f"{ours.n} of {seeds}"
    spread = f" ± {accuracy(ours.std)}" if ours.std is not None else ""
    return f"{accuracy(ours.mean)}{spread} ({count})"


def accuracy(value: float | None) -> str:
    """Returns an accuracy as the report writes it, without the zero before the point."""
    return "" if value is None else f"{value:.4f}".removeprefix("0")


def describe(configuration: str) -> str:
    """Returns a configuration in words: `no batch norm, learning rate 0.2`."""
    return ", ".join(_phrase(key, spell_value(value, key)) for key, value in options_of(configuration))


def _phrase(key: str, value: str) -> str:
    name = NAMES.get(key, key)
    if key == "schedule.decay_epochs":
        return "no decay" if value == VALUES["null"] else f"decay every {value} epochs"
    if value in ("no", "none"):
        return f"no {name}"
    if value == "yes":
        return name
    return value if key in SELF_EVIDENT else f"{value} {name}" if name == "training images" else f"{name} {value}"


def spell_value(text: str, key: str = "") -> str:
    """Returns an option's value as the page shows it; strengths as the report writes them."""
    text = text.removeprefix("lab3/").replace("e-0", "e-")
    if key == STRENGTH:
        return {"0.001": "1e-3", "0.01": "1e-2"}.get(text, VALUES.get(text, text))
    if text.isdigit() and int(text) >= 1000:
        return f"{int(text):,}"
    return VALUES.get(text, text)


def _difference(row: Row) -> str:
    if row.published is None or row.ours is None:
        return ""
    difference = row.ours.mean - row.published
    return ("+" if difference >= 0 else "−") + accuracy(abs(difference))


def line(cells: Sequence[str]) -> str:
    """Returns a row of a Markdown table."""
    return "| " + " | ".join(cells) + " |"
