"""torchvision's classifiers: other classes, weights from files and from its own site, small images, frozen layers."""

import logging
import shutil
import socket
import threading
import time
from pathlib import Path
from urllib.error import URLError

import pytest
import torch
from torch import nn

from cifar_tuning.jobs.checks import problems_with
from cifar_tuning.models import initial_weights, torchvision_model
from cifar_tuning.models.facts import count_parameters
from cifar_tuning.models.initial_weights import FrozenBatchNorm2d, last_layer
from cifar_tuning.torchvision_compat import torchvision

SMALL = "shufflenet_v2_x0_5"


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """A small network of seven classes, in a file."""
    file = tmp_path_factory.mktemp("weights") / "seven.pt"
    torch.save(torchvision_model(SMALL, num_classes=7).state_dict(), file)
    return file


@pytest.fixture
def cache(tmp_path, monkeypatch):
    """PyTorch's cache, in a folder of the test's own; without a network."""
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))

    def unreachable(*_args, **_options):
        raise URLError("no network")

    monkeypatch.setattr(torch.hub, "download_url_to_file", unreachable)
    folder = tmp_path / "hub" / "checkpoints"
    folder.mkdir(parents=True)
    return folder


def name_of(name: str) -> str:
    """What torchvision's best weights of a network are called as a file."""
    return torchvision.models.get_model_weights(name).DEFAULT.url.rpartition("/")[2]


def differing(one: nn.Module, other: nn.Module | Path) -> set[str]:
    """What of a network's state is not that of another one, or of one in a file."""
    theirs = torch.load(other, weights_only=True) if isinstance(other, Path) else other.state_dict()
    return {key for key, value in one.state_dict().items() if not torch.equal(value, theirs[key])}


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({}, None),
        ({"name": "mobilenet_v3_small", "weights": "DEFAULT", "freeze": True}, None),
        ({"name": "resnext50_32x4d", "small_images": True, "weights": "mine.pt"}, None),
        ({"name": "vit_b_16", "weights": "IMAGENET1K_SWAG_LINEAR_V1"}, None),
        ({"name": "ResNet-18"}, "name=ResNet-18: is no classifier of torchvision's; did you mean resnet18"),
        ({"name": "fcos_resnet50_fpn"}, "is no classifier of torchvision's"),
        ({"name": "yolo"}, "name=yolo: is no classifier of torchvision's; it has alexnet, convnext_base"),
        ({"name": 18}, "name=18: is no classifier"),
        ({"weights": "IMAGENET1K_V9"}, "weights=IMAGENET1K_V9: must be null, one of IMAGENET1K_V1, DEFAULT, or a file"),
        ({"weights": True}, "weights=True: must be null, one of"),
        ({"freeze": True}, "freeze=true: nothing has trained the layers"),
        ({"freeze": "head"}, "freeze=head: must be true or false"),
        ({"name": "vgg11", "small_images": True}, "small_images=true: is for ResNets, ResNeXts and wide ResNets, not"),
        ({"weights": "DEFAULT", "small_images": True}, "the weights DEFAULT are of a network with another stem"),
        ({"num_classes": 0}, "num_classes=0: must be a whole number above 0"),
        ({"restored": True}, "restored=True: is set where a checkpoint brings"),
    ],
)
def test_what_can_be_said_before_anything_is_built(options, said):
    found = problems_with(torchvision_model, options)
    assert len(found) == (said is not None)
    if said is not None:
        assert said in found[0]
        if "restored" not in options:
            with pytest.raises(ValueError, match=r"model\."):
                torchvision_model(**options)


