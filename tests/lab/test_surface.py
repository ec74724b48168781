import copy
import json
import math

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from cifar_tuning.lab.surface import (
    Surface,
    curvature,
    draw_surfaces,
    filter_normalised_direction,
    loss_surface,
)
from cifar_tuning.models import ResNet, SimpleNN


@pytest.fixture
def model():
    torch.manual_seed(0)
    return SimpleNN(batch_norm=True, dropout=0.5, separable=True)


def analytic(function, points=11, extent=1.0) -> Surface:
    steps = [extent * (2 * i / (points - 1) - 1) for i in range(points)]
    losses = [[function(a, b) for b in steps] for a in steps]
    return Surface(steps, steps, losses, [[0.0] * points for _ in steps])


@pytest.mark.parametrize("network", [ResNet(8, separable=True), SimpleNN(batch_norm=True)])
def test_each_filter_of_a_direction_is_as_long_as_the_networks(network):
    direction = filter_normalised_direction(network, torch.Generator().manual_seed(0))
    weights = {n: p for n, p in network.named_parameters() if p.ndim >= 2}
    assert direction.keys() == weights.keys()
    assert all(isinstance(network.get_submodule(n.rpartition(".")[0]), nn.Conv2d | nn.Linear) for n in direction)
    for name, weight in weights.items():
        for filter_, drawn in zip(weight, direction[name], strict=True):
            assert drawn.norm().item() == pytest.approx(filter_.norm().item(), rel=1e-5)
        assert not torch.allclose(direction[name], weight)


def test_the_middle_is_the_network_itself_which_stays_as_it_was(model, batches):
    model.train()
    before = copy.deepcopy(model.state_dict())
    strides = [p.stride() for p in model.parameters()]
    surface = loss_surface(model, batches, points=3, extent=0.7)
    assert model.training
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())
    assert [p.stride() for p in model.parameters()] == strides
    assert all(p.requires_grad and p.grad is None for p in model.parameters())
    images, labels = (torch.cat(tensors) for tensors in zip(*batches, strict=True))
    with torch.no_grad():
        logits = model.eval()(images)
    assert (surface.alphas, surface.betas) == ([-0.7, 0, 0.7], [-0.7, 0, 0.7])
    assert surface.losses[1][1] == pytest.approx(F.cross_entropy(logits, labels).item(), rel=1e-5)
    assert surface.accuracies[1][1] == pytest.approx((logits.argmax(1) == labels).float().mean().item())


def test_rows_go_along_the_first_direction_and_columns_along_the_second(model, batches):
    surface = loss_surface(model, batches, points=3, extent=0.5, seed=4)
    generator = torch.Generator().manual_seed(4)
    first, second = (filter_normalised_direction(model, generator) for _ in range(2))
    moved = copy.deepcopy(model).eval()
    images, labels = (torch.cat(tensors) for tensors in zip(*batches, strict=True))
    with torch.no_grad():
        for name, parameter in moved.named_parameters():
            if name in first:
                parameter.add_(0.5 * first[name] - 0.5 * second[name])
        loss = F.cross_entropy(moved(images), labels).item()
    assert surface.losses[2][0] == pytest.approx(loss, rel=1e-5)


def test_the_seed_decides(model, batches):
    surfaces = [loss_surface(model, batches, points=3, seed=seed) for seed in (0, 0, 1)]
    assert surfaces[0] == surfaces[1] != surfaces[2]


@pytest.mark.parametrize("options", [{"points": 4}, {"points": 1}, {"extent": 0.0}, {"extent": math.nan}])
def test_a_grid_without_a_middle_is_refused(model, batches, options):
    with pytest.raises(ValueError, match="points must be odd"):
        loss_surface(model, batches, **options)


@pytest.mark.parametrize(
    ("function", "share", "ratio"),
    [
        (lambda a, b: 1 + a * a + 3 * b * b, 0, 0),  # eigenvalues 2, 6
        (lambda a, b: 2 + a * a - 3 * b * b, 1, 1),  # 2, -6
        (lambda a, b: 5 + 4 * a * a + 2 * a * b - b * b, 1, (math.sqrt(29) - 3) / (math.sqrt(29) + 3)),
        (lambda a, b: 3 - a * a - b * b, 1, 1),
        (lambda a, b: 4 + a + 2 * b, 0, 0),  # a plane, up to rounding
        (lambda a, b: 2 + a**3, 4 / 9, 4 / 9),  # concave where a < 0: 4 of 9 inner rows
    ],
)
def test_curvature_of_known_surfaces(function, share, ratio):
    found = curvature(analytic(function))
    assert found.nonconvex_share == pytest.approx(share)
    assert found.negative_ratio == pytest.approx(ratio, abs=1e-6)
    assert found.points == 81


def test_curvature_leaves_out_what_is_not_finite():
    surface = analytic(lambda a, b: math.inf if a > 0.9 else 1 + a * a + b * b)
    assert curvature(surface).points == 72
    assert curvature(surface).nonconvex_share == 0
    nowhere = curvature(analytic(lambda a, b: math.nan))
    assert nowhere.points == 0
    assert math.isnan(nowhere.nonconvex_share)


def test_a_surface_is_drawn_again_from_its_file(tmp_path):
    surface = analytic(lambda a, b: math.inf if a > 0.9 else 0.01 + a * a + b * b)
    (tmp_path / "surface.json").write_text(json.dumps(surface.content(), allow_nan=False))
    loaded = Surface.load(tmp_path / "surface.json")
    assert math.isnan(loaded.losses[-1][0])
    assert loaded.losses[:-1] == [pytest.approx(row, abs=1e-6) for row in surface.losses[:-1]]
    assert (loaded.alphas, loaded.betas, loaded.accuracies) == (surface.alphas, surface.betas, surface.accuracies)
    flat = analytic(lambda a, b: 0.0)
    picture = draw_surfaces({"with shortcuts": loaded, "plain": flat}, tmp_path / "surfaces.png")
    assert picture.read_bytes().startswith(b"\x89PNG")
    assert draw_surfaces({"flat": flat}, tmp_path / "flat.png").stat().st_size > 5000
    assert sorted(p.name for p in tmp_path.iterdir()) == ["flat.png", "surface.json", "surfaces.png"]
