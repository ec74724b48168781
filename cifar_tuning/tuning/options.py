"""A study's options: parsed from Hydra's configuration, checked together before anything is written."""

import functools
import warnings
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import optuna
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import ValueType
from hydra.errors import HydraException
from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf
from optuna.exceptions import ExperimentalWarning

from cifar_tuning.errors import ConfigError
from cifar_tuning.text import on_one_line
from cifar_tuning.tuning import standin
from cifar_tuning.tuning.place import StudyPlace, given_options, objectives_of, study_place
from cifar_tuning.tuning.space import SearchSpace, fixed_part

# These cover one space together: their processes must agree on its order.
_ONE_SEQUENCE = ("optuna.samplers.GridSampler", "optuna.samplers.QMCSampler")
# Hydra's own default.
TRIAL_FOLDER = "${hydra.job.num}"
# The samplers of the stock plugin's options, and whatever else Optuna offers; never other code.
_TRUSTED = (
    *("hydra_plugins.hydra_optuna_sweeper.*", "optuna.samplers.*"),
    *("optuna.pruners.*", "cifar_tuning.tuning.pruners.*"),
)


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
            given = _globs_as_choices(arguments)
            space = SearchSpace.parse(sweeper.params, given, sweeper.custom_search_space)
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
        said = given_options(self.config.hydra)
        if node.get("_target_") == "optuna.samplers.TPESampler":
            for key in ("multivariate", "constant_liar"):
                if f"hydra.sweeper.sampler.{key}" not in said:
                    node[key] = True
            if "hydra.sweeper.sampler.group" not in said:  # a part of sampling jointly
                node["group"] = node["multivariate"] and (node.get("group") or self.space.custom is not None)
        if process and node.get("seed") is not None and node["_target_"] not in _ONE_SEQUENCE:
            node["seed"] = zlib.crc32(f"{node['seed']} {process}".encode())
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ExperimentalWarning)
            built = instantiate(node, _execution_whitelist_=_TRUSTED)
            return built(self.space.grid()) if isinstance(built, functools.partial) else built

    def pruner_config(self) -> dict[str, Any] | None:
        """Returns the pruner's constructor call; None where there can be no pruning."""
        if len(self.directions) > 1 or self.sweeper.pruner is None:
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
            if value is None and name == "workers":  # as many as pay
                continue
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
        lines += self._problems_with_folder() + self._problems_with_parts() + self._problems_with_repeats()
        return lines + self._problems_with_objective() + self._problems_with_retraining()

    def _problems_with_folder(self) -> list[str]:
        lines, name = [], self.sweeper.study_name
        if ".." in Path(str(name)).parts:
            lines.append(
                f"hydra.sweeper.study_name={name}: names a folder below multirun/, so it can't have .. in "
                "it; hydra.sweep.dir gives another place"
            )
        folders = OmegaConf.to_container(self.config.hydra.sweep, resolve=False)
        if isinstance(folders, dict) and folders.get("subdir") != TRIAL_FOLDER:
            lines.append(
                f"hydra.sweep.subdir={folders.get('subdir')}: must be {TRIAL_FOLDER}, because a trial's folder is its "
                "number in the study; hydra.sweep.dir is the study's folder"
            )
        return lines

    def _problems_with_objective(self) -> list[str]:
        """An application that names its objectives (`train.py` does) must name as many as there are directions."""
        names = objectives_of(self.config)
        if not names or len(names) == len(self.directions):
            return []
        directions = ",".join(self.directions)
        return [f"hydra.sweeper.direction={directions}: objective={','.join(names)} needs {len(names)} of them"]

    def _problems_with_parts(self) -> list[str]:
        """Builds sampler and pruner once, so that a wrong option shows now."""
        lines = []
        for name, build in (("sampler", self.sampler), ("pruner", lambda: make_pruner(self.pruner_config()))):
            try:
                build()
            except Exception as error:
                while error.__cause__ is not None and isinstance(error.__cause__, Exception):
                    error = error.__cause__
                lines.append(f"hydra/sweeper/{name}: {on_one_line(str(error))}")
        return lines

    def _problems_with_repeats(self) -> list[str]:
        if self.sweeper.repeats == 1 and not self.sweeper.retrain_best:
            return []
        if "seed" in self.space.distributions:
            return ["seed: is swept, but hydra.sweeper.repeats and retrain_best give every seed to each configuration"]
        if not isinstance(OmegaConf.select(self.config, "seed"), int):
            return ["seed: the application has no such option, which hydra.sweeper.repeats and retrain_best vary"]
        return []

    def _problems_with_retraining(self) -> list[str]:
        given = self.sweeper.retrain_overrides
        if self.sweeper.retrain_best and len(self.directions) > 1:
            count = self.sweeper.retrain_best
            return [f"hydra.sweeper.retrain_best={count}: several objectives have no single winner to retrain"]
        if not given:
            return []
        key = "hydra.sweeper.retrain_overrides"
        if not self.sweeper.retrain_best:
            return [f"{key}={given}: needs hydra.sweeper.retrain_best, the number of seeds to retrain the winner with"]
        lines = [f"{key}: {entry}: {wrong}" for entry in given if (wrong := _wrong_override(entry)) is not None]
        try:
            if not lines:
                self.retrain_config()
        except HydraException as error:
            lines.append(f"{key}={given}: can't be composed: {on_one_line(error)}")
        except ConfigError:
            pass  # the user's search space, which is checked by itself
        return lines

    def retrain_overrides(self, winner: list[str], seed: int) -> list[str]:
        """Returns the overrides of a job that trains the winner, whose own are given, with another seed."""
        return [*winner, *self.sweeper.retrain_overrides, f"seed={seed}"]

    def retrain_config(self) -> DictConfig | None:
        """Composes what a winner is retrained as, with an example in the winner's place.

        None: without `retrain_overrides` it is like any trial, and what a function suggests may need a trial.

        Raises:
            HydraException: an override fits no option.
            ConfigError: the user's function raised.
        """
        if not self.sweeper.retrain_overrides:
            return None
        try:
            example = standin.example_params(self.space, self.config)
        except standin.NeedsTrialError:
            return None
        overrides = self.retrain_overrides(self.space.overrides(example), self.config.seed)
        return GlobalHydra.instance().config_loader().load_sweep_config(self.config, overrides)

    def fixed(self) -> dict[str, str]:
        """Returns what all trials of the study share, to notice changes."""
        return fixed_part(self.config, self.space) | {"hydra.sweeper.repeats": str(self.sweeper.repeats)}

    def enqueued(self) -> list[dict[str, Any]]:
        """Returns the configurations to try first.

        Raises:
            ConfigError: one of them is no part of the search space, or the user's function raised.
        """
        result, problems = [], []
        for entry in self.sweeper.enqueue or []:
            if entry == "defaults":
                result.append(standin.default_params(self.space, self.config))
            elif not OmegaConf.is_dict(entry):
                problems.append(f"hydra.sweeper.enqueue: {entry}: must be `defaults` or {{key: value, …}}")
            elif self.grid:
                problems.append(f"hydra.sweeper.enqueue: {entry}: a grid tries every point anyway; leave it out")
            else:
                result.append(standin.entry_params(self.space, entry))
                problems += standin.entry_problems(self.space, self.config, result[-1])
        if problems:
            raise ConfigError(list(dict.fromkeys(problems)))
        return [] if self.grid else [params for params in result if params]

    def left_out(self) -> str | None:
        """Returns in words which defaults are not tried first, if they are asked for."""
        if self.grid or "defaults" not in (self.sweeper.enqueue or []):
            return None
        return standin.defaults_left_out(self.space, self.config)