@pytest.mark.parametrize(
    ("name", "head"),
    [
        (SMALL, "fc"),
        ("mobilenet_v3_small", "classifier.3"),
        ("squeezenet1_1", "classifier.1"),  # a convolution
        ("mnasnet0_5", "classifier.1"),
        ("densenet121", "classifier"),
    ],
)
def test_the_last_layer_alone_is_new_for_other_classes(tmp_path, caplog, name, head):
    caplog.set_level(logging.INFO)
    torch.manual_seed(0)
    before = torchvision_model(name, num_classes=7)
    state = before.state_dict()
    if name == "densenet121":  # as its published weights have it
        for key in [key for key in state if "denselayer" in key]:
            state[key.replace("norm1", "norm.1").replace("conv2", "conv.2")] = state.pop(key)
    torch.save(state, tmp_path / "w.pt")
    assert last_layer(before) == head
    assert not differing(torchvision_model(name, str(tmp_path / "w.pt"), num_classes=7), before)
    assert f"the last layer's, {head}, among them" in caplog.text
    fresh = torchvision_model(name, str(tmp_path / "w.pt"), num_classes=10)
    assert fresh.eval()(torch.zeros(1, 3, 32, 32)).shape == (1, 10)
    assert f"but for the last layer, {head}, which is new (7 outputs there, 10 here)" in caplog.text
    assert differing(fresh, before) == {f"{head}.weight", f"{head}.bias"}


@pytest.mark.parametrize(
    "form",
    [
        lambda state: state,
        lambda state: {"state_dict": state, "epoch": 3},
        lambda state: {"model": state, "optimizer": {}},
        lambda state: {f"module.{key}": value for key, value in state.items()},
    ],
)
def test_a_file_of_weights_has_several_forms(saved, tmp_path, monkeypatch, form):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "run").mkdir()
    torch.save(form(torch.load(saved, weights_only=True)), tmp_path / "run" / "best.pt")
    for path in ("run", tmp_path / "run" / "best.pt"):
        assert not differing(torchvision_model(SMALL, str(path), num_classes=7), saved)


def test_weights_may_come_without_a_last_layer(saved, tmp_path, caplog):
    caplog.set_level(logging.INFO)
    state = {key: value for key, value in torch.load(saved, weights_only=True).items() if not key.startswith("fc.")}
    torch.save(state, tmp_path / "w.pt")
    found = torchvision_model(SMALL, str(tmp_path / "w.pt"), num_classes=7).state_dict()
    assert all(torch.equal(found[key], value) for key, value in state.items())
    assert "but for the last layer, fc, which is new (none there, 7 here)" in caplog.text


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (None, "there is no file"),
        (b"something else", "can't be read"),
        (Path("x"), "can't be read"),  # an object, which would have to be unpickled
        ({"epoch": 3}, "holds no state_dict, but a dict of other things"),
        (torch.zeros(3), "holds no state_dict, but a Tensor of other things"),
        ({"fc.weight": torch.zeros(3, 3)}, r"are another network's: Missing key\(s\) in state_dict: .* …"),
    ],
)
def test_a_file_without_the_networks_weights(tmp_path, content, said):
    file = tmp_path / "w.pt"
    if isinstance(content, bytes):
        file.write_bytes(content)
    elif content is not None:
        torch.save(content, file)
    with pytest.raises(ValueError, match=said) as error:
        torchvision_model(SMALL, str(file))
    assert len(str(error.value)) < 800


def test_small_images_have_a_stem_of_their_own(tmp_path):
    model = torchvision_model("resnet18", small_images=True, num_classes=10)
    assert count_parameters(model) == 11_173_962
    assert abs(model.conv1.weight.std().item() - (2 / (64 * 9)) ** 0.5) < 0.005
    seen = []
    model.layer1.register_forward_hook(lambda _m, given, _o: seen.append(given[0].shape))
    model.eval()(torch.zeros(1, 3, 32, 32))
    assert seen == [(1, 64, 32, 32)]
    torch.save(model.state_dict(), tmp_path / "w.pt")
    assert not differing(torchvision_model("resnet18", str(tmp_path / "w.pt"), True, num_classes=10), model)
    with pytest.raises(ValueError, match=r"has one of the two model\.small_images=true"):
        torchvision_model("resnet18", str(tmp_path / "w.pt"))
    torch.save({"conv1.weight": torch.zeros(8, 3, 5, 5)}, tmp_path / "w.pt")  # SimpleNN's
    with pytest.raises(ValueError, match="another network's") as other:
        torchvision_model("resnet18", str(tmp_path / "w.pt"))
    assert "has one of the two" not in str(other.value)


