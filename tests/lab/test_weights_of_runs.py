import pytest

from cifar_tuning.lab.weights import measure_weights


def test_every_run_is_measured_and_the_first_seed_drawn(make_checkpoint):
    checkpoint = make_checkpoint()
    found = measure_weights({("regularizer=l1", 0): checkpoint, ("regularizer=l1", 1): checkpoint})
    assert {row["seed"] for row in found["statistics"]} == {0, 1}
    assert found["seed"] == 0
    assert list(found["histograms"]) == ["conv1", "conv2", "fc1", "fc2", "fc3"]
    assert sum(found["histograms"]["fc3"]["counts"]["regularizer=l1"]) == 840
    assert {row["layer"] for row in found["statistics"]} == {*found["histograms"], "all layers"}
    assert found["statistics"][0]["near_zero"] == pytest.approx(
        found["histograms"]["conv1"]["near_zero"]["regularizer=l1"]
    )
