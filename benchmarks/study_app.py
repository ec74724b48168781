"""A trial of a millisecond that is tracked like a real one; what `benchmarks.studies.overhead` runs."""

import time
from pathlib import Path

import hydra
from hydra.core.config_store import ConfigStore
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig

ConfigStore.instance().store("config", {"x": 1.0, "y": 1, "root": "???"})


@hydra.main(config_path=None, config_name="config")
def main(cfg: DictConfig) -> float:
    """Returns a value after a millisecond, a run in MLflow and one report to the study."""
    from cifar_tuning.tracking import MLflowTracker, RunContext
    from cifar_tuning.tuning.trial import current_trial

    job = HydraConfig.get()
    trial = current_trial(job)
    tracker = MLflowTracker(root=cfg.root)
    overrides = list(job.overrides.task)
    tracker.start(RunContext(str(job.job.num), dict(cfg), overrides, Path(job.runtime.output_dir), seed=0))
    time.sleep(0.001)
    value = float(cfg.x**2 + cfg.y)
    if trial is not None:
        trial.report(value, 1)
        trial.should_prune()
    tracker.log_epoch({"val/acc": value}, 1)
    tracker.finish("complete")
    return value


if __name__ == "__main__":
    main()
