"""Which of our parts a configuration has chosen, by their `_target_`; known without importing any of them."""

import os
import re
import sys
from dataclasses import dataclass
from typing import Any

from omegaconf import OmegaConf

from cifar_tuning.own_code import no_module

STUDY_SWEEPER = "cifar_tuning.tuning.plugin.StudySweeper"
FUSED_LAUNCHER = "cifar_tuning.fused.launcher.FusedLauncher"
TRACKER = "MLflowTracker"
# Whose classes and functions configurations may name beside ours and PyTorch's, for the commands at the root.
TRUST_VARIABLE = "CIFAR_TUNING_TRUST"
# Public classes and builders, name by name: what else their packages have, methods too, may run commands, fetch files
# or read pickles.
SAMPLERS = [
    *(f"optuna.samplers.{name}Sampler" for name in ("TPE", "Random", "CmaEs", "GP", "Grid", "QMC", "BruteForce")),
    *(f"optuna.samplers.{name}Sampler" for name in ("PartialFixed", "NSGAII", "NSGAIII")),
    *(f"optuna.samplers.nsgaii.{name}Crossover" for name in ("Uniform", "BLXAlpha", "SBX", "SPX", "UNDX", "VSBX")),
    *(f"hydra_plugins.hydra_optuna_sweeper._impl.create_{name}_sampler" for name in ("nsgaii", "nsgaiii")),
    "hydra_plugins.hydra_optuna_sweeper.config.raise_motpe_removed",
]
PRUNERS = [
    *(f"optuna.pruners.{name}Pruner" for name in ("Nop", "Median", "Percentile", "Threshold", "Patient", "Wilcoxon")),
    *(f"optuna.pruners.{name}Pruner" for name in ("SuccessiveHalving", "Hyperband")),
    *(f"cifar_tuning.tuning.pruners.{name}Pruner" for name in ("Median", "Percentile")),
]
TORCHVISION_MODELS = [
    f"torchvision.models.{name}"
    for name in (
        *("alexnet", "googlenet", "inception_v3", "maxvit_t", "mobilenet_v2", "mobilenet_v3_small"),
        *("mobilenet_v3_large", "get_model", "wide_resnet50_2", "wide_resnet101_2"),
        *(f"convnext_{size}" for size in ("tiny", "small", "base", "large")),
        *(f"densenet{depth}" for depth in (121, 161, 169, 201)),
        *(f"efficientnet_b{size}" for size in range(8)),
        *(f"efficientnet_v2_{size}" for size in "sml"),
        *(f"mnasnet{width}" for width in ("0_5", "0_75", "1_0", "1_3")),
        *(
            f"regnet_{kind}_{size}"
            for kind in "xy"
            for size in ("400mf", "800mf", "1_6gf", "3_2gf", "8gf", "16gf", "32gf", "128gf")
        ),
        *(f"resnet{depth}" for depth in (18, 34, 50, 101, 152)),
        *("resnext50_32x4d", "resnext101_32x8d", "resnext101_64x4d"),
        *(f"shufflenet_v2_x{width}" for width in ("0_5", "1_0", "1_5", "2_0")),
        *("squeezenet1_0", "squeezenet1_1"),
        *(f"swin_{kind}{size}" for kind in ("", "v2_") for size in "tsb"),
        *(f"vgg{depth}{norm}" for depth in (11, 13, 16, 19) for norm in ("", "_bn")),
        *(f"vit_{size}" for size in ("b_16", "b_32", "l_16", "l_32", "h_14")),
    )
]
# Where their classes are: Hydra asks for what a builder returns as well. (What fetches weights is in another module.)
TORCHVISION_MODELS += [
    f"torchvision.models.{module}.*"
    for module in (
        *(
            "alexnet",
            "convnext",
            "densenet",
            "efficientnet",
            "googlenet",
            "inception",
            "maxvit",
            "mnasnet",
            "mobilenetv2",
        ),
        *(
            "mobilenetv3",
            "regnet",
            "resnet",
            "shufflenetv2",
            "squeezenet",
            "swin_transformer",
            "vgg",
            "vision_transformer",
        ),
    )
]
# Whose packages hold so much that a name alone should be trusted.
_BY_NAME = {"hydra", "hydra_plugins", "torch", "torchvision", "optuna", "mlflow", *sys.stdlib_module_names}
# Hydra's words for what its execution whitelist lacks, and for what no such list can allow.
_REFUSAL = re.compile(r"Target '([^']+)'.* (is not in the Hydra execution whitelist|cannot be authorized by)")


@dataclass(frozen=True)
class Refusal:
    """What Hydra would not call; `final` where no trust of the user's changes that."""

    name: str
    final: bool = False


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


def refused(error: BaseException | None) -> Refusal | None:
    """Returns what Hydra says, here or further down, that a configuration may not call; None for other errors."""
    while error is not None:
        if found := _REFUSAL.search(str(error)):
            return Refusal(found[1], final=found[2].startswith("cannot"))
        error = error.__cause__
    return None


def how_to_trust(refusal: Refusal) -> str:
    """Says what to do about code that configurations may not name."""
    name = refusal.name
    if (lacking := no_module(name)) is not None:
        return f"{name} can't be imported: {lacking}"
    package = name.partition(".")[0]
    if refusal.final:
        return f"configurations may not call {name}, whoever trusts it; name a function of your own that does"
    if package == __package__:
        return f"configurations may not call {name}, but what those in conf/ call"
    if package in _BY_NAME:
        return f"configurations may not call {name}; if you trust it, export {TRUST_VARIABLE}='{name}'"
    return f"configurations may not call {name}; if you trust the package, export {TRUST_VARIABLE}='{package}.*'"
