"""Pruners on simulated studies: whole studies in a second, because every trial's curve is made of recorded ones.

The recorded curves are 39 trials of a study of SimpleNN by the stock plugin (15 epochs, 20,000 images of CIFAR-10). A
trial gets the curve of one of the two trials nearest to its parameters, its leap moved to where its own learning rate
is divided, with the noise of an epoch. So what a pruner costs is known to a tenth of a point, where three real studies
leave half a point open; whether it is true, only real ones tell (`python -m benchmarks pruning`).
"""

import csv
import math
import random
import statistics
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import optuna
from omegaconf import OmegaConf
from tqdm import tqdm

from benchmarks import measure
from cifar_tuning.tuning import plugin
from cifar_tuning.tuning.pruners import MedianPruner

RECORDED = Path(__file__).with_name("recorded") / "simplenn_study.csv"
TRIALS, EPOCHS = 40, 15
# As two workers with a stack of four each have them, or one GPU with a stack of eight.
SIDE_BY_SIDE = 8
# The pruner was chosen by looking at studies of the seeds below.
FIRST_SEED = 1000
# Of an accuracy from epoch to epoch, before and after the learning rate is divided; and what a step away costs.
NOISE_BEFORE, NOISE_AFTER, AWAY = 0.012, 0.004, 0.004


def shipped() -> dict[str, Any]:
    """Returns the options of the pruner that a study of so many epochs has by default."""
    config = OmegaConf.create({"trainer": {"epochs": EPOCHS}, "pruner": plugin.PRUNERS["median"]})
    options = OmegaConf.to_container(config.pruner, resolve=True)
    assert isinstance(options, dict)
    return {str(key): value for key, value in options.items() if key != "_target_"}


DEFAULT = shipped()
PRUNERS: dict[str, optuna.pruners.BasePruner] = {
    "none": optuna.pruners.NopPruner(),
    "median, ours": MedianPruner(**DEFAULT),
    "median, ours, after 5 trials": MedianPruner(**{**DEFAULT, "n_startup_trials": 5}),
    "median, ours, to the end": MedianPruner(**{**DEFAULT, "n_last_steps": None}),
    "median, each epoch from the 2nd": optuna.pruners.MedianPruner(5, 2),
    "median, each epoch from the 5th": optuna.pruners.MedianPruner(5, 5),
    "best quarter, each fourth epoch": optuna.pruners.PercentilePruner(25.0, 5, 2, 4),
    "successive halving": optuna.pruners.SuccessiveHalvingPruner(1, 4, 0),
    "hyperband": optuna.pruners.HyperbandPruner(1, EPOCHS, 3),
}
PRUNERS_SIDE_BY_SIDE: dict[str, optuna.pruners.BasePruner] = {
    "none": PRUNERS["none"],
    "median, ours": PRUNERS["median, ours"],
    "median, ours, complete trials alone": MedianPruner(**{**DEFAULT, "count_incomplete": False}),
    "successive halving": PRUNERS["successive halving"],
}


@dataclass(frozen=True)
class Recorded:
    """A trial that was trained: its parameters and its validation accuracies."""

    lr: float
    strength: float
    decay_epochs: int
    activation: str
    curve: tuple[float, ...]


def load() -> list[Recorded]:
    """Reads the recorded trials."""
    with RECORDED.open(newline="", encoding="utf-8") as stream:
        return [
            Recorded(float(lr), float(strength), int(decay), activation, tuple(map(float, curve.split())))
            for lr, strength, decay, activation, curve in list(csv.reader(stream))[1:]
        ]


@dataclass
class Running:
    """A trial that is being trained: what it has reported, and the rest of its curve."""

    trial: optuna.Trial
    reported: list[float]
    ahead: list[float]


