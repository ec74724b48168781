"""A study's hyperparameter importances beside those of shuffled values, which are what chance gives."""

import logging
import math
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import optuna
    from optuna.trial import FrozenTrial

log = logging.getLogger(__name__)

# Most and fewest shuffles, and the trials that all of them may evaluate in total: a second or two.
MOST, FEWEST, TRIALS_AT_ALL = 200, 40, 30_000
# Fewest complete trials; with fewer, importances are noise.
FEWEST_TRIALS = 10
QUANTILE = 0.95


@dataclass(frozen=True)
class Importances:
    """A study's importances, which sum to 1, and what chance gives.

    Attributes:
        found: by hyperparameter.
        chance: what the largest of as many reaches in one of twenty studies whose hyperparameters do nothing.
    """

    found: dict[str, float]
    chance: float


def complete_trials(study: "optuna.Study") -> "list[FrozenTrial]":
    """Returns the complete trials whose values are finite."""
    from optuna.trial import TrialState

    trials = study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
    return [trial for trial in trials if all(math.isfinite(value) for value in trial.values)]


def varied(study: "optuna.Study") -> list[str]:
    """Returns the parameters that took more than one value in complete trials: the others can't explain anything."""
    seen: dict[str, set[str]] = {}
    for trial in complete_trials(study):
        for name, value in trial.params.items():
            # By text, because 1, 1.0 and True are different choices but equal keys.
            seen.setdefault(name, set()).add(repr(value))
    return sorted(name for name, values in seen.items() if len(values) > 1)


def find_importances(study: "optuna.Study") -> Importances | None:
    """Returns a study's importances and those of its values shuffled among its trials.

    None where there are none: with several objectives, a single parameter or value, or fewer than ten complete trials.

    Importances are shares: that of the largest is large also where all are noise (three quarters, as a median, of four
    hyperparameters after twenty trials).
    """
    from optuna.exceptions import ExperimentalWarning
    from optuna.importance import get_param_importances

    names, trials = varied(study), complete_trials(study)
    if len(study.directions) > 1 or len(names) < 2 or len({tuple(trial.values) for trial in trials}) < 2:
        return None
    if len(trials) < FEWEST_TRIALS:
        return None
    # PED-ANOVA weighs the best trials, and takes a target that it is given for a loss.
    values = np.array([trial.values[0] for trial in trials]) * (-1 if study.direction.name == "MAXIMIZE" else 1)
    rounds = max(FEWEST, min(MOST, TRIALS_AT_ALL // len(trials)))
    generator = np.random.default_rng(0)
    largest = []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ExperimentalWarning)
        warnings.simplefilter("ignore", UserWarning)
        try:
            found = get_param_importances(study, params=names)
            for _ in range(rounds):
                shuffled = _of_number(trials, generator.permutation(values))
                largest.append(max(get_param_importances(study, params=names, target=shuffled).values()))
        except Exception as error:
            # Optuna refuses some studies: then there is no picture of them either.
            log.debug("no importances: %r", error)
            return None
    return Importances(dict(found), float(np.quantile(largest, QUANTILE)))


def _of_number(trials: "Sequence[FrozenTrial]", values: np.ndarray) -> "Callable[[FrozenTrial], float]":
    known = {trial.number: float(value) for trial, value in zip(trials, values, strict=True)}
    return lambda trial: known.get(trial.number, math.inf)


def importances_in_words(importances: Importances | None, study: "optuna.Study") -> list[str]:
    """Returns whether any importance is more than chance gives, or that the trials are too few to ask."""
    if importances is None:
        complete = len(complete_trials(study))
        few = complete < FEWEST_TRIALS and len(study.directions) == 1 and len(varied(study)) > 1
        why = (
            f"No importances are shown: of {complete} complete trials (fewer than {FEWEST_TRIALS}) they would be noise."
        )
        return [why] if few else []
    level, count, pruned = f"{importances.chance:.2f}", len(importances.found), _without_pruned(study)
    beyond = [name for name, share in importances.found.items() if share > importances.chance]
    if beyond:
        rest = " The picture tells nothing of the others." if len(beyond) < count else ""
        return [
            f"More important than chance makes the largest of {count} ({level}): {', '.join(beyond)}.{rest}{pruned}"
        ]
    return [
        f"No importance is larger than chance makes the largest of {count} ({level}): the picture of the importances "
        f"tells of none. What each hyperparameter does stands above.{pruned}"
    ]


def _without_pruned(study: "optuna.Study") -> str:
    """Returns a sentence where pruned trials, which have no final value, are not among those that were weighed."""
    from optuna.trial import TrialState

    count = len(study.get_trials(deepcopy=False, states=(TrialState.PRUNED,)))
    how_many, those = ("1 pruned trial is", "it") if count == 1 else (f"{count} pruned trials are", "those")
    return f" {how_many} not weighed, so what made {those} worse is more important than this says." if count else ""
