"""What an installed package holds."""

import ast
import configparser
import importlib.metadata
import re
import runpy
import shutil
import sys

import pytest
from packaging.requirements import Requirement
from setuptools import find_packages

from cifar_tuning import PROJECT_ROOT


def test_every_folder_with_code_is_a_package() -> None:
    """An editable installation finds a folder without `__init__.py` too; a wheel would lack it."""
    folders = {str(file.parent.relative_to(PROJECT_ROOT)) for file in (PROJECT_ROOT / "cifar_tuning").rglob("*.py")}
    options = configparser.ConfigParser()
    options.read(PROJECT_ROOT / "setup.cfg")
    found = find_packages(str(PROJECT_ROOT), include=[options["options.packages.find"]["include"]])
    assert {name.replace(".", "/") for name in found} == folders


def test_the_metadata_name_the_pythons_that_the_readme_names() -> None:
    options = configparser.ConfigParser()
    options.read(PROJECT_ROOT / "setup.cfg")
    named = re.findall(r"Python :: 3\.(\d+)", options["metadata"]["classifiers"])
    (first, last) = re.search(r"Python 3\.(\d+) to 3\.(\d+)", (PROJECT_ROOT / "README.md").read_text()).groups()
    assert named == [str(minor) for minor in range(int(first), int(last) + 1)]
    assert options["options"]["python_requires"] == f">=3.{first}"


@pytest.mark.parametrize(
    ("beside", "ours"), [([], False), (["conf/config.yaml"], False), (["conf/config.yaml", "train.py"], True)]
)
def test_outputs_go_to_the_project_or_where_an_application_was_started(tmp_path, monkeypatch, beside, ours) -> None:
    """Another application may have installed a package `conf` of its own."""
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    for name in (*beside, "cifar_tuning/__init__.py"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        shutil.copy(PROJECT_ROOT / name, tmp_path / name)
    found = runpy.run_path(str(tmp_path / "cifar_tuning" / "__init__.py"))["PROJECT_ROOT"]
    assert found == (tmp_path if ours else tmp_path / "here")


@pytest.mark.parametrize("name", ["study", "fused"])
def test_the_plugins_entry_points_can_be_loaded(name: str) -> None:
    from importlib.metadata import entry_points

    (point,) = entry_points(group="hydra.plugins", name=name)
    assert isinstance(point.load(), type)


def test_what_is_asked_for_is_pinned_within_its_bounds() -> None:
    lines = [line for line in (PROJECT_ROOT / "constraints.txt").read_text().splitlines() if not line.startswith("#")]
    pinned = {canonical(name): version for name, _, version in (line.partition("==") for line in lines)}
    options = configparser.ConfigParser()
    options.read(PROJECT_ROOT / "setup.cfg")
    named = "\n".join([options["options"]["install_requires"], *options["options.extras_require"].values()])
    asked = [Requirement(line) for line in named.split("\n") if line.strip()]
    assert len(asked) > 20
    assert [one for one in asked if canonical(one.name) not in pinned] == []
    assert [one for one in asked if not one.specifier.contains(pinned[canonical(one.name)], prereleases=True)] == []


@pytest.mark.slow
def test_everything_that_is_imported_is_asked_for() -> None:
    """A package that comes with another one may go with its next version."""
    options = configparser.ConfigParser()
    options.read(PROJECT_ROOT / "setup.cfg")
    names = options["options"]["install_requires"] + options["options.extras_require"]["postgresql"]
    asked = {canonical(line) for line in names.split("\n") if line.strip()}
    imported = set[str]()
    for file in (PROJECT_ROOT / "cifar_tuning").rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.Import):
                imported |= {alias.name.partition(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
                imported.add(node.module.partition(".")[0])
    packages = importlib.metadata.packages_distributions()
    # Triton comes with PyTorch's builds for GPUs, in the version that each needs; the others do without.
    foreign = imported - set(sys.stdlib_module_names) - {"cifar_tuning", "hydra_plugins", "triton"}
    assert len(foreign) > 10
    assert {name: packages.get(name) for name in foreign if not asked & {canonical(p) for p in packages[name]}} == {}


def canonical(requirement: str) -> str:
    """Returns the name of a requirement as package indices write it."""
    return re.sub(r"[-_.]+", "-", re.split(r"[ <>=!~;\[]", requirement.strip())[0]).lower()
