import copy
import logging
import sys
import types

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from cifar_tuning import kernels
from cifar_tuning.fused.layers import StackedBatchNorm2d
from cifar_tuning.fused.model import stack_models
from cifar_tuning.models.activations import Swish
from cifar_tuning.models.convolution import convolved
from cifar_tuning.models.norm_act_pool import activated, activated_and_pooled
from cifar_tuning.models.normalization import BatchNorm2d
from cifar_tuning.models.resnet import ResNet
from cifar_tuning.models.simplenn import SimpleNN

LAST = torch.channels_last


def test_without_a_gpu_pytorch_computes(monkeypatch, caplog):
    images = torch.randn(2, 3, 8, 8).to(memory_format=LAST)
    with torch.autocast("cpu", torch.bfloat16):
        assert not kernels.usable(images)
        y = convolved(images, torch.randn(8, 3, 3, 3), None, 1, (1, 1), (0, 0), (1, 1))
    assert y.dtype == torch.bfloat16
    with caplog.at_level(logging.INFO):
        assert not kernels._work.__wrapped__(99)  # no Triton, or no such GPU
    assert "Goes on with PyTorch's kernels" in caplog.text
    assert not kernels.left_to_pytorch()
    monkeypatch.setenv(kernels.SWITCH, "0")
    assert kernels.left_to_pytorch()


class Other(BatchNorm2d):
    def forward(self, x):
        return super().forward(x) * 2


class TakesIn(BatchNorm2d):
    def take_in(self, mean, var):
        self.taken = mean, var


def replaced(module):
    module.forward = type(module).forward.__get__(module)
    return module


def hooked(module):
    module.register_forward_hook(lambda *_: None)
    return module


def evaluated(module):
    return module.eval()


def frozen_at(momentum):
    norm = BatchNorm2d(8)
    norm.momentum = momentum
    return norm


IMAGES = (2, 8, 6, 6)
# Norm, non-linearity, pooling, images: what is computed at once, by which kernel.
TOGETHER = {
    "all": (BatchNorm2d(8), nn.ReLU(), nn.MaxPool2d(2), IMAGES, "normalize"),
    "swish": (BatchNorm2d(8), Swish(), None, IMAGES, "normalize"),
    "no norm": (nn.Identity(), nn.ReLU(), nn.MaxPool2d(2), IMAGES, "pool"),
    "stacked": (
        StackedBatchNorm2d([BatchNorm2d(4, momentum=m) for m in (0.1, 0.3)]),
        nn.ReLU(),
        None,
        IMAGES,
        "normalize",
    ),
    "a learnt swish": (BatchNorm2d(8), Swish(learnable=True), None, IMAGES, "normalize"),  # by itself
    "tanh": (BatchNorm2d(8), nn.Tanh(), None, IMAGES, "normalize"),
    "pooled by three": (BatchNorm2d(8), nn.ReLU(), nn.MaxPool2d(3), IMAGES, "normalize"),
    "odd": (BatchNorm2d(8), nn.ReLU(), nn.MaxPool2d(2), (2, 8, 5, 6), "normalize"),
    "average": (BatchNorm2d(8), nn.ReLU(), nn.AvgPool2d(2), IMAGES, "normalize"),
    "no norm, no pooling": (nn.Identity(), nn.ReLU(), None, IMAGES, None),
    "pytorch's norm": (nn.BatchNorm2d(8), nn.ReLU(), None, IMAGES, None),
    "a subclass": (Other(8), nn.ReLU(), None, IMAGES, "normalize"),  # what it inherits, by itself
    "another take_in": (TakesIn(8), nn.ReLU(), None, IMAGES, None),
    "hooked": (hooked(BatchNorm2d(8)), nn.ReLU(), None, IMAGES, "normalize"),  # by itself
    "a replaced rectifier": (BatchNorm2d(8), replaced(nn.ReLU()), None, IMAGES, "normalize"),
    "evaluation": (evaluated(BatchNorm2d(8)), nn.ReLU(), nn.MaxPool2d(2), IMAGES, None),
    "mean of all": (frozen_at(None), nn.ReLU(), None, IMAGES, None),
    "double": (BatchNorm2d(8).double(), nn.ReLU(), None, IMAGES, None),
    "other channels": (BatchNorm2d(8), nn.ReLU(), None, (2, 4, 6, 6), None),
}
ALONE = {"a learnt swish", "tanh", "pooled by three", "odd", "average", "a subclass", "hooked", "a replaced rectifier"}


