"""A stacked trial is the solo trial."""

import sys
from functools import lru_cache, partial

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from cifar_tuning import devices
from cifar_tuning.fused.layers import TWINS, Twin
from cifar_tuning.fused.stack import Stack, own_generator
from cifar_tuning.models import ResNet, SimpleNN
from cifar_tuning.models.initial_weights import freeze
from cifar_tuning.training import L1, L2, ElasticNet, Regularizer
from cifar_tuning.training.display import Display
from cifar_tuning.training.loop import run_epochs
from cifar_tuning.training.schedules import constant, step, warmup_cosine

SGD, ADAM, ADAMW = torch.optim.SGD, torch.optim.Adam, torch.optim.AdamW
COSINE = partial(torch.optim.lr_scheduler.CosineAnnealingLR, T_max=4)
WARM_UP = partial(warmup_cosine, warmup_ratio=0.3, eta_min=0.0)
ONE_CYCLE = partial(torch.optim.lr_scheduler.OneCycleLR, max_lr=0.02)
PLATEAU = partial(torch.optim.lr_scheduler.ReduceLROnPlateau, patience=0)
NET = partial(SimpleNN, batch_norm=True)
SMALL = partial(ResNet, depth=8)

SEEDS = [{"seed": 0}, {"seed": 1}, {"seed": 2}]
RATES = [{"optimizer": partial(SGD, lr=lr, momentum=0.9)} for lr in (0.01, 0.003, 0.001)]


def frozen():
    """A network of which the last layer alone is trained, as in fine-tuning."""
    layers = nn.Conv2d(3, 4, 8, stride=8), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(64, 10)
    model = nn.Sequential(*layers)
    freeze(model)
    return model


def same(count=3, **options):
    return [options] * count


CASES = {
    "lr": RATES,
    "seeds": SEEDS,
    "seeds_some_alike": [{"seed": 0}, {"seed": 1}, {"seed": 0, "optimizer": partial(SGD, lr=0.01)}],
    "momentum": [{"optimizer": partial(SGD, lr=0.01, momentum=m)} for m in (0.0, 0.5, 0.9)],
    "seeds_few_alike": [{"seed": seed} for seed in (0, 1, 0, 2)],
    "nesterov": [{"optimizer": partial(SGD, lr=0.01, momentum=0.9, nesterov=n)} for n in (True, False)],
    "dampening": [{"optimizer": partial(SGD, lr=0.01, momentum=0.9, dampening=d)} for d in (0.0, 0.5)],
    "adam": [
        {"optimizer": partial(ADAM, lr=1e-3, betas=b, eps=e)} for b, e in [((0.9, 0.999), 1e-8), ((0.8, 0.9), 1e-3)]
    ],
    "adamw": [{"optimizer": partial(ADAMW, lr=lr)} for lr in (1e-2, 1e-3)],
    "optimizers": [
        {"optimizer": partial(kind, lr=1e-3)} for kind in (SGD, ADAM, ADAMW, torch.optim.NAdam, torch.optim.RMSprop)
    ],
    "l2": [{"regularizer": L2(s, norm_and_bias=b)} for s, b in [(0.1, True), (1e-3, False)]],
    "l1": [{"regularizer": r} for r in (L1(1e-3), L1(1e-4), Regularizer(), ElasticNet(1e-2, 0.3))],
    "schedules": [
        {"schedule": s, "epochs": 7} for s in (constant, partial(step, decay_epochs=1, decay=0.1), COSINE, PLATEAU)
    ],
    "onecycle": [{"schedule": s, "epochs": 7} for s in (ONE_CYCLE, partial(ONE_CYCLE, pct_start=0.6), WARM_UP)],
    "epochs": [{"epochs": e} for e in (1, 7, 2)],
    "patience": [
        {"patience": p, "seed": s, "optimizer": partial(SGD, lr=0.01)} for s, p in [(0, None), (0, 1), (1, 2)]
    ],
    "label_smoothing": [{"label_smoothing": s} for s in (0.0, 0.1, 0.3)],
    "clipped": [{"max_grad_norm": norm} for norm in (None, 0.5, 0.1)],
    "class_weights": [{"class_weights": w} for w in (None, torch.linspace(0.5, 1.5, 10))],
    "label_smoothing_alike": same(2, label_smoothing=0.1),
    "ema_decay": [{"ema_decay": d, "seed": s} for s, d in enumerate((0.0, 0.5, 0.99))],
    "no_validation": [{"validate": False, "epochs": e, **rate} for e, rate in zip((2, 7, 3), RATES, strict=True)],
    "mixup": [{"mixup": 0.5, **rate} for rate in RATES],
    "mixup_smoothed_seeds": [{"mixup": 1.0, "seed": s, "label_smoothing": 0.1 * s} for s in (0, 1)],
    "dropout": [{"model": partial(NET, dropout=p)} for p in (0.0, 0.2, 0.7)],
    "dropout_seeds": [{"model": partial(NET, dropout=p), "seed": s} for s, p in enumerate((0.5, 0.2))],
    "bn_momentum": [{"model": partial(NET, batch_norm_momentum=m)} for m in (0.1, 0.5, 1.0)],
    "bn_momentum_alike": same(2, model=partial(NET, batch_norm_momentum=0.3)),
    "plain": same(2, model=SimpleNN),
    "separable": [{"model": partial(NET, separable=True), "seed": s} for s in (0, 1)],
    **{
        f"activation_{a}": [{"model": model, "seed": s} for s in (0, 0, 1)]
        for a in ("swish", "leaky_relu", "elu", "gelu", "tanh")
        for model in [partial(NET, activation=a)]
    },
    **{f"shortcut_{s}": [{"model": partial(SMALL, shortcut=s), "seed": n} for n in (0, 1)] for s in ("A", "B", "none")},
    "frozen": [{"model": partial(frozen), **rate} for rate in RATES],
    "resnet_lr": [{"model": SMALL, **rate} for rate in RATES],
    "resnet_separable": same(2, model=partial(SMALL, separable=True)),
    "resnet_dropout": [{"model": partial(SMALL, dropout=p), "seed": 1} for p in (0.1, 0.5)],
    "resnet_swish": [{"model": partial(SMALL, activation="swish", batch_norm_momentum=m)} for m in (0.1, 0.2)],
}


