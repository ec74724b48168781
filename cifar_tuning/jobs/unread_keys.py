"""Keys of a configuration that no part reads.

Hydra takes `+epochs=3` and an overlay without its header as they are, and a run would begin without a word of them. A
key that values of the configuration refer to (`${width}`) is the user's own; one that a part of theirs reads in another
way can't be told from a mistake, so it is only warned of.
"""

import difflib
import re
from collections.abc import Iterator, Mapping
from typing import Any

from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf

from cifar_tuning.compose import having
from cifar_tuning.jobs.checks import GROUPS, OF_THE_SWEEP, SINGLE

# Groups whose files have their content at the top, which their first line says.
OVERLAYS = ("study", "experiment", "variant")
HEADER = "# @package _global_"
READ = {*GROUPS, *SINGLE, *OF_THE_SWEEP, "hydra"}


def key_problems(cfg: DictConfig) -> list[str]:
    """Returns a line for each key that is certainly a mistake: an option without its group, an overlay without header.

    Args:
        cfg: a job's configuration, its interpolations unresolved.
    """
    return [problem for key in _unread(cfg) if (problem := _mistake(cfg, key)) is not None]


def key_warnings(cfg: DictConfig) -> list[str]:
    """Returns a line for each other key that nothing seems to read."""
    return [
        f"{key}: nothing here refers to this key, so it is of no effect unless code of yours reads it{_meant(key)}"
        for key in _unread(cfg)
        if _mistake(cfg, key) is None
    ]


def _unread(cfg: DictConfig) -> list[str]:
    keys = [str(key) for key in cfg if key not in READ]
    if not keys:
        return []
    referring = "\n".join(_interpolations(OmegaConf.to_container(cfg, resolve=False)))
    # Not where it is another key's: `${optimizer.lr}`.
    return [key for key in keys if not re.search(rf"(?<!\w)(?<![\w\]]\.){re.escape(key)}\b", referring)]


def _interpolations(node: Any, of_hydra: bool = False) -> Iterator[str]:
    """The texts of a configuration with an interpolation in them, without what Hydra itself says of the command."""
    if isinstance(node, Mapping):
        for key, value in node.items():
            if not (of_hydra and key in ("overrides", "job", "runtime")):
                yield from _interpolations(value, of_hydra=key == "hydra")
    elif isinstance(node, list):
        for value in node:
            yield from _interpolations(value)
    elif isinstance(node, str) and "${" in node:
        yield node


def _mistake(cfg: DictConfig, key: str) -> str | None:
    value = OmegaConf.to_container(cfg, resolve=False)[key]  # type: ignore[call-overload,index]
    if isinstance(value, dict):
        if key not in OVERLAYS:
            return None
        chosen = OmegaConf.select(cfg, f"hydra.runtime.choices.{key}") or _choices().get(key) or "…"
        return (
            f"{key}={chosen}: its options lie below the key {key}, where nothing reads them; "
            f"the file's first line must be `{HEADER}`"
        )
    if groups := [group for group in GROUPS if key in (cfg.get(group) or {})]:
        return f"{key}={value}: nothing reads it; did you mean {' or '.join(f'{group}.{key}' for group in groups)}?"
    if groups := [group for group in GROUPS if having(group, key)]:
        return f"{key}={value}: nothing reads it; did you mean {groups[0]}.{key}?{having(groups[0], key)[1:]}"
    return None


def _choices() -> Mapping[str, Any]:
    return HydraConfig.get().runtime.choices if HydraConfig.initialized() else {}


def _meant(key: str) -> str:
    meant = difflib.get_close_matches(key, [*READ, *OVERLAYS], n=1)
    return f"; did you mean {meant[0]}?" if meant else ""
