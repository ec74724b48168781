"""The conclusions of the report's three labs, each judged by the runs."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace

from cifar_tuning.lab.published import mean_offset
from cifar_tuning.lab.resnets import third_lab
from cifar_tuning.lab.results import CHANCE, CLASSES, Results
from cifar_tuning.lab.rules import FALSE, HOLDS, MISSING, Outcome, Side, is_extreme
from cifar_tuning.lab.runs import Run
from cifar_tuning.lab.tables import STRENGTH, accuracy, spell_value
from cifar_tuning.lab.verdicts import (
    MEAN_ACCURACY,
    Contest,
    Verdict,
    capital,
    judge,
    mean_over,
    of_all_seeds,
    of_run,
    ruled,
)
from cifar_tuning.lab.weights import normality, weight_counts, width
from cifar_tuning.reporting.statistics import CONFIDENCE, p_of_another, summarize
from cifar_tuning.reporting.wording import mean_and_std, p_in_words
from cifar_tuning.text import counted

# Guessing is right 10 % ± 0.4 % of the time on 5,000 images: this is five times that away.
AT_CHANCE = 0.12
SEVENTY = 0.7
RATES = ("1", "0.1", "0.05", "0.01", "0.005", "0.001")
RATE, USUAL_RATE, LARGE_RATES = "optimizer.lr=", "0.01", ("0.05", "0.1", "0.2")
STRENGTHS = ("0", "1e-05", "0.0001", "0.001", "0.01")
AUGMENTATION = Contest(
    "lab2_augmentation", "augmentation=crop_flip", "augmentation=none", "crop and flip", "no augmentation"
)
# What is still rising in these many last epochs has not converged.
WINDOW = 5


def conclusions(results: Results) -> list[Verdict]:
    """Judges all of them, in the report's order."""
    return [*_first_lab(results), *_second_lab(results), *third_lab(results)]


def _first_lab(results: Results) -> list[Verdict]:
    decays = [
        Contest("lab1_decay", _decay(epochs), _decay("null"), f"decay every {epochs} epochs", "no decay")
        for epochs in ("10", "15")
    ]
    best_epoch = of_run(lambda run: run.best_epoch)
    later = [replace(contest, figure=best_epoch, quantity="best epoch", unit="epochs") for contest in decays]
    says = "The baseline overfits: it is better on training images than on validation images"
    overfitting = Contest(
        "lab1_baseline",
        "",
        "",
        "the last training accuracy",
        "the last validation accuracy",
        of_run(lambda run: run.final_train_acc),
        against=of_run(lambda run: run.final_val_acc),
    )
    return [
        weight_counts(results),
        _initial_loss(results),
        _early_peak(results),
        judge(results, "overfitting", says, [overfitting]),
        judge(results, "decay", "Learning-rate decay helps", decays, ordered=True),
        judge(results, "later peak", "With decay the best epoch comes later than without", later),
    ]


def _second_lab(results: Results) -> list[Verdict]:
    batch_norm = Contest(
        "lab2_batch_norm", "model.batch_norm=true", "model.batch_norm=false", "batch norm", "no batch norm"
    )
    swish = [_swish_at(rate) for rate in ("0.01", "0.1")]
    rates = [_rates("0.01", rate) for rate in RATES if rate != "0.01"]
    worst = {
        rate: [_strengths(rate, strength, "0.01") for strength in STRENGTHS if strength != "0.01"]
        for rate in ("0.01", "0.1")
    }
    worst_says = "L2 of 1e-2 is the worst (learning rate"
    strength = [_strengths("0.01", "0.0001", other) for other in ("0", "1e-05", "0.001")]
    rising = [_still_rising(rate) for rate in ("0.005", "0.001")]
    return [
        judge(results, "augmentation", "Crop and flip help", [AUGMENTATION], ordered=True),
        judge(results, "batch norm", "Batch norm helps a little", [batch_norm]),
        _large_rates(results),
        _above_seventy(results),
        judge(results, "swish", "Swish is a little better than ReLU", swish),
        _chance(results),
        judge(results, "best rate", "0.01 is the best learning rate", rates, is_extreme),
        judge(results, "small rates", "Rates of 0.005 and 0.001 have not converged after 30 epochs", rising),
        judge(results, "worst L2", f"{worst_says} 0.01)", worst["0.01"], is_extreme, ordered=True),
        judge(results, "worst L2 at 0.1", f"{worst_says} 0.1)", worst["0.1"], is_extreme),
        judge(results, "best L2", "L2 of 1e-4 is the best (learning rate 0.01)", strength, is_extreme),
        width(results),
        normality(results),
    ]


