"""Writes a trained model's predictions for the test images, or others: `python predict.py run=RUN images=FOLDER`."""

import hydra
from omegaconf import DictConfig

from cifar_tuning.jobs.process import start, trusted_targets


@hydra.main(config_path="conf", config_name="predict", execution_whitelist=trusted_targets())
def main(cfg: DictConfig) -> float | None:
    """Returns the test accuracy; None for images of the user's own."""
    from cifar_tuning.jobs.predict import run

    return run(cfg)


if __name__ == "__main__":
    start()
    main()
