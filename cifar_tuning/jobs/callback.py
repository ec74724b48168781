"""What happens around a run or a sweep on the machine that started it; imports nothing heavy."""

import atexit
import copy
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.experimental.callback import Callback
from omegaconf import DictConfig, OmegaConf

from cifar_tuning.compose import as_job, numbered, sweep_loader
from cifar_tuning.errors import ConfigError, UserError
from cifar_tuning.fused.launcher import TARGET as FUSED_LAUNCHER
from cifar_tuning.fused.launcher import stack_problem
from cifar_tuning.jobs.used_folder import has_trained, only_here
from cifar_tuning.processes import is_worker
from cifar_tuning.text import on_one_line
from cifar_tuning.tuning.place import given_options, is_study, objectives_of, task_overrides

# The keys that the sweep fixes; what a job overrides beyond them is what tells it from the others.
OVERRIDES_FILE = "fixed_overrides.yaml"
BASIC_SWEEPER = "hydra._internal.core_plugins.basic_sweeper.BasicSweeper"
# Composing a job takes a twentieth of a second; nobody should wait a minute to hear that all is well.
CHECKED_JOBS = 200
# Of those that share a problem, so many are named.
SHOWN_JOBS = 10


class Sweep(Callback):
    """Before anything starts: is the output folder writable, the sweep free of mistakes? In the end: a table."""

    def __init__(self) -> None:
        self._start = 0.0
        self._kept = ExitStack()

    def on_run_start(self, config: DictConfig, **kwargs: Any) -> None:
        """Makes the run's folder and keeps it for this process; what a run left there is not touched by a mistake."""
        folder = make_folder(config.hydra.run.dir, "hydra.run.dir")
        try:
            self._kept.enter_context(only_here(folder, "hydra.run.dir"))
            atexit.register(self._kept.close)  # Ctrl-C ends a run without its end being called
            if has_trained(folder) and (problems := _problems_of(numbered(copy.deepcopy(config), 0))):
                raise ConfigError(problems)
        except UserError as error:  # Hydra would make a warning of it
            print(f"error: {error}", file=sys.stderr)
            raise SystemExit(1) from error

    def on_run_end(self, config: DictConfig, **kwargs: Any) -> None:
        """Lets others into the run's folder."""
        self._kept.close()

    def on_multirun_start(self, config: DictConfig, **kwargs: Any) -> None:
        """Makes the sweep's folder, which a study's SQLite file needs, and checks the jobs' configurations."""
        if is_worker():  # its supervisor has done all this
            return
        if problems := sweep_problems(config):
            print(f"error: {ConfigError(problems)}", file=sys.stderr)
            raise SystemExit(1)
        folder = make_folder(config.hydra.sweep.dir, "hydra.sweep.dir")
        self._start = time.time()  # what was refused has no end to tell of
        fixed = [o.get_key_element() for o in _parse(config) if not o.is_sweep_override()]
        OmegaConf.save(OmegaConf.create(fixed), folder / OVERRIDES_FILE)

    def on_multirun_end(self, config: DictConfig, **kwargs: Any) -> None:
        """Prints the table of the sweep's jobs."""
        if not self._start:
            return
        from cifar_tuning.reporting.summary import print_summary, viewer

        tracked = "MLflow" in str(OmegaConf.select(config, "tracking._target_"))
        uri = OmegaConf.select(config, "tracking.uri")
        if not is_study(config.hydra):
            print_summary(Path(config.hydra.sweep.dir), since=self._start, tracked=tracked, uri=uri)
        elif tracked:  # it sums itself up
            print(f"  {viewer(uri)}  compares all runs in MLflow's UI")


def sweep_problems(config: DictConfig) -> list[str]:
    """Returns the mistakes of a sweep that can be known before its first job.

    For a grid each job's configuration is checked, for a study its options and the ends of its ranges, for other
    sweepers the part that all jobs share.
    """
    basic = OmegaConf.select(config, "hydra.sweeper._target_") == BASIC_SWEEPER
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
    for label, job in jobs:
        found = _problems_of(job, of_sweeper=not basic)
        for problem in found:
            problems.setdefault(problem, []).append(label)
        sound += not found
    if options is not None and not problems:
        problems = {problem: ["with hydra.sweeper.retrain_overrides"] for problem in _retrain_problems(options)}
    lines = [problem + _where(labels) for problem, labels in problems.items()]
    fused = OmegaConf.select(config, "hydra.launcher._target_") == FUSED_LAUNCHER
    # Of another sweeper only what its jobs have in common is known, not how many they are.
    counted = basic and len(jobs) < CHECKED_JOBS
    if fused and (stack := stack_problem(config, len(jobs) if counted else None)):
        return [*lines, stack]
    if lines and fused and sound and options is None:
        shown = "\n  - ".join(lines)
        print(f"These jobs will fail, the others are trained:\n  - {shown}", file=sys.stderr)
        return []
    return lines


