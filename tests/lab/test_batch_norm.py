import copy
import json
from dataclasses import asdict

import pytest
import torch
from torch import nn

from cifar_tuning.errors import UserError
from cifar_tuning.lab.batch_norm import channel_means, draw_channel_means, measure_batch_norm
from cifar_tuning.models import SimpleNN


@pytest.fixture
def model():
    """With scales, shifts and running statistics that are not the images'."""
    torch.manual_seed(0)
    model = SimpleNN(batch_norm=True, dropout=0.5).to(memory_format=torch.channels_last)
    for norm in (model.norm1, model.norm2):
        nn.init.uniform_(norm.weight, 0.5, 2)
        nn.init.uniform_(norm.bias, -1, 1)
        nn.init.uniform_(norm.running_mean, -0.5, 0.5)
        nn.init.uniform_(norm.running_var, 0.5, 2)
    return model


def test_in_training_mode_only_the_shift_moves_the_mean(model, batches):
    for means in channel_means(model, batches, images="training", mode="train"):
        norm = model.get_submodule(means.layer)
        assert max(map(abs, means.normalised)) < 1e-5
        torch.testing.assert_close(torch.tensor(means.output), norm.bias.detach(), rtol=0, atol=1e-5)


def test_in_evaluation_mode_the_running_statistics_decide(model, batches):
    first, second = channel_means(model, batches, images="training", mode="eval")
    images = torch.cat([images for images, _ in batches])
    inputs = model.conv1(images).detach().double().mean((0, 2, 3))
    expected = (inputs - model.norm1.running_mean) / (model.norm1.running_var + model.norm1.eps).sqrt()
    torch.testing.assert_close(torch.tensor(first.normalised), expected.float(), rtol=1e-4, atol=1e-5)
    for means in (first, second):
        norm = model.get_submodule(means.layer)
        scaled = torch.tensor(means.normalised) * norm.weight + norm.bias
        torch.testing.assert_close(torch.tensor(means.output), scaled.detach(), rtol=1e-4, atol=1e-5)
        assert max(map(abs, means.normalised)) > 0.1


def test_running_statistics_of_the_very_images_give_zero_mean(model, batches):
    images = torch.cat([images for images, _ in batches])
    inputs = model.conv1(images).detach()
    model.norm1.running_mean.copy_(inputs.mean((0, 2, 3)))
    first = channel_means(model, batches, images="training", mode="eval")[0]
    assert max(map(abs, first.normalised)) < 1e-5


def test_a_channel_without_scale_can_be_measured(model, batches):
    nn.init.zeros_(model.norm1.weight)
    first = channel_means(model, batches, images="training", mode="eval")[0]
    assert max(map(abs, first.normalised)) > 0.1
    assert first.output == pytest.approx(model.norm1.bias.tolist())


@pytest.mark.parametrize("mode", ["train", "eval"])
def test_the_model_and_the_generators_stay_as_they_were(model, batches, mode):
    model.train()
    model.norm1.eval()
    before = copy.deepcopy(model.state_dict())
    generator = torch.get_rng_state()
    channel_means(model, batches, images="training", mode=mode)
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())
    assert (model.training, model.norm1.training, model.norm2.training) == (True, False, True)
    assert not model.norm1._forward_hooks
    assert torch.equal(torch.get_rng_state(), generator)


def test_a_checkpoint_measured_and_drawn(make_checkpoint, tmp_path):
    file = make_checkpoint(batch_norm=True)
    means = measure_batch_norm(file, images=40)
    assert [(m.images, m.mode, m.layer) for m in means] == [
        (images, mode, layer)
        for images in ("training", "validation")
        for mode in ("train", "eval")
        for layer in ("norm1", "norm2")
    ]
    assert [len(m.output) for m in means[:2]] == [8, 16]
    assert json.loads(json.dumps([asdict(m) for m in means]))[0]["layer"] == "norm1"
    picture = draw_channel_means(means, tmp_path / "means.png")
    assert picture.read_bytes().startswith(b"\x89PNG")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["best.pt", "means.png"]


def test_a_checkpoint_without_batch_norm_is_the_users_mistake(make_checkpoint):
    with pytest.raises(UserError, match=r"best\.pt: its model has no batch normalisation"):
        measure_batch_norm(make_checkpoint())
