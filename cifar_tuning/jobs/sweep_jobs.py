"""The jobs of a sweep, composed before the first of them starts."""

import copy
from collections.abc import Iterator
from typing import Any

from hydra.core.global_hydra import GlobalHydra
from omegaconf import DictConfig, OmegaConf

from cifar_tuning.compose import numbered, sweep_loader, way_out
from cifar_tuning.errors import ConfigError
from cifar_tuning.overrides import key_of, parse_overrides, task_overrides
from cifar_tuning.text import in_lines

BASIC_SWEEPER = "hydra._internal.core_plugins.basic_sweeper.BasicSweeper"
# Composing a job takes a twentieth of a second; nobody should wait a minute to hear that all is well.
CHECKED_JOBS = 200


def is_grid(config: DictConfig) -> bool:
    """Whether a sweep is the basic sweeper's."""
    return bool(OmegaConf.select(config, "hydra.sweeper._target_") == BASIC_SWEEPER)


def jobs_to_check(config: DictConfig, options: Any = None) -> Iterator[tuple[str, Any]]:
    """Yields the configurations to check, each with what tells it from the others.

    Those of a grid, of a study the ends of its ranges, of another sweeper what all its jobs share.

    Args:
        config: the sweep's.
        options: a study's.

    Raises:
        ConfigError: one can't be composed.
    """
    if options is not None:
        from cifar_tuning.tuning.examples import examples

        for params, composed in examples(options):
            shown = ", ".join(f"{name}={value}" for name, value in params.items())
            yield f"in the search space: {shown}", numbered(composed, 0)
    elif is_grid(config):
        yield from _grids_jobs(config)
    else:
        yield "", numbered(copy.deepcopy(config), 0)


def _grids_jobs(config: DictConfig) -> Iterator[tuple[str, Any]]:
    """The first jobs of a grid.

    Raises:
        ConfigError: one can't be composed; the basic sweeper would run none then, whichever the launcher.
    """
    from hydra._internal.core_plugins.basic_sweeper import BasicSweeper

    params: Any = OmegaConf.to_container(OmegaConf.select(config, "hydra.sweeper.params") or OmegaConf.create())
    overrides = [*(f"{key}={value}" for key, value in params.items()), *task_overrides(config.hydra)]
    parsed = parse_overrides(overrides)
    if intervals := [o.input_line for o in parsed if o.is_interval_sweep()]:
        raise ConfigError(
            [
                f"{one}: a grid needs single values, such as 0.1,0.01; for an interval add hydra/sweeper=study"
                for one in intervals
            ]
        )
    batches = BasicSweeper.split_arguments(parsed, None)
    if not batches or not batches[0]:
        raise ConfigError(
            [f"{' '.join(overrides)}: leaves no job to run; some range is empty, or a glob finds nothing"]
        )
    swept = {key_of(override.get_key_element()) for override in parsed if override.is_sweep_override()}
    loader = sweep_loader(GlobalHydra.instance().config_loader())
    for number, job in enumerate(batches[0][:CHECKED_JOBS]):
        try:
            composed = loader.load_sweep_config(config, list(job))
        except Exception as error:
            own = " ".join(override for override in job if key_of(override) in swept)
            reason = in_lines(error) + way_out(error, config)
            raise ConfigError([f"job {number} ({own}) can't be composed: {reason}"]) from error
        label = f"job {number}" if len(batches[0]) > 1 else ""
        yield label, numbered(composed, number)
