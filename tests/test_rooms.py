"""Imports run one way: docs/architecture.md says which room may import which, and no file does otherwise."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from cifar_tuning import PROJECT_ROOT

PACKAGE = PROJECT_ROOT / "cifar_tuning"
ROOMS = sorted(folder.name for folder in PACKAGE.iterdir() if (folder / "__init__.py").is_file())


def allowed() -> dict[str, set[str]]:
    """What each room may import, as the table says, which goes from the bottom of the house to its top."""
    may: dict[str, set[str]] = {}
    table = (PROJECT_ROOT / "docs" / "architecture.md").read_text()
    for room, imports in re.findall(r"^\| `cifar_tuning/(\w+)` \| .* \| (.*?) ?\|$", table, re.MULTILINE):
        may[room] = set(may) if imports.startswith("all of the above") else set(re.findall(r"`(\w+)`", imports))
    return may


def imported(file: Path) -> Iterator[str]:
    """The rooms that a file imports, in functions too; what is for type checkers alone does not count."""
    tree = ast.parse(file.read_text())
    guarded = [node for node in ast.walk(tree) if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test)]
    left_out = {id(inner) for node in guarded for inner in ast.walk(node)}
    for node in ast.walk(tree):
        if id(node) in left_out:
            continue
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{file}: imports are absolute"
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        else:
            continue
        for name in names:
            parts = name.split(".")
            if parts[0] == "cifar_tuning" and len(parts) > 1 and parts[1] in ROOMS:
                yield parts[1]


def test_the_table_has_every_room():
    assert sorted(allowed()) == ROOMS


@pytest.mark.parametrize("room", ROOMS)
def test_a_room_imports_what_it_may(room):
    wrong = {
        f"{file.relative_to(PACKAGE)}: {other}"
        for file in (PACKAGE / room).rglob("*.py")
        for other in imported(file)
        if other != room and other not in allowed()[room]
    }
    assert not wrong


def test_what_every_room_needs_imports_none():
    wrong = {f"{file.name}: {other}" for file in PACKAGE.glob("*.py") for other in imported(file)}
    assert not wrong