def _wrong_override(entry: object) -> str | None:
    """Returns what is wrong with an override that a retrained winner gets."""
    if not isinstance(entry, str):
        return 'must be an override, in quotes, such as "data.val_size=0"'
    try:
        parsed = OverridesParser.create().parse_override(entry)
    except HydraException as error:
        return f"is no override: {on_one_line(str(error))}"
    if parsed.is_sweep_override():
        return "must have one value"
    name = parsed.key_or_group
    if name == "seed" or name.partition(".")[0].partition("/")[0] == "hydra":
        return f"{name} is not for the retrained winner, whose seeds and folders are given"
    return None


def make_pruner(config: dict[str, Any] | None) -> optuna.pruners.BasePruner:
    """Builds a pruner from its constructor call; None gives one that never prunes."""
    if config is None:
        return optuna.pruners.NopPruner()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ExperimentalWarning)
        return instantiate(config, _execution_whitelist_=_TRUSTED)


def _globs_as_choices(arguments: list[str]) -> list[str]:
    """Returns overrides with the names that a `glob` stands for in its place; Optuna needs to know them."""
    if not any("glob(" in argument for argument in arguments):
        return arguments
    parser = OverridesParser.create(config_loader=GlobalHydra.instance().config_loader())
    return [
        f"{override.get_key_element()}=choice({','.join(override.sweep_string_iterator())})"
        if override.value_type == ValueType.GLOB_CHOICE_SWEEP
        else argument
        for argument, override in zip(arguments, parser.parse_overrides(arguments), strict=True)
    ]
