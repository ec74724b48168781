"""Finds a sweep's mistakes before its first job; imports nothing heavy until it looks at a job."""

import sys
from typing import Any

from omegaconf import DictConfig, OmegaConf

from cifar_tuning.compose import as_job, without_hydra
from cifar_tuning.errors import ConfigError, UserError
from cifar_tuning.fused.launcher import stack_problem
from cifar_tuning.jobs.checks import direction_problems, find_problems, objective_problems
from cifar_tuning.jobs.sweep_folders import folder_problems
from cifar_tuning.jobs.sweep_jobs import CHECKED_JOBS, is_grid, jobs_to_check
from cifar_tuning.jobs.unread_keys import key_problems, key_warnings
from cifar_tuning.overrides import given_options, lost_in_sweeps, parse_overrides, task_overrides
from cifar_tuning.targets import BASIC_LAUNCHER, is_fused, is_study
from cifar_tuning.tuning.place import objectives_of

# Most jobs that are named as sharing a problem.
SHOWN_JOBS = 10


def sweep_problems(config: DictConfig) -> list[str]:
    """Returns the mistakes of a sweep that can be known before its first job.

    For a grid each job's configuration is checked, for a study its options and the ends of its ranges, for other
    sweepers the part that all jobs share.
    """
    basic = is_grid(config)
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
        jobs = list(jobs_to_check(config, options))
    except ConfigError as error:
        known = {_mistake(problem) for problem in problems}
        return [*problems, *(problem for problem in error.problems if _mistake(problem) not in known)]
    of_sweeper = [*_direction_problems(config), *([] if is_study(config.hydra) else storage_problems(config))]
    problems |= {problem: [] for problem in of_sweeper}
    folders = folder_problems(jobs) if basic else {}
    problems |= folders
    warn_of_keys([job for _, job in jobs])
    for label, job in jobs:
        found = job_problems(job, of_sweeper=not basic)
        for problem in found:
            problems.setdefault(problem, []).append(label)
        sound += not found
    if options is not None and not problems:
        problems = {problem: ["with hydra.sweeper.retrain_overrides"] for problem in _retrain_problems(options)}
        problems |= {problem: [] for problem in unfit([job for _, job in jobs])}
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
    """Prints once what no job's parts seem to read."""
    for line in dict.fromkeys(line for job in jobs for line in key_warnings(job)):
        print(f"warning: {line}", file=sys.stderr)


def _mistake(problem: str) -> str:
    """Returns a problem without the parameters that a search space's function was asked with, as it has the same."""
    return problem.partition("  (with ")[0]


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

    try:
        with as_job(job):
            options = plain(without_hydra(job))
            problems = key_problems(job) + find_problems(options) or resume_problems(without_hydra(job))
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
    direction = OmegaConf.select(config, "hydra.sweeper.direction")
    if direction is None or "hydra.sweeper.direction" in given_options(config.hydra):
        return []
    return direction_problems(objectives_of(config), direction)


def storage_problems(config: DictConfig) -> list[str]:
    """Returns what is wrong with the stock sweeper's storage, which would end in SQLAlchemy's traceback."""
    storage = OmegaConf.select(config, "hydra.sweeper.storage")
    if not isinstance(storage, str) or "://" in storage:
        return []
    return [f"hydra.sweeper.storage={storage}: must be the address of an SQL database, such as sqlite:///optuna.db"]


def _study(config: DictConfig) -> tuple[Any, list[str]]:
    from cifar_tuning.tuning.options import StudyOptions
    from cifar_tuning.tuning.study import study_problems

    options = StudyOptions.parse(config, task_overrides(config.hydra))
    return options, study_problems(options)


def unfit(jobs: list[DictConfig]) -> list[str]:
    """Returns why the first of a study's examples can't be trained, if none can; mostly the first one is all it takes.

    Where only some can't, their trials say why. Nor is it known of jobs that another launcher takes elsewhere, where
    there may be what this machine lacks.
    """
    from cifar_tuning.jobs.build import build_parts

    found: list[str] = []
    for job in jobs:
        if not (is_fused(job.hydra) or job.hydra.launcher._target_ == BASIC_LAUNCHER):
            return []
        with as_job(job):
            task = without_hydra(job)
            failures = build_parts(task, without=set(), restored=task.get("resume") is not None)[1]
        if not failures:
            return []
        found = found or failures
    return found


def _retrain_problems(options: Any) -> list[str]:
    """The mistakes of a winner's configuration as it is retrained, which only comes to light behind the whole study."""
    from cifar_tuning.jobs.build import build_parts, plain

    if (retrained := options.retrain_config()) is None:
        return []
    task = without_hydra(retrained)
    return find_problems(plain(task)) or build_parts(task, without=set())[1]
