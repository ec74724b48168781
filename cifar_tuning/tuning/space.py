"""The search space of a study: parsed from overrides, compared, turned into a job's overrides. Pure functions."""

from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import IntervalSweep, Sweep
from hydra.utils import instantiate
from hydra_plugins.hydra_optuna_sweeper._impl import OptunaSweeperImpl, create_params_from_overrides
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from optuna.distributions import BaseDistribution, CategoricalDistribution, IntDistribution
from optuna.trial import BaseTrial

from cifar_tuning.compose import without_hydra
from cifar_tuning.overrides import deletes, key_of, written
from cifar_tuning.text import flatten, is_elsewhere
from cifar_tuning.tuning.conditions import ABSENT, Conditions, holds, in_words, parse_conditions

# Choices that are tried before the first trial; each takes a twentieth of a second to compose.
CHECKED_CHOICES = 40
LOG = "log"


def _problems(override: str) -> list[str]:
    """Returns why an override can't be part of a search space, if it can't."""
    try:
        create_params_from_overrides([override])
    except (ValueError, NotImplementedError, AssertionError) as error:
        return [f"{override}: {error}"]
    (parsed,) = OverridesParser.create().parse_overrides([override])
    value = parsed.value()
    # The stock plugin passes over them, and who asks for a logarithmic range gets another one.
    allowed = {LOG} if isinstance(value, IntervalSweep) else set()
    wrong = sorted(value.tags - allowed) if isinstance(value, Sweep) else []
    known = "the only tag is log" if allowed else "only an interval(low,high) has a tag, log"
    return [f"{override}: tag({', '.join(wrong)}): {known}"] if wrong else []


def _last_of_each(overrides: list[str]) -> list[str]:
    """Returns what is left of overrides where the last one of a key wins, as everywhere in Hydra.

    A key that an earlier one adds to the configuration (`+x=1 x=2`) is still to be added. Deletions stay: what they
    take away may come anew.
    """
    last: dict[str, str] = {}
    for override in overrides:
        key = override if deletes(override) else key_of(override)
        before = last.get(key, "")
        sign = "" if override.startswith(("+", "~")) else before[: len(before) - len(before.lstrip("+"))]
        last[key] = sign + override
    return list(last.values())


@dataclass(frozen=True)
class SearchSpace:
    """What a study varies and what it fixes.

    Attributes:
        distributions: of each swept key.
        fixed: keys with one value, as given.
        deletions: overrides of the form `~key`.
        custom: dotted name of a function `(config, trial)` that suggests more; None if there is none.
        conditions: of the swept keys that are only searched where others have certain values.
    """

    distributions: dict[str, BaseDistribution]
    fixed: dict[str, str] = field(default_factory=dict)
    deletions: list[str] = field(default_factory=list)
    custom: str | None = None
    conditions: Conditions = field(default_factory=dict)

    @classmethod
    def parse(
        cls, params: Any, arguments: list[str], custom: str | None = None, conditions: Any = None
    ) -> "SearchSpace":
        """Parses `hydra.sweeper.params` and the command line's overrides, which win, in the stock plugin's syntax.

        Raises:
            ValueError: the stock plugin can't express some of it; the message has a line for each override.
        """
        declared = (f"{key}={v if isinstance(v, str) else written(v)}" for key, v in flatten(params or {}))
        overrides = _last_of_each([*declared, *arguments])
        if problems := [problem for one in overrides for problem in _problems(one)]:
            raise ValueError("\n".join(problems))
        distributions, fixed, deletions = create_params_from_overrides(overrides)
        swept = {str(name): d for name, d in distributions.items()}
        single = {str(name): str(value) for name, value in fixed.items()}
        return cls(swept, single, deletions, custom, parse_conditions(conditions, swept, single))

    @property
    def branching(self) -> bool:
        """Whether what there is to choose may depend on what was chosen."""
        return self.custom is not None or bool(self.conditions)

    def suggest(self, trial: BaseTrial, config: DictConfig) -> None:
        """Has the sampler draw every parameter; values already drawn stay."""
        waiting = dict(self.distributions)
        while waiting:
            # What a condition looks at is drawn before it.
            for name in [name for name in waiting if not self.conditions.get(name, {}).keys() & waiting.keys()]:
                distribution = waiting.pop(name)
                if self._applies(name, trial, config):
                    trial._suggest(name, distribution)  # type: ignore[attr-defined]
        if self.custom is None:
            return
        known = trial.user_attrs
        for name, value in self.fixed.items():
            if known.get(name) != value:  # the function sees what is fixed, as under the stock plugin
                trial.set_user_attr(name, value)
        self._function(config, trial)
        if overlap := sorted(trial.params.keys() & self.fixed.keys()):
            raise ValueError(f"{self.custom} suggests {', '.join(overlap)}, which the command fixes")

    def _applies(self, name: str, trial: BaseTrial, config: DictConfig) -> bool:
        if name not in self.conditions:
            return True
        not_drawn = dict.fromkeys(self.distributions, ABSENT)  # under a condition that did not hold
        return holds(self.conditions[name], self.fixed | not_drawn | trial.params, config)

    @cached_property
    def _function(self) -> Callable[[DictConfig, BaseTrial], None]:
        # Looked up once: Hydra warns each time, where an application has not said what configurations may name.
        return instantiate({"_target_": self.custom, "_partial_": True})

    def overrides(self, params: Mapping[str, Any]) -> list[str]:
        """Returns the overrides of a job with these parameters.

        An interrupted trial of a key that the command has fixed since goes on with what was drawn for it.
        """
        given = self.fixed | {name: written(value) for name, value in params.items()}
        return [f"{name}={value}" for name, value in given.items()] + self.deletions

    def grid(self) -> dict[str, list[Any]]:
        """Returns every value of every key, for the grid sampler.

        Raises:
            ValueError: a key is continuous.
        """
        return {n: list(OptunaSweeperImpl._to_grid_sampler_choices(d)) for n, d in self.distributions.items()}

    def described(self) -> dict[str, str]:
        """Returns the swept keys with their distributions, to compare and to store."""
        space = {name: describe(d) for name, d in self.distributions.items()}
        space |= {name: f"{space[name]}, only if {in_words(only)}" for name, only in self.conditions.items()}
        return space | ({"custom_search_space": self.custom} if self.custom else {})


