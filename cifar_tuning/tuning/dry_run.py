"""Dry runs of a search space, before any trial: suggestions are answered with the configuration's present values."""

import warnings
from collections.abc import Mapping, Sequence
from typing import Any

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from optuna import TrialPruned
from optuna.distributions import BaseDistribution, CategoricalDistribution
from optuna.trial import FixedTrial, Trial, create_trial

from cifar_tuning.errors import ConfigError, root_cause
from cifar_tuning.overrides import same_value, written
from cifar_tuning.targets import refused
from cifar_tuning.text import on_one_line
from cifar_tuning.tuning.conditions import ABSENT, holds, in_words, present
from cifar_tuning.tuning.space import SearchSpace, describe

# Attributes of a trial that its class does not have.
OF_A_TRIAL = ("study", "storage", "_trial_id", "_study_id")
# Calls of the user's function, to see its branches, before the first trial.
MOST_CALLS = 32


class NeedsTrialError(Exception):
    """The user's function asks more of its trial than a dry run has; only real trials can try it."""


class DryRunTrial(FixedTrial):
    """Answers every suggestion with the configuration's present value, where the distribution contains it.

    Args:
        config: of the sweep.
        given: values that win over the configuration's.
        declared: the keys that are no function's.

    Attributes:
        matched: the keys whose present value is in their range.
        outside: the present values of those whose is not.
        absent: the keys without one.
        refused: the given values that are not in their distribution.
        guessed: whether the function was answered with a value that was not given.
        pruned: whether the function wants no such trial.
    """

    def __init__(self, config: DictConfig, given: Mapping[str, Any], declared: Mapping[str, Any]) -> None:
        super().__init__({})
        self.config, self.given, self.declared = config, given, declared
        self.matched, self.outside, self.absent = set[str](), dict[str, Any](), list[str]()
        self.refused, self.guessed, self.pruned = dict[str, BaseDistribution](), False, False

    def _suggest(self, name: str, distribution: BaseDistribution) -> Any:
        answer = self.given[name] if name in self.given else present(self.config, name)
        value = value_in(distribution, answer)
        if name not in self.given:
            if value is not ABSENT:
                self.matched.add(name)
            elif answer is not ABSENT:
                self.outside[name] = answer
            else:
                self.absent.append(name)
            self.guessed |= name not in self.declared
        # A range of the function's may follow from what it was told before, which a trial may be told otherwise.
        elif value is ABSENT and not self.guessed:
            self.refused[name] = distribution
        self._params[name] = any_of(distribution) if value is ABSENT else value
        return super()._suggest(name, distribution)


def value_in(distribution: BaseDistribution, value: Any) -> Any:
    """Returns a value as one of the distribution's; ABSENT where it is none."""
    if isinstance(distribution, CategoricalDistribution):
        return next((choice for choice in distribution.choices if same_value(choice, value)), ABSENT)
    try:
        create_trial(value=0.0, params={"_": value}, distributions={"_": distribution})  # refuses what is outside
    except (TypeError, ValueError):
        return ABSENT
    return value


def any_of(distribution: BaseDistribution) -> Any:
    """Returns a value of the distribution: the first choice or the lower end."""
    return distribution.choices[0] if isinstance(distribution, CategoricalDistribution) else distribution.low  # type: ignore[attr-defined]


def dry_run(space: SearchSpace, config: DictConfig, given: Mapping[str, Any] | None = None) -> DryRunTrial:
    """Asks for every parameter as a trial would.

    Raises:
        ConfigError: the user's function raised.
    """
    trial = DryRunTrial(config, given or {}, space.distributions)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            space.suggest(trial, config)
    except TrialPruned:  # as far as the function asked for any
        trial.pruned = True
    except Exception as error:
        if _asks_for_more(error, trial):
            raise NeedsTrialError(str(error)) from error
        said, cause = on_one_line(str(error)), root_cause(error)  # Hydra's own words are "Error locating target"
        said += "" if cause is error else f" ({on_one_line(str(cause))})"
        why = refused(error) or f"{type(error).__name__}: {said}"
        shown = f"  (with {', '.join(f'{name}={written(value)}' for name, value in given.items())})" if given else ""
        raise ConfigError([f"hydra.sweeper.custom_search_space={space.custom}: {why}{shown}"]) from error
    return trial


def _asks_for_more(error: Exception, trial: DryRunTrial) -> bool:
    """Whether a real trial would have had what the dry run lacks; OmegaConf's missing keys are AttributeErrors too."""
    if not isinstance(error, AttributeError) or isinstance(error, OmegaConfBaseException) or error.obj is not trial:
        return False
    return hasattr(Trial, str(error.name)) or error.name in OF_A_TRIAL


def default_params(space: SearchSpace, config: DictConfig) -> dict[str, Any]:
    """Returns the present configuration's values of the swept keys, those outside their range left out.

    Raises:
        ConfigError: the user's function raised.
    """
    try:
        trial = dry_run(space, config)
    except NeedsTrialError:
        return {}
    return {name: value for name, value in trial.params.items() if name in trial.matched}


