"""Conditions of a search space: a key is searched only where others have certain values."""

from collections.abc import Collection, Mapping
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override, QuotedString, Transformer
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf

from cifar_tuning.overrides import key_of, same_value, spelled
from cifar_tuning.text import flatten, on_one_line

OPTION = "hydra.sweeper.conditions"
# Stands for a missing value, as None is a value.
ABSENT: Any = object()

# For each key under a condition: the keys that it depends on, each with the values that it may have.
Conditions = dict[str, dict[str, list[Any]]]


def parse_conditions(given: Any, swept: Collection[str], fixed: Collection[str]) -> Conditions:
    """Parses `{optimizer.momentum: optimizer=sgd}`; several words must all hold, several values of one are an "or".

    Args:
        given: the option.
        swept: the keys that are searched.
        fixed: the keys that have one value: a condition of such a key means nothing.

    Raises:
        ValueError: it is no such thing; a key is not searched, or depends on itself. There is a line for each mistake.
    """
    made, problems = Conditions(), list[str]()
    for key, words in flatten(given or {}):
        if key in swept:
            try:
                parsed = OverridesParser.create().parse_overrides(str(words).split())
                made[key] = {one.get_key_element(): _values(one) for one in parsed}
            except (HydraException, ValueError) as error:
                problems.append(f"{OPTION}: {key}: {words}: must be as optimizer=sgd,adam: {on_one_line(str(error))}")
        elif key not in fixed:
            problems.append(f"{OPTION}: {key} is not in the search space: {', '.join(swept)}")
    problems += [f"{OPTION}: {key} depends on itself" for key in made if _depends(key, key, made)]
    if problems:
        raise ValueError("\n".join(problems))
    return made


def _values(override: Override) -> list[Any]:
    if not override.is_sweep_override():
        return [override.value()]
    if not override.is_discrete_sweep():
        raise ValueError("it needs single values")
    return [one.text if isinstance(one, QuotedString) else one for one in override.sweep_iterator(Transformer.identity)]


def _depends(key: str, on: str, conditions: Conditions, seen: frozenset[str] = frozenset()) -> bool:
    parents = conditions.get(key, {}).keys() - seen
    return on in parents or any(_depends(parent, on, conditions, seen | parents) for parent in parents)


def in_words(condition: Mapping[str, list[Any]]) -> str:
    """Returns a condition as it is written."""
    return " ".join(f"{key}={','.join(map(spelled, values))}" for key, values in condition.items())


def holds(condition: Mapping[str, list[Any]], known: Mapping[str, Any], config: DictConfig) -> bool:
    """Whether all keys have one of their values.

    Args:
        condition: by key.
        known: values that win over the configuration's.
        config: of the sweep.
    """
    return all(
        any(same_value(value, known[key] if key in known else present(config, key)) for value in values)
        for key, values in condition.items()
    )


def present(config: DictConfig, name: str) -> Any:
    """Returns the value that a key has without any suggestion; ABSENT if it has none."""
    groups = OmegaConf.select(config, "hydra.runtime.choices") or {}
    if name in groups:
        return groups[name]
    value = OmegaConf.select(config, key_of(name), default=ABSENT)
    return OmegaConf.to_container(value, resolve=True) if OmegaConf.is_config(value) else value
