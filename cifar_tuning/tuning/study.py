"""A study's options, checked together before anything is written, and the study itself, created or continued."""

import functools
import os
import warnings
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import optuna
from filelock import FileLock
from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf
from optuna.exceptions import ExperimentalWarning
from optuna.storages import RDBStorage
from optuna.trial import TrialState

from cifar_tuning.errors import ConfigError
from cifar_tuning.tuning import space as spaces
from cifar_tuning.tuning.place import StudyPlace, study_place, without_password
from cifar_tuning.tuning.space import SearchSpace
from cifar_tuning.tuning.storage import open_storage

# In the study's folder: which study it belongs to.
MARKER = "study.yaml"
# Study attributes: what its trials share, to notice changes; and the pruner, which Optuna doesn't keep.
SPACE, FIXED, PRUNER = "search_space", "configuration", "pruner"
# These cover one space together: their processes must agree on its order.
_ONE_SEQUENCE = ("optuna.samplers.GridSampler", "optuna.samplers.QMCSampler")
# The samplers of the stock plugin's options, and whatever else Optuna offers; never other code.
_TRUSTED = ("hydra_plugins.hydra_optuna_sweeper.*", "optuna.samplers.*", "optuna.pruners.*")


@dataclass(frozen=True)
class StudyOptions:
    """The sweeper's configuration, parsed; see `plugin.StudySweeperConf` for what the options mean."""

    place: StudyPlace
    space: SearchSpace
    config: DictConfig
    sweeper: Any

    @classmethod
    def parse(cls, config: DictConfig, arguments: list[str]) -> "StudyOptions":
        """Parses the configuration of a sweep.

        Raises:
            ConfigError: an override can't be understood as part of a search space.
        """
        sweeper = config.hydra.sweeper
        try:
            space = SearchSpace.parse(sweeper.params, arguments, sweeper.custom_search_space)
        except (ValueError, NotImplementedError, AssertionError) as error:
            raise ConfigError([f"hydra.sweeper.params: {error}"]) from error
        return cls(study_place(config.hydra), space, config, sweeper)

    @property
    def directions(self) -> list[str]:
        """`minimize` or `maximize` for each objective."""
        given = self.sweeper.direction
        return [getattr(d, "name", str(d)) for d in (given if OmegaConf.is_list(given) else [given])]

    @property
    def grid(self) -> bool:
        """Whether the sampler goes through a grid."""
        return str(self.sweeper.sampler.get("_target_")) == "optuna.samplers.GridSampler"

    @property
    def n_trials(self) -> int:
        """The total number of trials; a grid's size if that is smaller."""
        total = int(self.sweeper.n_trials)
        if self.grid:
            size = 1
            for values in self.space.grid().values():
                size *= len(values)
            total = min(total, size)
        return total

    def sampler(self, process: int = 0) -> optuna.samplers.BaseSampler:
        """Builds the sampler.

        Args:
            process: tells the processes of a study apart: with the same seed they would draw the same "random"
                trials, as would a process that goes on with a study. 0 leaves the seed as given.

        The stock options turn TPE's joint sampling and constant liar off, against Optuna's own defaults; here they
        are off only for who says so on the command line.
        """
        node = OmegaConf.to_container(self.sweeper.sampler, resolve=True)
        assert isinstance(node, dict)
        said = {str(o).partition("=")[0] for o in self.config.hydra.overrides.hydra}
        if node.get("_target_") == "optuna.samplers.TPESampler":
            for key, value in (
                ("multivariate", True),
                ("constant_liar", True),
                ("group", self.space.custom is not None),
            ):
                if f"hydra.sweeper.sampler.{key}" not in said:
                    node[key] = value
        if process and node.get("seed") is not None and node["_target_"] not in _ONE_SEQUENCE:
            node["seed"] = zlib.crc32(f"{node['seed']} {process}".encode())
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ExperimentalWarning)
            built = instantiate(node, _execution_whitelist_=_TRUSTED)
            return built(self.space.grid()) if isinstance(built, functools.partial) else built

    def pruner_config(self) -> dict[str, Any] | None:
        """Returns the pruner's constructor call; None where there can be no pruning."""
        if len(self.directions) > 1:
            return None
        node = OmegaConf.to_container(self.sweeper.pruner, resolve=True)
        assert isinstance(node, dict)
        return {str(key): value for key, value in node.items()}

    def problems(self) -> list[str]:
        """Returns a line for each option that is out of range."""
        sweeper, lines = self.sweeper, []
        whole = {"workers": 1, "n_trials": 1, "n_jobs": 1, "repeats": 1, "retrain_best": 0, "heartbeat_interval": 1}
        for name, low in whole.items():
            value = sweeper[name]
            if not isinstance(value, int) or isinstance(value, bool) or value < low:
                lines.append(f"hydra.sweeper.{name}={value}: must be a whole number, {low} or above")
        for name, low in {"max_retry": 0, "timeout": 0, "grace_period": 1}.items():
            if sweeper[name] is not None and sweeper[name] < low:
                lines.append(f"hydra.sweeper.{name}={sweeper[name]}: must be {low} or above, or null")
        if not 0 <= sweeper.max_failure_rate <= 1:
            lines.append(f"hydra.sweeper.max_failure_rate={sweeper.max_failure_rate}: must be from 0 to 1")
        if bad := [d for d in self.directions if d not in ("minimize", "maximize")]:
            lines.append(f"hydra.sweeper.direction={bad[0]}: must be minimize or maximize, or a list of them")
        if self.space.empty:
            lines.append(
                "the search space is empty: give a key a range, as in 'optimizer.lr=tag(log,interval(0.001,0.1))' or "
                "model.activation=relu,swish, or set hydra.sweeper.params"
            )
        return lines + self._problems_with_parts() + self._problems_with_repeats()

    def _problems_with_parts(self) -> list[str]:
        """Builds sampler and pruner once, so that a wrong option shows now."""
        lines = []
        for name, build in (("sampler", self.sampler), ("pruner", lambda: make_pruner(self.pruner_config()))):
            try:
                build()
            except Exception as error:
                while error.__cause__ is not None and isinstance(error.__cause__, Exception):
                    error = error.__cause__
                lines.append(f"hydra/sweeper/{name}: {' '.join(str(error).split())}")
        return lines

    def _problems_with_repeats(self) -> list[str]:
        if self.sweeper.repeats == 1 and not self.sweeper.retrain_best:
            return []
        if "seed" in self.space.distributions:
            return ["seed: is swept, but hydra.sweeper.repeats and retrain_best give every seed to each configuration"]
        if not isinstance(OmegaConf.select(self.config, "seed"), int):
            return ["seed: the application has no such option, which hydra.sweeper.repeats and retrain_best vary"]
        return []

    def enqueued(self) -> list[dict[str, Any]]:
        """Returns the configurations to try first.

        Raises:
            ConfigError: one of them is no part of the search space.
        """
        result, problems = [], []
        names = spaces.example_params(self.space, self.config).keys()
        for entry in self.sweeper.enqueue or []:
            if entry == "defaults":
                result.append(spaces.default_params(self.space, self.config))
            elif not OmegaConf.is_dict(entry):
                problems.append(f"hydra.sweeper.enqueue: {entry}: must be `defaults` or {{key: value, …}}")
            elif unknown := [key for key in entry if key not in names and self.space.custom is None]:
                problems.append(f"hydra.sweeper.enqueue: {unknown[0]} is not in the search space: {', '.join(names)}")
            else:
                result.append({str(key): value for key, value in entry.items()})
        if problems:
            raise ConfigError(problems)
        return [params for params in result if params]


