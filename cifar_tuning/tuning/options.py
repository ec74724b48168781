"""A study's options, parsed from Hydra's configuration, and what is built from them."""

import functools
import math
import os
import time
import warnings
import zlib
from dataclasses import dataclass, field
from typing import Any

import optuna
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.types import ValueType
from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf
from optuna.exceptions import ExperimentalWarning

from cifar_tuning.errors import ConfigError
from cifar_tuning.overrides import parse_overrides
from cifar_tuning.targets import PRUNERS, SAMPLERS, trusted_by_user
from cifar_tuning.tuning import dry_run
from cifar_tuning.tuning.place import StudyPlace, more_to_type, study_place
from cifar_tuning.tuning.space import SearchSpace, fixed_part

# These cover one space together: their processes must agree on its order.
_ONE_SEQUENCE = ("optuna.samplers.GridSampler", "optuna.samplers.QMCSampler")
# Tries every point, as the grid does, also of a space that a function describes.
_BRUTE_FORCE = "optuna.samplers.BruteForceSampler"
# Optuna's samplers and pruners, and the stock plugin's; other code where the user or the
# application trusts it.
_TRUSTED = (
    *SAMPLERS,
    *PRUNERS,
    "hydra.utils.get_method",  # how a function is named; Hydra looks whether that one is trusted
)
# Set in a worker's environment: when the command began.
BEGIN_VARIABLE = "CIFAR_TUNING_STUDY_BEGIN"


@dataclass(frozen=True)
class StudyOptions:
    """The sweeper's configuration, parsed; see `plugin.StudySweeperConf` for what the options mean.

    Attributes:
        place: where the study is.
        space: what it varies.
        config: of the sweep.
        sweeper: the sweeper's part of that.
        begin: when the command began, in seconds since the epoch; the same for all its workers.
    """

    place: StudyPlace
    space: SearchSpace
    config: DictConfig
    sweeper: Any
    begin: float = field(default_factory=lambda: float(os.environ.get(BEGIN_VARIABLE, time.time())))

    @classmethod
    def parse(cls, config: DictConfig, arguments: list[str]) -> "StudyOptions":
        """Parses the configuration of a sweep.

        Raises:
            ConfigError: an override can't be understood as part of a search space, or as a sampler or pruner.
        """
        sweeper = config.hydra.sweeper
        if problems := [*_no_part("sampler", sweeper.sampler), *_no_part("pruner", sweeper.pruner, None)]:
            raise ConfigError(problems)
        try:
            given = _globs_as_choices(arguments)
            space = SearchSpace.parse(sweeper.params, given, sweeper.custom_search_space, sweeper.conditions)
        except ValueError as error:
            raise ConfigError(str(error).splitlines()) from error
        return cls(study_place(config.hydra), space, config, sweeper)

    @property
    def same_command(self) -> str:
        """What goes on with the study, in words: the same command, or what it lacks for that."""
        return f"the same command{more_to_type(self.config)}"

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
    def exhaustive(self) -> bool:
        """Whether the sampler tries every point, however the space is described."""
        return self.grid or str(self.sweeper.sampler.get("_target_")) == _BRUTE_FORCE

    @property
    def n_trials(self) -> int:
        """The total number of trials; the number of points if the sampler tries all, and they are fewer.

        How many there are where a function, or a condition, decides is only known once all are tried: see
        `budget.exhausted`.
        """
        total = int(self.sweeper.n_trials)
        known = self.exhaustive and not self.space.branching
        return min(total, math.prod(map(len, self.space.grid().values()))) if known else total

    def sampler(self, process: int = 0) -> optuna.samplers.BaseSampler:
        """Builds the sampler.

        Args:
            process: tells the processes of a study apart: with the same seed they would draw the same "random"
                trials, as would a process that goes on with a study. 0 leaves the seeds as given.
        """
        node = OmegaConf.to_container(self.sweeper.sampler, resolve=True)
        if process:
            node = _seeded_for(process, node)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ExperimentalWarning)
            built = instantiate(node, _execution_whitelist_=[*_TRUSTED, *trusted_by_user()])
            return built(self.space.grid()) if isinstance(built, functools.partial) else built

    def pruner_config(self) -> dict[str, Any] | None:
        """Returns the pruner's constructor call; None where there can be no pruning."""
        if len(self.directions) > 1 or self.sweeper.pruner is None:
            return None
        node = OmegaConf.to_container(self.sweeper.pruner, resolve=True)
        assert isinstance(node, dict)
        return {str(key): value for key, value in node.items()}

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
            example = dry_run.dry_run(self.space, self.config).params
        except dry_run.NeedsTrialError:
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
                result.append(dry_run.default_params(self.space, self.config))
            elif not OmegaConf.is_dict(entry):
                problems.append(f"hydra.sweeper.enqueue: {entry}: must be `defaults` or {{key: value, …}}")
            elif self.grid:
                problems.append(f"hydra.sweeper.enqueue: {entry}: a grid tries every point anyway; leave it out")
            else:
                result.append(dry_run.entry_params(self.space, self.config, entry))
                problems += dry_run.entry_problems(self.space, self.config, result[-1])
        if problems:
            raise ConfigError(list(dict.fromkeys(problems)))
        return [] if self.grid else [params for params in result if params]

    def left_out(self) -> str | None:
        """Returns in words which defaults are not tried first, if they are asked for."""
        if self.grid or "defaults" not in (self.sweeper.enqueue or []):
            return None
        return dry_run.defaults_left_out(self.space, self.config)


def _no_part(name: str, given: Any, *allowed: Any) -> list[str]:
    """Returns what to write in place of a value that is no constructor's call."""
    if OmegaConf.is_dict(given) or given in allowed:
        return []
    line = f"hydra.sweeper.{name}={'null' if given is None else given}: is no {name}"
    return [f"{line}; write hydra/sweeper/{name}={given}" if isinstance(given, str) else line]


def _seeded_for(process: int, node: Any) -> Any:
    """Returns a sampler's constructor call with seeds of the process's own, also in the samplers that it is made of."""
    if isinstance(node, list):
        return [_seeded_for(process, one) for one in node]
    if not isinstance(node, dict):
        return node
    made = {key: _seeded_for(process, value) for key, value in node.items()}
    target = node.get("_target_")  # without one it is no call, but a search space, say, with a seed in it
    if target is not None and target not in _ONE_SEQUENCE and node.get("seed") is not None:
        made["seed"] = zlib.crc32(f"{node['seed']} {process}".encode())
    return made


def make_pruner(config: dict[str, Any] | None) -> optuna.pruners.BasePruner:
    """Builds a pruner from its constructor call; None gives one that never prunes."""
    if config is None:
        return optuna.pruners.NopPruner()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ExperimentalWarning)
        return instantiate(config, _execution_whitelist_=[*_TRUSTED, *trusted_by_user()])


def _globs_as_choices(arguments: list[str]) -> list[str]:
    """Returns overrides with the names that a `glob` stands for in its place; Optuna needs to know them."""
    if not any("glob(" in argument for argument in arguments):
        return arguments
    return [
        f"{override.get_key_element()}=choice({','.join(override.sweep_string_iterator())})"
        if override.value_type == ValueType.GLOB_CHOICE_SWEEP
        else argument
        for argument, override in zip(arguments, parse_overrides(arguments), strict=True)
    ]
