import math

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from cifar_tuning.data import CIFAR10, EvalBatches
from cifar_tuning.models import ACTIVATIONS, ResNet, SimpleNN
from cifar_tuning.models.facts import count_macs, count_parameters
from cifar_tuning.models.layers import every_nth_pixel, mean_of_pixels


def weights(model: nn.Module) -> list[int]:
    return [m.weight.numel() for m in model.modules() if isinstance(m, nn.Conv2d | nn.Linear)]


def test_simplenn_is_table_1():
    model = SimpleNN()
    assert weights(model) == [600, 1152, 69120, 10080, 840]
    shapes = []
    for module in (model.conv1, model.conv2, model.fc1, model.fc2, model.fc3):
        module.register_forward_hook(lambda _m, _i, output: shapes.append(tuple(output.shape[1:])))
    assert model(torch.zeros(5, 3, 32, 32)).shape == (5, 10)
    assert shapes == [(8, 28, 28), (16, 12, 12), (120,), (84,), (10,)]


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("options", [{}, {"batch_norm": True}, {"activation": "swish"}, {"separable": True}])
def test_simplenn_begins_at_ln_10(options, seed):
    torch.manual_seed(seed)
    model = SimpleNN(**options)
    images, labels = torch.randn(512, 3, 32, 32), torch.randint(0, 10, (512,))
    assert abs(F.cross_entropy(model(images), labels).item() - math.log(10)) < 0.05


