"""Runs that begin with weights: once a checkpoint has them, nothing else need be there."""

import shutil
from urllib.error import URLError

import pytest
import torch

from cifar_tuning.errors import ConfigError
from cifar_tuning.jobs.export import load_classifier, model_from_checkpoint
from cifar_tuning.jobs.prepare import prepare
from cifar_tuning.training import checkpoint as checkpoints
from cifar_tuning.training.checkpoint import Checkpoint
from cifar_tuning.training.events import EpochMetrics, Progress

NAME, FILE = "shufflenet_v2_x0_5", "shufflenetv2_x0.5-f707e7126e.pth"


@pytest.mark.parametrize("published", [True, False])
def test_a_checkpoint_needs_no_weights_to_begin_with(configure, tmp_path, monkeypatch, published):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))

    def unreachable(*_args, **_options):
        raise URLError("no network")

    monkeypatch.setattr(torch.hub, "download_url_to_file", unreachable)
    monkeypatch.chdir(tmp_path)
    file = tmp_path / "hub" / "checkpoints" / FILE if published else tmp_path / "mine.pt"
    file.parent.mkdir(parents=True, exist_ok=True)
    weights = "DEFAULT" if published else "mine.pt"
    model = ["model=torchvision", f"model.name={NAME}", "model.freeze=true"]
    torch.manual_seed(0)
    torch.save(prepare(configure(*model[:2])).parts.model.state_dict(), file)

    options = configure(*model, f"model.weights={weights}")
    begun = prepare(options)
    assert begun.config["model"]["weights"] == (weights if published else str(file))
    state = begun.parts.model.state_dict()
    progress = Progress([EpochMetrics(0, 1, 1, 1, 1, 1, 0.1, 1, 1)])
    kept = {"optimizer": {}, "schedule": {}, "generators": {}, "progress": progress, "config": begun.config}
    (tmp_path / "run").mkdir()
    for name in ("best.pt", "last.pt"):
        checkpoints.Taken(Checkpoint(state, **kept)).write(tmp_path / "run" / name)
    shutil.move(file, tmp_path / "gone")

    predicting, _ = model_from_checkpoint(tmp_path / "run" / "best.pt")
    exported, _ = load_classifier(tmp_path / "run")
    given = [*model, f"model.weights={weights if published else file}"]
    resumed = prepare(configure(*given, f"resume={tmp_path}/run")).parts.model
    for one in (predicting, exported.model, resumed):
        assert all(torch.equal(value, state[name]) for name, value in one.state_dict().items())
    assert [one.requires_grad for one in resumed.parameters()].count(True) == 2
    with pytest.raises(ConfigError, match="bring that file to" if published else "model.weights=mine.pt: there is no"):
        prepare(options)