# One of each kind; the others are for `make test`.
QUICK = ("seeds_some_alike", "adam", "schedules", "epochs", "dropout_seeds", "plain", "shortcut_A")

STEPPED_AS_ONE = (
    *("lr", "seeds_some_alike", "momentum", "nesterov", "dampening", "optimizers", "l2", "schedules", "onecycle"),
    *("epochs", "patience", "ema_decay", "no_validation", "separable", "frozen", "shortcut_A"),
)


@pytest.fixture(scope="module")
def alone(make_run):
    """Trains a run by itself; neighbours among the cases have some in common."""

    @lru_cache(maxsize=8)
    def trained(options):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(devices, "QUEUES", ())
            run = make_run(**dict(options))
            return run, run.fit_alone()

    return lambda options: trained(tuple(options.items()))


class Gated(nn.Module):
    """Has a weight that is a single number, as ReZero's are."""

    class Gate(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.factor = nn.Parameter(torch.tensor(0.5))

        def forward(self, x):
            return x * self.factor

    class StackedGate(Twin):
        shared_state = ("factor",)

        def forward(self, x):
            return (x.view(len(x), self.count, -1) * self.factor.view(1, -1, 1)).view_as(x)

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.fc, self.gate = nn.Conv2d(3, 4, 32), nn.Linear(4, 10), self.Gate()

    def forward(self, x):
        return self.gate(self.fc(self.conv(x).flatten(1)))


@pytest.mark.parametrize("as_one", [True, False])
def test_a_weight_of_a_single_number(make_run, alone, monkeypatch, as_one):
    monkeypatch.setitem(TWINS, Gated.Gate, Gated.StackedGate)
    monkeypatch.setattr(devices, "QUEUES", ("cpu",) if as_one else ())
    assert_the_same_numbers(make_run, alone, [{"model": partial(Gated), **rate} for rate in RATES[1:]])


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_a_diverged_run_leaves_the_other_of_its_pair_alone(make_run, precision):
    """Their first layers are one group of a convolution, with zeros for each other's images."""
    options = {"model": NET, "exact": False, "precision": precision, "batch_size": 8}
    rates = partial(SGD, lr=1e30), partial(SGD, lr=0.01)
    runs = [make_run(**options, seed=seed, optimizer=rate) for seed, rate in enumerate(rates)]
    for run in runs:
        own_generator(run)
    diverging, sound = runs
    states = dict(run_epochs(Stack(runs), Display(1)))
    assert (states[diverging], states[sound]) == ("diverged", "complete")
    assert not all(value.isfinite().all() for value in diverging.model.state_dict().values())
    assert all(value.isfinite().all() for value in sound.model.state_dict().values())


def test_a_run_that_leaves_early_takes_its_epochs_along(make_run, caplog, monkeypatch):
    """What is shown of the others comes to its end."""
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    runs = [make_run(epochs=2), make_run(epochs=9, patience=1, optimizer=partial(SGD, lr=1e-12))]
    for run in runs:
        own_generator(run)
    with caplog.at_level("INFO"), Display.of(runs) as display:
        assert set(dict(run_epochs(Stack(runs), display)).values()) == {"complete"}
        assert display._bar.n == display._bar.total == 3 * runs[0].train.count
    lines = [line for line in caplog.messages if "model-images/s" in line]
    assert [line.partition("  ")[0] for line in lines] == ["epoch 1/9", "epoch 2/2"]


def test_an_image_that_is_not_finite_is_its_own_runs(make_run, monkeypatch):
    """An augmentation of the user's may divide by nothing."""
    runs = [make_run(model=NET, seed=seed, epochs=1) for seed in (0, 1)]
    solo = make_run(model=NET, seed=1, epochs=1)
    solo.fit_alone()
    for run in runs:
        own_generator(run)
    own = runs[0].train.epoch
    monkeypatch.setattr(runs[0].train, "epoch", lambda epoch: ((images / 0, labels) for images, labels in own(epoch)))
    states = dict(run_epochs(Stack(runs), Display(1)))
    assert (states[runs[0]], states[runs[1]]) == ("diverged", "complete")
    assert_same_state(runs[1], solo)


class OnlyTheLast(L2):
    """Leaves most weights to nobody."""

    def parameter_groups(self, model):
        return [{"params": list(model.fc3.parameters()), "weight_decay": self.strength}]


@pytest.mark.slow
@pytest.mark.parametrize(
    "options",
    [
        {"regularizer": OnlyTheLast(1e-3)},
        {"schedule": partial(torch.optim.lr_scheduler.CyclicLR, base_lr=1e-3, max_lr=1e-2, base_momentum=0.0)},
        {"optimizer": partial(SGD, lr=0.01, momentum=0.9, dampening=0.5)},
        {"optimizer": partial(ADAM, lr=0.001)},
    ],
    ids=["few weights", "momentum to 0 and back", "dampening", "Adam"],
)
def test_other_optimizers_take_their_own_steps(make_run, alone, monkeypatch, options):
    monkeypatch.setattr(devices, "QUEUES", ("cpu",))
    given = {"optimizer": partial(SGD, lr=0.01, momentum=0.9), **options}
    assert Stack([make_run(model=NET, seed=seed, **given) for seed in (0, 1)]).sgd is None
    assert_the_same_numbers(make_run, alone, [{**given, "seed": seed} for seed in (0, 1)])


@pytest.mark.parametrize(
    ("case", "as_one"),
    [
        pytest.param(
            case,
            as_one,
            id=f"{name}-{'as one' if as_one else 'each'}",
            marks=[] if name in QUICK and not as_one else pytest.mark.slow,
        )
        for name, case in CASES.items()
        for as_one in ([False, True] if name in STEPPED_AS_ONE else [False])
    ],
)
def test_the_same_numbers(make_run, alone, monkeypatch, case, as_one):
    """Also where all are stepped as one, as on a GPU."""
    monkeypatch.setattr(devices, "QUEUES", ("cpu",) if as_one else ())
    assert_the_same_numbers(make_run, alone, case)


def assert_the_same_numbers(make_run, alone, options):
    options = [{"model": NET, **one} for one in options]
    if options[0]["model"] is not SimpleNN and options[0]["model"].func is ResNet:
        options = [{"stride": 4, **one} for one in options]
    expected = [alone(one) for one in options]
    runs = []
    for one in options:
        runs.append(make_run(**one))
        own_generator(runs[-1])  # as it stands after the model was made
    results = dict(run_epochs(Stack(runs), Display(1)))
    for run, (solo, result) in zip(runs, expected, strict=True):
        got = results[run]
        assert got == result.state
        assert_same_state(run, solo)
        for ours, theirs in zip(run.progress.history, result.progress.history, strict=True):
            assert ours.train_acc == theirs.train_acc
            assert (ours.epoch, ours.val_acc, ours.lr) == (theirs.epoch, theirs.val_acc, theirs.lr)
            assert ours.train_loss == pytest.approx(theirs.train_loss, abs=1e-6)  # summed in float32
            if theirs.val_loss is None:
                assert ours.val_loss is None
            else:
                assert ours.val_loss == pytest.approx(theirs.val_loss, abs=1e-9)
        if solo.average is not None:
            averages = solo.average.model.state_dict()
            for name, value in run.average.model.state_dict().items():
                torch.testing.assert_close(value, averages[name], rtol=0, atol=1e-9)
        assert run.progress.confusion == result.progress.confusion
        assert (run.progress.best_acc, run.progress.best_epoch) == (result.value, result.progress.best_epoch)


@pytest.mark.parametrize(
    "case",
    [
        *("plain", "seeds_some_alike", "separable", "shortcut_A"),
        *(
            pytest.param(case, marks=pytest.mark.slow)
            for case in ("dropout", "mixup", "activation_swish", "shortcut_B")
        ),
    ],
)
def test_the_memory_format_changes_no_number(make_run, monkeypatch, case):
    """Alone and stacked; and what is asked for is what the convolutions compute in."""
    stride = 4 if case.startswith("shortcut") else 1
    options = [{"model": NET, **one, "epochs": 1, "stride": stride} for one in CASES[case]]
    expected, contiguous, stacked = ([], [], [])
    for one in options:
        expected.append(make_run(**one))
        expected[-1].fit_alone()
    convolve, seen = F.conv2d, []

    def watched(x, *args, **options):
        y = convolve(x, *args, **options)
        seen.extend([x, y])
        return y

    monkeypatch.setattr(F, "conv2d", watched)
    for one in options:
        contiguous.append(make_run(**one, memory_format="contiguous_format"))
        contiguous[-1].fit_alone()
        stacked.append(make_run(**one, memory_format="contiguous_format"))
        own_generator(stacked[-1])
    dict(run_epochs(Stack(stacked), Display(1)))
    assert seen
    assert all(x.is_contiguous() for x in seen)
    for runs in (contiguous, stacked):
        for run, reference in zip(runs, expected, strict=True):
            assert_same_state(run, reference)
            assert [m.val_acc for m in run.progress.history] == [m.val_acc for m in reference.progress.history]
            assert run.progress.confusion == reference.progress.confusion


def assert_same_state(run, solo):
    """Parameters, buffers and the optimizer's state agree to 1e-9."""
    theirs = solo.model.state_dict()
    for name, value in run.model.state_dict().items():
        torch.testing.assert_close(value, theirs[name], rtol=0, atol=1e-9, msg=lambda m, n=name: f"{n}: {m}")
    mine, theirs = run.optimizer.state_dict()["state"], solo.optimizer.state_dict()["state"]
    assert mine.keys() == theirs.keys()
    for number, state in mine.items():
        for key, value in state.items():
            torch.testing.assert_close(value, theirs[number][key], rtol=0, atol=1e-9)