def test_of_a_frozen_network_only_the_last_layer_changes(saved):
    model = torchvision_model(SMALL, str(saved), freeze=True, num_classes=10)
    before = torchvision_model(SMALL, str(saved), num_classes=10)
    before.load_state_dict(model.state_dict())
    assert count_parameters(model) == 1024 * 10 + 10
    optimizer = torch.optim.SGD([one for one in model.parameters() if one.requires_grad], lr=0.1, weight_decay=0.1)
    for _ in range(2):
        loss = model.train()(torch.randn(8, 3, 32, 32)).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert differing(model, before) == {"fc.weight", "fc.bias"}
    assert {type(one) for one in model.modules() if isinstance(one, nn.BatchNorm2d)} == {FrozenBatchNorm2d}


def test_published_weights_come_from_pytorchs_cache(saved, cache, caplog, monkeypatch):
    caplog.set_level(logging.INFO)
    monkeypatch.setattr(initial_weights, "locked", None)  # others may share it, who may not write there
    shutil.copy(saved, cache / name_of(SMALL))
    assert not differing(torchvision_model(SMALL, "DEFAULT", num_classes=7), saved)
    assert "ShuffleNet_V2_X0_5_Weights.IMAGENET1K_V1" in caplog.text


@pytest.mark.parametrize("home", ["", "file"])
def test_without_a_network_or_a_cache_it_says_where_the_file_belongs(cache, tmp_path, monkeypatch, home):
    (tmp_path / "file").touch()
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / home))
    said = r"x0.5-.*can't be downloaded \(.*bring that file to .*name one with model.weights=FILE"
    with pytest.raises(ConnectionError, match=said):
        torchvision_model(SMALL, "DEFAULT")


def test_of_two_that_want_the_same_weights_one_downloads(saved, cache, monkeypatch, caplog):
    cache.rmdir()
    fetched = []

    def slowly(_url, file, *_args, **_options):
        fetched.append(socket.getdefaulttimeout())
        time.sleep(0.3)
        shutil.copy(saved, file)

    monkeypatch.setattr(torch.hub, "download_url_to_file", slowly)
    models: list[nn.Module] = []
    jobs = [threading.Thread(target=lambda: models.append(torchvision_model(SMALL, "DEFAULT"))) for _ in range(2)]
    for job in jobs:
        job.start()
    for job in jobs:
        job.join()
    assert len(models) == 2
    assert fetched == [initial_weights.TIMEOUT]
    assert "Another process is downloading" in caplog.text


def test_the_architecture_of_published_weights_needs_no_weights(cache, monkeypatch):
    """What torchvision's builders add to it with weights is there without them, for a checkpoint's."""
    model = torchvision_model("googlenet", "DEFAULT", num_classes=10, restored=True)
    assert model.transform_input
    assert model.aux1 is None
    state = torchvision.models.googlenet(init_weights=False, aux_logits=True).state_dict()
    torch.save(state, cache / name_of("googlenet"))
    loaded = torchvision_model("googlenet", "DEFAULT", num_classes=10).state_dict()
    assert loaded.keys() == model.state_dict().keys()
    assert torch.equal(loaded["inception5b.branch4.1.conv.weight"], state["inception5b.branch4.1.conv.weight"])
    given = {}
    monkeypatch.setattr(torchvision.models, "get_model", lambda _name, **options: given.update(options) or nn.Module())
    torchvision_model("vit_b_16", "IMAGENET1K_SWAG_E2E_V1", num_classes=10, restored=True)
    assert given["image_size"] == 384  # whose positions the weights have