def _decay(epochs: str) -> str:
    return f"schedule.decay_epochs={epochs}"


def _large_rates(results: Results) -> Verdict:
    """Judges the report's argument: batch norm's gain grows with the rate. That there is one says nothing of rates."""
    says = "Batch norm allows a larger learning rate, up to 0.2: its gain grows with the rate"
    contests = [
        Contest(
            "lab2_bn_lr",
            f"{RATE}{rate}",
            f"{RATE}{USUAL_RATE}",
            f"a rate of {rate}",
            f"a rate of {USUAL_RATE}",
            _gain,
            quantity="gain by batch norm",
        )
        for rate in LARGE_RATES
    ]
    verdict = judge(results, "large rates", says, contests, ordered=True)
    means = {
        rate: summarize(values.values()).mean
        for rate in (USUAL_RATE, *LARGE_RATES)
        if (values := _with_batch_norm(results, "lab2_bn_lr", f"{RATE}{rate}"))
    }
    evidence = list(verdict.evidence)
    if len(means) > 1:
        falls = " falls with the rate" if list(means.values()) == sorted(means.values(), reverse=True) else ""
        listed = ", ".join(f"{accuracy(mean)} at {rate}" for rate, mean in means.items())
        evidence.append(f"With batch norm the mean accuracy itself{falls or ' is'}: {listed}")
    return replace(verdict, evidence=evidence, experiments=["lab2_bn_lr", "lab2_batch_norm"])


def _gain(results: Results, experiment: str, configuration: str) -> Mapping[int, float]:
    """What batch norm adds to the accuracy at a learning rate."""
    a = _with_batch_norm(results, experiment, configuration)
    b = _with_batch_norm(results, experiment, configuration, "false")
    return {seed: a[seed] - b[seed] for seed in a if seed in b}


def _with_batch_norm(
    results: Results, experiment: str, configuration: str, batch_norm: str = "true"
) -> Mapping[int, float]:
    """Accuracies at a learning rate; the usual one's are another table's, which does not name it."""
    usual = f"{RATE}{USUAL_RATE}"
    if configuration.startswith(usual):
        return results.values("lab2_batch_norm", f"model.batch_norm={batch_norm}{configuration.removeprefix(usual)}")
    return results.values(experiment, f"model.batch_norm={batch_norm} {configuration}")


def _above_seventy(results: Results) -> Verdict:
    """Asks whether one more run of ours could be at the mark: a level is no difference, it has all that ours share."""
    says = "With batch norm a learning rate of 0.1 stays above 70 % (.7012)"
    verdict = Verdict("above 70 %", says, MISSING, [], 0, ["lab2_bn_lr"])
    values = _with_batch_norm(results, "lab2_bn_lr", f"{RATE}0.1").values()
    if not values:
        return verdict
    found = summarize(values)
    p, spread = p_of_another(found, SEVENTY), f" ± {accuracy(found.std)}" if found.std is not None else ""
    side: Side = "ahead" if found.mean > SEVENTY else "behind"
    if p is None or p >= 1 - CONFIDENCE:
        side = "untested" if p is None else "level"
    could = "could be" if side == "level" else "would hardly be"
    other = {"ahead": " or below", "behind": " or above"}.get(side, "")
    sentence = (
        f"ours have {accuracy(found.mean)}{spread}; one more {could} at 70 %{other} ({p_in_words(p)}, n = {found.n})"
    )
    if p is None:
        sentence = f"ours have {accuracy(found.mean)} (n = {found.n})"
    seeds = found.n, len(results.experiment("lab2_bn_lr").seeds)
    ruling = ruled(verdict, [Outcome(side, sentence, 1.0 if p is None else p, seeds, p)])
    return replace(ruling, setting=_level(results))


def _level(results: Results) -> str:
    """Returns, in words, how far all augmented rows lie from the report's; empty where there is nothing to compare."""
    points = mean_offset(results)
    if points is None:
        return ""
    where = "below" if points < 0 else "above"
    return f"ours lie {abs(points):.1f} points {where} the report's on average over all rows with crop and flip"


