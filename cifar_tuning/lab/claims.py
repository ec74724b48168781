"""The ten statements of the report's first section, each judged by what was measured."""

import statistics
from dataclasses import replace

from cifar_tuning.lab.conclusions import AUGMENTATION
from cifar_tuning.lab.counted import separable, shortcuts, squeezenet
from cifar_tuning.lab.measure import BATCH_NORM
from cifar_tuning.lab.results import Results
from cifar_tuning.lab.rules import FALSE, HOLDS, MISSING, Outcome, Side, none_behind, some_behind
from cifar_tuning.lab.tables import STRENGTH, spell_value
from cifar_tuning.lab.verdicts import MEAN_ACCURACY, NOT_HELD, Contest, Verdict, hold, judge, mean_over, ruled
from cifar_tuning.lab.weights import sparsity
from cifar_tuning.reporting.statistics import CONFIDENCE, holm
from cifar_tuning.reporting.wording import p_in_words
from cifar_tuning.text import counted

EARLY_EPOCH = 5
# A mean of normalised values this far from zero is no rounding.
NOT_ZERO = 0.01
IMAGES = ("training", "validation")


def claims(results: Results) -> list[Verdict]:
    """Judges all ten, in the report's order, and what it says beside them."""
    return [
        _batch_norm_means(results),
        Verdict(
            "1.2 autograd",
            "False: PyTorch's users do not write back-propagation themselves",
            "not measured",
            ["Nothing to measure: this project's training step calls `loss.backward()`"],
        ),
        _augmentation(results),
        _dropout(results),
        _l2_and_dropout(results),
        sparsity(results),
        _leaky_relu(results),
        _leaky_relus_time(results),
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
        return max(abs(float(mean)) for entry in rows for mean in entry[kind])

    seen, new = (largest("normalised", "eval", images) for images in IMAGES)
    train, evaluation = largest("normalised", "train", *IMAGES), max(seen, new)
    shifted = largest("output", "train", *IMAGES)
    output = max(shifted, largest("output", "eval", *IMAGES))
    evidence = [
        f"The largest channel mean of y = γx̂ + β is {output:.2f} in size; in training mode it is {shifted:.2f}, which "
        "comes from β alone",
        f"Before γ and β, the largest channel mean of x̂ is {train:.1e} in training mode; in evaluation mode it is "
        f"{seen:.3f} on training images and {new:.3f} on validation images ({counted(len(measured), 'network')})",
    ]
    if evaluation > NOT_ZERO and new - seen < NOT_ZERO:
        evidence.append(
            "The report's reason, another distribution of the images, does not show: training images do the same. The "
            "cause is the running averages, which were taken over augmented batches while the weights still changed"
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
    verdict = judge(results, "1.3 augmentation", says, contests, some_behind)
    longer, long = hold(results, [AUGMENTATION])[0], results.experiment(AUGMENTATION.experiment).epochs
    after = f"; in {long}: {longer.sentence}" if longer.sentence else ""
    return replace(verdict, setting=f"all in {grid.epochs} epochs{after}" if verdict.evidence else "")


def _dropout(results: Results) -> Verdict:
    epoch = min(EARLY_EPOCH, results.experiment("claim_dropout").epochs)
    contests = [
        Contest(
            "claim_dropout",
            "model.dropout=0",
            f"model.dropout={rate}",
            f"no dropout after {epoch} epochs",
            f"dropout of {rate}",
            mean_over(slice(epoch, epoch + 1)),
        )
        for rate in ("0.2", "0.5")
    ]
    says = "False: networks converge without dropout, and not more slowly"
    return judge(results, "1.4 dropout", says, contests, none_behind)


def _l2_and_dropout(results: Results) -> Verdict:
    def contest(experiment: str, strength: str, rate: str, options: str = "") -> Contest:
        name = f"L2 of {spell_value(strength, STRENGTH)}"
        a, b = (f"{options}model.dropout={one}" for one in (rate, "0"))
        return Contest(experiment, a, b, f"{name} with dropout of {rate}", f"{name} alone")

    contests = [
        contest("claim_l2_dropout", "0.001", "0.2", f"{STRENGTH}=0.001 "),
        *(contest("claim_dropout", "0.0001", rate) for rate in ("0.2", "0.5")),
    ]
    says = "False: dropout added to L2 need not help, it may hurt (rates of 0.2 and 0.5)"
    verdict = judge(results, "1.5 L2 and dropout", says, contests, some_behind)
    better = sum(one.side == "ahead" for one in verdict.contests)
    return replace(verdict, setting=f"it helps in {better} of {len(contests)} combinations" if better else "")


def _leaky_relu(results: Results) -> Verdict:
    says = "False: leaky ReLU does not train more stably than ReLU (spread over seeds)"
    rates = results.experiment("claim_leaky_relu").params["optimizer.lr"]
    outcomes = [_steadier(results, rate) for rate in rates]
    corrected = holm([one.raw_p for one in outcomes])
    judged = [one if p is None else _corrected(one, p) for one, p in zip(outcomes, corrected, strict=True)]
    return ruled(Verdict("1.7 leaky ReLU", says, MISSING, [], 0, ["claim_leaky_relu"]), judged, none_behind)


def _corrected(outcome: Outcome, p: float) -> Outcome:
    sentence = f"{outcome.sentence} ({p_in_words(p)}, n = {outcome.seeds[0]})"
    return replace(outcome, p=p, side=outcome.side if p < 1 - CONFIDENCE else "level", sentence=sentence)


def _steadier(results: Results, rate: str) -> Outcome:
    """Returns whether ReLU's spread over the seeds is the smaller one, which is to be ahead."""
    from scipy.stats import levene

    relu, leaky = (
        list(results.values("claim_leaky_relu", f"optimizer.lr={rate} model.activation={activation}").values())
        for activation in ("relu", "leaky_relu")
    )
    n, wanted = min(len(leaky), len(relu)), len(results.experiment("claim_leaky_relu").seeds)
    if not n:
        return NOT_HELD
    if n < 3:
        return Outcome("untested", "a spread wants three seeds at least", 1.0, (n, wanted))
    # Brown and Forsythe's form of Levene's test (JASA 69, 1974): an outlier alone does not decide it.
    p = float(levene(relu, leaky, center="median").pvalue)
    spreads = [100 * statistics.stdev(values) for values in (leaky, relu)]
    side: Side = "behind" if spreads[0] < spreads[1] else "ahead"
    sentence = (
        f"standard deviations at learning rate {rate}: {spreads[0]:.2f} points with leaky ReLU, "
        f"{spreads[1]:.2f} with ReLU"
    )
    return Outcome(side, sentence, p, (n, wanted), p)


def _leaky_relus_time(results: Results) -> Verdict:
    grid = results.experiment("claim_leaky_relu")
    contests = [
        Contest(
            grid.name,
            f"optimizer.lr={rate} model.activation=relu",
            f"optimizer.lr={rate} model.activation=leaky_relu",
            f"ReLU at learning rate {rate}",
            "leaky ReLU",
            mean_over(slice(1, None)),
            quantity=MEAN_ACCURACY,
        )
        for rate in grid.params["optimizer.lr"]
    ]
    says = "The report's reason: leaky ReLU takes longer to converge (mean validation accuracy over the epochs)"
    return judge(results, "1.7 leaky ReLU's time", says, contests)