def branches(space: SearchSpace, config: DictConfig) -> tuple[list[dict[str, Any]], list[str]]:
    """Has the user's function called once as the configuration stands, and once for each value of each choice it meets.

    Returns:
        The points that it came to, the first as near to the defaults as the space allows, and a line for each mistake.
    """
    waiting: list[dict[str, Any]] = [{}]
    met = set[tuple[str, str]]()
    points, problems = list[dict[str, Any]](), dict[str, None]()
    for _ in range(MOST_CALLS):
        if not waiting:
            break
        given = waiting.pop(0)
        try:
            trial = dry_run(space, config, given)
        except NeedsTrialError:
            continue
        except ConfigError as error:
            problems |= dict.fromkeys(error.problems)
            continue
        points += [] if trial.pruned else [trial.params]
        choices = {name: d.choices for name, d in trial.distributions.items() if isinstance(d, CategoricalDistribution)}
        met |= {(name, repr(trial.params[name])) for name in choices}
        # The function's own first: what is declared is looked at by itself.
        for name in sorted(choices, key=lambda name: name in space.distributions):
            new = [choice for choice in choices[name] if (name, repr(choice)) not in met]
            met |= {(name, repr(choice)) for choice in new}
            waiting += [{**given, name: choice} for choice in new]
    return points, list(problems)


def all_distributions(
    space: SearchSpace, config: DictConfig, given: Mapping[str, Any] | None = None
) -> Mapping[str, BaseDistribution] | None:
    """Returns the distributions of a space, a function's too; None where that can't be asked, or raises.

    Args:
        space: whose.
        config: of the sweep.
        given: values that win over the configuration's: a function's ranges may follow from them.
    """
    if space.custom is None:
        return space.distributions
    try:
        return dry_run(space, config, given).distributions
    except (NeedsTrialError, ConfigError):
        return None


def entry_params(space: SearchSpace, config: DictConfig, entry: Mapping[Any, Any]) -> dict[str, Any]:
    """Returns a configuration to be tried first, its choices as the search space writes them."""
    given = {str(k): OmegaConf.to_container(v) if OmegaConf.is_config(v) else v for k, v in entry.items()}
    ranges = all_distributions(space, config, given) or space.distributions
    known = {name: value_in(d, given[name]) for name, d in ranges.items() if name in given}
    return given | {name: value for name, value in known.items() if value is not ABSENT}


def entry_problems(
    space: SearchSpace, config: DictConfig, entry: Mapping[str, Any], option: str = "hydra.sweeper.enqueue"
) -> list[str]:
    """Returns a line for each value that its key can't have, and for one whose key is not, or not then, in the space.

    Args:
        space: of the study.
        config: of the sweep.
        entry: values by their keys, as those of a configuration to be tried first.
        option: what has them.
    """
    refused = {n: d for n, d in space.distributions.items() if n in entry and value_in(d, entry[n]) is ABSENT}
    unknown = [key for key in entry if key not in space.distributions and space.custom is None]
    lines = []
    if unknown:
        names = ", ".join(space.distributions)
        lines.append(f"{option}: {unknown[0]} is not in the search space: {names}")
    for name, condition in space.conditions.items():
        # What is left to the sampler may come to hold.
        told = all(key in entry for key in condition.keys() & space.distributions.keys())
        if name in entry and told and not holds(condition, {**space.fixed, **entry}, config):
            lines.append(f"{option}: {name}: is only searched if {in_words(condition)}, which does not hold")
    try:
        if not refused and space.custom is not None:
            refused = dry_run(space, config, entry).refused
    except NeedsTrialError:
        pass
    except ConfigError as error:
        return error.problems
    return lines + [
        f"{option}: {name}={written(entry[name])}: must be in its range, {describe(distribution)}; "
        "give another value, or widen the range"
        for name, distribution in refused.items()
    ]


def defaults_left_out(space: SearchSpace, config: DictConfig) -> str | None:
    """Returns in words which present values are not tried first; None if all are."""
    try:
        trial = dry_run(space, config)
    except NeedsTrialError as error:
        return f"not tried first: the defaults, for {space.custom} can't be asked before its first trial ({error})"
    outside, absent = [f"{name}={written(value)}" for name, value in trial.outside.items()], trial.absent
    reasons = []
    if outside:
        reasons.append(f"{', '.join(outside)}, {_which(outside, 'is outside its range', 'are outside their ranges')}")
    if absent:
        reasons.append(f"{', '.join(absent)}, {_which(absent, 'has no default', 'have no default')}")
    return f"tried first: the defaults, without {' and without '.join(reasons)}" if reasons else None


def _which(names: Sequence[str], one: str, several: str) -> str:
    return f"which {one if len(names) == 1 else several}"
