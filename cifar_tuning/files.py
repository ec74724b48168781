"""Atomic writes: whoever reads a file sees its old content or its new one, never a part; the cache's folder, paths."""

import contextlib
import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from uuid import uuid4


def cache_folder() -> Path:
    """Returns where this user keeps what can be made again; it need not exist yet."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "cifar_tuning"


def whole_path(path: str, is_there: Callable[[Path], bool] = Path.exists) -> str:
    """Returns the whole path of a file or folder, for whoever reads it elsewhere; what is not there stays as it is."""
    with contextlib.suppress(OSError, RuntimeError):  # may not be looked at, or a ~ of nobody's
        if is_there(place := Path(path).expanduser()):
            return str(place.absolute())
    return path


@contextlib.contextmanager
def written(file: Path) -> Iterator[Path]:
    """Yields a temporary path beside the file; what is written there takes the file's place in the end.

    After an error the file is as it was, and nothing is left beside it. Of two processes that write the same file at
    once the later one's stays. A link stays one to what it leads to; what is no plain file (/dev/stdout) is written to
    as it is.
    """
    if file.exists() and not file.is_file():
        yield file
        return
    file = file.resolve() if file.is_symlink() else file
    # Hidden, and another writer's has another name: processes of two machines, or containers, may have the same id.
    partial = file.with_name(f".{file.name}.{uuid4().hex[:12]}.tmp")
    try:
        yield partial
        partial.replace(file)
    except BaseException:
        with contextlib.suppress(OSError):  # the error itself says more than that there is nothing to remove
            partial.unlink()
        raise


def write_text(file: Path, text: str) -> Path:
    """Writes a text in UTF-8, all or nothing; returns the file."""
    with written(file) as partial:
        partial.write_text(text, encoding="utf-8")
    return file


def read_json(file: Path) -> Any:
    """Returns what is in a JSON file; None if it is not there, or damaged as a power cut may leave it."""
    try:
        return json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
