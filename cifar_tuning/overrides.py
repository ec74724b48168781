"""Command-line overrides as text: their keys, values, quoting and interpolations."""

import re
from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache
from typing import Any

from hydra.core.config_loader import ConfigLoader
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import ChoiceSweep, Override, Quote, QuotedString
from hydra.errors import HydraException
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from cifar_tuning.text import flatten, without_password

# Beginning of an interpolation that a sweeper has escaped, as in `seed=$\{hydra\:job.num\}`.
ESCAPED = r"$\{"


def key_of(override: str) -> str:
    """Returns the option or group that an override is about, without the sign for adding or deleting it."""
    return override.partition("=")[0].lstrip("+~")


def value_of(override: str) -> str:
    """Returns the value that an override gives, as it was typed."""
    return override.partition("=")[2]


def written(value: Any) -> str:
    """Returns a value as an override gives it, so that a job has it as it is: `null` for None, quotes where needed.

    Args:
        value: a number, None, a list, a mapping or text. Text that Hydra reads as a list, a mapping, null or a word in
            quotes is taken for what an override gives already: that is what the choices of `l=[1,2],[3]` are.
    """
    if value is None:
        return "null"
    if isinstance(value, Mapping):
        return f"{{{','.join(f'{key}:{written(one)}' for key, one in value.items())}}}"
    if isinstance(value, str):
        return _written(value)
    return f"[{','.join(map(written, value))}]" if isinstance(value, Sequence) else str(value)


def spelled(value: Any) -> str:
    """Returns a value as one types it: what `written` makes of it, `true` for True."""
    return str(value).lower() if isinstance(value, bool) else written(value)


@lru_cache(maxsize=1024)
def _written(text: str) -> str:
    known = _parsed(text)
    if known is not None:
        value = known.value()
        quoted = known.get_value_element_as_str()[:1] in ("'", '"')
        if quoted or value is None or isinstance(value, list | dict) or (isinstance(value, str) and value == text):
            return text
    return QuotedString(text, Quote.double).with_quotes()


def _parsed(text: str) -> Override | None:
    """Returns an override with a value as it is written; None where Hydra can't read it, or as several values."""
    try:
        parsed = OverridesParser.create().parse_override(f"key={text}")
    except HydraException:
        return None
    return None if parsed.is_sweep_override() else parsed


def same_value(one: Any, other: Any) -> bool:
    """Whether two values are the same in a job, however they are written: 1 and `1`, [1, 2] and `[1,2]`."""
    return _meaning(one) == _meaning(other)


def _meaning(value: Any) -> tuple[bool, str]:
    parsed = _parsed(value) if isinstance(value, str) else None
    read = value if parsed is None else parsed.value()
    return read is None, str(read)


def meant_by(override: str) -> Any:
    """Returns the value that an override gives, without Hydra's quotes and escapes; None for one of several values.

    What stands in for a value (`${oc.env:STORE}`) is resolved as far as it can be without a configuration.
    """
    try:
        (parsed,) = parse_overrides([override])
        return None if parsed.is_sweep_override() else OmegaConf.create([parsed.value()])[0]
    except (HydraException, OmegaConfBaseException):
        return None


def deletes(override: str) -> bool:
    """Whether an override takes an option or a group away."""
    return override.startswith("~")


def to_be_typed(overrides: Iterable[str]) -> list[str]:
    """Returns overrides as Hydra reports them in the form that it takes: a deletion is reported as `~key=null`."""
    return [override.removesuffix("=null") if deletes(override) else override for override in overrides]


def task_overrides(hydra: Any) -> list[str]:
    """Returns a command's overrides as they were typed: what refers to a job (`${hydra:job.num}`) has no value yet."""
    return unresolved(hydra.overrides.task)


def job_overrides(hydra: Any) -> list[str]:
    """Returns a job's overrides with what they have of the job in it: `seed=${hydra:job.num}` is `seed=3`.

    Nothing else of them is resolved, and no password shown: they are printed and kept, and who wrote `${oc.env:STORE}`
    wants neither for what it stands for.
    """
    return [without_password(_in_job(override, hydra)) for override in task_overrides(hydra)]


