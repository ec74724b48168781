"""Which jobs of a sweep may share a stack: by their configurations alone."""

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from omegaconf import DictConfig, OmegaConf

from cifar_tuning.compose import as_job, without_hydra
from cifar_tuning.text import flatten

log = logging.getLogger(__name__)

# Options in which the jobs of one stack may differ. Each run has its own optimizer, schedule and regularizer. Models
# may differ only in numbers that change no shape.
FREE_GROUPS = ("optimizer", "schedule", "regularizer", "tracking")
FREE_KEYS = (
    *("seed", "resume", "objective", "trainer.epochs", "trainer.patience", "trainer.label_smoothing"),
    *("trainer.class_weights", "trainer.ema_decay", "trainer.max_grad_norm"),
    *("model.dropout", "model.batch_norm_momentum"),
)


@dataclass(frozen=True)
class Group:
    """Jobs whose models may be stacked.

    Attributes:
        jobs: their positions in the launch.
        options: what they agree in.
    """

    jobs: list[int]
    options: dict[str, str]


def structure(config: Mapping[str, Any]) -> dict[str, str]:
    """Returns the options in which the jobs of one stack must agree, by dotted key.

    Args:
        config: a job's resolved configuration.
    """
    return {
        key: repr(value)
        for key, value in flatten(config)
        if key not in FREE_KEYS and key.partition(".")[0] not in FREE_GROUPS
    }


def group(configs: Mapping[int, Mapping[str, Any]]) -> list[Group]:
    """Sorts jobs into groups that agree in structure, in the order of their first jobs."""
    groups: dict[tuple[tuple[str, str], ...], Group] = {}
    for job, config in configs.items():
        options = structure(config)
        groups.setdefault(tuple(sorted(options.items())), Group([], options)).jobs.append(job)
    return list(groups.values())


def differences(groups: list[Group]) -> list[dict[str, str]]:
    """Returns for each group the options that tell it from the others."""
    keys = {key for one in groups for key in one.options}
    telling = sorted(key for key in keys if len({one.options.get(key) for one in groups}) > 1)
    return [{key: one.options[key] for key in telling if key in one.options} for one in groups]


def resolve(composed: dict[int, DictConfig]) -> tuple[dict[int, dict[str, Any]], list[int]]:
    """Returns the jobs' plain configurations, and the jobs whose can't be had (they fail when they run)."""
    resolved, unresolved = {}, []
    for number, config in composed.items():
        try:
            with as_job(config):
                resolved[number] = OmegaConf.to_container(without_hydra(config), resolve=True, throw_on_missing=True)
        except Exception:
            unresolved.append(number)
    return resolved, unresolved  # type: ignore[return-value]


def describe(groups: list[Group]) -> None:
    """Logs why the jobs are several groups, if they are; or that another program's have nothing to stack."""
    if groups and not any("model._target_" in one.options for one in groups):
        log.info("No job's configuration builds a model (model._target_): there is nothing to stack, they run in turn")
        return
    if len(groups) < 2:
        return
    log.info("%d groups, because only models of one structure can be stacked:", len(groups))
    for group, options in zip(groups, differences(groups), strict=True):
        jobs = ", ".join(f"#{job}" for job in group.jobs)
        log.info("\t%s : %s", jobs, " ".join(f"{key}={value}" for key, value in options.items()))
