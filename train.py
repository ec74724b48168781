"""Trains one configuration, or many: `python train.py [-m] [overrides]`; see conf/config.yaml."""

from typing import Any

import hydra
from omegaconf import DictConfig

from cifar_tuning.jobs.process import start, trusted_targets


@hydra.main(config_path="conf", config_name="config", execution_whitelist=trusted_targets())
def main(cfg: DictConfig) -> Any:
    """Returns the objective: the best validation accuracy, or what `objective` names, a list for several."""
    from cifar_tuning.jobs.run import run

    return run(cfg)


if __name__ == "__main__":
    start()
    main()