def describe(distribution: BaseDistribution) -> str:
    """Returns a distribution in words, much as it is given on the command line."""
    if isinstance(distribution, CategoricalDistribution):
        choices = ("null" if choice is None else str(choice) for choice in distribution.choices)
        return f"choice({', '.join(choices)})"
    low, high, step = distribution.low, distribution.high, distribution.step  # type: ignore[attr-defined]
    kind = "integers" if isinstance(distribution, IntDistribution) else "interval"
    text = f"{kind} {low} to {high}" + (f" in steps of {step}" if step not in (None, 1) else "")
    return text + (", log" if distribution.log else "")  # type: ignore[attr-defined]


def ends(space: SearchSpace) -> list[dict[str, Any]]:
    """Returns the declared ranges at their lower and at their upper ends, and each declared choice, to be checked."""
    ranges = {n: d for n, d in space.distributions.items() if not isinstance(d, CategoricalDistribution)}
    low = {name: d.low for name, d in ranges.items()}  # type: ignore[attr-defined]
    high = {name: d.high for name, d in ranges.items()}  # type: ignore[attr-defined]
    choices = [
        {name: choice}
        for name, d in space.distributions.items()
        if isinstance(d, CategoricalDistribution)
        for choice in d.choices
    ]
    # What is searched under a condition is looked at where that holds.
    under = [
        {**{key: values[0] for key, values in space.conditions[name].items() if key in space.distributions}, **at}
        for name in ranges.keys() & space.conditions.keys()
        for at in ({name: low[name]}, {name: high[name]})
    ]
    return ([low, high] if ranges else [{}]) + (choices + under)[:CHECKED_CHOICES]


def fixed_part(config: DictConfig, space: SearchSpace) -> dict[str, str]:
    """Returns the flattened task configuration without what is swept: what all of a study's trials share."""
    content = OmegaConf.to_container(without_hydra(config), enum_to_str=True)
    assert isinstance(content, dict)
    # Images of one's own are known by their classes: the same ones may lie in another folder.
    with suppress(OmegaConfBaseException):  # the jobs say what is wrong with them
        if (classes := OmegaConf.select(config, "data.classes")) is not None:
            content["data"] = {**content["data"], "classes": list(classes)}
    # A swept group (`optimizer: choice(sgd, adam)`) takes everything below it out of the comparison. What a
    # function suggests is not known here; the function's name is compared instead.
    swept = tuple(f"{name.lstrip('+').split('@')[0].replace('/', '.')}." for name in space.distributions)
    return {
        key: str(value)  # storages keep JSON, which has neither NaN nor other people's types
        for key, value in flatten(content)
        if not f"{key}.".startswith(swept) and not is_elsewhere(key)
    }


def changes(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """Returns a line for each key that differs."""
    absent = "(absent)"
    return [
        f"{key}: {before.get(key, absent)} before, {now.get(key, absent)} now"
        for key in sorted({*before, *now})
        if before.get(key, absent) != now.get(key, absent)
    ]
