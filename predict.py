"""Writes a trained model's predictions for the test images: `python predict.py run=RUN_ID_OR_CHECKPOINT`."""

import hydra
from omegaconf import DictConfig

from cifar_tuning.jobs.process import start, trusted_targets


@hydra.main(config_path="conf", config_name="predict", execution_whitelist=trusted_targets())
def main(cfg: DictConfig) -> float:
    """Returns the test accuracy."""
    from cifar_tuning.jobs.predict import run

    return run(cfg)


if __name__ == "__main__":
    start()
    main()