def make_pruner(config: dict[str, Any] | None) -> optuna.pruners.BasePruner:
    """Builds a pruner from its constructor call; None gives one that never prunes."""
    if config is None:
        return optuna.pruners.NopPruner()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ExperimentalWarning)
        return instantiate(config, _execution_whitelist_=_TRUSTED)


def known_study(options: StudyOptions, storage: RDBStorage) -> optuna.Study | None:
    """Returns the study if it is in the storage already."""
    try:
        return optuna.load_study(study_name=options.place.name, storage=storage)
    except KeyError:
        return None


def study_problems(options: StudyOptions) -> list[str]:
    """Returns a line for everything that keeps the study from being run as asked; nothing is written.

    Raises:
        UserError: the storage can't be used.
    """
    problems = options.problems()
    if problems:
        return problems
    try:
        options.enqueued()
    except ConfigError as error:
        problems += error.problems
    problems += _folder_problems(options.place)
    sqlite = options.place.storage.startswith("sqlite")
    if sqlite and not Path(options.place.storage.removeprefix("sqlite:///")).exists():
        return problems
    study = known_study(options, storage_of(options))
    return problems + ([] if study is None else _continuation_problems(options, study))


def storage_of(options: StudyOptions) -> RDBStorage:
    """Opens the study's storage."""
    sweeper = options.sweeper
    return open_storage(options.place.storage, sweeper.heartbeat_interval, sweeper.grace_period)