def _in_job(override: str, hydra: Any) -> str:
    plain = re.sub(r"\\(.)", r"\1", override) if ESCAPED in override else override
    value = re.sub(r"\$\{hydra[:.][^${}]*\}", lambda found: _resolved(found[0], hydra), plain)
    return override if value == plain else _unquoted(value)


def _resolved(text: str, hydra: Any) -> str:
    try:
        return str(OmegaConf.create([text], parent=hydra if OmegaConf.is_config(hydra) else None)[0])
    except OmegaConfBaseException:  # said where the job's configuration is resolved
        return text


def of_job(override: str, number: int) -> str:
    """Returns an override with a job's number where it refers to that: `seed=${hydra:job.num}` is `seed=3`."""
    return _unquoted(re.sub(r"\$\\?\{hydra\\?[:.]job\.num\\?\}", str(number), override))


def _unquoted(override: str) -> str:
    """Quotes that an interpolation needed would make a word of a number."""
    found = re.fullmatch(r"([^=]+=)(['\"])([\w.+-]+)\2", override)
    return override if found is None else found[1] + found[3]


def given_options(hydra: Any) -> set[str]:
    """Returns the names of Hydra's own options that the command line gives."""
    return {key_of(override) for override in unresolved(hydra.overrides.hydra)}


def unresolved(overrides: Any) -> list[str]:
    """Returns overrides out of Hydra's configuration as they were typed; they may refer to what only a job has."""
    written = OmegaConf.to_container(overrides, resolve=False) if OmegaConf.is_config(overrides) else overrides
    return [str(override) for override in written or []]


def parse_overrides(overrides: list[str]) -> list[Override]:
    """Parses overrides as Hydra does.

    Raises:
        HydraException: one is no override.
    """
    # The loader knows what `glob` stands for; without a running application there is none.
    instance = GlobalHydra.instance()
    loader: ConfigLoader | None = instance.config_loader() if instance.is_initialized() else None
    return OverridesParser.create(config_loader=loader).parse_overrides(overrides)


def lost_in_sweeps(overrides: Iterable[Override], signs: bool) -> list[str]:
    """Returns a line for each override that a sweep would lose and a single run merges with another of its key.

    Of several overrides of a key a sweeper takes the last one alone: with `model=resnet20 model={dropout:0.1}`, a job
    would train the default model.

    Args:
        overrides: of a sweep's command.
        signs: whether `+key` and `key` are two keys to the sweeper.
    """
    last: dict[str, Override] = {}
    lines = []
    for one in overrides:
        element = one.get_key_element()
        key = element if signs else key_of(element)
        if one.is_delete():
            continue
        before, last[key] = last.get(key), one
        if before is None or _names_all_of(before, one):
            continue
        if _has_mapping(before) or _has_mapping(one):
            lines.append(
                f"{one.input_line}: would replace {before.input_line}, because a sweep takes a key's last override; "
                f"give single options, such as {key_of(element)}.option=…, or write a file for each choice"
            )
    return lines


def _has_mapping(override: Override) -> bool:
    return any(isinstance(one, dict) for one in _choices(override))


def _names_all_of(before: Override, after: Override) -> bool:
    """Whether mappings of an override give all the options that those of one before it give: it loses none."""
    earlier, later = _choices(before), _choices(after)
    if not all(isinstance(one, dict) for one in (*earlier, *later)):
        return False
    return all(dict(flatten(one)).keys() <= dict(flatten(other)).keys() for one in earlier for other in later)


def _choices(override: Override) -> list[Any]:
    value = override.value()
    return value.list if isinstance(value, ChoiceSweep) else [value]


def split_list(text: str) -> list[str]:
    """Splits comma-separated overrides, not within brackets or quotes."""
    parts, depth, quote = [""], 0, ""
    for character in text:
        if quote:
            quote = "" if character == quote else quote
        elif character in "'\"":
            quote = character
        elif character in "([{":
            depth += 1
        elif character in ")]}":
            depth -= 1
        if character == "," and not depth and not quote:
            parts.append("")
        else:
            parts[-1] += character
    return [part for part in parts if part]
