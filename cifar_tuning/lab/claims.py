"""The ten statements of the report's first section, each judged by what was measured."""

from collections.abc import Mapping
from dataclasses import dataclass

from cifar_tuning.lab.counted import separable, shortcuts, squeezenet
from cifar_tuning.lab.measure import BATCH_NORM
from cifar_tuning.lab.results import Results
from cifar_tuning.lab.rules import (
    FALSE,
    HOLDS,
    INCOMPLETE,
    MISSING,
    NOISE,
    SINGLE,
    first_behind,
    none_behind,
    some_behind,
)
from cifar_tuning.lab.tables import STRENGTH, spell_value
from cifar_tuning.lab.verdicts import Contest, Figure, Verdict, capital, judge, lacking_seeds
from cifar_tuning.lab.weights import WEIGHTS
from cifar_tuning.reporting.statistics import CONFIDENCE, holm, p_in_words, summarize
from cifar_tuning.reporting.weights import ALL_LAYERS
from cifar_tuning.text import counted

EARLY_EPOCH = 5
# A mean of normalised values this far from zero is no rounding.
NOT_ZERO = 0.01
IMAGES = ("training", "validation")
TEXT = "not measured"


def claims(results: Results) -> list[Verdict]:
    """Judges all ten, in the report's order."""
    return [
        _batch_norm_means(results),
        Verdict(
            "1.2 autograd",
            "False: PyTorch's users do not write back-propagation themselves",
            TEXT,
            ["Nothing to measure: this project's training step calls `loss.backward()`"],
        ),
        _augmentation(results),
        _dropout(results),
        _l2_and_dropout(results),
        _sparsity(results),
        _leaky_relu(results),
        separable(results),
        squeezenet(results),
        shortcuts(results),
    ]


def _batch_norm_means(results: Results) -> Verdict:
    says = "True: the outputs of batch norm do not necessarily have zero mean, in evaluation above all"
    measured = results.measured(BATCH_NORM)
    if measured is None:
        return Verdict("1.1 batch norm", says, MISSING, [], 0, ["claim_bn_mean"])
    entries = [entry for entries in measured.values() for entry in entries]

    def largest(kind: str, mode: str, *images: str) -> float:
        rows = (entry for entry in entries if entry["mode"] == mode and entry["images"] in images)
        return max(abs(mean) for entry in rows for mean in entry[kind])

    seen, new = (largest("normalised", "eval", images) for images in IMAGES)
    train, evaluation = largest("normalised", "train", *IMAGES), max(seen, new)
    shifted = largest("output", "train", *IMAGES)
    output = max(shifted, largest("output", "eval", *IMAGES))
    evidence = [
        f"The largest channel mean of y = γx̂ + β is {output:.2f} in size, {shifted:.2f} in training mode, where it is "
        "β's alone",
        f"Before γ and β, the largest channel mean of x̂ is {train:.1e} in training mode; in evaluation mode it is "
        f"{seen:.3f} on training images and {new:.3f} on validation images ({counted(len(measured), 'network')})",
    ]
    if evaluation > NOT_ZERO and new - seen < NOT_ZERO:
        evidence.append(
            "The report's reason, images that are distributed otherwise, does not show: training images do as much. "
            "The running averages do it, which were taken over augmented batches while the weights still changed"
        )
    outcome = HOLDS if output > NOT_ZERO and evaluation > NOT_ZERO else FALSE
    return Verdict("1.1 batch norm", says, outcome, evidence, 0, ["claim_bn_mean"])


def _augmentation(results: Results) -> Verdict:
    grid = results.experiment("claim_augmentation")
    contests = [
        Contest(
            grid.name,
            f"data.train_limit={limit} augmentation={name}",
            f"data.train_limit={limit} augmentation=none",
            f"{spell_value(name)} on {spell_value(limit)} images",
            "no augmentation",
        )
        for limit in grid.params["data.train_limit"]
        for name in ("crop_flip", "trivial_augment")
    ]
    says = "False: augmentation is not always beneficial"
    return judge(results, "1.3 augmentation", says, contests, some_behind)


def _dropout(results: Results) -> Verdict:
    epoch = min(EARLY_EPOCH, results.experiment("claim_dropout").epochs)

    def early(results: Results, experiment: str, configuration: str) -> Mapping[int, float]:
        return results.curve_values(experiment, configuration, "val_acc", epoch)

    contests = [
        Contest(
            "claim_dropout",
            "model.dropout=0",
            f"model.dropout={rate}",
            f"no dropout after {epoch} epochs",
            f"dropout of {rate}",
            early,
        )
        for rate in ("0.2", "0.5")
    ]
    says = "False: networks converge without dropout, and not more slowly"
    return judge(results, "1.4 dropout", says, contests, none_behind)


