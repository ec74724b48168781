"""Finds a sweep's mistakes before its first job; imports nothing heavy until it looks at a job."""

import copy
import os
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from hydra.core.global_hydra import GlobalHydra
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from cifar_tuning.compose import as_job, having, numbered, sweep_loader
from cifar_tuning.errors import ConfigError, UserError
from cifar_tuning.fused.launcher import stack_problem
from cifar_tuning.job_folders import BY_NUMBER
from cifar_tuning.overrides import given_options, key_of, lost_in_sweeps, parse_overrides, task_overrides
from cifar_tuning.targets import is_fused, is_study
from cifar_tuning.text import in_lines, on_one_line
from cifar_tuning.tuning.place import objectives_of

BASIC_SWEEPER = "hydra._internal.core_plugins.basic_sweeper.BasicSweeper"
# Composing a job takes a twentieth of a second; nobody should wait a minute to hear that all is well.
CHECKED_JOBS = 200
# Bytes of a file's name, on every usual file system.
LONGEST_NAME = 255
# Most jobs that are named as sharing a problem.
SHOWN_JOBS = 10


def sweep_problems(config: DictConfig) -> list[str]:
    """Returns the mistakes of a sweep that can be known before its first job.

    For a grid each job's configuration is checked, for a study its options and the ends of its ranges, for other
    sweepers the part that all jobs share.
    """
    basic = OmegaConf.select(config, "hydra.sweeper._target_") == BASIC_SWEEPER
    given = parse_overrides(task_overrides(config.hydra))
    if lost := lost_in_sweeps(given, signs=not is_study(config.hydra)):
        return lost
    problems: dict[str, list[str]] = {}
    options, sound = None, 0
    if is_study(config.hydra):
        try:
            options, own = _study(config)
        except UserError as error:
            return getattr(error, "problems", [str(error)])
        problems = {problem: [] for problem in own}
    try:
        jobs = list(_jobs(config, options))
    except ConfigError as error:
        return list(dict.fromkeys([*problems, *error.problems]))
    problems |= {problem: [] for problem in _direction_problems(config)}
    folders = _folder_problems(jobs) if basic else {}
    problems |= folders
    warn_of_keys([job for _, job in jobs])
    for label, job in jobs:
        found = job_problems(job, of_sweeper=not basic)
        for problem in found:
            problems.setdefault(problem, []).append(label)
        sound += not found
    if options is not None and not problems:
        problems = {problem: ["with hydra.sweeper.retrain_overrides"] for problem in _retrain_problems(options)}
    lines = [problem + _where(labels) for problem, labels in problems.items()]
    fused = is_fused(config.hydra)
    # Of another sweeper only what its jobs have in common is known, not how many they are.
    counted = basic and len(jobs) < CHECKED_JOBS
    if fused and (stack := stack_problem(config, len(jobs) if counted else None)):
        return [*lines, stack]
    if lines and fused and sound and options is None and not folders:
        shown = "\n  - ".join(lines)
        print(f"These jobs will fail, the others are trained:\n  - {shown}", file=sys.stderr)
        return []
    return lines


def warn_of_keys(jobs: list[DictConfig]) -> None:
    """Prints once what no job's parts seem to read.

    Args:
        jobs: their configurations.
    """
    from cifar_tuning.jobs.unread_keys import key_warnings

    for line in dict.fromkeys(line for job in jobs for line in key_warnings(job)):
        print(f"warning: {line}", file=sys.stderr)


def _folder_problems(jobs: list[tuple[str, Any]]) -> dict[str, list[str]]:
    """Returns which jobs of a grid would have no folder, or one with others: each would train over the other's run."""
    asked = OmegaConf.to_container(jobs[0][1].hydra.sweep)
    subdir = asked.get("subdir", BY_NUMBER) if isinstance(asked, dict) else BY_NUMBER
    if subdir == BY_NUMBER:
        return {}
    places: dict[str, list[str]] = {}
    problems: dict[str, list[str]] = {}
    for label, job in jobs:
        try:
            with as_job(job):
                place = str(OmegaConf.select(job, "hydra.sweep.subdir"))
        except OmegaConfBaseException as error:
            problems.setdefault(f"hydra.sweep.subdir={subdir}: {on_one_line(str(error))}", []).append(label)
            continue
        places.setdefault(place, []).append(label)
        if (problem := _no_folder(Path(str(job.hydra.sweep.dir)), place)) is not None:
            problems.setdefault(f"hydra.sweep.subdir={subdir}: {problem}", []).append(label)
    shared = {
        f"hydra.sweep.subdir: several jobs would have the folder {place}; tell them apart by "
        "'hydra.sweep.subdir=${hydra:job.num}', the default, or by every key that is swept": labels
        for place, labels in places.items()
        if len(labels) > 1
    }
    return problems | shared


def _no_folder(sweep: Path, place: str) -> str | None:
    """Returns why a job's folder can't be made in its sweep's; None if nothing is known."""
    if long := [part for part in Path(place).parts if len(os.fsencode(part)) > LONGEST_NAME]:
        return (
            f"names a folder {long[0][:20]}… of {len(os.fsencode(long[0]))} bytes, and a name has at most "
            f"{LONGEST_NAME}; 'hydra.sweep.subdir=${{hydra:job.num}}', the default, is short"
        )
    folder = sweep / place
    file = next((one for one in (folder, *folder.parents) if one.exists() and not one.is_dir()), None)
    return None if file is None else f"{file} is a file, so there can't be a folder; choose another, or move the file"