@pytest.mark.parametrize("case", TOGETHER)
def test_only_what_a_kernel_stands_for_is_left_to_it(case, monkeypatch):
    """Where a kernel would be called, on a machine without a GPU; each of them is a stand-in that only says so."""
    norm, activation, pool, shape, kernel = TOGETHER[case]
    called = []

    class CalledError(Exception):
        pass

    def stand_in(name):
        def call(x, *given, **options):
            called.append((name, given, options))
            raise CalledError

        return call

    module = types.ModuleType("cifar_tuning.kernels.normalization")
    module.normalize, module.pool = stand_in("normalize"), stand_in("pool")
    monkeypatch.setitem(sys.modules, module.__name__, module)
    monkeypatch.setattr(kernels, "usable", lambda x: True)
    x = torch.randn(shape).to(torch.bfloat16).to(memory_format=LAST)
    try:
        if pool is None:
            activated(norm, activation, x)
        else:
            activated_and_pooled(norm, activation, pool, x)
    except CalledError:
        pass
    except RuntimeError as error:  # PyTorch's own refusal
        assert case in ("other channels", "double"), error  # noqa: PT017
    assert [name for name, *_ in called] == ([] if kernel is None else [kernel])
    if kernel == "normalize":
        assert called[0][1][5:] == (
            (kernels.NONE, False) if case in ALONE else (KINDS[type(activation)], pool is not None)
        )


KINDS = {nn.ReLU: kernels.RELU, Swish: kernels.SILU}


def of_both(make, *tensors, seed=0):
    """Returns what comes out and the gradients, ours in bf16 and PyTorch's in fp32, of the same numbers."""
    results = []
    for ours in (True, False):
        given = [one.detach().clone().requires_grad_() for one in tensors]
        with torch.autocast("cuda", torch.bfloat16, enabled=ours):
            y = make(ours, *given)
        torch.manual_seed(seed)
        grad = torch.randn(y.shape, device="cuda").to(torch.bfloat16)
        results.append([y, *torch.autograd.grad(y, given, grad.to(y.dtype))])
    return list(zip(*results, strict=True))


def rounded(*shape):
    """Numbers that bf16 holds, on a GPU."""
    return torch.randn(*shape, device="cuda").to(torch.bfloat16).float()


def assert_near(pairs):
    for ours, theirs in pairs:
        assert (ours.float() - theirs.float()).norm() <= 0.01 * theirs.float().norm()


# Images, groups, channels in and out of one, pixels, kernel, stride, padding, bias.
SHAPES = {
    "simplenn, first": (128, 1, 3, 8, 32, 5, 1, 0, True),
    "32 simplenns, first": (128, 1, 3, 256, 32, 5, 1, 0, False),
    "32 simplenns, second": (128, 32, 8, 16, 14, 3, 1, 0, True),
    "resnet20, first": (128, 1, 3, 16, 32, 3, 1, 1, False),
    "8 resnet20s, stride 2": (128, 8, 16, 32, 32, 3, 2, 1, False),
    "3 resnet20s, later stride": (37, 3, 32, 64, 16, 3, 2, 1, False),
    "2 resnet20s, projection": (5, 2, 16, 32, 32, 1, 2, 0, False),
    "odd sizes": (3, 5, 8, 24, 7, 3, 2, 1, True),
    "images of two channels": (4, 1, 2, 10, 9, 3, 1, 1, True),
}


@pytest.mark.gpu
@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
def test_a_convolution_is_pytorchs(shape):
    images, groups, inputs, outputs, size, kernel, stride, padding, biased = shape
    x = rounded(images, groups * inputs, size, size).to(memory_format=LAST)
    weight = rounded(groups * outputs, inputs, kernel, kernel)
    bias = [torch.randn(groups * outputs, device="cuda")] if biased else []
    kinds = []

    def make(ours, x, weight, *bias):
        x = x.to(torch.bfloat16) if ours else x
        y = convolved(x, weight, *(bias or [None]), groups, (stride,) * 2, (padding,) * 2, (1, 1))
        kinds.append(y.grad_fn.name())
        return y

    pairs = of_both(make, x, weight, *bias)
    assert ["_ConvolutionBackward" in kind for kind in kinds] == [True, False]
    assert pairs[0][0].is_contiguous(memory_format=LAST)
    assert_near(pairs)


