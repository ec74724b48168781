"""Finds all mistakes in a study's options before anything is written."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from hydra.core.global_hydra import GlobalHydra
from hydra.errors import HydraException
from omegaconf import OmegaConf
from optuna.distributions import FloatDistribution

from cifar_tuning.compose import sweep_loader
from cifar_tuning.errors import ConfigError, root_cause
from cifar_tuning.job_folders import BY_NUMBER
from cifar_tuning.numeric import is_number, is_whole
from cifar_tuning.overrides import given_options, key_of, parse_overrides, spelled
from cifar_tuning.processes import is_worker
from cifar_tuning.targets import refused
from cifar_tuning.text import on_one_line
from cifar_tuning.tuning import dry_run
from cifar_tuning.tuning.conditions import ABSENT, OPTION, present
from cifar_tuning.tuning.options import StudyOptions, make_pruner
from cifar_tuning.tuning.place import objectives_of
from cifar_tuning.tuning.space import describe


def option_problems(options: StudyOptions) -> list[str]:
    """Returns a line for each option that is out of range."""
    sweeper, lines = options.sweeper, []
    whole = {"workers": 1, "n_trials": 1, "n_jobs": 1, "repeats": 1, "retrain_best": 0, "heartbeat_interval": 1}
    for name, low in whole.items():
        value = sweeper[name]
        if value is None and name == "workers":  # as many as pay
            continue
        if not is_whole(value, low):
            lines.append(f"hydra.sweeper.{name}={value}: must be a whole number, {low} or above")
    for name, low in {"max_retry": 0, "timeout": 0, "patience": 1, "grace_period": 1}.items():
        value = sweeper[name]
        if value is not None and not (is_number(value) and value >= low):
            lines.append(f"hydra.sweeper.{name}={value}: must be a number, {low} or above, or null")
    if not (is_number(rate := sweeper.max_failure_rate) and 0 <= rate <= 1):
        lines.append(f"hydra.sweeper.max_failure_rate={rate}: must be a number from 0 to 1")
    if sweeper.target is not None and not is_number(sweeper.target):
        lines.append(f"hydra.sweeper.target={sweeper.target}: must be a number, or null")
    if early := [name for name in ("target", "patience") if sweeper[name] is not None and len(options.directions) > 1]:
        lines.append(f"hydra.sweeper.{early[0]}={sweeper[early[0]]}: several objectives have no single best trial")
    if bad := [d for d in options.directions or ["[]"] if d not in ("minimize", "maximize")]:
        lines.append(f"hydra.sweeper.direction={bad[0]}: must be minimize or maximize, or a list of them")
    lines += _problems_with_conditions(options)
    lines += (space := _problems_with_space(options)) + _problems_with_function(options)
    lines += _problems_with_folder(options) + _problems_with_repeats(options)
    lines += _problems_with_parts(options, ("pruner",) if space else ("sampler", "pruner"))  # a grid is of the space
    lines += _problems_with_fixed(options, options.sweeper.sampler)
    return lines + _problems_with_objective(options) + _problems_with_retraining(options)


def _problems_with_space(options: StudyOptions) -> list[str]:
    ranges, custom = dry_run.all_distributions(options.space, options.config), options.space.custom
    if ranges is None:  # its function needs a trial, or has a mistake, which is said elsewhere
        return []
    if not ranges:
        suggests = "" if custom is None else f"hydra.sweeper.custom_search_space={custom} suggests nothing, and "
        return [
            f"the search space is empty: {suggests}no key has a range; give one, as in "
            "'optimizer.lr=tag(log,interval(0.001,0.1))' or model.activation=relu,swish, or set hydra.sweeper.params"
        ]
    if options.grid and (unknown := ranges.keys() - options.space.distributions.keys()):
        return [
            f"hydra/sweeper/sampler: GridSampler does not know {', '.join(sorted(unknown))}, suggested by "
            f"hydra.sweeper.custom_search_space={custom}; brute_force tries every point of a function's space too"
        ]
    if options.grid and options.space.conditions:
        return [
            "hydra/sweeper/sampler: GridSampler knows no hydra.sweeper.conditions, and would try one configuration "
            "several times; hydra/sweeper/sampler=brute_force tries every point once"
        ]
    endless = [n for n, d in ranges.items() if isinstance(d, FloatDistribution) and d.step is None]
    if not options.exhaustive or not endless:
        return []
    sampler = "GridSampler" if options.grid else "BruteForceSampler"
    shown = ", ".join(f"{name} ({describe(ranges[name])})" for name in endless)
    return [
        f"hydra/sweeper/sampler: {sampler} tries every point, and there is no end of them in {shown}: give "
        "choices or range(low,high,step=…), or take another sampler"
    ]


def _problems_with_conditions(options: StudyOptions) -> list[str]:
    """A condition on what is nowhere, or on what is none of a key's choices, would never hold."""
    lines, space = [], options.space
    for key, values in ((k, v) for condition in space.conditions.values() for k, v in condition.items()):
        swept = space.distributions.get(key)
        if swept is None and key not in space.fixed and present(options.config, key) is ABSENT:
            lines.append(f"{OPTION}: {key} is no option")
        elif swept is not None and (wrong := [v for v in values if dry_run.value_in(swept, v) is ABSENT]):
            lines.append(f"{OPTION}: {key}={spelled(wrong[0])}: must be in its range, {describe(swept)}")
    return list(dict.fromkeys(lines))