def _l2_and_dropout(results: Results) -> Verdict:
    def options(strength: str, rate: str) -> str:
        return f"regularizer.strength={strength} model.dropout={rate}"

    both = options("0.001", "0.2")
    alone = {"L2 alone": options("0.001", "0"), "dropout alone": options("0", "0.2")}
    contests = [Contest("claim_l2_dropout", both, other, "L2 with dropout", name) for name, other in alone.items()]
    says = "False: dropout together with L2 is not better than L2, it may hurt"
    return judge(results, "1.5 L2 and dropout", says, contests, first_behind)


def _sparsity(results: Results) -> Verdict:
    contests = [
        Contest(
            "lab2_l1",
            f"regularizer=l1 regularizer.strength={strength}",
            f"regularizer=l2 regularizer.strength={strength}",
            f"L1 of {spell_value(strength, STRENGTH)}",
            "L2",
            _weight_figure(results, "near_zero"),
            quantity="share of weights under 1e-3",
        )
        for strength in ("0.0001", "0.001")
    ]
    says = "True: L1 makes the weights sparser than L2 (share of weights under 1e-3)"
    return judge(results, "1.6 sparsity", says, contests)


def _weight_figure(results: Results, name: str) -> Figure:
    statistics = (results.measured(WEIGHTS) or {"statistics": []})["statistics"]

    def figure(results: Results, experiment: str, configuration: str) -> Mapping[int, float]:
        rows = (row for row in statistics if row["layer"] == ALL_LAYERS and row["configuration"] == configuration)
        return {row["seed"]: row[name] for row in rows if row[name] is not None}

    return figure


def _leaky_relu(results: Results) -> Verdict:
    name, says = "1.7 leaky ReLU", "False: leaky ReLU does not train more stably than ReLU (spread over seeds)"
    grid = results.experiment("claim_leaky_relu")
    rates = grid.params["optimizer.lr"]
    found = [spreads for rate in rates if (spreads := _spreads_at(results, rate)) is not None]
    if not found:
        there = any(run.experiment == "claim_leaky_relu" for run in results.runs)
        evidence = ["A spread wants three seeds at least"] if there else []
        return Verdict(name, says, SINGLE if there else MISSING, evidence, 0, ["claim_leaky_relu"])
    corrected = [1.0 if p is None else p for p in holm([spreads.p for spreads in found])]
    evidence = [spreads.in_words(p) for spreads, p in zip(found, corrected, strict=True)]
    different = [spreads for spreads, p in zip(found, corrected, strict=True) if p < 1 - CONFIDENCE]
    calmer = [spreads for spreads in different if spreads.leaky < spreads.relu]
    outcome = FALSE if calmer else HOLDS if different else NOISE
    parts = [f"only {len(found)} of {len(rates)} learning rates are tested"] if len(found) < len(rates) else []
    coverage = ", ".join(parts + lacking_seeds([(spreads.n, len(grid.seeds)) for spreads in found]))
    if coverage:
        # Where all seeds have run, leaky ReLU's smaller spread at one rate refutes it whatever is still to come.
        outcome = FALSE if any(spreads.n >= len(grid.seeds) for spreads in calmer) else INCOMPLETE
        evidence.append(capital(coverage))
    place = corrected.index(min(corrected))
    return Verdict(name, says, outcome, evidence, place, ["claim_leaky_relu"], coverage=coverage)


@dataclass(frozen=True)
class _Spreads:
    """Standard deviations over the seeds at a learning rate, in points; p of their difference, n of the fewer seeds."""

    rate: str
    leaky: float
    relu: float
    p: float
    n: int

    def in_words(self, p: float) -> str:
        return (
            f"Standard deviations at learning rate {self.rate}: {self.leaky:.2f} points with leaky ReLU, "
            f"{self.relu:.2f} with ReLU ({p_in_words(p)}, n = {self.n})"
        )


def _spreads_at(results: Results, rate: str) -> _Spreads | None:
    """Compares the two activations' spreads; None where one has fewer than three seeds."""
    from scipy.stats import levene

    leaky, relu = (
        list(results.values("claim_leaky_relu", f"optimizer.lr={rate} model.activation={activation}").values())
        for activation in ("leaky_relu", "relu")
    )
    n = min(len(leaky), len(relu))
    if n < 3:
        return None
    # Brown and Forsythe's form of Levene's test (JASA 69, 1974): an outlier alone does not decide it.
    p = float(levene(relu, leaky, center="median").pvalue)
    spreads = [100 * (summarize(values).std or 0.0) for values in (leaky, relu)]
    return _Spreads(rate, spreads[0], spreads[1], p, n)