@pytest.mark.gpu
@pytest.mark.parametrize(
    "shape", [(128, 256, 28, 28), (128, 8, 28, 28), (9, 40, 6, 10), (128, 512, 8, 8), (1, 3, 2, 2)], ids=str
)
@pytest.mark.parametrize("activation", [nn.ReLU(), Swish(), None], ids=["relu", "swish", "none"])
@pytest.mark.parametrize("pooled", [False, True], ids=["whole", "pooled"])
def test_what_stands_behind_a_convolution_is_pytorchs(shape, activation, pooled):
    if pooled and activation is None:
        pytest.skip("is not computed at once")
    x = (2 * torch.randn(shape, device="cuda") + 3).to(torch.bfloat16).float().to(memory_format=LAST)
    norms = [BatchNorm2d(shape[1], momentum=0.3).cuda() for _ in range(2)]
    weight, bias = torch.randn(shape[1], device="cuda"), torch.randn(shape[1], device="cuda")
    kinds = []

    def make(ours, x, weight, bias):
        norm = norms[0 if ours else 1]
        del norm.weight, norm.bias
        norm.weight, norm.bias = weight, bias
        x = x.to(torch.bfloat16).to(memory_format=LAST) if ours else x
        if pooled:
            y = activated_and_pooled(norm, activation, nn.MaxPool2d(2), x)
        else:
            y = norm(x) if activation is None else activated(norm, activation, x)
        kinds.append(y.grad_fn.name())
        return y

    pairs = of_both(make, x, weight, bias)
    assert ["_NormalizedBackward" in kind for kind in kinds] == [True, False]
    assert_near(pairs)
    for name in ("running_mean", "running_var", "num_batches_tracked"):
        torch.testing.assert_close(*(getattr(norm, name) for norm in norms))


@pytest.mark.gpu
@pytest.mark.parametrize("activation", [nn.ReLU(), Swish()], ids=["relu", "swish"])
def test_pooling_without_a_normalization_is_pytorchs(activation):
    x = rounded(16, 24, 12, 8).to(memory_format=LAST)

    def make(ours, x):
        x = x.to(torch.bfloat16) if ours else x
        return activated_and_pooled(nn.Identity(), activation, nn.MaxPool2d(2), x)

    assert_near(of_both(make, x))


@pytest.mark.gpu
def test_what_is_no_number_stays_so():
    norm, x = BatchNorm2d(16).cuda(), torch.randn(4, 16, 8, 8, device="cuda", dtype=torch.bfloat16)
    x = x.to(memory_format=LAST)
    x[0, 3, 2, 2] = float("nan")
    with torch.autocast("cuda", torch.bfloat16):
        whole = activated(norm, nn.ReLU(), x)
        pooled = activated_and_pooled(nn.Identity(), nn.ReLU(), nn.MaxPool2d(2), x)
    assert whole[:, 3].isnan().all()
    assert not whole[:, 4].isnan().any()  # no other channel, which in a stack is another run's
    assert pooled.isnan().sum() == 1
    assert pooled[0, 3, 1, 1].isnan()


@pytest.mark.gpu
@pytest.mark.parametrize(
    "options",
    [
        {"batch_norm": True},
        {},
        {"batch_norm": True, "activation": "swish"},
        {"batch_norm": True, "activation": "tanh"},
        {"separable": True, "batch_norm": True},
        ResNet(8),
        ResNet(8, activation="swish", shortcut="B"),
    ],
    ids=str,
)
def test_models_alone_and_stacked_are_no_further_from_exact_than_by_pytorchs_kernels(options, monkeypatch):
    torch.manual_seed(1)
    first = options if isinstance(options, nn.Module) else SimpleNN(**options)
    images = torch.randn(32, 3, 32, 32, device="cuda").to(memory_format=LAST)
    labels = torch.randint(10, (32,), device="cuda")

    def gradients(count, bf16=True):
        models = [copy.deepcopy(first).cuda().to(memory_format=LAST) for _ in range(count)]
        model = models[0] if count == 1 else stack_models(models)
        model.train()
        with torch.autocast("cuda", torch.bfloat16, enabled=bf16):
            logits = model(images).float().view(32, count, 10)
        sum(F.cross_entropy(logits[:, k], labels) for k in range(count)).backward()
        return [torch.cat([p.grad.flatten() for p in one.parameters()]) for one in models]

    exact = gradients(1, bf16=False)[0]
    ours = gradients(1) + gradients(3)
    monkeypatch.setattr(kernels, "_work", lambda index: False)
    limit = 1.5 * max((one - exact).norm() for one in gradients(1) + gradients(3))
    assert 0 < limit < 0.25 * exact.norm()  # rounding to bf16 alone makes 5 to 10 % of a batch of 32
    for found in ours:
        assert (found - exact).norm() <= limit
