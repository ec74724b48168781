"""Which of our parts a configuration has chosen, by their `_target_`; known without importing any of them."""

from typing import Any

from omegaconf import OmegaConf

STUDY_SWEEPER = "cifar_tuning.tuning.plugin.StudySweeper"
FUSED_LAUNCHER = "cifar_tuning.fused.launcher.FusedLauncher"
TRACKER = "MLflowTracker"


def is_study(hydra: Any) -> bool:
    """Whether a (multi)run's Hydra configuration belongs to the study sweeper."""
    return OmegaConf.select(hydra, "sweeper._target_") == STUDY_SWEEPER


def is_fused(hydra: Any) -> bool:
    """Whether jobs are launched as stacks."""
    return OmegaConf.select(hydra, "launcher._target_") == FUSED_LAUNCHER


def is_tracked(config: Any) -> bool:
    """Whether runs go to MLflow; the tracker may be named by its module or its package, or be one like it."""
    return str(OmegaConf.select(config, "tracking._target_")).rpartition(".")[2] == TRACKER