@pytest.mark.parametrize("activation", ["relu", "leaky_relu", "elu", "tanh"])
def test_pooling_first_changes_nothing(activation):
    """The shortcut for monotone activations gives the values and gradients of the order in Table 1."""
    torch.manual_seed(0)
    model = SimpleNN(activation=activation, batch_norm=True).double()
    images = torch.randn(16, 3, 32, 32, dtype=torch.double)
    outcomes = []
    for pool_first in (True, False):
        model._pool_first = pool_first
        model.zero_grad()
        output = model(images)
        output.square().sum().backward()
        outcomes.append([output.detach(), *(p.grad.clone() for p in model.parameters())])
    for shortcut, plain in zip(*outcomes, strict=True):
        torch.testing.assert_close(shortcut, plain, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize(
    ("depth", "shortcut", "expected"),
    [(20, "A", 269_722), (20, "none", 269_722), (20, "B", 272_474), (32, "A", 464_154), (56, "A", 853_018)],
)
def test_resnet_has_the_published_number_of_parameters(depth, shortcut, expected):
    model = ResNet(depth=depth, shortcut=shortcut)
    assert count_parameters(model) == expected
    layers = [m for m in model.modules() if isinstance(m, nn.Conv2d | nn.Linear) and m.weight.shape[-1] != 1]
    assert len(layers) == depth
    assert model(torch.zeros(2, 3, 32, 32)).shape == (2, 10)


def initial_loss(seed: int, shortcut: str, images: torch.Tensor, labels: torch.Tensor) -> float:
    torch.manual_seed(seed)
    with torch.no_grad():
        return F.cross_entropy(ResNet(shortcut=shortcut)(images), labels).item()


@pytest.mark.parametrize("shortcut", ["A", "B", "none"])
def test_resnet_begins_below_2_8(shortcut):
    labels = torch.arange(64) % 10
    for seed in range(3):
        torch.manual_seed(100 + seed)
        assert initial_loss(seed, shortcut, torch.randn(64, 3, 32, 32), labels) < 2.8


@pytest.mark.slow
@pytest.mark.parametrize("shortcut", ["A", "B", "none"])
def test_resnet_begins_below_2_8_on_real_images(cifar10, shortcut):
    data = CIFAR10(root=str(cifar10))
    val = data.load().val
    images, labels = next(iter(EvalBatches(val.images, val.labels, batch_size=256, mean=data.mean, std=data.std)))
    for seed in range(4):
        assert initial_loss(seed, shortcut, images, labels) < 2.8


def test_shortcut_a_keeps_every_second_pixel_and_pads_with_zeros():
    block = ResNet().blocks[3]
    x = torch.randn(2, 16, 32, 32)
    y = block.shortcut(x)
    assert y.shape == (2, 32, 16, 16)
    assert torch.equal(y[:, 8:24], x[:, :, ::2, ::2])
    assert not y[:, :8].any()
    assert not y[:, 24:].any()


def test_plain_network_ignores_its_input_around_blocks():
    assert all(block.shortcut is None for block in ResNet(shortcut="none").blocks)


@pytest.mark.parametrize("model", [SimpleNN, ResNet])
def test_separable_replaces_every_3x3_convolution(model):
    full = [m for m in model().modules() if isinstance(m, nn.Conv2d) and m.kernel_size == (3, 3)]
    separable = model(separable=True)
    left = [m for m in separable.modules() if isinstance(m, nn.Conv2d) and m.kernel_size == (3, 3)]
    assert len(left) == len(full)
    assert all(m.groups == m.in_channels == m.out_channels for m in left)
    assert count_parameters(separable) < count_parameters(model())


@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("model", [SimpleNN, ResNet])
def test_activation_is_used_for_every_non_linearity(model, activation):
    built = model(activation=activation)
    kinds = {type(m) for m in built.modules() if type(m) in {type(make()) for make in ACTIVATIONS.values()}}
    assert kinds == {type(ACTIVATIONS[activation]())}


def test_dropout_acts_before_each_fully_connected_layer_in_training_only():
    model = SimpleNN(dropout=0.5)
    seen = []
    model.dropout.register_forward_hook(lambda _m, given, _o: seen.append(given[0].shape[1]))
    images = torch.randn(4, 3, 32, 32)
    assert not torch.equal(model(images), model(images))
    assert seen == [576, 120, 84] * 2
    model.eval()
    assert torch.equal(model(images), model(images))


@pytest.mark.parametrize(
    ("model", "options", "named"),
    [
        (SimpleNN, {"activation": "foo"}, "model.activation=foo"),
        (SimpleNN, {"dropout": 1.5}, "model.dropout=1.5"),
        (SimpleNN, {"dropout": float("nan")}, "model.dropout=nan"),
        (SimpleNN, {"batch_norm": "yes"}, "model.batch_norm=yes"),
        (SimpleNN, {"batch_norm_momentum": 0}, "model.batch_norm_momentum=0"),
        (ResNet, {"depth": 21}, "model.depth=21"),
        (ResNet, {"depth": 2}, "model.depth=2"),
        (ResNet, {"shortcut": "C"}, "model.shortcut=C"),
        (ResNet, {"num_classes": 0}, "model.num_classes=0"),
    ],
)
def test_bad_options_are_named(model, options, named):
    with pytest.raises(ValueError, match=named):
        model(**options)


def test_macs_of_simplenn_by_hand():
    by_hand = 600 * 28 * 28 + 1152 * 12 * 12 + 69120 + 10080 + 840
    model = SimpleNN()
    model.fc1.eval()  # as one that is frozen
    assert count_macs(model, (3, 32, 32)) == by_hand
    assert [name for name, module in model.named_modules() if not module.training] == ["fc1"]


def test_macs_of_attention():
    n, width = 16, 8
    model = nn.Sequential(nn.Flatten(2), nn.TransformerEncoderLayer(width, 2, 12, batch_first=True))
    projections, products, behind = 4 * n * width**2, 2 * n**2 * width, 2 * n * width * 12
    assert count_macs(model, (n, 2, 4)) == projections + products + behind
    assert torch.backends.mha.get_fastpath_enabled()


@pytest.mark.parametrize("layout", [torch.channels_last, torch.contiguous_format])
@pytest.mark.parametrize(
    ("part", "plain"),
    [(lambda x: every_nth_pixel(x, 2), lambda x: x[:, :, ::2, ::2]), (mean_of_pixels, lambda x: x.mean((2, 3)))],
)
def test_a_gradient_keeps_the_layout(layout, part, plain):
    x = torch.randn(4, 6, 8, 8).contiguous(memory_format=layout).requires_grad_()
    seen = []
    inner = x * 1  # a leaf's gradient is laid out like the leaf, whatever comes
    inner.register_hook(seen.append)
    part(inner).square().sum().backward()
    expected = plain(x)
    assert torch.equal(part(x), expected)
    assert torch.equal(seen[0], torch.autograd.grad(expected.square().sum(), x)[0])
    assert seen[0].is_contiguous(memory_format=layout)