def _problems_with_function(options: StudyOptions) -> list[str]:
    """The mistakes in the branches of the user's function, and in the overrides that they suggest."""
    custom, space = options.space.custom, options.space
    if custom is None or is_worker():  # its supervisor has looked
        return []
    points, lines = dry_run.branches(space, options.config)
    loader = sweep_loader(GlobalHydra.instance().config_loader())
    wrong: dict[str, str] = {}
    for point in points[1:]:  # the first is composed, and looked at, with the declared ranges
        overrides = space.overrides(point)
        try:
            loader.load_sweep_config(options.config, overrides)
        except Exception as error:
            wrong.setdefault(on_one_line(error), ", ".join(overrides))
    return lines + [f"hydra.sweeper.custom_search_space={custom}: {why}  (with {w})" for why, w in wrong.items()]


def _problems_with_folder(options: StudyOptions) -> list[str]:
    lines, name = [], options.sweeper.study_name
    if ".." in Path(str(name)).parts:
        lines.append(
            f"hydra.sweeper.study_name={name}: names a folder below multirun/, so it can't have .. in "
            "it; hydra.sweep.dir gives another place"
        )
    folders = OmegaConf.to_container(options.config.hydra.sweep, resolve=False)
    if isinstance(folders, dict) and folders.get("subdir") != BY_NUMBER:
        lines.append(
            f"hydra.sweep.subdir={folders.get('subdir')}: must be {BY_NUMBER}, because a trial's folder is its "
            "number in the study; hydra.sweep.dir is the study's folder"
        )
    return lines


def _problems_with_objective(options: StudyOptions) -> list[str]:
    """An application that names its objectives (`train.py` does) must name as many as there are directions."""
    names = objectives_of(options.config)
    if not names or len(names) == len(options.directions):
        return []
    directions = ",".join(options.directions)
    return [f"hydra.sweeper.direction={directions}: objective={','.join(names)} needs {len(names)} of them"]


def _problems_with_parts(options: StudyOptions, names: Sequence[str]) -> list[str]:
    """Builds sampler and pruner once, or the one of them that is named, so that a wrong option shows now."""
    lines = []
    builders: dict[str, Callable[[], Any]] = {
        "sampler": options.sampler,
        "pruner": lambda: make_pruner(options.pruner_config()),
    }
    for name in names:
        try:
            builders[name]()
        except Exception as error:
            said = given_options(options.config.hydra)
            given = sorted(option for option in said if option.startswith(f"hydra.sweeper.{name}."))
            which = f" (given: {', '.join(given)})" if given else ""
            why = refused(error) or on_one_line(str(root_cause(error)))
            lines.append(f"hydra/sweeper/{name}: {why}{which}")
    return lines


def _problems_with_fixed(options: StudyOptions, sampler: Any) -> list[str]:
    """What `PartialFixedSampler` is to fix must be in the space: it passes over another name without a word."""
    if not OmegaConf.is_dict(sampler) or sampler.get("_target_") != "optuna.samplers.PartialFixedSampler":
        return []
    lines, fixed = _problems_with_fixed(options, sampler.get("base_sampler")), sampler.get("fixed_params")
    if not OmegaConf.is_dict(fixed):  # building it says so
        return lines
    given = dry_run.entry_params(options.space, options.config, fixed)
    return lines + dry_run.entry_problems(options.space, options.config, given, "hydra.sweeper.sampler.fixed_params")


def _problems_with_repeats(options: StudyOptions) -> list[str]:
    ranges = dry_run.all_distributions(options.space, options.config) or options.space.distributions
    swept = "seed" in map(key_of, ranges)
    if swept and options.sweeper.repeats == 1 and not options.exhaustive:
        return [
            "seed: a sampler takes it for a hyperparameter, and the winner would be the luckiest seed; "
            "seed=0 hydra.sweeper.repeats=3 makes a trial the mean over three seeds, hydra/sweeper/sampler=grid tries "
            "every combination"
        ]
    if options.sweeper.repeats == 1 and not options.sweeper.retrain_best:
        return []
    if swept:
        return ["seed: is swept, but hydra.sweeper.repeats and retrain_best give every seed to each configuration"]
    if "seed" in options.config and OmegaConf.is_interpolation(options.config, "seed"):
        return ["seed: depends on the job, but hydra.sweeper.repeats and retrain_best give it every seed"]
    if not isinstance(OmegaConf.select(options.config, "seed"), int):
        return ["seed: the application has no such option, which hydra.sweeper.repeats and retrain_best vary"]
    return []


def _problems_with_retraining(options: StudyOptions) -> list[str]:
    given = options.sweeper.retrain_overrides
    if options.sweeper.retrain_best and len(options.directions) > 1:
        count = options.sweeper.retrain_best
        return [f"hydra.sweeper.retrain_best={count}: several objectives have no single winner to retrain"]
    if not given:
        return []
    key = "hydra.sweeper.retrain_overrides"
    if not options.sweeper.retrain_best:
        return [f"{key}={given}: needs hydra.sweeper.retrain_best, the number of seeds to retrain the winner with"]
    lines = [f"{key}: {entry}: {wrong}" for entry in given if (wrong := _wrong_override(entry)) is not None]
    try:
        if not lines:
            options.retrain_config()
    except HydraException as error:
        lines.append(f"{key}={given}: can't be composed: {on_one_line(error)}")
    except ConfigError:
        pass  # the user's search space, which is checked by itself
    return lines


def _wrong_override(entry: object) -> str | None:
    """Returns what is wrong with an override that a retrained winner gets."""
    if not isinstance(entry, str):
        return 'must be an override, in quotes, such as "data.val_size=0"'
    try:
        [parsed] = parse_overrides([entry])
    except HydraException as error:
        return f"is no override: {on_one_line(str(error))}"
    if parsed.is_sweep_override():
        return "must have one value"
    name = parsed.key_or_group
    if name == "seed" or name.partition(".")[0].partition("/")[0] == "hydra":
        return f"{name} is not for the retrained winner, whose seeds and folders are given"
    return None
