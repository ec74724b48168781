"""From a configuration to the objects that train, each built by the constructor its `_target_` names."""

import inspect
import random
from typing import Any

import numpy as np
import torch
from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import MissingMandatoryValue, OmegaConfBaseException

from cifar_tuning.data import ImageData
from cifar_tuning.errors import ConfigError
from cifar_tuning.jobs.checks import find_target
from cifar_tuning.jobs.fitting import try_together
from cifar_tuning.jobs.parts import Parts, innermost
from cifar_tuning.targets import refused
from cifar_tuning.text import on_one_line


def plain(cfg: DictConfig) -> dict[str, Any]:
    """Returns the configuration with every interpolation resolved, as plain dictionaries and lists.

    Raises:
        ConfigError: a value is missing (`???`) or refers to something that does not exist.
    """
    try:
        content = OmegaConf.to_container(cfg, resolve=True, throw_on_missing=True)
    except MissingMandatoryValue as error:
        raise ConfigError([f"{error.full_key}: is missing; give it a value, as in {error.full_key}=…"]) from error
    except Exception as error:
        place = f"{error.full_key}: " if isinstance(error, OmegaConfBaseException) and error.full_key else ""
        said = str(error).partition("\n    full_key:")[0]  # the rest is for programmers
        raise ConfigError([place + on_one_line(said)]) from error
    assert isinstance(content, dict)
    return {str(key): value for key, value in content.items()}


def build_parts(cfg: DictConfig, without: set[str], *, restored: bool = False) -> tuple[Parts | None, list[str]]:
    """Builds every group by its constructor, those left out excepted.

    Args:
        cfg: the job's configuration.
        without: the groups that are left out.
        restored: whether a checkpoint will bring the model's weights.

    Returns:
        the parts, if all could be built, and a line for each constructor that refused.
    """
    parts: dict[str, Any] = {}
    failures = []
    for group in Parts.__dataclass_fields__:
        if group in without:
            continue
        try:
            model = group == "model"
            parts[group] = build_part(cfg[group], parts.get("data") if model else None, restored=model and restored)
        except Exception as error:
            failures.append(_refusal(group, error))
    if without or failures:
        return None, failures
    built = Parts(**parts)
    failures = try_together(built)
    return (None if failures else built), failures


def build_part(node: Any, data: ImageData | None = None, *, restored: bool = False) -> Any:
    """Instantiates one config group; lists and dictionaries reach the constructor as plain Python ones.

    Args:
        node: the config group.
        data: of a model, which is for as many classes unless its configuration says how many; None where it could not
            be built.
        restored: of a model: whether a checkpoint will bring the weights, so that the model's own need not be there any
            more; its constructor is told if it asks.
    """
    target = find_target(node.get("_target_"))
    takes = inspect.signature(target).parameters if data is not None or restored else {}
    told: dict[str, Any] = {"restored": True} if restored and "restored" in takes else {}
    if data is not None and node.get("num_classes") is None and "num_classes" in takes:
        told["num_classes"] = len(data.classes)
    return instantiate(node, _convert_="all", **told)


def _refusal(group: str, error: Exception) -> str:
    if (reason := refused(error)) is not None:
        return f"{group}: {reason}"
    message = innermost(error)
    partly = group in ("optimizer", "schedule") and "missing" in message and "argument" in message
    return f"{group}: {message}" + ("; with _partial_: true it is given the rest in training" if partly else "")


def seed_everything(seed: int, deterministic: bool = False) -> None:
    """Seeds PyTorch's global generators, which draw initial weights and dropout, and others that code may draw from."""
    torch.manual_seed(seed)
    np.random.seed(seed)
    random.seed(seed)
    # Only where it changes anything, for it imports the compiler, which takes a second. 2: errors; 1 would only warn.
    if torch.get_deterministic_debug_mode() != (2 if deterministic is True else 0):
        torch.use_deterministic_algorithms(deterministic is True)
    torch.backends.cudnn.deterministic = deterministic
    torch.backends.cudnn.benchmark = not deterministic
