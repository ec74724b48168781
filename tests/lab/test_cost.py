import json
from dataclasses import asdict

import pytest
import torch
from torch import nn

from cifar_tuning.lab.cost import Layer, layers_of, measure_times, network_totals
from cifar_tuning.models import ResNet
from cifar_tuning.models.facts import count_macs, count_parameters
from cifar_tuning.models.layers import conv3x3


def test_the_totals_of_resnet_20_are_the_published_ones():
    totals = network_totals()
    regular, separable = totals["regular"], ResNet(separable=True)
    assert totals["separable"] == {
        "macs": count_macs(separable, (3, 32, 32)),
        "parameters": count_parameters(separable),
    }
    assert regular["parameters"] == 269_722
    assert regular["macs"] == pytest.approx(40.55e6, rel=1e-3)


@pytest.mark.parametrize(("m", "n", "side", "stride"), [(3, 16, 32, 1), (16, 32, 16, 2), (64, 64, 8, 1)])
@pytest.mark.parametrize(
    "count", [lambda layer, shape: count_macs(layer, shape), lambda layer, _: count_parameters(layer)]
)
def test_the_formula_against_the_counters(m, n, side, stride, count):
    kinds = [conv3x3(m, n, separable=kind, bias=False, stride=stride, padding=1) for kind in (False, True)]
    regular, separable = (count(layer, (m, side * stride, side * stride)) for layer in kinds)
    assert Layer("x", m, n, side, stride).ratio == pytest.approx(separable / regular)


def test_the_layers_are_the_models_and_nine_times_is_out_of_reach():
    costs = layers_of()
    regular = {n: m for n, m in ResNet().named_modules() if isinstance(m, nn.Conv2d)}
    separable = ResNet(separable=True)
    assert [c.name for c in costs] == list(regular)
    assert all(isinstance(separable.get_submodule(c.name), nn.Sequential) for c in costs)
    assert {c.side for c in costs} == {32, 16, 8}
    assert 5.7 < min(1 / c.ratio for c in costs) < max(1 / c.ratio for c in costs) < 7.9


def test_every_layer_and_the_network_are_timed():
    generator = torch.get_rng_state()
    times = measure_times(8, batch_size=2, repeats=2)
    assert [t.name for t in times] == [c.name for c in layers_of(8)] + ["network"]
    for row in times:
        values = {key: value for key, value in asdict(row).items() if key != "name"}
        assert all(value > 0 for value in values.values())
    by_name = {t.name: t for t in times}
    assert by_name["network"].regular_forward > by_name["blocks.1.conv2"].regular_forward
    assert torch.equal(torch.get_rng_state(), generator)
    assert json.loads(json.dumps([asdict(t) for t in times]))[-1]["name"] == "network"
