"""The report's tables with ours beside them, in Markdown."""

from collections.abc import Sequence
from dataclasses import dataclass

from cifar_tuning.lab.experiments import options_of
from cifar_tuning.lab.results import Results
from cifar_tuning.lab.verdicts import capital
from cifar_tuning.reporting.statistics import Summary, summarize
from cifar_tuning.text import counted

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
VALUES |= {"relu": "ReLU", "swish": "Swish", "trivial_augment": "TrivialAugment", "l1": "L1", "l2": "L2"}
# Values that need no name before them.
SELF_EVIDENT = ("augmentation", "model.activation", "regularizer", "variant")


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
        cells.append(_ours(row.ours, seeds))
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
                f"{capital(name)}: epoch 0 is the network before training. In {never} of "
                f"{counted(len(runs), 'run')} no epoch was better, so the accuracy of untrained weights counts."
            )
    return sentences


def _ours(ours: Summary | None, seeds: int) -> str:
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
    difference = round(row.ours.mean - row.published, 4)
    return ("+" if difference >= 0 else "−") + accuracy(abs(difference))


def line(cells: Sequence[str]) -> str:
    """Returns a row of a Markdown table."""
    return "| " + " | ".join(cells) + " |"
