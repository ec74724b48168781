"""Options, addresses and errors as text: what several rooms show, store and compare in the same way."""

import itertools
import re
import shlex
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from cifar_tuning import PROJECT_ROOT

# Options, and groups of them, that say where a run is trained and kept, or from where it goes on.
ELSEWHERE = ("tracking", "resume", "trainer.device", "data.root")


PROGRAMS = ("train.py", "predict.py", "report.py")
# What `train.py` composes unless told otherwise.
MAIN_CONFIG = "config"
# An override that says where configuration is looked for, as these flags do.
SEARCHPATH = "hydra.searchpath"
# Hydra's, each followed by a value or an equals sign.
CONFIG_FLAGS = ("--config-dir", "-cd", "--config-name", "-cn", "--config-path", "-cp")


def flatten(config: Mapping[Any, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Walks nested options as dotted keys; lists and empty mappings stay values."""
    for key, value in config.items():
        dotted = f"{prefix}{key}"
        if isinstance(value, Mapping) and value:
            yield from flatten(value, f"{dotted}.")
        else:
            yield dotted, value


def is_elsewhere(key: str) -> bool:
    """Whether an option, by its dotted key, says no more than where a run is trained and kept."""
    return f"{key}.".startswith(tuple(f"{one}." for one in ELSEWHERE))


def without_password(text: str) -> str:
    """Returns a database's address, or a text with some, as it may be shown."""
    text = re.sub(r"://([^:/\s]*):[^/\s]*@", r"://\1:***@", text)
    text = re.sub(r"\S+", _without_slashed_password, text)
    return re.sub(r"(?i)([?&](?:ssl)?(?:password|passwd|pwd|token)=)[^&\s'\"]*", r"\1***", text)


def _without_slashed_password(word: re.Match[str]) -> str:
    # SQLAlchemy takes a slash in a password; a server's address ends there. What follows the last @ holds no password,
    # and to search on there, from each address to the word's end, takes minutes in a megabyte without spaces.
    head, at, rest = word[0].rpartition("@")
    return re.sub(r"(?<!http)(?<!https)://([^:/\s]*):[^@\s]*@", r"://\1:***@", head + at) + rest


def counted(count: int, noun: str) -> str:
    """Returns a number of things in words: `1 seed`, `2 seeds`."""
    return f"{count:,} {noun}" + ("" if count == 1 else "s")


def in_short(value: str) -> str:
    """Returns an override's value with the 17 digits that samplers draw cut to the four that matter; all else stays."""
    try:
        return value if value.lstrip("-").isdigit() else f"{float(value):.4g}"
    except ValueError:
        return value


def first_line(error: BaseException | str) -> str:
    """Returns the first line of what an error says; the class of one that says nothing.

    Args:
        error: or its text, which has no class: nothing stays nothing.
    """
    lines = str(error).strip().splitlines()
    if lines:
        return lines[0]
    return "" if isinstance(error, str) else type(error).__name__


def on_one_line(error: BaseException | str) -> str:
    """Returns all that an error says, on one line, and what its cause says: Hydra's errors leave the reason to that.

    Args:
        error: or its text, for the error alone.
    """
    cause = None if isinstance(error, str) else error.__cause__
    return " ".join(f"{error} {cause or ''}".split())


def in_lines(error: BaseException) -> str:
    """Returns what an error of Hydra's and its cause say, a line below the other as Hydra itself prints it.

    Without where it has searched and what OmegaConf adds for programmers. The lines after the first are indented, to
    stand below an entry of a list.
    """
    said = f"{error}\n{error.__cause__ or ''}".partition("Config search path:")[0].expandtabs(2)
    added = ("full_key:", "object_type=")
    return "\n    ".join(line for line in said.splitlines() if line.strip() and not line.strip().startswith(added))


def command_line(program: str, *arguments: str) -> str:
    """Returns a command to be typed where this one was.

    Args:
        program: one of the project's, `train.py`, `predict.py` or `report.py`, or this command's own.
        arguments: of the command.
    """
    typed = Path(sys.argv[0])
    if program == typed.name:
        arguments = (*config_flags(sys.argv[1:]), *arguments)
        if (module := main_module()) is not None:
            return shlex.join(["python", "-m", module, *arguments])
    file = None
    if typed.name in (program, *PROGRAMS):
        file = typed.with_name(program)
    elif is_own_script(typed) and program in PROGRAMS:  # beside which there is none of the project's
        file = PROJECT_ROOT / program
    away = file is not None and file.parent.resolve() != Path.cwd()
    return shlex.join(["python", str(file) if away else program, *arguments])


def main_module() -> str | None:
    """Returns the module that this process was started with (`python -m`), if it was.

    A profiler's (`python -m cProfile train.py`) is another file than the one that was typed, and not meant.
    """
    spec, typed = getattr(sys.modules.get("__main__"), "__spec__", None), Path(sys.argv[0])
    if spec is None or not spec.origin or not typed.is_file() or not typed.samefile(spec.origin):
        return None
    return str(spec.name.removesuffix(".__main__"))


def training_program() -> str:
    """Returns the program of this command, which trains: `train.py`, or a script of the user's own in its place."""
    typed = Path(sys.argv[0])
    return typed.name if is_own_script(typed) else "train.py"


def is_own_script(file: Path) -> bool:
    """Whether a command's program is a script that is neither the project's nor in a package."""
    ours = file.name in (*PROGRAMS, "__main__.py") or file.resolve().is_relative_to(Path(__file__).parent)
    return file.suffix == ".py" and not ours


def with_comment(command: str | Path, remark: str) -> str:
    """Returns a command, or a folder, and what it is for: a comment, so that a shell takes the line as it is."""
    return f"{command}  # {remark}"


def config_flags(arguments: Sequence[str]) -> list[str]:
    """Returns what of a command's arguments says where its configuration lies, as typed: Hydra's ways for that."""
    found, rest = list[str](), iter(arguments)
    for argument in rest:
        name, equals, _ = argument.partition("=")
        if name in CONFIG_FLAGS:
            found += [argument] if equals else [argument, *itertools.islice(rest, 1)]
        elif name.lstrip("+") == SEARCHPATH:
            found.append(argument)
    return found


def override(key: str, value: str | Path) -> str:
    """Returns the override that gives an option a text; Hydra wants quotes around what is no plain word."""
    text = str(value)
    if re.fullmatch(r"[A-Za-z0-9_./:@*+%?-]+", text):
        return f"{key}={text}"
    # A backslash is one, unless it stands before a quote.
    escaped = re.sub(r'(\\*)("|$)', lambda found: found[1] * 2 + (r"\"" if found[2] else ""), text)
    return f'{key}="{escaped}"'


def typed(key: str, value: str | Path) -> str:
    """Returns an override as it is typed in a shell."""
    return shlex.quote(override(key, value))
