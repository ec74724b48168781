"""Which runs a pattern means: those that came to their end."""

import json
from pathlib import Path
from typing import Any

import pytest
from omegaconf import OmegaConf

from cifar_tuning.errors import UserError
from cifar_tuning.jobs.named_runs import run_names


@pytest.fixture
def study(tmp_path: Path) -> Path:
    """Trial 2 is pruned, 3 is trained now, and of 10 the second seed is."""
    states = {"1": "complete", "2": "pruned", "3": None, "9": "diverged", "10/seed_0": "complete", "10/seed_1": None}
    (tmp_path / "study.yaml").touch()
    for job, state in states.items():
        (tmp_path / job).mkdir(parents=True)
        (tmp_path / job / "best.pt").touch()
        if state is not None:
            keys = ("value", "best_epoch", "epochs", "seconds", "overrides", "run_id")
            (tmp_path / job / "result.json").write_text(json.dumps({"state": state} | dict.fromkeys(keys)))
    return tmp_path


@pytest.mark.parametrize(
    ("given", "expected", "left_out"),
    [
        ("*", "1 9 10", "/*: 2 of 5 runs came to no end and are left out: 2 (pruned), 3 (unfinished)"),
        (
            "*/best.pt",
            "1/best.pt 9/best.pt",
            "/*/best.pt: 2 of 4 runs came to no end and are left out: 2/best.pt",
        ),
        ("10/*", "10/seed_0", "/10/*: 1 of 2 runs came to no end and are left out: seed_1 (unfinished)"),
        (["[13]", "2"], "1 2", "/[13]: 1 of 2 runs came to no end and are left out: 3 (unfinished)"),
        ("3", "3", ""),
    ],
)
def test_a_pattern_takes_what_came_to_its_end(study: Path, caplog: Any, given: Any, expected: str, left_out: str):
    caplog.set_level("INFO")
    names = [f"{study}/{name}" for name in ([given] if isinstance(given, str) else given)]
    assert run_names(OmegaConf.create(names)) == [f"{study}/{name}" for name in expected.split()]
    assert left_out in caplog.text
    assert bool(caplog.text) == bool(left_out)


def test_a_pattern_that_nothing_fits_that_came_to_its_end(study: Path):
    with pytest.raises(UserError, match=r"none of the runs .* came to its end \(1 pruned, 1 unfinished\); name one"):
        run_names(f"{study}/[23]")


def test_checkpoints_that_lie_by_themselves_are_taken(study: Path):
    (study / "study.yaml").unlink()
    assert run_names(f"{study}/[13]") == [f"{study}/1", f"{study}/3"]
