"""Creates a study in its storage or continues it, after checking that it can be run as asked."""

import inspect
import os
import warnings
from collections.abc import Mapping
from typing import Any

import optuna
from hydra.utils import get_object
from omegaconf import DictConfig, OmegaConf
from optuna.distributions import BaseDistribution, check_distribution_compatibility
from optuna.exceptions import ExperimentalWarning
from optuna.trial import TrialState

from cifar_tuning.databases import sqlite_file, sqlite_url
from cifar_tuning.errors import ConfigError
from cifar_tuning.files import write_text
from cifar_tuning.job_folders import STUDY_FILE, study_in
from cifar_tuning.processes import WORKER_VARIABLE, host, is_worker, lives, started
from cifar_tuning.text import counted, without_password
from cifar_tuning.tuning import warm_start
from cifar_tuning.tuning.budget import finished, forgiven, to_enqueue
from cifar_tuning.tuning.examples import try_out, uncomposable
from cifar_tuning.tuning.option_checks import option_problems
from cifar_tuning.tuning.options import StudyOptions, make_pruner
from cifar_tuning.tuning.place import StudyPlace, objectives_of
from cifar_tuning.tuning.space import changes, describe
from cifar_tuning.tuning.storage import Storage, open_storage, study_lock, without_driver
from cifar_tuning.tuning.worker_count import workers_of

# Study attributes: what its trials share, to notice changes; and the pruner, which Optuna doesn't keep.
SPACE, FIXED, PRUNER = "search_space", "configuration", "pruner"
# Study system attribute: which command draws as the only one, from which number of trials on.
DRAWS = "cifar_tuning:draws"


def known_study(options: StudyOptions, storage: Storage) -> optuna.Study | None:
    """Returns the study if it is in the storage already."""
    try:
        return optuna.load_study(study_name=options.place.name, storage=storage.cached)
    except KeyError:
        return None


def study_problems(options: StudyOptions) -> list[str]:
    """Returns a line for everything that keeps the study from being run as asked; nothing is written.

    Raises:
        UserError: the storage can't be used.
    """
    problems = option_problems(options)
    if problems:
        return problems
    try:
        options.enqueued()
    except ConfigError as error:
        problems += error.problems
    problems += _folder_problems(options.place)
    file = sqlite_file(options.place.storage)
    study = None if file is not None and not file.exists() else known_study(options, storage_of(options))
    return problems + (
        warm_start.warm_start_problems(options) if study is None else _continuation_problems(options, study)
    )


def storage_of(options: StudyOptions) -> Storage:
    """Opens the study's storage."""
    sweeper = options.sweeper
    return open_storage(options.place.storage, sweeper.heartbeat_interval, sweeper.grace_period)


def _same_storage(one: str, other: str) -> bool:
    """Whether two addresses are one database's, whatever driver or quotes they are written with."""
    files = sqlite_file(one), sqlite_file(other)
    return files[0] == files[1] if all(files) else without_driver(one) == without_driver(other)


def _folder_problems(place: StudyPlace) -> list[str]:
    known = study_in(place.folder)
    if known is None or (known[0] == place.name and _same_storage(known[1], _location(place))):
        return []
    return [
        f"hydra.sweep.dir={place.folder}: belongs to the study {known[0]} in {known[1]}; "
        f"give the study {place.name} a folder of its own"
    ]


def _continuation_problems(options: StudyOptions, study: optuna.Study) -> list[str]:
    lines, name = [], options.place.name
    before = [direction.name.lower() for direction in study.directions]
    if before != options.directions:
        lines.append(
            f"hydra.sweeper.direction={','.join(options.directions)}: the study {name} was begun with "
            f"{','.join(before)}; give another hydra.sweeper.study_name"
        )
    done = len(finished(study)) - len(forgiven(study, options))
    if options.n_trials < done:
        lines.append(
            f"hydra.sweeper.n_trials={options.n_trials}: the study {name} has {counted(done, 'finished trial')} "
            "already, and n_trials is its total; ask for as many or more, or give another hydra.sweeper.study_name"
        )
    unlike = _unlike(options.space.distributions, study)
    if unlike:
        shown = "\n".join(f"      {line}" for line in unlike)
        lines.append(
            f"the study {name} has trials whose parameters Optuna can't mix with these:\n{shown}\n    {_anew(options)}"
        )
        return lines
    if (strange := uncomposable(options, study)) is not None and not options.sweeper.allow_changed_space:
        accept = "or accept with hydra.sweeper.allow_changed_space=true"
        return [
            *lines,
            f"the study {name} has trials of another program that can't be trained here: {strange}; "
            f"parameters are named after options. Give another hydra.sweeper.study_name, {accept}",
        ]
    changed = _changed(study, SPACE, options.space.described())
    if changed and options.exhaustive:
        accept = ". (A sampler that tries every point can't go on in another space.)"
    elif options.sweeper.allow_changed_space:
        return lines
    else:
        changed += _changed(study, FIXED, _without_new(study, options))
        accept = ", or accept with hydra.sweeper.allow_changed_space=true"
    if changed:
        shown = "\n".join(f"      {line}" for line in changed[:10])
        lines.append(
            f"the study {name} was begun with another search space or configuration:\n{shown}\n    "
            f"{_anew(options)}{accept}"
        )
    return lines


