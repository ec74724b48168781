"""Parts by their `_target_`: which of ours a configuration has chosen, and what configurations may name at all."""

import os
import re
import sys
from typing import Any

from omegaconf import OmegaConf

from cifar_tuning.user_code import missing_module

STUDY_SWEEPER = "cifar_tuning.tuning.plugin.StudySweeper"
FUSED_LAUNCHER = "cifar_tuning.fused.launcher.FusedLauncher"
BASIC_LAUNCHER = "hydra._internal.core_plugins.basic_launcher.BasicLauncher"
TRACKER = "MLflowTracker"
# Datasets whose content is known, by our hash or because torchvision fetches and checks it, wherever they lie.
VERIFIED_DATA = ("cifar_tuning.data.CIFAR10", "cifar_tuning.data.TorchvisionData")
IMAGE_FOLDER = "cifar_tuning.data.ImageFolder"
# Environment variable: what configurations may name besides our parts and PyTorch's, in the commands at the root.
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
_BUILDERS = """
    alexnet googlenet inception_v3 maxvit_t mobilenet_v2 mobilenet_v3_small mobilenet_v3_large get_model
    wide_resnet50_2 wide_resnet101_2 convnext_tiny convnext_small convnext_base convnext_large densenet121
    densenet161 densenet169 densenet201 efficientnet_b0 efficientnet_b1 efficientnet_b2 efficientnet_b3
    efficientnet_b4 efficientnet_b5 efficientnet_b6 efficientnet_b7 efficientnet_v2_s efficientnet_v2_m
    efficientnet_v2_l mnasnet0_5 mnasnet0_75 mnasnet1_0 mnasnet1_3 regnet_x_400mf regnet_x_800mf regnet_x_1_6gf
    regnet_x_3_2gf regnet_x_8gf regnet_x_16gf regnet_x_32gf regnet_y_400mf regnet_y_800mf
    regnet_y_1_6gf regnet_y_3_2gf regnet_y_8gf regnet_y_16gf regnet_y_32gf regnet_y_128gf resnet18 resnet34 resnet50
    resnet101 resnet152 resnext50_32x4d resnext101_32x8d resnext101_64x4d shufflenet_v2_x0_5 shufflenet_v2_x1_0
    shufflenet_v2_x1_5 shufflenet_v2_x2_0 squeezenet1_0 squeezenet1_1 swin_t swin_s swin_b swin_v2_t swin_v2_s
    swin_v2_b vgg11 vgg11_bn vgg13 vgg13_bn vgg16 vgg16_bn vgg19 vgg19_bn vit_b_16 vit_b_32 vit_l_16 vit_l_32
    vit_h_14
"""
# Where their classes are: Hydra asks for what a builder returns as well. (What fetches weights is in another module.)
_MODULES = """
    alexnet convnext densenet efficientnet googlenet inception maxvit mnasnet mobilenetv2 mobilenetv3 regnet resnet
    shufflenetv2 squeezenet swin_transformer vgg vision_transformer
"""
TORCHVISION_MODELS = [
    *(f"torchvision.models.{name}" for name in _BUILDERS.split()),
    *(f"torchvision.models.{name}.*" for name in _MODULES.split()),
]
# Packages too large to be trusted as a whole: a message proposes to trust the one name.
_BY_NAME = {"hydra", "hydra_plugins", "torch", "torchvision", "optuna", "mlflow", *sys.stdlib_module_names}
# Hydra's words for what its execution whitelist lacks, and for what no such list can allow.
_REFUSAL = re.compile(r"Target '([^']+)'.* (is not in the Hydra execution whitelist|cannot be authorized by)")


def is_study(hydra: Any) -> bool:
    """Whether a (multi)run's Hydra configuration belongs to the study sweeper."""
    return bool(OmegaConf.select(hydra, "sweeper._target_") == STUDY_SWEEPER)


def is_fused(hydra: Any) -> bool:
    """Whether jobs are launched as stacks."""
    return bool(OmegaConf.select(hydra, "launcher._target_") == FUSED_LAUNCHER)


def is_tracked(config: Any) -> bool:
    """Whether runs go to MLflow; the tracker may be named by its module or its package, or be one like it."""
    return str(OmegaConf.select(config, "tracking._target_")).rpartition(".")[2] == TRACKER


def trusted_by_user() -> list[str]:
    """Returns what the user has declared that configurations may name."""
    return [name.strip() for name in os.environ.get(TRUST_VARIABLE, "").split(",") if name.strip()]


def refused(error: BaseException | None) -> str | None:
    """Says what to do about code that configurations may not name.

    Args:
        error: Hydra's own, or one that it caused.

    Returns:
        None for other errors.
    """
    while error is not None:
        if found := _REFUSAL.search(str(error)):
            return _how_to_trust(found[1], final=found[2].startswith("cannot"))
        error = error.__cause__
    return None


def _how_to_trust(name: str, final: bool) -> str:
    """Says what to do about a name; `final`: no trust of the user's helps."""
    if (lacking := missing_module(name)) is not None:
        return f"{name} can't be imported: {lacking}"
    package = name.partition(".")[0]
    if final:
        return f"configurations may not call {name}, whoever trusts it; name a function of your own that does"
    if package == __package__:
        return f"configurations may not call {name}, but what those in conf/ call"
    if package in _BY_NAME:
        return f"configurations may not call {name}; if you trust it, export {TRUST_VARIABLE}='{name}'"
    return f"configurations may not call {name}; if you trust the package, export {TRUST_VARIABLE}='{package}.*'"