def _where(labels: list[str]) -> str:
    """Says in brackets which of a sweep's jobs have a problem: all that are numbered, or the first."""
    numbers = [label.removeprefix("job ") for label in labels if label.startswith("job ")]
    if len(numbers) > 1:
        more = ", …" if len(numbers) > SHOWN_JOBS else ""
        return f"  (jobs {', '.join(numbers[:SHOWN_JOBS])}{more})"
    return f"  ({labels[0]})" if labels and labels[0] else ""


def _problems_of(job: DictConfig, of_sweeper: bool = False) -> list[str]:
    """Returns the mistakes in a job's configuration, and what an optimising sweeper would not get from it."""
    from cifar_tuning.jobs.build import plain
    from cifar_tuning.jobs.checks import find_problems, objective_problems

    try:
        with as_job(job):
            options = plain(_task(job))
            problems = find_problems(options) or resume_problems(_task(job))
            return problems + (objective_problems(options) if of_sweeper else [])
    except ConfigError as error:
        return error.problems


def resume_problems(settings: DictConfig) -> list[str]:
    """Returns why a job of a sweep can't go on with the run that it is to resume: it goes on with one alone."""
    if settings.get("resume") is None:
        return []
    from cifar_tuning.jobs.prepare import differences, has_ended, job_config
    from cifar_tuning.training import checkpoint as checkpoints

    source = str(settings["resume"])
    try:
        file = checkpoints.find(source)
        found = checkpoints.load(file)
        config = job_config(settings)
        checkpoints.check_same_model(config["model"], found, source)
    except UserError as error:
        return [f"resume={source}: {error}"]
    return differences(config, found, source, has_ended(file.parent))


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

    from cifar_tuning.tuning.space import ends
    from cifar_tuning.tuning.standin import NeedsTrialError, example_params

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
            raise ConfigError([kind + on_one_line(error)]) from error
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
    parsed = _parsed(overrides)
    if intervals := [o.input_line for o in parsed if o.is_interval_sweep()]:
        raise ConfigError(
            [
                f"{one}: a grid needs single values, such as 0.1,0.01; for an interval add hydra/sweeper=study"
                for one in intervals
            ]
        )
    batches = BasicSweeper.split_arguments(parsed, None)
    swept = {override.get_key_element() for override in parsed if override.is_sweep_override()}
    loader = sweep_loader(GlobalHydra.instance().config_loader())
    for number, job in enumerate(batches[0][:CHECKED_JOBS]):
        try:
            composed = loader.load_sweep_config(config, list(job))
        except Exception as error:
            own = " ".join(override for override in job if override.partition("=")[0] in swept)
            raise ConfigError([f"job {number} ({own}) can't be composed: {on_one_line(error)}"]) from error
        label = f"job {number}" if len(batches[0]) > 1 else ""
        yield label, numbered(composed, number)


def _task(config: Any) -> Any:
    return OmegaConf.masked_copy(config, [str(key) for key in config if key != "hydra"])


def _parse(config: DictConfig) -> Any:
    return _parsed(task_overrides(config.hydra))


def _parsed(overrides: list[str]) -> Any:
    # The loader knows what `glob` stands for.
    return OverridesParser.create(config_loader=GlobalHydra.instance().config_loader()).parse_overrides(overrides)


def make_folder(folder: str, option: str) -> Path:
    """Makes an output folder.

    Raises:
        SystemExit: it can't be made or written to. (Hydra turns a callback's other exceptions into warnings.)
    """
    path = Path(folder)
    try:
        path.mkdir(parents=True, exist_ok=True)
        probe = path / ".writable"
        probe.touch()
        probe.unlink()
    except OSError as error:
        print(f"error: {option}={folder} can't be written to: {error}. Choose another folder.", file=sys.stderr)
        raise SystemExit(1) from error
    return path
