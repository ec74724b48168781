"""The user's own code: its modules, names that are missing in it, and where in it an error arose."""

import difflib
import importlib.util
import inspect
import sys
import sysconfig
import traceback
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

from cifar_tuning import PROJECT_ROOT
from cifar_tuning.text import PROGRAMS

# Modules at the project's root that are ours; the others there are the user's.
_NOT_USERS = {"cifar_tuning", "benchmarks", "tests", "train", "predict", "report"}
# Most names of a module that a message lists.
_SHOWN_NAMES = 8


def user_modules() -> list[str]:
    """Returns the Python files and packages in the project's root and in the folder where the command is typed."""
    return sorted({name for folder in (PROJECT_ROOT, Path.cwd()) for name in _modules_in(folder)} - _NOT_USERS)


def _modules_in(folder: Path) -> list[str]:
    files = [path.stem for path in folder.glob("*.py")]
    packages = [path.parent.name for path in folder.glob("*/__init__.py")]
    return [name for name in files + packages if name.isidentifier() and name not in sys.stdlib_module_names]


def missing_module(target: str) -> str | None:
    """Returns in words that there is nothing to import for a `_target_`, which is not imported; None if there is."""
    name = target.partition(".")[0]
    try:
        if importlib.util.find_spec(name) is not None:
            return None
    except ValueError:  # it is there, without saying from where
        return None
    meant = difflib.get_close_matches(name, user_modules(), n=1)
    return f"there is no module {name} in {Path.cwd()}, the project or the installed packages" + (
        f"; did you mean {meant[0]}?" if meant else ""
    )


def missing_name(target: str) -> str | None:
    """Returns in words what a module lacks that a `_target_` names, once it was imported; None if it is not that."""
    parts = target.split(".")
    for count in range(len(parts) - 1, 0, -1):
        name, wanted = ".".join(parts[:count]), parts[count]
        if (module := sys.modules.get(name)) is None:
            continue
        if wanted in vars(module) or _is_module(f"{name}.{wanted}"):
            return None
        names = sorted(_names_in(module))
        if names and len(names) <= _SHOWN_NAMES:
            return f"{name} has no {wanted}; it has {', '.join(names)}"
        meant = difflib.get_close_matches(wanted, names)
        return f"{name} has no {wanted}" + (f"; did you mean {' or '.join(meant)}?" if meant else "")
    return None


def _is_module(name: str) -> bool:
    try:
        return importlib.util.find_spec(name) is not None
    except (ModuleNotFoundError, ValueError):
        return False


def _names_in(module: ModuleType) -> Iterator[str]:
    """The public classes and functions of a module, without those that it imports from elsewhere."""
    for name, value in vars(module).items():
        public = not name.startswith("_") and (inspect.isclass(value) or inspect.isfunction(value))
        if public and f"{value.__module__}.".startswith(f"{module.__name__}."):
            yield name


def user_frame(error: BaseException) -> str:
    """Returns where in the user's own code an error arose, as `, my_models.py:15 in forward`; nothing if elsewhere."""
    frames = list[traceback.FrameSummary]()
    one: BaseException | None = error
    while one is not None:  # the cause, which comes later, is further in
        frames += [frame for frame in traceback.extract_tb(one.__traceback__) if _is_users(frame.filename)]
        one = one.__cause__
    if not frames:
        return ""
    where = "" if frames[-1].name == "<module>" else f" in {frames[-1].name}"
    return f", {Path(frames[-1].filename).name}:{frames[-1].lineno}{where}"


def user_traceback(error: BaseException) -> str | None:
    """Returns an error's traceback with the frames of the user's own code alone; None if it has none."""
    whole = traceback.TracebackException.from_exception(error)
    found, one = False, whole
    while True:
        frames = [frame for frame in one.stack if _is_users(frame.filename)]
        if frames:
            found, one.stack = True, traceback.StackSummary.from_list(frames)
        if (cause := one.__cause__ or one.__context__) is None:
            break
        one = cause
    return "".join(whole.format()) if found else None


def _is_users(file: str) -> bool:
    if file.startswith("<"):  # Python's own, and what Hydra stands in for its frames
        return False
    path = Path(file).resolve()
    others = [
        PROJECT_ROOT / "cifar_tuning",
        *(Path(sysconfig.get_path(one)) for one in ("stdlib", "purelib", "platlib")),
    ]
    programs = [PROJECT_ROOT / name for name in PROGRAMS]
    return path not in programs and not any(path.is_relative_to(folder.resolve()) for folder in others)
