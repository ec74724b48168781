"""What can be stacked and what can't, how jobs are grouped, how large a stack gets."""

import copy
import json

import numpy as np
import pytest
import torch
from torch import nn

from cifar_tuning.fused import check, grouping, size
from cifar_tuning.fused.check import check_stackable
from cifar_tuning.fused.launch import next_job
from cifar_tuning.fused.layers import TWINS, Twin
from cifar_tuning.fused.model import stack_models, structure_of
from cifar_tuning.fused.twin import NotStackableError
from cifar_tuning.models import ResNet, SimpleNN, Swish
from cifar_tuning.training.measurement_cache import cache_file
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


def config(**options) -> dict:
    base = {"seed": 0, "model": {"_target_": "M", "dropout": 0.0}, "optimizer": {"_target_": "SGD", "lr": 0.1}}
    return (
        base | {"trainer": {"epochs": 3, "precision": "fp32", "device": "cpu"}, "data": {"batch_size": 128}} | options
    )


def test_jobs_are_grouped_by_what_must_agree():
    jobs = {
        4: config(),
        5: config(seed=1, optimizer={"_target_": "Adam", "betas": [0.9, 0.99]}),
        6: config(model={"_target_": "M", "dropout": 0.5}),
        7: config(model={"_target_": "M", "dropout": 0.0, "activation": "swish"}),
        8: config(trainer={"epochs": 9, "precision": "fp32", "device": "cpu", "label_smoothing": 0.1}),
        9: config(trainer={"epochs": 3, "precision": "fp32", "device": "cuda"}),
        10: config(data={"batch_size": 64}),
    }
    groups = grouping.group(jobs)
    assert [one.jobs for one in groups] == [[4, 5, 6, 8], [7], [9], [10]]
    assert grouping.differences(groups) == [
        {"data.batch_size": "128", "trainer.device": "'cpu'"},
        {"data.batch_size": "128", "model.activation": "'swish'", "trainer.device": "'cpu'"},
        {"data.batch_size": "128", "trainer.device": "'cuda'"},
        {"data.batch_size": "64", "trainer.device": "'cpu'"},
    ]


@pytest.mark.parametrize(
    ("jobs", "said"),
    [
        ([config(), config(seed=1)], ""),
        ([config(), config(data={"batch_size": 64})], "2 groups, because only models of one structure can be stacked"),
        ([{"x": 1.0}, {"x": 2.0}], "No job's configuration builds a model"),
        ([{"x": 1.0, "model": "mine"}], "No job's configuration builds a model"),
        ([], ""),
    ],
)
def test_the_log_says_why_jobs_are_not_one_stack(jobs, said, caplog):
    with caplog.at_level("INFO"):
        grouping.describe(grouping.group(dict(enumerate(jobs))))
    assert "".join(caplog.messages[:1]).startswith(said)
    assert bool(caplog.messages) == bool(said)


@pytest.mark.parametrize(
    ("jobs", "largest", "stacks"),
    [(8, 8, [8]), (10, 8, [5, 5]), (3, 8, [3]), (17, 8, [6, 5, 6]), (5, 1, [1] * 5), (1, 4, [1])],
)
def test_stacks_are_of_equal_size(jobs, largest, stacks):
    parts = size.split(list(range(jobs)), largest)
    assert [len(part) for part in parts] == stacks
    assert [job for part in parts for job in part] == list(range(jobs))


@pytest.mark.parametrize(
    ("jobs", "limit", "sizes"),
    [
        (6, 100, [1, 2, 3, 6]),
        (8, 8, [1, 2, 4, 8]),
        (8, 5, [1, 2, 4]),
        (1, 9, [1]),
        (200, 300, [1, 2, 4, 7, 13, 25, 50]),
    ],
)
def test_which_sizes_are_tried(jobs, limit, sizes):
    assert size.candidates(jobs, limit) == sizes


@pytest.mark.parametrize(
    ("rates", "jobs", "chosen"),
    [
        ({1: 100, 2: 150, 3: 190, 5: 400, 10: 210, 20: 300}, 20, 5),
        ({1: 100, 2: 150, 3: 220, 6: 200}, 6, 3),
        ({1: 100, 2: 150, 3: 220, 6: 212}, 6, 6),
        ({1: 100, 2: 150, 3: 220, 6: 280}, 6, 6),
        ({1: 100, 2: 104, 3: 85, 5: 88, 10: 300, 20: 300}, 20, 1),
        ({1: 100, 2: 80, 4: 300}, 4, 4),
        ({1: 100, 2: 80, 4: 70, 8: 300}, 8, 1),
        ({1: 100, 2: 112, 4: 107}, 4, 2),
    ],
    ids=["best", "few_jobs", "as_fast", "all", "hardly_faster", "one_is_slow", "slower", "only_the_smaller_pays"],
)
def test_the_size_is_measured_once(make_run, monkeypatch, tmp_path, rates, jobs, chosen):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    asked = []

    def rate(run, count, same_seed, shape):
        asked.append(count)
        return rates[count]

    monkeypatch.setattr(size, "_rate", rate)
    run = make_run(exact=False)
    assert size.choose(run, jobs, jobs, (16, 3, 32, 32)).size == chosen
    known = list(asked)
    assert size.choose(run, jobs, jobs, (16, 3, 32, 32)).size == chosen
    assert asked == known
    assert known[0] == 1
    (entry,) = json.loads(cache_file("stacks").read_text()).values()
    rounds = size.ROUNDS if chosen > 1 else size.SURE
    assert entry == {"rates": {str(count): rates[count] for count in known}, "rounds": rounds}
    assert len(known) == rounds * len(set(known))


