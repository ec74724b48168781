import json
from dataclasses import asdict

import numpy as np
import pytest
import torch
from torch import nn

from cifar_tuning.errors import UserError
from cifar_tuning.models import ResNet, SimpleNN
from cifar_tuning.reporting.weights import (
    ALL_LAYERS,
    BINS,
    NEAR_ZERO,
    draw_histograms,
    layer_weights,
    make_histograms,
    weight_table,
)
from cifar_tuning.training import checkpoint as checkpoints
from cifar_tuning.training.events import Progress


def save(model, file):
    generators = checkpoints.generator_states(torch.device("cpu"))
    checkpoints.Taken(checkpoints.Checkpoint(model.state_dict(), {}, {}, generators, Progress(), {})).write(file)
    return file


@pytest.fixture
def model():
    torch.manual_seed(0)
    return SimpleNN(batch_norm=True)


def test_only_convolutions_and_fully_connected_layers_have_weights(model, tmp_path):
    weights = layer_weights(save(model, tmp_path / "best.pt"))
    assert list(weights) == ["conv1", "conv2", "fc1", "fc2", "fc3"]
    assert [array.size for array in weights.values()] == [600, 1152, 69120, 10080, 840]
    np.testing.assert_array_equal(weights["conv2"], model.conv2.weight.detach().numpy())
    separable = layer_weights(save(ResNet(8, separable=True), tmp_path / "other.pt"))
    assert list(separable)[:2] == ["conv1.0", "conv1.1"]
    assert len(separable) == 2 * 7 + 1


def test_statistics_of_known_weights(model, tmp_path):
    random = np.random.RandomState(0)
    known = {
        "fc1": random.normal(scale=0.1, size=(120, 576)),
        "fc2": random.laplace(scale=0.1, size=(84, 120)),
        "fc3": np.full((10, 84), 0.5),
    }
    known["fc1"][:30] = 1e-4
    with torch.no_grad():
        for name, values in known.items():
            getattr(model, name).weight.copy_(torch.from_numpy(values))
    rows = weight_table({"run": layer_weights(save(model, tmp_path / "best.pt"))})
    table = {row.layer: row for row in rows}
    assert list(table) == ["conv1", "conv2", "fc1", "fc2", "fc3", ALL_LAYERS]
    assert table["fc1"].near_zero == pytest.approx(0.25 + 0.75 * 0.008, abs=0.002)
    assert table["fc2"].std == pytest.approx(0.1 * 2**0.5, rel=0.03)
    assert table["fc2"].kurtosis == pytest.approx(3, abs=0.5)
    assert (table["fc3"].near_zero, table["fc3"].std, table["fc3"].kurtosis) == (0, 0, None)
    assert table[ALL_LAYERS].count == sum(row.count for row in rows[:-1])
    near = sum(row.near_zero * row.count for row in rows[:-1])
    assert table[ALL_LAYERS].near_zero * table[ALL_LAYERS].count == pytest.approx(near)
    assert json.loads(json.dumps([asdict(row) for row in rows]))[4]["kurtosis"] is None


def test_a_normal_distribution_has_no_excess_kurtosis(model, tmp_path):
    nn.init.normal_(model.fc1.weight, std=NEAR_ZERO)
    weights = layer_weights(save(model, tmp_path / "a.pt"))
    rows = weight_table({"a": weights, "b": weights})
    assert [row.checkpoint for row in rows] == ["a"] * 6 + ["b"] * 6
    assert rows[2].kurtosis == pytest.approx(0, abs=0.1)
    assert rows[2].near_zero == pytest.approx(0.6827, abs=0.01)


def test_a_layers_histograms_have_the_same_bins_around_zero():
    of_runs = {"a": {"fc1": np.array([[0.0, 0.5]])}, "b": {"fc1": np.array([[-2.0, 0.0005, np.inf]])}}
    found = make_histograms(of_runs | {"c": {"fc2": np.zeros(3)}})
    assert (found["fc1"].limit, found["fc2"].limit) == (2.0, 1.0)
    assert {label: sum(counts) for label, counts in found["fc1"].counts.items()} == {"a": 2, "b": 2}
    assert found["fc1"].counts["a"][BINS // 2] == 1
    assert found["fc1"].near_zero == {"a": 0.5, "b": pytest.approx(1 / 3)}


@pytest.mark.parametrize("log", [False, True])
def test_histograms_of_runs_with_different_layers_and_of_a_diverged_one(tmp_path, log):
    small = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Linear(4, 2))
    files = {"small": save(small, tmp_path / "a.pt"), "smaller": save(small[:1], tmp_path / "b.pt")}
    nn.init.constant_(small[0].weight, torch.nan)
    files["diverged"] = save(small, tmp_path / "c.pt")
    weights = {label: layer_weights(file) for label, file in files.items()}
    picture = draw_histograms(
        make_histograms(weights), {label: label for label in files}, tmp_path / "weights.png", log=log
    )
    assert picture.read_bytes().startswith(b"\x89PNG")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.pt", "b.pt", "c.pt", "weights.png"]
    first, second, _ = weight_table({"d": weights["diverged"]})
    assert (first.near_zero, first.std, first.kurtosis) == (0, None, None)
    assert second.std is not None


def test_a_foreign_file_is_the_users_mistake(tmp_path):
    torch.save({}, tmp_path / "x.pt")
    with pytest.raises(UserError, match="not a checkpoint"):
        layer_weights(tmp_path / "x.pt")