def _where(labels: list[str]) -> str:
    """Says in brackets which of a sweep's jobs have a problem: all that are numbered, or the first."""
    numbers = [label.removeprefix("job ") for label in labels if label.startswith("job ")]
    if len(numbers) > 1:
        more = ", …" if len(numbers) > SHOWN_JOBS else ""
        return f"  (jobs {', '.join(numbers[:SHOWN_JOBS])}{more})"
    return f"  ({labels[0]})" if labels and labels[0] else ""


def job_problems(job: DictConfig, of_sweeper: bool = False) -> list[str]:
    """Returns the mistakes in a job's configuration, and what an optimising sweeper would not get from it."""
    from cifar_tuning.jobs.build import plain
    from cifar_tuning.jobs.checks import find_problems, objective_problems
    from cifar_tuning.jobs.unread_keys import key_problems

    try:
        with as_job(job):
            options = plain(_task(job))
            problems = key_problems(job) + find_problems(options) or resume_problems(_task(job))
            return problems + (objective_problems(options) if of_sweeper else [])
    except ConfigError as error:
        return error.problems


def resume_problems(settings: DictConfig) -> list[str]:
    """Returns why a job of a sweep can't go on with the run that it is to resume: it goes on with one alone."""
    if settings.get("resume") is None:
        return []
    from cifar_tuning.jobs.prepare import job_config
    from cifar_tuning.jobs.resuming import differences
    from cifar_tuning.training import checkpoint as checkpoints

    source = str(settings["resume"])
    try:
        file = checkpoints.find(source)
        found = checkpoints.load(file)
        config = job_config(settings)
    except UserError as error:
        return [f"resume={source}: {error}"]
    return differences(config, found, source, file.parent)


def _direction_problems(config: DictConfig) -> list[str]:
    """Returns what a sweeper with a direction would look for the wrong way; who gives one by hand means it."""
    from cifar_tuning.jobs.checks import direction_problems

    direction = OmegaConf.select(config, "hydra.sweeper.direction")
    if direction is None or "hydra.sweeper.direction" in given_options(config.hydra):
        return []
    return direction_problems(objectives_of(config), direction)


def _study(config: DictConfig) -> tuple[Any, list[str]]:
    from cifar_tuning.tuning.options import StudyOptions
    from cifar_tuning.tuning.study import study_problems

    options = StudyOptions.parse(config, task_overrides(config.hydra))
    return options, study_problems(options)


def _retrain_problems(options: Any) -> list[str]:
    """The mistakes of a winner's configuration as it is retrained, which only comes to light behind the whole study."""
    from cifar_tuning.jobs.build import build_parts, plain
    from cifar_tuning.jobs.checks import find_problems

    if (retrained := options.retrain_config()) is None:
        return []
    task = _task(retrained)
    return find_problems(plain(task)) or build_parts(task, without=set())[1]


def _study_jobs(config: DictConfig, options: Any) -> Iterator[tuple[str, Any]]:
    """The configurations at the ends of a study's ranges.

    Raises:
        ConfigError: a swept key does not exist, or the user's function raised.
    """
    from hydra.errors import HydraException

    from cifar_tuning.tuning.dry_run import NeedsTrialError, example_params
    from cifar_tuning.tuning.space import ends

    loader = sweep_loader(GlobalHydra.instance().config_loader())
    try:
        example = example_params(options.space, config)
    except NeedsTrialError:
        return
    for params in ends(options.space, example):
        overrides = options.space.overrides(params)
        try:
            composed = loader.load_sweep_config(config, overrides)
        except Exception as error:
            kind = "" if isinstance(error, HydraException) else f"{', '.join(overrides)}: {type(error).__name__}: "
            raise ConfigError([kind + in_lines(error) + _way_out(error, config)]) from error
        shown = ", ".join(f"{name}={value}" for name, value in params.items())
        yield (
            f"in the search space: {shown}",
            numbered(composed, 0),
        )


def _jobs(config: DictConfig, options: Any = None) -> Iterator[tuple[str, Any]]:
    """The configurations to check, each with what tells it from the others.

    Raises:
        ConfigError: one can't be composed; the basic sweeper would run none then, whichever the launcher.
    """
    if options is not None:
        yield from _study_jobs(config, options)
        return
    if OmegaConf.select(config, "hydra.sweeper._target_") != BASIC_SWEEPER:
        yield "", numbered(copy.deepcopy(config), 0)
        return
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
            reason = in_lines(error) + _way_out(error, config)
            raise ConfigError([f"job {number} ({own}) can't be composed: {reason}"]) from error
        label = f"job {number}" if len(batches[0]) > 1 else ""
        yield label, numbered(composed, number)


def _way_out(error: Exception, config: DictConfig) -> str:
    """Returns what to do about an option that could not be set; Hydra only knows how to add one.

    That is a choice of the group that has it, and to vary it no more where an overlay does.
    """
    found = re.search(r"Could not override '(\w+)\.(\w+)'", str(error))
    if found is None:
        return ""
    group, option = found.groups()
    declared = f"{group}.{option}" in (config.hydra.sweeper.get("params") or {})
    dropped = rf"; '~hydra.sweeper.params.{group}\.{option}' leaves it out of the sweep" if declared else ""
    return having(group, option) + dropped


def _task(config: Any) -> Any:
    return OmegaConf.masked_copy(config, [str(key) for key in config if key != "hydra"])
