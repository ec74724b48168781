"""A sweep's jobs are composed as Hydra composes them, whatever came before."""

import pickle
import re
from pathlib import Path
from typing import Any

import pytest
from hydra import initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.core.object_type import ObjectType
from hydra.types import HydraContext, RunMode
from omegaconf import OmegaConf

from cifar_tuning import PROJECT_ROOT
from cifar_tuning.compose import SweepLoader, remember_files
from cifar_tuning.tuning.overlays import StudiesSource

JOBS = [
    ["optimizer.lr=0.3"],
    ["optimizer.lr=0.1", "+extra.deep=1"],
    [],
    ["model=resnet20", "optimizer=adam"],
    ["optimizer.lr=0.3", "~regularizer"],
    ["model=resnet20", "model.activation=swish", "hydra.sweep.subdir=7"],
    ["schedule=cosine", "data=synthetic"],
    ["optimizer.lr=0.3"],
]


@pytest.fixture
def context():
    with initialize_config_dir(str(PROJECT_ROOT / "conf")):
        yield HydraContext(config_loader=GlobalHydra.instance().config_loader(), callbacks=None)


@pytest.mark.slow
def test_the_same_configurations_as_hydras_own_loader(context: HydraContext) -> None:
    plain = context.config_loader
    study = ["seed=3", "hydra/sweeper=study", "hydra.sweep.dir=x"]
    master = plain.load_configuration("config", study, RunMode.MULTIRUN)
    ours = remember_files(context).config_loader
    assert isinstance(ours, SweepLoader)
    for overrides in JOBS:
        expected, got = plain.load_sweep_config(master, overrides), ours.load_sweep_config(master, overrides)
        assert OmegaConf.to_yaml(got) == OmegaConf.to_yaml(expected), overrides
        got.seed = 99  # what a job does to its configuration must not reach the next one


def test_another_place_for_config_files_is_looked_up_each_time(context: HydraContext, tmp_path: Path) -> None:
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "mine.yaml").write_text("x: 1\n")
    loader = remember_files(context).config_loader
    master = context.config_loader.load_configuration("config", [], RunMode.MULTIRUN)
    first = loader.load_sweep_config(master, [])
    found = loader.load_sweep_config(master, [f"hydra.searchpath=[{tmp_path}]", "model=mine"])
    assert first.model != found.model
    assert found.model.x == 1


def test_it_travels_to_other_processes_without_what_it_keeps(context: HydraContext) -> None:
    loader = remember_files(context).config_loader
    master = context.config_loader.load_configuration("config", [], RunMode.MULTIRUN)
    before = loader.load_sweep_config(master, ["seed=4"])
    after = pickle.loads(pickle.dumps(loader)).load_sweep_config(master, ["seed=4"])
    assert OmegaConf.to_yaml(after) == OmegaConf.to_yaml(before)


def test_somebody_elses_loader_is_left_alone() -> None:
    class Other:
        pass

    context = HydraContext(config_loader=Other(), callbacks=None)  # type: ignore[arg-type]
    assert remember_files(context).config_loader is context.config_loader


def test_a_studys_winner_is_offered_among_the_experiments(tmp_path: Path) -> None:
    """By completion, and by the error about one that does not exist."""
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "best.yaml").write_text("# @package _global_\n")
    source = StudiesSource("studies", f"studies://{tmp_path}")
    assert source.is_group("experiment")
    assert source.list("experiment", ObjectType.CONFIG) == ["mine/best"]
    assert not StudiesSource("studies", f"studies://{tmp_path}/none").is_group("experiment")


def test_the_notebook_in_the_docs() -> None:
    page = (PROJECT_ROOT / "docs" / "your_own_parts.md").read_text(encoding="utf-8")
    (code,) = re.findall(r"### Parts without a run\n.*?```python\n(.*?)```", page, re.DOTALL)
    found: dict[str, Any] = {}
    GlobalHydra.instance().clear()
    exec(code, found)
    assert type(found["model"]).__name__ == "ResNet"
    assert len(found["data"].classes) == 10