def simulate(
    known: list[Recorded], pruner: optuna.pruners.BasePruner, seed: int, stock: bool, at_a_time: int
) -> tuple[int, float]:
    """Runs a study; returns the epochs that it trained and its best accuracy.

    Args:
        known: recorded trials.
        pruner: of the study.
        seed: of the sampler and of the noise.
        stock: TPE as the stock plugin has it; otherwise as our sweeper has it, the defaults tried first.
        at_a_time: how many trials run side by side, epoch by epoch; another begins whenever one ends.
    """
    noise, order = random.Random(seed), random.Random(seed)
    sampler = optuna.samplers.TPESampler(seed=seed, multivariate=not stock, constant_liar=not stock)
    study = optuna.create_study(direction="maximize", sampler=sampler, pruner=pruner)
    if not stock:
        study.enqueue_trial({"lr": 0.01, "strength": 1e-4, "decay_epochs": 10, "activation": "relu"})
    epochs, best = 0, 0.0
    running = [_begin(study, known, noise) for _ in range(at_a_time)]
    while running:
        order.shuffle(running)
        for one in list(running):
            epochs += 1
            one.reported.append(one.ahead.pop(0))
            one.trial.report(one.reported[-1], len(one.reported))
            pruned = bool(one.ahead) and one.trial.should_prune()
            if one.ahead and not pruned:
                continue
            best = max(best, *one.reported)
            state = optuna.trial.TrialState.PRUNED if pruned else None
            study.tell(one.trial, None if pruned else max(one.reported), state)
            running.remove(one)
            if len(study.get_trials(deepcopy=False)) < TRIALS:
                running.append(_begin(study, known, noise))
    return epochs, best


def _begin(study: optuna.Study, known: list[Recorded], noise: random.Random) -> Running:
    trial = study.ask()
    wanted = Recorded(
        trial.suggest_float("lr", 1e-3, 0.3, log=True),
        trial.suggest_float("strength", 1e-6, 1e-2, log=True),
        trial.suggest_int("decay_epochs", 3, EPOCHS),
        trial.suggest_categorical("activation", ["relu", "swish"]),
        (),
    )
    return Running(trial, [], _curve(known, wanted, noise))


def _curve(known: list[Recorded], wanted: Recorded, noise: random.Random) -> list[float]:
    nearest = sorted((_distance(one, wanted), index) for index, one in enumerate(known))[:2]
    source = known[nearest[0 if noise.random() < 0.65 else 1][1]]
    away = min(nearest[0][0], 4.0)
    values = []
    for epoch in range(1, EPOCHS + 1):
        before = epoch <= wanted.decay_epochs
        same = min(epoch, source.decay_epochs) if before else source.decay_epochs + epoch - wanted.decay_epochs
        value = source.curve[min(same, EPOCHS) - 1]
        values.append(value + noise.gauss(0, NOISE_BEFORE if before else NOISE_AFTER) - AWAY * away)
    return values


def _distance(one: Recorded, other: Recorded) -> float:
    return (
        abs(math.log10(one.lr / other.lr)) / 0.25
        + abs(math.log10(one.strength / other.strength)) / 1.5
        + abs(one.decay_epochs - other.decay_epochs) / 2
        + (1.5 if one.activation != other.activation else 0.0)
    )


def run(studies: int) -> Path:
    """Simulates studies with each pruner against the stock plugin's; returns the JSON file.

    Args:
        studies: of each pruner, the same sampler seeds for all.
    """
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        figures = _compare(PRUNERS, studies, 1)
        side_by_side = _compare(PRUNERS_SIDE_BY_SIDE, studies, SIDE_BY_SIDE)
    content = {"studies": studies, "trials": TRIALS, "epochs": EPOCHS, "at_a_time": SIDE_BY_SIDE}
    return measure.write("simulated", {**content, "pruners": figures, "pruners_side_by_side": side_by_side})


def _compare(pruners: dict[str, optuna.pruners.BasePruner], studies: int, at_a_time: int) -> dict[str, Any]:
    known, seeds, figures = load(), range(FIRST_SEED, FIRST_SEED + studies), {}
    stock = [simulate(known, optuna.pruners.NopPruner(), seed, True, at_a_time) for seed in seeds]
    for name, pruner in tqdm(pruners.items(), desc=f"pruners, {at_a_time} at a time", leave=False):
        own = [simulate(known, pruner, seed, False, at_a_time) for seed in seeds]
        points = [100 * (mine[1] - theirs[1]) for mine, theirs in zip(own, stock, strict=True)]
        figures[name] = {
            "times_fewer_epochs": round(TRIALS * EPOCHS * studies / sum(epochs for epochs, _ in own), 2),
            "points": round(statistics.mean(points), 2),
            "standard_error": round(statistics.stdev(points) / studies**0.5, 2),
        }
        one = figures[name]
        shown = f"{one['points']:+.2f} ± {one['standard_error']:.2f} points"
        print(f"simulated  {at_a_time} {name:36} {one['times_fewer_epochs']:.2f}x fewer, {shown}", flush=True)
    return figures