def _changed(study: optuna.Study, attribute: str, now: Mapping[str, str]) -> list[str]:
    """Returns a line for each key that a study was begun with otherwise; none if another program began it."""
    before = study.user_attrs.get(attribute)
    return [] if before is None else changes(before, now)


def _without_new(study: optuna.Study, options: StudyOptions) -> dict[str, str]:
    """Returns what all trials share, without options that a part has got since the study was begun and that do nothing.

    They have the default of the part's signature: what was done before.
    """
    known = study.user_attrs.get(FIXED, {})
    shared = options.fixed().items()
    return {key: value for key, value in shared if key in known or value != _default_of(key, options.config)}


def _default_of(key: str, config: DictConfig) -> str | None:
    part, _, option = key.rpartition(".")
    try:
        built = get_object(OmegaConf.select(config, f"{part}._target_"))
        return str(inspect.signature(built).parameters[option].default)
    except Exception:  # no part, or none that can be found: its jobs say so
        return None


def _anew(options: StudyOptions) -> str:
    """Returns how to begin another study."""
    other = "give another hydra.sweeper.study_name"
    place = options.place
    return f"{other}, or begin anew without the folder {place.folder}" if place.goes_with_folder else other


def _unlike(distributions: Mapping[str, BaseDistribution], study: optuna.Study) -> list[str]:
    """Returns a line for each parameter that a study can't take any more, however much the user agrees.

    A range may have other ends; a choice must keep its values, and a number its kind and scale.
    """
    before: dict[str, BaseDistribution] = {}
    for trial in study.get_trials(deepcopy=False):
        before = {**trial.distributions, **before}
    lines = []
    for name, now in distributions.items():
        try:
            if name in before:
                check_distribution_compatibility(before[name], now)
        except ValueError:
            lines.append(f"{name}: {describe(before[name])} before, {describe(now)} now")
    return lines


def open_study(options: StudyOptions) -> optuna.Study:
    """Creates the study or goes on with it, its first configurations enqueued, its pruner known to the jobs.

    Raises:
        ConfigError: the study can't be run as asked.
        UserError: the storage can't be used.
    """
    if problems := study_problems(options):
        raise ConfigError(problems)
    if not is_worker():  # its supervisor has looked
        try_out(options)
    place = options.place
    place.folder.mkdir(parents=True, exist_ok=True)
    storage = storage_of(options)
    with study_lock(storage, place.folder):
        study = optuna.create_study(
            study_name=place.name,
            storage=storage.cached,
            pruner=make_pruner(options.pruner_config()),
            directions=options.directions,  # type: ignore[arg-type]
            load_if_exists=True,
        )
        study.sampler = options.sampler(_process(options, study, storage))
        _name_objectives(study, options)
        # Other workers begin beside this one and read it.
        write_text(
            place.folder / STUDY_FILE, OmegaConf.to_yaml({"study_name": place.name, "storage": _location(place)})
        )
        attributes = {
            SPACE: options.space.described(),
            FIXED: options.fixed(),
            PRUNER: options.pruner_config(),
        }
        for key, value in attributes.items():
            if study.user_attrs.get(key, ...) != value:
                study.set_user_attr(key, value)
        warm_start.begin(study, options)
        for params in to_enqueue(study, options):
            study.enqueue_trial(params)
    return study


def _name_objectives(study: optuna.Study, options: StudyOptions) -> None:
    """Names several objectives where nobody has; of a single one, the notebooks of others expect the column `value`."""
    names = objectives_of(options.config)
    if len(names) > 1 and study.metric_names is None:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ExperimentalWarning)
            study.set_metric_names(names)


def _process(options: StudyOptions, study: optuna.Study, storage: Storage) -> int:
    """Returns what tells this process's draws from those of others.

    0 for the one that begins a study and works alone, and the number of trials for one that goes on alone: such a study
    repeats itself, draw by draw. Alone is only one of several commands that begin at the same moment.
    """
    trials = [trial for trial in study.get_trials(deepcopy=False) if trial.state != TrialState.WAITING]
    if workers_of(options) == 1 and not any(trial.state == TrialState.RUNNING for trial in trials):
        command = int(os.environ.get(WORKER_VARIABLE, os.getpid()))
        other: Any = storage.get_study_system_attrs(study._study_id).get(DRAWS)
        if other is None or other["trials"] != len(trials) or not _is_another(other, command):
            mine: Any = {"trials": len(trials), "host": host(), "pid": command, "started": started(command)}
            storage.set_study_system_attr(study._study_id, DRAWS, mine)
            return len(trials)
    return os.getpid() + 1000 * len(trials)


def _is_another(process: Mapping[str, Any], command: int) -> bool:
    """Whether a process is not this command's, and may live."""
    if process["host"] != host():
        return True
    return process["pid"] != command and lives(process["pid"], process["started"])


def _location(place: StudyPlace) -> str:
    """The storage as the marker names it: a file in the folder relatively, so that the folder can be moved."""
    file = sqlite_file(place.storage)
    if file is not None and place.goes_with_folder:
        return sqlite_url(file.relative_to(place.folder))
    return without_password(place.storage)
