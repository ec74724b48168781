"""What a tracking store is told about a job before it trains: name, place in the sweep, configuration."""

import shlex
import textwrap
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from hydra.types import RunMode
from omegaconf import OmegaConf

from cifar_tuning import PROJECT_ROOT
from cifar_tuning.job_folders import FIXED_FILE
from cifar_tuning.jobs.prepare import Prepared
from cifar_tuning.overrides import job_overrides, key_of, unresolved
from cifar_tuning.text import MAIN_CONFIG, SEARCHPATH, in_short, is_elsewhere
from cifar_tuning.tuning.place import is_retrained, is_trial, sweep_folder, sweep_key

# Most characters of a single run's name, and options that it leaves out.
LONGEST, SAY_NOTHING = 100, ("objective", "published")


def run_context(hydra: Any, prepared: Prepared, folder: Path, again: bool) -> Any:
    """Returns the job's `tracking.RunContext`.

    Args:
        hydra: Hydra's own part of the configuration.
        prepared: the job.
        folder: where its files go.
        again: an earlier process may have begun it.
    """
    from cifar_tuning.tracking import RunContext

    config, multirun = prepared.config, hydra.mode == RunMode.MULTIRUN
    retrained = multirun and is_retrained(hydra)
    return RunContext(
        name=_name(hydra)
        if multirun
        else name_alone(model_name(config["model"]), job_overrides(hydra), prepared.checkpoint is not None),
        config=config,
        overrides=job_overrides(hydra),
        folder=folder,
        seed=config["seed"],
        job_num=int(hydra.job.num) if multirun and not retrained else None,
        tags=({"role": "retrained"} if retrained else {}) | _config_places(hydra),
        run_id=prepared.checkpoint.run_id if prepared.checkpoint else None,
        again=again,
        **(_sweep(hydra) if multirun else {}),
    )


def model_name(options: Mapping[str, Any]) -> str:
    """Returns what a model is called: by its option `name`, as torchvision's have one, or else by its class."""
    named = options.get("name")
    return named if isinstance(named, str) else str(options["_target_"]).rpartition(".")[2]


def _config_places(hydra: Any) -> dict[str, str]:
    """Returns the tag that says where the configuration was looked for, where that is not just `conf/config.yaml`."""
    from cifar_tuning.tracking.facts import CONFIG_FLAGS

    flags, name = [], hydra.job.config_name
    for source in hydra.runtime.config_sources:
        if source.provider == "main" and Path(source.path) != PROJECT_ROOT / "conf":
            flags.append(f"--config-path={source.path}")
        elif source.provider == "command-line":
            flags.append(f"--config-dir={source.path}")
    flags += [f"--config-name={name}"] if name not in (None, MAIN_CONFIG) else []
    flags += [one for one in unresolved(hydra.overrides.hydra) if key_of(one) == SEARCHPATH]
    return {CONFIG_FLAGS: shlex.join(flags)} if flags else {}


def _sweep(hydra: Any) -> dict[str, Any]:
    """Returns where a multirun's job belongs: its sweep, and its trial if that is several jobs."""
    folder = sweep_folder(hydra)
    several = is_trial(hydra) and hydra.sweeper.repeats > 1
    return {
        "sweep_dir": folder,
        "sweep_key": sweep_key(hydra),
        "group_dir": folder / str(hydra.job.num) if several else None,
    }


def name_alone(model: str, overrides: list[str], resumed: bool) -> str:
    """Returns the name of a single run, by which it is told from others in a list: what it is made of, in short.

    Args:
        model: its class.
        overrides: of the command.
        resumed: whether it goes on from a checkpoint.
    """
    own = [_in_short(one) for one in overrides if not (is_elsewhere(key_of(one)) or key_of(one) in SAY_NOTHING)]
    mark = " (resumed)" if resumed else ""
    return textwrap.shorten(" ".join([model, *own]), LONGEST - len(mark), placeholder=" …") + mark


def _in_short(override: str) -> str:
    key, equals, value = override.partition("=")
    return f"{key}{equals}{in_short(value)}"


def _name(hydra: Any) -> str:
    """Returns the job's number and the overrides that tell it from the sweep's other jobs."""
    file = sweep_folder(hydra) / FIXED_FILE
    fixed = list(OmegaConf.load(file)) if file.is_file() else []  # another host may not see the folder
    own = [_in_short(override) for override in job_overrides(hydra) if key_of(override) not in fixed]
    return f"{hydra.job.num}: {' '.join(own)}"[:200]
