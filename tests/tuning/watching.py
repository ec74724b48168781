"""Trials as whoever watches a study finds them."""

import math
from datetime import datetime, timedelta
from typing import Any

import optuna
from optuna.distributions import CategoricalDistribution
from optuna.trial import TrialState

from cifar_tuning.tuning.progress import Watched

RUNNING, WAITING = TrialState.RUNNING, TrialState.WAITING


COMPLETE, PRUNED, FAIL = TrialState.COMPLETE, TrialState.PRUNED, TrialState.FAIL


NAN, INF = math.nan, math.inf


DAY = datetime(2024, 5, 1)


def make(number: int, state: TrialState = RUNNING, values=None, steps=(), params=None, ended=None, attrs=None):
    """A trial; `steps` are intermediate values from epoch 1 on, or a dictionary; `ended` is a second of the day."""
    params = params or {}
    trial = optuna.trial.create_trial(
        state=state,
        values=values if state == COMPLETE else None,
        params=params,
        distributions={name: CategoricalDistribution([value]) for name, value in params.items()},
        user_attrs=attrs,
        intermediate_values=steps if isinstance(steps, dict) else dict(enumerate(steps, 1)),
    )
    trial.number = number
    if state.is_finished():
        trial.datetime_complete = DAY + timedelta(seconds=number if ended is None else ended)
    return trial


def watched(**facts: Any) -> Watched:
    return Watched(**{"name": "study", "n_trials": 40, "maximize": True, "epochs": 15, **facts})