def _swish_at(rate: str) -> Contest:
    swish, relu = (f"optimizer.lr={rate} model.activation={name}" for name in ("swish", "relu"))
    return Contest("lab2_swish", swish, relu, f"Swish at learning rate {rate}", "ReLU")


def _rates(a: str, b: str) -> Contest:
    return Contest("lab2_lr", f"optimizer.lr={a}", f"optimizer.lr={b}", f"a rate of {a}", f"a rate of {b}")


def _still_rising(rate: str) -> Contest:
    last, before = slice(-WINDOW, None), slice(-2 * WINDOW, -WINDOW)
    options, name = f"optimizer.lr={rate}", f"a rate of {rate} in its last {WINDOW} epochs"
    then = f"in the {WINDOW} before"
    return Contest("lab2_lr", options, options, name, then, mean_over(last), MEAN_ACCURACY, against=mean_over(before))


def _strengths(rate: str, a: str, b: str) -> Contest:
    of = f"optimizer.lr={rate} {STRENGTH}="
    names = [f"L2 of {spell_value(strength, STRENGTH)}" for strength in (a, b)]
    return Contest("lab2_l2", of + a, of + b, names[0], names[1])


def _initial_loss(results: Results) -> Verdict:
    says, expected = "Before training the loss is about ln 10 = 2.303 (2.304 in the report)", math.log(CLASSES)
    losses = [run.initial_loss for run in results.of("lab1_baseline", "") if run.initial_loss is not None]
    if not losses:
        return Verdict("initial loss", says, MISSING, [], 0, ["lab1_baseline"])
    found = summarize(losses)
    evidence = f"Validation loss before training {mean_and_std(found)} (n = {found.n})"
    near = HOLDS if abs(found.mean - expected) < 0.01 else FALSE
    outcome = of_all_seeds(results, "lab1_baseline", found.n, near)
    return Verdict("initial loss", says, outcome, [evidence], 0, ["lab1_baseline"])


def _early_peak(results: Results) -> Verdict:
    says = "The baseline is at its best around epochs 10 to 20, and no better afterwards"
    epochs = [run.best_epoch for run in results.of("lab1_baseline", "")]
    if not epochs:
        return Verdict("early peak", says, MISSING, [], 0, ["lab1_baseline"])
    mean = summarize(epochs).mean
    listed = ", ".join(map(str, sorted(epochs)))
    evidence = f"Best epochs {listed}: {mean:.0f} in the mean (n = {len(epochs)})"
    outcome = of_all_seeds(results, "lab1_baseline", len(epochs), HOLDS if 10 <= mean <= 20 else FALSE)
    return Verdict("early peak", says, outcome, [evidence], 0, ["lab1_baseline"])


def _chance(results: Results) -> Verdict:
    """Judges the last epochs: a run's best one may be the untrained network's, or a moment's luck."""
    says = "A learning rate of 1.0 does not get beyond chance (.1054)"
    runs = results.of("lab2_lr", "optimizer.lr=1")
    if not runs:
        return Verdict("rate of 1", says, MISSING, [], 0, ["lab2_lr"], True)
    ends = [run.final_val_acc for run in runs if run.final_val_acc is not None]
    # A network that diverged says nothing any more, which is to guess.
    outcome = of_all_seeds(results, "lab2_lr", len(runs), HOLDS if max(ends, default=CHANCE) < AT_CHANCE else FALSE)
    return Verdict("rate of 1", says, outcome, [_ends_in_words(runs)], 0, ["lab2_lr"], True)


def _ends_in_words(runs: Sequence[Run]) -> str:
    """Returns where runs ended, how many diverged, and which had been further on the way."""
    ends = [accuracy(run.final_val_acc) for run in runs if run.final_val_acc is not None]
    parts = [f"last epoch {' to '.join(sorted({min(ends), max(ends)}))} in {counted(len(ends), 'run')}"] if ends else []
    if len(ends) < len(runs):
        parts.append(f"{len(runs) - len(ends)} diverged")
    on_the_way = [
        f"seed {run.seed} was at {accuracy(run.val_acc)} in epoch {run.best_epoch}"
        for run in runs
        if run.val_acc >= AT_CHANCE and run.val_acc != run.final_val_acc
    ]
    sentence = f"{', '.join(parts)} (n = {len(runs)}); chance is {accuracy(CHANCE)}"
    return capital("; ".join([sentence, *on_the_way]))
