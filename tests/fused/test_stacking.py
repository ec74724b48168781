"""What can be stacked and what can't."""

import copy

import numpy as np
import pytest
import torch
from torch import nn

from cifar_tuning.fused import check
from cifar_tuning.fused.check import check_stackable
from cifar_tuning.fused.layers import TWINS, Twin
from cifar_tuning.fused.model import stack_models, structure_of
from cifar_tuning.fused.twin import NotStackableError
from cifar_tuning.models import ResNet, SimpleNN, Swish
from cifar_tuning.models.initial_weights import freeze
from tests.fused import odd


class Branches(nn.Module):
    """A user's model with code of its own between common layers."""

    def __init__(self, how: str = "sum", scale: float = 1.0) -> None:
        super().__init__()
        self.how, self.scale = how, scale
        self.stem = nn.Sequential(nn.Conv2d(3, 4, 3, stride=4, groups=1), nn.BatchNorm2d(4), nn.SiLU())
        self.left, self.right = nn.Conv2d(4, 4, 1), nn.Conv2d(4, 4, 3, padding=1, groups=4)
        self.pool, self.head = nn.AdaptiveAvgPool2d(2), nn.Linear(32 if how == "cat" else 16, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.stem(x) * self.scale
        both = [self.left(x), self.right(x)]
        x = torch.cat(both, 1) if self.how == "cat" else both[0] + both[1]
        return self.head(self.pool(x).flatten(1))


class Learnable(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(1))
        self.fc = nn.Linear(3072, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.fc(x.flatten(1)) * self.scale


def classifier(*layers: nn.Module) -> nn.Module:
    return nn.Sequential(*layers, nn.Flatten(), nn.LazyLinear(10))


class Drawing(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(3072, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.fc(nn.functional.dropout(x.flatten(1), 0.2, self.training))


class OnlyInTraining(Drawing):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.fc(x.flatten(1))
        return y + 0.3 * y.softmax(1) if self.training else y


class Single(Drawing):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.fc(x.float().flatten(1))


def tied() -> nn.Module:
    one, other = nn.Linear(3072, 3072), nn.Linear(3072, 3072)
    other.weight = one.weight
    return nn.Sequential(nn.Flatten(), one, other)


def hooked() -> nn.Module:
    layer = nn.Linear(3072, 10)
    layer.register_forward_hook(lambda *a: None)
    return nn.Sequential(nn.Flatten(), layer)


def frozen() -> nn.Module:
    model = Branches()
    freeze(model)
    return model


class Flat(nn.Module):
    """A user's layer without weights."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.flatten(x, 1)


class Scaled(nn.Module):
    """Scales all features by the largest, as a quantisation may; bounded ones often have the same largest."""

    def __init__(self, kind: type[nn.Module]) -> None:
        super().__init__()
        self.conv, self.act, self.fc = nn.Conv2d(3, 8, 3, stride=3), kind(), nn.Linear(800, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.act(self.conv(x))
        return self.fc((x / x.abs().max()).flatten(1))


IMAGES = torch.rand(8, 3, 32, 32)


@pytest.mark.parametrize(
    "model",
    [
        SimpleNN(),
        SimpleNN(batch_norm=True, dropout=0.5, separable=True, activation="swish"),
        ResNet(depth=8, shortcut="A"),
        *(pytest.param(ResNet(depth=8, shortcut=one), marks=pytest.mark.slow) for one in ("B", "none")),
        Branches(),
        nn.Sequential(nn.Flatten(), nn.Linear(3072, 8), nn.Tanh(), nn.Linear(8, 10)),
        nn.Sequential(nn.Conv2d(3, 6, 3, groups=3), nn.Dropout(0.3), nn.AvgPool2d(30), nn.Flatten(), nn.Linear(6, 10)),
        nn.Sequential(nn.ZeroPad2d(1), nn.Conv2d(3, 4, 34), nn.SELU(), nn.Sequential(), Flat(), nn.Linear(4, 10)),
        nn.Sequential(
            *(nn.Conv2d(3, 4, 5), nn.BatchNorm2d(4, affine=False), nn.Dropout(0.3), nn.AdaptiveAvgPool2d(4)),
            *(nn.Flatten(), nn.Dropout(0.2), nn.Linear(64, 10)),
        ),
        odd.Net(),
        odd.DroppedInPlace(),
        odd.Auxiliary(in_training=True),
        odd.Auxiliary(in_training=False, trained=False),
        odd.DroppedElsewhere(0.0),
        odd.Keeping(),
        frozen(),
    ],
    ids=lambda model: type(model).__name__,
)
def test_models_of_known_layers_need_no_code(model):
    before = {name: value.clone() for name, value in model.state_dict().items()}
    check_stackable(model, IMAGES)
    for name, value in model.state_dict().items():
        assert torch.equal(value, before[name])


@pytest.mark.slow
@pytest.mark.parametrize(
    ("model", "message"),
    [
        (nn.Sequential(nn.LayerNorm(32), nn.Flatten(), nn.Linear(3072, 10)), "layer 0 (LayerNorm) has no stacked twin"),
        (nn.Sequential(nn.Flatten(), nn.Linear(3072, 10), nn.Softmax(1)), "layer 2 (Softmax) has no stacked twin"),
        (nn.Sequential(Swish(learnable=True), nn.Flatten(), nn.Linear(3072, 10)), "layer 0 (Swish)"),
        (Branches("cat"), "Branches computes something else over stacked features"),
        *((Scaled(kind), "Scaled computes something else") for kind in (nn.ReLU6, nn.Tanh, nn.Hardsigmoid)),
        (Learnable(), "Learnable has parameters of its own: scale"),
        (nn.Sequential(nn.Conv2d(3, 4, 3, padding_mode="reflect"), nn.Flatten()), "padding_mode=reflect"),
        (Drawing(), "Drawing draws random numbers outside of nn.Dropout"),
        (Single(), "Single does not run over stacked features"),
        (OnlyInTraining(), "OnlyInTraining computes something else over stacked features"),
        (tied(), "layers that share a parameter"),
        (hooked(), "has hooks"),
        (nn.Sequential(nn.BatchNorm2d(3, momentum=None), nn.Flatten()), "momentum=None"),
        (
            nn.Sequential(nn.Dropout(0.2), nn.Conv2d(3, 4, 3), nn.Dropout(0.2), nn.Flatten(), nn.Linear(3600, 10)),
            "a Dropout before the first layer with weights",
        ),
        (  # whose 3072 features can be divided by the number of models
            nn.Sequential(nn.Flatten(), nn.Dropout(0.2), nn.Linear(3072, 10)),
            "a Dropout before the first layer with weights",
        ),
        (  # as a model of rate 0 may have in a dropout's place
            nn.Sequential(nn.Flatten(), nn.Identity(), nn.Linear(3072, 10)),
            "an Identity before the first layer with weights",
        ),
        (odd.FrozenNorm(), "FrozenNorm computes something else"),
        (odd.ListedLayers(), "ListedLayers has layers in frozen, which is no nn.ModuleList"),
        (odd.ClippedByHook(), "has hooks"),
        (odd.NormedGradient(), "NormedGradient computes something else"),
        (odd.MixedWithGradient(), "MixedWithGradient computes something else"),
        (odd.MixedInBatches(), "MixedInBatches computes something else"),
        (odd.NoisyWithGradient(), "NoisyWithGradient draws random numbers"),
        (odd.NoisyByPython(), "NoisyByPython draws random numbers"),
        (odd.RenormedWeights(), "RenormedWeights computes something else"),
        (odd.Counting(), "Counting changes its steps in training"),
        (odd.Auxiliary(in_training=False), "does not use its auxiliary.weight, auxiliary.bias in training"),
        (odd.DroppedElsewhere(0.5), "DroppedElsewhere draws random numbers"),
    ],
    ids=lambda value: type(value).__name__,
)
def test_others_are_refused_by_name(model, message):
    with pytest.raises(NotStackableError) as refusal:
        check_stackable(model, IMAGES)
    assert message in str(refusal.value)
    assert len(str(refusal.value)) < 200


@pytest.mark.parametrize(
    "models",
    [
        [SimpleNN(), SimpleNN(activation="tanh")],
        [SimpleNN(), SimpleNN(batch_norm=True)],
        [Branches(scale=1.0), Branches(scale=2.0)],
        [ResNet(depth=8), ResNet(depth=14)],
        [ResNet(depth=8, shortcut="A"), ResNet(depth=8, shortcut="none")],
        [nn.Sequential(nn.Flatten()), nn.Sequential(nn.Flatten(), nn.Dropout(0.5))],
        [nn.Sequential(nn.BatchNorm2d(3, eps=1e-3)), nn.Sequential(nn.BatchNorm2d(3))],
        [odd.Masked(), odd.Masked()],
        [odd.Keeping(1), odd.Keeping(2)],
        [nn.Sequential(nn.Flatten(), nn.Linear(3072, 10).requires_grad_(trained)) for trained in (True, False)],
    ],
)
def test_models_that_differ_are_refused(models):
    with pytest.raises(NotStackableError):
        stack_models(models)
    assert structure_of(models[0]) != structure_of(models[1])


class Acting(nn.Module):
    """Keeps a function as an attribute."""

    def __init__(self, slope: float = 0.1) -> None:
        super().__init__()
        self.fc, self.act = nn.Linear(3072, 10), lambda x: x.maximum(slope * x)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.act(self.fc(x.flatten(1)))


@pytest.mark.parametrize(
    "value",
    [
        np.array(["cat", "dog"]),
        np.array([None, "dog"]),
        torch.eye(3).to_sparse(),
        torch.eye(3, dtype=torch.bfloat16),
        torch.tensor(True),
        torch.empty(3, device="meta"),
        {"a": [torch.eye(2), {1, 2}]},
    ],
    ids=str,
)
def test_models_may_keep_anything(value):
    models = [odd.Keeping(value), odd.Keeping(copy.deepcopy(value))]
    stack_models(models)
    assert structure_of(models[0]) == structure_of(models[1])


def test_a_model_too_large_to_try_is_refused(monkeypatch):
    monkeypatch.setattr(check, "free_memory", lambda: 10**6)
    with pytest.raises(NotStackableError, match="would take 0 GB of memory"):
        check_stackable(SimpleNN(), IMAGES)


def test_functions_are_alike_by_what_they_do():
    stack_models([Acting(), Acting()])
    with pytest.raises(NotStackableError):
        stack_models([Acting(), Acting(0.2)])


def test_alike_but_for_a_rate():
    assert structure_of(SimpleNN(dropout=0.2)) == structure_of(SimpleNN()) == structure_of(SimpleNN(dropout=0.5))


class Scale(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.factor = nn.Parameter(torch.rand(channels))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x * self.factor.view(1, -1, 1, 1)


def test_a_twin_of_the_users_own(monkeypatch):
    """As docs/fused.md has it."""

    class StackedScale(Twin):
        shared_state = ("factor",)

        def forward(self, x):
            x = self.side_by_side(x, len(self.factor) // self.count)
            return x * self.factor.view(1, -1, 1, 1)

    model = nn.Sequential(Scale(3), nn.Conv2d(3, 4, 3), Scale(4), nn.Flatten(), nn.Linear(4 * 30 * 30, 10))
    with pytest.raises(NotStackableError, match=r"layer 0 \(Scale\) has no stacked twin"):
        check_stackable(model, IMAGES)
    monkeypatch.setitem(TWINS, Scale, StackedScale)
    check_stackable(model, IMAGES)


def test_a_change_of_a_model_is_one_of_the_stack_and_back():
    models = [SimpleNN(batch_norm=True) for _ in range(3)]
    stacked = stack_models(models)
    with torch.no_grad():
        models[1].fc2.weight.fill_(0.5)
        models[2].norm1.running_mean.fill_(2.0)
    assert (stacked.fc2.weight[84:168] == 0.5).all()
    assert (stacked.fc2.weight[:84] != 0.5).all()
    stacked.eval()
    outputs = stacked(IMAGES).view(len(IMAGES), 3, 10)
    for index, model in enumerate(models):
        torch.testing.assert_close(outputs[:, index], model.eval()(IMAGES), rtol=1e-4, atol=1e-5)
