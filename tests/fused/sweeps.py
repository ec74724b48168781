"""Sweeps under the fused launcher, and what they leave."""

import json

import pytest

FUSED = ("-m", "hydra/launcher=fused")


def results(folder) -> dict[int, dict]:
    found = {int(f.parent.name): json.loads(f.read_text()) for f in folder.glob("*/result.json")}
    return dict(sorted(found.items()))


def curve(folder) -> list[dict]:
    """The figures of each of a job's epochs that do not depend on the machine."""
    keep = ("train/loss", "train/acc", "val/loss", "val/acc", "lr", "step")
    lines = (folder / "metrics.jsonl").read_text().splitlines()
    return [{key: value for key, value in json.loads(line).items() if key in keep} for line in lines]


def curves(folder) -> dict[int, list]:
    return {int(file.parent.name): curve(file.parent) for file in sorted(folder.glob("*/metrics.jsonl"))}


def curves_agree(ours, theirs) -> bool:
    assert ours.keys() == theirs.keys()
    for number in ours:
        assert len(ours[number]) == len(theirs[number])
        for one, other in zip(ours[number], theirs[number], strict=True):
            assert one == pytest.approx(other, rel=1e-3, abs=0.02)
    return True
