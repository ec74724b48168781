"""Studies of every kind, and the plots that they can have."""

import math
import warnings
from collections.abc import Callable

import optuna

SHARES = {"importances"}


PARAMETERS = SHARES | {"slice", "parallel_coordinates"}


def made(objective: Callable, trials: int, **options) -> optuna.Study:
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0), **options)
    study.optimize(objective, trials, catch=(ZeroDivisionError,))
    return study


def pruned(trial: optuna.Trial) -> float:
    peak = trial.suggest_float("x", 0.0, 1.0) - abs(math.log10(trial.suggest_float("lr", 1e-4, 1.0, log=True)) + 2)
    trial.suggest_categorical("kind", ["sgd", "adamw"])
    for step in range(5):
        trial.report(peak * step, step)
        if step == 2 and trial.number % 3:
            raise optuna.TrialPruned
    return peak


def _conditional(trial: optuna.Trial) -> float:
    """Parameters that only some trials have, choices of every type, one value that never changes."""
    trial.suggest_categorical("mixed", [None, True, 1, 2.5, "a/<b>"])
    trial.suggest_float("fixed", 1.0, 1.0)
    if trial.number % 2:
        trial.suggest_float("</script>", 1e-5, 1e-1, log=True)
    if trial.number % 5 == 2:
        return math.nan  # Optuna takes this for a failure
    return math.inf if trial.number == 3 else trial.number / 10


def two(trial: optuna.Trial) -> tuple[float, float]:
    x = trial.suggest_float("x", 0.0, 1.0)
    return x, x * trial.suggest_float("y", 0.0, 1.0)


def _named() -> optuna.Study:
    study = made(two, 8, directions=["maximize", "minimize"])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        study.set_metric_names(["val/loss", "the seconds"])
    return study


def _waiting() -> optuna.Study:
    study = optuna.create_study()
    study.enqueue_trial({"x": 1})
    return study


STUDIES = {
    "none": (lambda: optuna.create_study(), set()),
    "waiting": (_waiting, set()),
    "one": (lambda: made(lambda t: t.suggest_float("x", 0, 1), 1), {"history", "timeline"}),
    "failed only": (lambda: made(lambda t: 1 / 0, 3), {"timeline"}),
    "infinite only": (lambda: made(lambda t: math.inf, 3), {"timeline"}),
    "same value": (lambda: made(lambda t: 0 * t.suggest_float("x", 0, 1), 3), {"history", "timeline"}),
    "fixed": (lambda: made(lambda t: t.suggest_int("x", 1, 1) * t.number, 3), {"history", "timeline"}),
    "pruned": (lambda: made(pruned, 18), {"history", "intermediate_values", "timeline"} | PARAMETERS - SHARES),
    "conditional": (
        lambda: made(_conditional, 14, direction="maximize", study_name="<b>a & b</b>"),
        {"history", "timeline"} | PARAMETERS,
    ),
    "two objectives": (_named, {"pareto_front", "parallel_coordinates", "timeline"}),
    "three objectives": (
        lambda: made(lambda t: (*two(t), 1.0), 4, directions=["minimize"] * 3),
        {"pareto_front", "parallel_coordinates", "timeline"},
    ),
    "four objectives": (
        lambda: made(lambda t: (*two(t), *two(t)), 3, directions=["minimize"] * 4),
        {"parallel_coordinates", "timeline"},
    ),
}
