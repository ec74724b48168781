import json
from dataclasses import asdict

import pytest
import torch
from torch import nn

from cifar_tuning.lab.cost import layer_cost, layer_costs, measure_times, network_totals
from cifar_tuning.models import ResNet
from cifar_tuning.models.facts import count_macs, count_parameters
from cifar_tuning.models.layers import conv3x3

FC = 64 * 10  # what a ResNet computes besides its 3×3 convolutions


@pytest.mark.parametrize("depth", [8, 20])
def test_the_formulas_add_up_to_the_whole_network(depth):
    costs, totals = layer_costs(depth), network_totals(depth)
    assert len(costs) == depth - 1
    for kind, separable in (("regular", False), ("separable", True)):
        model = ResNet(depth, separable=separable)
        assert sum(getattr(c, f"{kind}_macs") for c in costs) + FC == count_macs(model, (3, 32, 32))
        assert totals[kind] == {"macs": count_macs(model, (3, 32, 32)), "parameters": count_parameters(model)}
        weights = sum(p.numel() for p in model.parameters() if p.ndim == 4)
        assert sum(getattr(c, f"{kind}_parameters") for c in costs) == weights


def test_the_totals_of_resnet_20_are_the_published_ones():
    regular = network_totals()["regular"]
    assert regular["parameters"] == 269_722
    assert regular["macs"] == pytest.approx(40.55e6, rel=1e-3)


@pytest.mark.parametrize(("m", "n", "side", "stride"), [(3, 16, 32, 1), (16, 32, 16, 2), (64, 64, 8, 1)])
def test_one_layer_against_the_counter(m, n, side, stride):
    cost = layer_cost("x", 3, m, n, side, stride)
    shape = (m, side * stride, side * stride)
    for kind, separable in (("regular", False), ("separable", True)):
        layer = conv3x3(m, n, separable=separable, bias=False, stride=stride, padding=1)
        assert getattr(cost, f"{kind}_macs") == count_macs(layer, shape)
        assert getattr(cost, f"{kind}_parameters") == count_parameters(layer)
    assert cost.ratio == pytest.approx(1 / n + 1 / 9)
    assert cost.separable_macs / cost.regular_macs == pytest.approx(cost.ratio)


def test_the_layers_are_the_models_and_nine_times_is_out_of_reach():
    costs = layer_costs()
    regular = {n: m for n, m in ResNet().named_modules() if isinstance(m, nn.Conv2d)}
    separable = ResNet(separable=True)
    assert [c.name for c in costs] == list(regular)
    assert all(isinstance(separable.get_submodule(c.name), nn.Sequential) for c in costs)
    assert {c.side for c in costs} == {32, 16, 8}
    assert 5.7 < min(1 / c.ratio for c in costs) < max(1 / c.ratio for c in costs) < 7.9


def test_every_layer_and_the_network_are_timed():
    generator = torch.get_rng_state()
    times = measure_times(8, batch_size=2, repeats=2, progress=False)
    assert [t.name for t in times] == [c.name for c in layer_costs(8)] + ["network"]
    for row in times:
        values = {key: value for key, value in asdict(row).items() if key != "name"}
        assert all(value > 0 for value in values.values())
    by_name = {t.name: t for t in times}
    assert by_name["network"].regular_forward > by_name["blocks.1.conv2"].regular_forward
    assert torch.equal(torch.get_rng_state(), generator)
    assert json.loads(json.dumps([asdict(t) for t in times]))[-1]["name"] == "network"