def _folder_problems(place: StudyPlace) -> list[str]:
    marker = place.folder / MARKER
    if not marker.is_file():
        return []
    content = OmegaConf.load(marker)
    if (content.study_name, content.storage) == (place.name, _location(place)):
        return []
    return [
        f"hydra.sweep.dir={place.folder}: belongs to the study {content.study_name} in {content.storage}; "
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
    done = sum(trial.state.is_finished() for trial in study.get_trials(deepcopy=False))
    if options.n_trials < done:
        lines.append(
            f"hydra.sweeper.n_trials={options.n_trials}: the study {name} has {done} finished trials already, and "
            "n_trials is its total; ask for as many or more, or give another hydra.sweeper.study_name"
        )
    if not options.sweeper.allow_changed_space:
        attributes = study.user_attrs
        changed = spaces.changes(attributes.get(SPACE, {}), options.space.described()) if SPACE in attributes else []
        fixed = spaces.fixed_part(options.config, options.space)
        changed += spaces.changes(attributes[FIXED], fixed) if FIXED in attributes else []
        if changed:
            shown = "\n".join(f"      {line}" for line in changed[:10])
            lines.append(
                f"the study {name} was begun with another search space or configuration:\n{shown}\n    give another "
                "hydra.sweeper.study_name, or accept with hydra.sweeper.allow_changed_space=true"
            )
    return lines


def open_study(options: StudyOptions) -> optuna.Study:
    """Creates the study or goes on with it, its first configurations enqueued, its pruner known to the jobs.

    Raises:
        ConfigError: the study can't be run as asked.
        UserError: the storage can't be used.
    """
    if problems := study_problems(options):
        raise ConfigError(problems)
    place = options.place
    place.folder.mkdir(parents=True, exist_ok=True)
    with FileLock(place.folder / ".study.lock", timeout=600):
        known = known_study(options, storage_of(options))
        study = optuna.create_study(
            study_name=place.name,
            storage=storage_of(options),
            sampler=options.sampler(_process(options, known)),
            pruner=make_pruner(options.pruner_config()),
            directions=options.directions,  # type: ignore[arg-type]
            load_if_exists=True,
        )
        OmegaConf.save({"study_name": place.name, "storage": _location(place)}, place.folder / MARKER)
        attributes = {
            SPACE: options.space.described(),
            FIXED: spaces.fixed_part(options.config, options.space),
            PRUNER: options.pruner_config(),
        }
        for key, value in attributes.items():
            if study.user_attrs.get(key, ...) != value:
                study.set_user_attr(key, value)
        for params in [] if options.grid else options.enqueued():
            study.enqueue_trial(params, skip_if_exists=True)
    return study


def _process(options: StudyOptions, known: optuna.Study | None) -> int:
    """0 for the process that begins a study and works alone: it repeats itself, draw by draw."""
    trials = known.get_trials(deepcopy=False) if known is not None else []
    alone = options.sweeper.workers == 1 and not any(t.state == TrialState.RUNNING for t in trials)
    return len(trials) if alone else os.getpid() + 1000 * len(trials)


def _location(place: StudyPlace) -> str:
    """The storage as the marker names it: a file in the folder relatively, so that the folder can be moved."""
    return without_password(place.storage).replace(f"{place.folder}/", "")