def test_what_other_work_spoilt_is_measured_again(make_run, monkeypatch, tmp_path):
    """By the next command, where the first one took its time."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(size, "LONG", 0.0)
    rates = {1: 100, 2: 70, 4: 60, 8: 50}
    monkeypatch.setattr(size, "_rate", lambda run, count, same_seed, shape: rates[count])
    run = make_run(exact=False)
    assert size.choose(run, 8, 8, (16, 3, 32, 32)).size == 1
    rates = {1: 100, 2: 150, 4: 200, 8: 260}
    assert size.choose(run, 8, 8, (16, 3, 32, 32)).size == 8


def test_a_no_is_believed_after_four_rounds(make_run, monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(size, "LONG", 0.0)
    asked = []
    monkeypatch.setattr(size, "_rate", lambda run, count, same_seed, shape: asked.append(count) or 100.0)
    for rounds in (2, 4, 4):
        assert size.choose(make_run(exact=False), 2, 2, (16, 3, 32, 32)).size == 1
        assert asked == [1, 2] * rounds


@pytest.mark.parametrize(
    ("shared", "apart", "plan"),
    [
        ({1: 100, 2: 180}, {1: 100, 2: 150, 3: 170, 6: 175}, size.Stacking(2, by_seed=True)),
        ({1: 100, 2: 150}, {1: 100, 2: 150, 3: 190, 6: 175}, size.Stacking(3)),
        ({1: 100, 2: 105}, {1: 100, 2: 80, 3: 80}, size.Stacking(1)),
    ],
    ids=["shared_batches_are_faster", "larger_stacks_are_faster", "neither_pays"],
)
def test_stacks_of_one_seed_compete_with_larger_ones(make_run, monkeypatch, tmp_path, shared, apart, plan):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(size, "_rate", lambda run, count, same_seed, shape: (shared if same_seed else apart)[count])
    assert size.choose(make_run(exact=False), 6, 2, (16, 3, 32, 32)) == plan


@pytest.mark.parametrize(
    ("plan", "stacks"),
    [
        (size.Stacking(3, by_seed=True), [[0, 2, 4], [1, 3]]),
        (size.Stacking(2, by_seed=True), [[0, 2], [4], [1, 3]]),
        (size.Stacking(4), [[0, 2], [4, 1, 3]]),
        (size.Stacking(8), [[0, 2, 4, 1, 3]]),
        (size.Stacking(1), [[0], [2], [4], [1], [3]]),
    ],
)
def test_which_jobs_share_a_stack(plan, stacks):
    seeds = {0: 7, 1: 8, 2: 7, 3: 8, 4: 7}
    waiting, made = [0, 2, 4, 1, 3], []
    while waiting:
        made.append([])
        while (job := next_job(waiting, made[-1], seeds, plan)) is not None:
            waiting.remove(job)
            made[-1].append(job)
    assert made == stacks


def test_memory_bounds_the_stack(make_run, monkeypatch):
    """What this process may have of it: a container's limit counts."""
    free = [40 * 2**20]
    monkeypatch.setattr(size.processes, "free_memory", lambda: free[0])
    few = size.affordable(make_run(exact=False), (64, 3, 32, 32))
    free[0] *= 10
    assert 1 <= few < size.affordable(make_run(exact=False), (64, 3, 32, 32)) <= 10 * few + 10


def test_memory_that_the_allocator_keeps_is_free(monkeypatch):
    """Reserved by what was trained before and not in use now; the driver counts it as taken."""
    amounts = {"mem_get_info": (100, 1000), "memory_reserved": 700, "memory_allocated": 50}
    for name, amount in amounts.items():
        monkeypatch.setattr(torch.cuda, name, lambda device, amount=amount: amount)
    assert size.free_memory(torch.device("cuda")) == 750


@pytest.mark.parametrize(("fitting", "sizes"), [(2, ["1", "2"]), (0, None)])
def test_a_measurement_that_runs_out_of_memory(make_run, monkeypatch, tmp_path, fitting, sizes):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    emptied = []

    def rate(run, count, same_seed, shape):
        if count > fitting:
            raise torch.cuda.OutOfMemoryError("CUDA out of memory")
        return 100 * count

    monkeypatch.setattr(size, "_rate", rate)
    monkeypatch.setattr(torch.cuda, "empty_cache", lambda: emptied.append(True))
    if sizes is None:
        with pytest.raises(NotStackableError, match="not even one run fits into the device's memory"):
            size.measured(make_run(exact=False), 8, False, (16, 3, 32, 32))
    else:
        assert list(size.measured(make_run(exact=False), 8, False, (16, 3, 32, 32))) == sizes
    assert emptied == [True]


def test_the_measurement_leaves_the_run_as_it_is(make_run):
    run = make_run(exact=False)
    before = {name: value.clone() for name, value in run.model.state_dict().items()}
    generator = torch.get_rng_state()
    rates = size.measured(run, 4, False, (16, 3, 32, 32))
    assert rates.keys() >= {"1", "2"}
    assert all(rate > 0 for rate in rates.values())
    assert torch.equal(generator, torch.get_rng_state())
    for name, value in run.model.state_dict().items():
        assert torch.equal(value, before[name])
