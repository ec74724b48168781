"""Reports a sweep, tables and pictures: `python report.py sweep=NAME_OR_FOLDER_OR_STUDY`."""

import hydra
from omegaconf import DictConfig

from cifar_tuning.jobs.process import start, trusted_targets


@hydra.main(config_path="conf", config_name="report", execution_whitelist=trusted_targets())
def main(cfg: DictConfig) -> None:
    """Writes the report's files and says where they are."""
    from cifar_tuning.jobs.report import run

    run(cfg)


if __name__ == "__main__":
    start()
    main()
