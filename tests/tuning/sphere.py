"""A Hydra application that knows nothing of this project: a trial takes `wait` seconds, or fails where told to.

With `meet` it waits until so many processes have had a trial, for a minute at most.
"""

import os
import sys
import time
from pathlib import Path

import hydra
import optuna
from hydra.core.config_store import ConfigStore
from omegaconf import DictConfig

DEFAULTS = {"x": 1.0, "y": 0, "wait": 0.0, "meet": 1, "returns": "value"}
ConfigStore.instance().store("sphere", DEFAULTS, replace=True)


@hydra.main(config_path=None, config_name="sphere")
def main(cfg: DictConfig) -> object:
    time.sleep(cfg.wait)
    if cfg.meet > 1:
        meet(cfg.meet)
    if str(cfg.x) in os.environ.get("SPHERE_FAILS", "").split():
        raise RuntimeError(f"no {cfg.x} just now")
    if cfg.returns == "error":
        raise RuntimeError("no such luck")
    if cfg.returns == "exit":
        sys.exit(3)
    if cfg.returns == "farewell":
        sys.exit("no such luck")
    if cfg.returns == "two":
        return [cfg.x**2 + cfg.y, abs(cfg.x - 1)]
    return (
        float("nan") if cfg.returns == "incomparable" else cfg.returns if cfg.returns != "value" else cfg.x**2 + cfg.y
    )


def meet(processes: int) -> None:
    met = Path("met")
    met.mkdir(exist_ok=True)
    (met / str(os.getpid())).touch()
    limit = time.monotonic() + 60
    while len(list(met.iterdir())) < processes and time.monotonic() < limit:
        time.sleep(0.02)


def space(config: DictConfig, trial) -> None:
    """`y` is a choice only where `x` is positive."""
    if trial.suggest_float("x", -5, 5) > 0:
        trial.suggest_int("y", 1, 3)


def limits(trial) -> tuple[float]:
    """`x` may not be positive."""
    return (trial.params["x"],)


def tree(config: DictConfig, trial) -> None:
    """Five points: `y` is a choice only where `x` is 1."""
    if trial.suggest_categorical("x", [0.0, 1.0, 2.0]) == 1:
        trial.suggest_int("y", 0, 2)


def nothing(config: DictConfig, trial) -> None:
    """Suggests nothing."""


def upper_half(config: DictConfig, trial) -> None:
    """Has the lower half pruned, which the default is not in."""
    if trial.suggest_float("x", -5, 5) < 0:
        raise optuna.TrialPruned("not worth it")


if __name__ == "__main__":
    main()
