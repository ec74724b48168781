"""Which of our parts a configuration has chosen, by their `_target_`; known without importing any of them."""

import os
import re
from typing import Any

from omegaconf import OmegaConf

STUDY_SWEEPER = "cifar_tuning.tuning.plugin.StudySweeper"
FUSED_LAUNCHER = "cifar_tuning.fused.launcher.FusedLauncher"
TRACKER = "MLflowTracker"
# Whose classes and functions configurations may name beside ours and PyTorch's, for the commands at the root.
TRUST_VARIABLE = "CIFAR_TUNING_TRUST"
# Hydra's words for what its execution whitelist lacks.
_REFUSAL = re.compile(r"Target '([^']+)'.* is not in the Hydra execution whitelist")


def is_study(hydra: Any) -> bool:
    """Whether a (multi)run's Hydra configuration belongs to the study sweeper."""
    return OmegaConf.select(hydra, "sweeper._target_") == STUDY_SWEEPER


def is_fused(hydra: Any) -> bool:
    """Whether jobs are launched as stacks."""
    return OmegaConf.select(hydra, "launcher._target_") == FUSED_LAUNCHER


def is_tracked(config: Any) -> bool:
    """Whether runs go to MLflow; the tracker may be named by its module or its package, or be one like it."""
    return str(OmegaConf.select(config, "tracking._target_")).rpartition(".")[2] == TRACKER


def trusted_by_user() -> list[str]:
    """Returns what the user has declared that configurations may name."""
    return [name.strip() for name in os.environ.get(TRUST_VARIABLE, "").split(",") if name.strip()]


def refused(error: BaseException | None) -> str | None:
    """Returns what Hydra says, here or further down, that a configuration may not call; None for other errors."""
    while error is not None:
        if named := _REFUSAL.search(str(error)):
            return named[1]
        error = error.__cause__
    return None


def how_to_trust(name: str) -> str:
    """Says what to do about code that configurations may not name."""
    package = name.partition(".")[0]
    if package == __package__:
        return f"configurations may not call {name}, but what those in conf/ call"
    return f"configurations may not call {name}; if you trust the package, export {TRUST_VARIABLE}='{package}.*'"
