import pytest

from cifar_tuning.lab.stages import network_stages, share_of_first_half


@pytest.mark.parametrize(
    # torchvision's own figures: parameters, and 10⁹ MACs
    ("network", "parameters", "macs"),
    [("squeezenet1_0", 1_248_424, 0.82), ("alexnet", 61_100_840, 0.71)],
)
def test_the_stages_add_up_to_the_network(network, parameters, macs):
    stages = network_stages(network)
    assert sum(stage.parameters for stage in stages) == parameters
    assert sum(stage.macs for stage in stages) / 1e9 == pytest.approx(macs, abs=0.005)
    assert sum(stage.macs_share for stage in stages) == pytest.approx(1)
    assert sum(stage.parameters_share for stage in stages) == pytest.approx(1)
    assert stages[-1].macs_up_to == 1


def test_a_fire_module_by_hand():
    stages = {stage.name: stage for stage in network_stages("squeezenet1_0")}
    # squeeze 96 → 16, expand 16 → 64 by 1×1 and by 3×3, on 54×54 pixels
    assert stages["fire2"].side == 54
    assert stages["fire2"].macs == 54**2 * (96 * 16 + 16 * 64 + 9 * 16 * 64)
    assert stages["fire2"].parameters == 96 * 16 + 16 * 64 + 9 * 16 * 64 + 16 + 64 + 64
    assert stages["conv1"].macs == 109**2 * 49 * 3 * 96


def test_squeezenets_computation_is_halved_in_the_middle():
    stages = network_stages("squeezenet1_0")
    assert [stage.name for stage in stages] == ["conv1", *(f"fire{i}" for i in range(2, 10)), "conv10"]
    assert share_of_first_half(stages) == pytest.approx(stages[4].macs_up_to)
    assert 0.49 < share_of_first_half(stages) < 0.5


def test_alexnets_last_layers_have_no_pixels():
    stages = network_stages("alexnet")
    assert [stage.side for stage in stages] == [55, 27, 13, 13, 13, 1, 1, 1]
    assert stages[5].macs == 256 * 6 * 6 * 4096
