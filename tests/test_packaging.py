"""What an installed package holds."""

import configparser

import pytest
from setuptools import find_packages

from cifar_tuning import PROJECT_ROOT


def test_every_folder_with_code_is_a_package() -> None:
    """An editable installation finds a folder without `__init__.py` too; a wheel would lack it."""
    folders = {str(file.parent.relative_to(PROJECT_ROOT)) for file in (PROJECT_ROOT / "cifar_tuning").rglob("*.py")}
    options = configparser.ConfigParser()
    options.read(PROJECT_ROOT / "setup.cfg")
    found = find_packages(str(PROJECT_ROOT), include=[options["options.packages.find"]["include"]])
    assert {name.replace(".", "/") for name in found} == folders


@pytest.mark.parametrize("name", ["study", "fused"])
def test_the_plugins_entry_points_can_be_loaded(name: str) -> None:
    from importlib.metadata import entry_points

    (point,) = entry_points(group="hydra.plugins", name=name)
    assert isinstance(point.load(), type)
