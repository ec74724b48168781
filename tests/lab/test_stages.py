import pytest

from cifar_tuning.lab.stages import network_stages


@pytest.mark.parametrize(
    # torchvision's own figures: parameters, and 10⁹ MACs
    ("network", "parameters", "macs"),
    [("squeezenet1_0", 1_248_424, 0.82), ("alexnet", 61_100_840, 0.71)],
)
def test_the_stages_add_up_to_the_network(network, parameters, macs):
    stages = network_stages(network)
    assert sum(stage.parameters for stage in stages) == parameters
    assert sum(stage.macs for stage in stages) / 1e9 == pytest.approx(macs, abs=0.005)


def test_a_fire_module_by_hand():
    stages = {stage.name: stage for stage in network_stages("squeezenet1_0")}
    # squeeze 96 → 16, expand 16 → 64 by 1×1 and by 3×3, on 54×54 pixels
    assert stages["fire2"].macs == 54**2 * (96 * 16 + 16 * 64 + 9 * 16 * 64)
    assert stages["fire2"].parameters == 96 * 16 + 16 * 64 + 9 * 16 * 64 + 16 + 64 + 64
    assert stages["conv1"].macs == 109**2 * 49 * 3 * 96

    assert list(stages) == ["conv1", *(f"fire{i}" for i in range(2, 10)), "conv10"]


def test_a_fully_connected_layer_by_hand():
    assert network_stages("alexnet")[5].macs == 256 * 6 * 6 * 4096
