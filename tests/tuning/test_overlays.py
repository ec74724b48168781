"""A configuration written as an overlay can be composed again, and is the same then."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from hydra import compose, initialize_config_dir
from hydra.errors import CompactHydraException
from omegaconf import OmegaConf

from cifar_tuning.tuning.overlays import StudiesSource, as_overlay

FILES = {
    "mygroup/a.yaml": "x: 1\ny: 2\n",
    "mygroup/b.yaml": "x: 3\nz: 4\n",
    "model/nested.yaml": "defaults:\n  - /mygroup@part: a\n_target_: torch.nn.Linear\nin_features: 3\n",
    "experiment/own.yaml": "# @package _global_\ndefaults:\n  - /mygroup: a\noptimizer:\n  lr: 0.3\n",
    "experiment/two.yaml": "# @package _global_\ndefaults:\n  - /mygroup: [a, b]\n",
    "experiment/none.yaml": "# @package _global_\ndefaults:\n  - /mygroup: null\n",
}
PROJECT = Path(__file__).resolve().parents[2]


@pytest.fixture
def composing(tmp_path: Path) -> Any:
    """Composes `train.py`'s configuration, with files of the user's own."""
    for name, content in FILES.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(content)
    with initialize_config_dir(str(PROJECT / "conf")):
        yield lambda *overrides: compose(
            "config", [f"hydra.searchpath=[{tmp_path}]", *overrides], return_hydra_config=True
        )


def task(config: Any) -> dict[str, Any]:
    return {str(key): value for key, value in OmegaConf.to_container(config).items() if key != "hydra"}


@pytest.mark.parametrize(
    ("overrides", "defaults", "content"),
    [
        (["optimizer.lr=0.2"], [], {"optimizer": {"lr": 0.2}}),
        (["+optimizer@extra=adam"], [{"/optimizer@extra": "adam"}], {}),
        (["+optimizer@extra=adam", "extra.lr=0.2"], [{"/optimizer@extra": "adam"}], {"extra": {"lr": 0.2}}),
        (["+mygroup=b", "optimizer=adam"], [{"/mygroup": "b"}], {}),
        (["experiment=own"], [{"/mygroup": "a"}], {"optimizer": {"lr": 0.3}}),
        (["experiment=own", "mygroup=b"], [{"/mygroup": "b"}], {"optimizer": {"lr": 0.3}}),
        # Of several choices of a group Hydra keeps no record.
        (["experiment=two"], [], {"mygroup": {"x": 3, "y": 2, "z": 4}}),
        (["experiment=none"], [], {}),
        (["data=image_folder", "data.root=/own"], [], {"data": {"root": "/own"}}),
        # Known once its model is chosen.
        (["model=nested", "mygroup@model.part=b"], [], {}),
    ],
)
def test_groups_that_the_primary_configuration_does_not_have(
    composing: Callable[..., Any],
    tmp_path: Path,
    overrides: list[str],
    defaults: list[Any],
    content: dict[str, Any],
) -> None:
    config = composing(*overrides)
    written = as_overlay(config, "# A header.\n")
    (tmp_path / "experiment" / "written.yaml").write_text(written)
    again = composing("experiment=written")
    assert task(again) == task(config)
    known = yaml.safe_load(written)
    assert known["defaults"][-1] == "_self_"
    plain = [one for one in known.pop("defaults") if not str(next(iter(one))).startswith(("override", "_"))]
    assert plain == defaults
    assert known == content


def test_a_file_of_weights_is_found_from_another_folder(
    composing: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "w.pt").touch()
    for weights, written in (("w.pt", f"{tmp_path}/w.pt"), ("DEFAULT", "DEFAULT")):
        config = composing("model=torchvision", f"model.weights={weights}")
        assert yaml.safe_load(as_overlay(config, ""))["model"] == {"weights": written}


def test_a_study_without_a_winner_says_so(tmp_path: Path) -> None:
    for study in ("new", "done"):
        (tmp_path / study).mkdir()
        (tmp_path / study / "study.yaml").touch()
    (tmp_path / "done" / "best.yaml").touch()
    source = StudiesSource("studies", f"studies://{tmp_path}")
    with pytest.raises(
        CompactHydraException, match=r"error: experiment=new/best: the study in .*/new has no winner yet"
    ):
        source.is_config("experiment/new/best")
    assert source.is_config("experiment/done/best")
    assert not any(map(source.is_config, ("experiment/none/best", "experiment/new/other", "model/new/best")))
