"""Search spaces that a list of ranges can't express, because one choice decides what else there is to choose.

A function takes the sweep's configuration and an Optuna trial; the names it suggests are the overrides.
"""

from omegaconf import DictConfig
from optuna.trial import Trial


def resnet20(config: DictConfig, trial: Trial) -> None:
    """The optimiser with its own numbers: momentum for SGD only, and learning rates on each one's scale.

    An optimiser fixed on the command line (`optimizer=sgd`) is respected, as is a fixed learning rate.
    """
    fixed = trial.user_attrs
    optimizer = fixed.get("optimizer") or trial.suggest_categorical("optimizer", ["sgd", "adam", "adamw"])
    low, high = (0.01, 0.5) if optimizer == "sgd" else (1e-4, 1e-2)
    if "optimizer.lr" not in fixed:
        trial.suggest_float("optimizer.lr", low, high, log=True)
    if optimizer == "sgd" and "optimizer.momentum" not in fixed:
        trial.suggest_float("optimizer.momentum", 0.8, 0.98)
