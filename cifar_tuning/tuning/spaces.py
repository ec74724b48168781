"""Search spaces that a list of ranges can't express, because one choice decides what else there is to choose.

A function takes the sweep's configuration and an Optuna trial; the names it suggests are the overrides.
"""

from omegaconf import DictConfig
from optuna.trial import Trial


def schedules(config: DictConfig, trial: Trial) -> None:
    """A schedule with its own numbers: decay epochs and factor only for steps.

    python train.py -m hydra/sweeper=study hydra.sweeper.custom_search_space=cifar_tuning.tuning.spaces.schedules
    """
    epochs = int(config.trainer.epochs)
    if trial.suggest_categorical("schedule", ["constant", "step", "cosine", "onecycle"]) == "step":
        trial.suggest_int("schedule.decay_epochs", 1, max(1, epochs - 1))
        trial.suggest_categorical("schedule.decay", [0.1, 0.2, 0.5])


def resnet20(config: DictConfig, trial: Trial) -> None:
    """The optimizer with its own numbers: momentum for SGD only, and learning rates on each one's scale.

    An optimizer fixed on the command line (`optimizer=sgd`) is respected, as is a fixed learning rate.
    """
    fixed = trial.user_attrs
    optimizer = fixed.get("optimizer") or trial.suggest_categorical("optimizer", ["sgd", "adam", "adamw"])
    low, high = (0.01, 0.5) if optimizer == "sgd" else (1e-4, 1e-2)
    if "optimizer.lr" not in fixed:
        trial.suggest_float("optimizer.lr", low, high, log=True)
    if optimizer == "sgd" and "optimizer.momentum" not in fixed:
        trial.suggest_float("optimizer.momentum", 0.8, 0.98)
