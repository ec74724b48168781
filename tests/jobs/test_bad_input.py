import re
import shlex
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from hydra import compose
from omegaconf import OmegaConf
from torch import Tensor

from cifar_tuning.data import TransformsV2
from cifar_tuning.errors import ConfigError
from cifar_tuning.jobs import fitting
from cifar_tuning.jobs.callback import make_folder
from cifar_tuning.jobs.checks import RULES
from cifar_tuning.jobs.prepare import prepare
from cifar_tuning.jobs.sweep_checks import storage_problems, unfit
from tests.conftest import TINY

pytestmark = pytest.mark.usefixtures("trusted")

NARROW = """
from torch import nn

class Narrow(nn.Module):
    def __init__(self):
        super().__init__()
        self.head = nn.Linear(3, 10)

    def forward(self, x):
        return self.head(x.flatten(1))
"""

V2, ONE_CYCLE = "torchvision.transforms.v2", "torch.optim.lr_scheduler.OneCycleLR"


def own(group: str, name: str, options: str) -> list[str]:
    return [f"~{group}", f"+{group}={{_target_: tests.jobs.unfit.{name}, {options}}}"]


def transforms(one: str) -> list[str]:
    return [
        "~augmentation",
        f"+augmentation={{_target_: cifar_tuning.data.TransformsV2, transforms: [{{_target_: {one}}}]}}",
    ]


@pytest.mark.parametrize(
    ("override", "expected"),
    [
        (["optimizer.lr=0"], "optimizer.lr=0: must be a number above 0"),
        (["optimizer.lr=-0.1"], "optimizer.lr=-0.1: must be a number above 0"),
        (["optimizer.lr=fast"], "optimizer.lr=fast: must be a number above 0"),
        (["optimizer.lr=nan"], "optimizer.lr=nan: must be a number above 0"),
        (["optimizer.lr=inf"], "optimizer.lr=inf: must be a number above 0"),
        (
            ['optimizer.lr="0.1"'],
            "optimizer.lr=0.1: must be a number above 0, such as 0.01; it is given as text: leave",
        ),
        (['optimizer.lr="-1"'], "optimizer.lr=-1: must be a number above 0, such as 0.01\n"),
        (['optimizer.nesterov="true"'], "must be true or false; it is given as text"),
        (["optimizer.lr=${oc.env:MYLR,0.1}"], "write ${oc.decode:${oc.env:NAME}}"),
        (["optimizer.lr=null"], "optimizer.lr=None: must be a number above 0"),
        (["optimizer.momentum=1"], "optimizer.momentum=1: must be a number from 0"),
        (["optimizer.nesterov=true", "optimizer.momentum=0"], "optimizer.nesterov=true: needs a momentum"),
        (["optimizer=adam", "optimizer.betas=[0.9]"], "optimizer.betas=[0.9]: must be two numbers"),
        (["+optimizer.weight_decay=0.1"], "optimizer.weight_decay=0.1: regularizer=l2 decays weights too"),
        (
            ["optimizer=adamw", "optimizer.weight_decay=0.1", "regularizer=elastic_net"],
            "optimizer.weight_decay=0.1: regularizer=elastic_net decays weights too",
        ),
        (
            [
                "~schedule",
                "+schedule={_target_: torch.optim.lr_scheduler.ReduceLROnPlateau, _partial_: true, mode: max}",
            ],
            "schedule.mode=max: its steps depend on the validation loss",
        ),
        (["+optimizer.foo=1"], "optimizer.foo: is no option of torch.optim.SGD; it has lr, momentum,"),
        (["schedule=cosine", "+schedule.foo=1"], "CosineAnnealingLR; it has T_max, eta_min"),
        (["~optimizer", "+optimizer={_target_: torch.optim.RMSprop, lr: 0.1}"], "with _partial_: true it is given the"),
        (["~optimizer"], "optimizer: is missing; choose one in conf/optimizer/, or give +optimizer={_target_: …}"),
        (["~regularizer"], "regularizer: is missing; choose regularizer=none, one in conf/regularizer/"),
        (["~seed"], "seed: is missing; it may be 0"),
        (["~resume"], "resume: is missing; it may be null"),
        (
            ["~model", "+model={_target_: torchvision.models.googlenet, num_classes: 10, init_weights: false}"],
            "aux_logits: false",
        ),
        (["~model", "+model={_target_: torch.nn.Flatten}"], "Flatten has no parameters to train"),
        (
            ["~augmentation", "+augmentation={_target_: torchvision.transforms.v2.RandomRotation, degrees: 10}"],
            "augmentation: builds something of type RandomRotation, not a cifar_tuning.data.Augmentation; wrap",
        ),
        (
            ["~regularizer", "+regularizer={_target_: torch.nn.L1Loss}"],
            "regularizer: builds something of type L1Loss, not a cifar_tuning.training.Regularizer; inherit from it",
        ),
        (own("model", "Head", "end: cfloat"), "model: Head returns complex64, not real numbers"),
        (own("model", "Head", "end: long"), "model: Head returns int64, not real numbers"),
        (own("model", "Head", "end: detach"), "model: what Head returns in training has no gradient"),
        (own("optimizer", "ByNumber", "_partial_: true"), "optimizer: ByNumber is no torch.optim.Optimizer, or its"),
        (
            own("optimizer", "Unfinished", "_partial_: true"),
            "Unfinished is no torch.optim.Optimizer, or its constructor",
        ),
        (own("schedule", "ByNumber", "_partial_: true"), "schedule: ByNumber.step wants epoch, which it is not given"),
        (own("schedule", "Stateless", "_partial_: true"), "schedule: Stateless has no state_dict; it must be one of"),
        (transforms(f"{V2}.Resize, size: 16"), "must keep its shape 3×H×W, but became (3, 16, 16)"),
        (transforms("torchvision.transforms.ToTensor"), "augmentation: TypeError: pic should be PIL Image"),
        (transforms("tests.jobs.unfit.usual, scale: false"), "numbers of a float image are from 0 to 1, not up to 255"),
        (["trainer.epochs=0"], "trainer.epochs=0: must be a whole number, 1 or above"),
        (["trainer.epochs=1.5"], "trainer.epochs=1.5: must be a whole number"),
        (["trainer.precision=fp8"], "trainer.precision=fp8: must be one of auto, fp32, bf16"),
        (
            ["trainer.memory_format=contiguous"],
            "trainer.memory_format=contiguous: must be one of auto, channels_last, contiguous_format",
        ),
        (["trainer.compile=maybe"], "trainer.compile=maybe: must be true, false or auto"),
        (["trainer.device=tpu"], "trainer.device=tpu: must be auto, cpu, cuda or cuda:N"),
        (["regularizer.strength=-1"], "regularizer.strength=-1: must be a number, 0 or above"),
        (["regularizer=l1", "regularizer.strength=x"], "regularizer.strength=x: must be a number"),
        (["regularizer=elastic_net", "regularizer.l1_ratio=2"], "regularizer.l1_ratio=2: must be a number from 0 to 1"),
        (["schedule=step", "schedule.decay_epochs=0"], "schedule.decay_epochs=0: must be a whole number of epochs"),
        (["schedule=step", "schedule.decay=0"], "schedule.decay=0: must be a number above 0"),
        (["schedule=onecycle", "schedule.pct_start=2"], "schedule.pct_start=2: must be a number between 0 and 1"),
        (["schedule=onecycle", "schedule.pct_start=1.0"], "schedule.pct_start=1.0: must be a number between 0 and 1"),
        (["schedule=plateau", "schedule.factor=1"], "schedule: ValueError: Factor should be < 1.0"),
        (["schedule=onecycle", "schedule.epochs=1"], "schedule: OneCycleLR ends after 1 of 2 epochs"),
        (
            ["optimizer._target_=torch.optim.LBFGS", "~optimizer.momentum", "~optimizer.nesterov", "regularizer=none"],
            "closure",
        ),
        (["schedule=onecycle", "schedule.anneal_strategy=x"], "schedule: ValueError"),
        (["model.dropout=1.5"], "model.dropout=1.5: must be a number from 0"),
        (["model.activation=foo"], "model.activation=foo: must be one of relu, swish"),
        (["model=resnet20", "model.depth=21"], "model.depth=21: must be 6n+2"),
        (["model=resnet20", "model.shortcut=C"], "model.shortcut=C: must be one of A, B, none"),
        (["+model.foo=1"], "model.foo: is no option of cifar_tuning.models.SimpleNN; it has activation"),
        (
            ["model._target_=cifar_tuning.models.Nothing"],
            "models.Nothing: can't be imported: cifar_tuning.models has no Nothing",
        ),
        (["model._target_=os.system"], "model: configurations may not call os.system"),
        (["model._target_=torch.nn.Linear"], "model.activation: is no option of torch.nn.Linear; it has in_features"),
        (["~model", "+model={_target_: torch.nn.Linear}"], "model: TypeError"),
        (["~model", "+model={_target_: cifar_tunning.Wide}"], "or the installed packages"),
        (["data=image_folder"], "data.root: is missing; give it a value, as in data.root=…"),
        (["optimizer.lr=${pair.rl}"], "- optimizer.lr: Interpolation key 'pair.rl' not found\n"),
        (["data.batch_size=5000"], "data.batch_size=5000: must be between 1 and 512"),
        (["data.train_limit=100000"], "data.train_limit=100000: must be between 1 and 512"),
        (["data=cifar10", "data.train_limit=60000"], "data.train_limit=60000: must be between 1 and 45000"),
        (["data=cifar10", "data.batch_size=46000"], "data.batch_size=46000: must be between 1 and 45000"),
        (["augmentation=crop_flip", "augmentation.padding=-1"], "augmentation.padding=-1: must be"),
        (["augmentation=crop_flip", "augmentation.cutout=x"], "augmentation.cutout=x: must be a whole number"),
        (["augmentation=crop_flip", "augmentation.cutout=33"], "must be at most 32, the side of the images in pixels"),
        (["+schedule.interval=batch"], "interval=batch: must be step, epoch or null"),
        (["trainer.mixup=-1"], "trainer.mixup=-1: must be a number from 0 to 100"),
        (["trainer.ema_decay=1"], "trainer.ema_decay=1: must be a number from 0 up to, not including, 1"),
        *(
            ([f"trainer.patience={wrong}"], f"trainer.patience={wrong}: must be a whole number, 1 or above, or null")
            for wrong in (0, 2.5, "x")
        ),
        (
            ["trainer.patience=3", "data.val_size=0"],
            "trainer.patience=3: data.val_size=0 leaves no validation accuracy",
        ),
        (["trainer.class_weights=[1,2]"], "trainer.class_weights=[1, 2]: must be balanced or null"),
        (["trainer.max_grad_norm=0"], "trainer.max_grad_norm=0: must be a number above 0, or null"),
        (["trainer.initial_scale=0"], "trainer.initial_scale=0: must be a number above 0"),
        (["trainer.delay_fraction=x"], "trainer.delay_fraction=x: must be a number from 0 to 1"),
        (
            ["trainer.delay_fraction=0.9"],
            "trainer.finetune_fraction=0.2: and delay_fraction=0.9 must not be more than 1",
        ),
        *(
            (["model=resnet20", f"trainer.initial_scale={scale}"], f"initial_scale={scale}: makes no smaller images")
            for scale in (0.95, 0.94)
        ),
        (["trainer.initial_scale=0.5"], "trainer.initial_scale=0.5: SimpleNN does not take images of 16×16 pixels"),
        (["+model.num_classes=12"], "model: SimpleNN returns N×12, not a number for each of the 10 classes (N×10)"),
        (["tracking=mlflow", "tracking.log_model=maybe"], "tracking.log_model=maybe: must be"),
        (["seed=-1"], "seed=-1: must be a whole number from 0"),
        (["seed=x"], "seed=x: must be a whole number from 0"),
        (["seed=99999999999999999999"], "seed=99999999999999999999: must be a whole number from 0"),
        (["resume=/nowhere/last.pt"], "No checkpoint at /nowhere/last.pt"),
    ],
)
def test_each_mistake_has_its_line(configure, override, expected):
    """Before anything is trained, and on a screen: a line each, whatever PyTorch and Hydra say."""
    with pytest.raises(ConfigError) as error:
        prepare(configure(*override))
    said = f"{error.value}\n"
    assert expected in said
    assert len(said.splitlines()) < 25


@pytest.mark.parametrize(("end", "warned"), [("softmax", True), ("relu", False)])
def test_probabilities_in_the_place_of_logits_do_not_go_unnoticed(configure, caplog, end, warned):
    prepare(configure(*own("model", "Head", f"end: {end}")))
    assert ("Head returns probabilities" in caplog.text) == warned


@pytest.mark.parametrize(
    ("override", "expected"),
    [
        (["optimizer.lr=0"], "optimizer.lr=0: must be a number above 0"),
        (["-m", "optimizer.lr=interval(0.1,0.2)"], "for an interval add hydra/sweeper=study"),
        (
            ["data.train_limit=65", "~model", "+model={_target_: torchvision.models.resnet18, num_classes: 10}"],
            "data.batch_size=64: the last of 65 images is a batch by itself, and ResNet can't be trained on one",
        ),
        (
            ["~schedule", f"+schedule={{_target_: {ONE_CYCLE}, _partial_: true, max_lr: 0.1, total_steps: 15}}"],
            "schedule.total_steps=15: OneCycleLR ends before the run, which steps it 16 times",
        ),
    ],
)
def test_one_screen_and_no_training(tiny, tmp_path, override, expected):
    outcome = tiny(*override)
    assert outcome.code != 0
    assert expected in outcome.err, outcome.err
    assert len(outcome.err.splitlines()) < 25
    assert "Traceback" not in outcome.err
    assert "epoch" not in outcome.out
    assert not list((tmp_path / "run").glob("*.pt"))


@pytest.mark.parametrize("override", [["model=vgg"], ["optimiser.lr=1"], ["model.dropuot=0.1"]])
def test_unknown_groups_and_keys_get_hydras_own_message(tiny, override):
    outcome = tiny(*override)
    assert outcome.code != 0
    assert "Could not" in outcome.err


def test_a_gpu_that_is_not_there(tiny, monkeypatch):
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    outcome = tiny("trainer.device=cuda")
    assert outcome.code != 0
    assert "trainer.device=cuda: no CUDA device here" in outcome.err


def test_all_mistakes_of_a_command_are_reported_together(tiny):
    outcome = tiny(
        "optimizer.lr=-1",
        "model.dropout=1.5",
        "model.activation=foo",
        "trainer.epochs=0",
        "schedule=step",
        "schedule.decay_epochs=0",
        "regularizer.strength=-1",
        "data.batch_size=0",
        "resume=/nowhere",
        "~augmentation",
        "+augmentation={_target_:torch.nn.Linear}",
    )
    assert "9 problems in the configuration" in outcome.err
    for key in ("lr", "dropout", "activation", "epochs", "decay_epochs", "strength", "batch_size"):
        assert f".{key}=" in outcome.err


@pytest.mark.parametrize("arguments", [["hydra.run.dir=/proc/nothing"], ["-m", "hydra.sweep.dir=/proc/nothing"]])
def test_an_output_folder_that_cannot_be_written(tiny, arguments):
    outcome = tiny(*arguments)
    assert outcome.code == 1
    assert "/proc/nothing can't be written to" in outcome.err
    assert "Traceback" not in outcome.err


def test_an_output_folder_on_a_full_disk(tmp_path, monkeypatch, capsys):
    """It takes an empty file; then Hydra would end with a traceback when it writes the configuration."""

    def full(file: Path, data: bytes) -> int:
        file.touch()
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(SystemExit):
        make_folder(str(tmp_path), "hydra.run.dir")
    assert f"hydra.run.dir={tmp_path} can't be written to: [Errno 28] No space left on" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("storage", "said"),
    [
        ("optuna.db", ["hydra.sweeper.storage=optuna.db: must be the address of an SQL database"]),
        ("sqlite:///optuna.db", []),
        (None, []),
    ],
)
def test_the_stock_sweepers_storage_is_an_address(storage, said):
    found = storage_problems(OmegaConf.create({"hydra": {"sweeper": {"storage": storage}}}))
    assert [line.partition(", such as")[0] for line in found] == said


@pytest.mark.parametrize(
    ("launcher", "classes", "said"),
    [
        ("basic", (12, 13), ["model: SimpleNN returns N×12, not a number for each of the 10 classes"]),
        ("fused", (12, 10), []),
        ("joblib", (12, 13), []),
    ],
)
@pytest.mark.usefixtures("configure")
def test_a_study_of_which_no_example_can_be_trained(launcher, classes, said):
    overrides = [*TINY, f"hydra/launcher={launcher}"]
    jobs = [
        compose("config", [*overrides, f"+model.num_classes={count}"], return_hydra_config=True) for count in classes
    ]
    assert [line.partition(" (N")[0] for line in unfit(jobs)] == said


def test_a_tracking_server_that_is_down(tiny):
    outcome = tiny("tracking=mlflow", "tracking.uri=http://127.0.0.1:9")
    assert outcome.code != 0
    assert "http://127.0.0.1:9" in outcome.err
    assert "Traceback" not in outcome.err
    assert "epoch" not in outcome.out


@pytest.mark.slow
def test_resuming_with_other_options_shows_the_command_that_goes_on(tiny, command, tmp_path):
    first = ["augmentation=crop_flip", "augmentation.cutout=8", "model.batch_norm=true", "~optimizer.nesterov"]
    assert tiny(*first, "trainer.epochs=1", "trainer.patience=3").code == 0
    length = ["trainer.epochs=2", "trainer.patience=4"]
    outcome = tiny(*length, f"resume={tmp_path}/run", f"hydra.run.dir={tmp_path}/more")
    assert "2 problems in" in outcome.err
    assert "augmentation=none: " in outcome.err
    assert "was trained with augmentation=crop_flip augmentation.cutout=8; a resumed run must keep it" in outcome.err
    line = next(line for line in outcome.err.splitlines() if "python" in line)
    assert {*first, *length} < set(shlex.split(line))
    assert "trainer.patience=3" not in line
    goes_on = command(*shlex.split(line)[2:])
    assert goes_on.code == 0, goes_on.err
    assert (tmp_path / "more" / "last.pt").is_file()


@pytest.mark.slow
def test_a_schedule_that_follows_the_epochs_says_how_to_go_on_for_longer(tiny, tmp_path):
    run = ["schedule=cosine", f"resume={tmp_path}/run/last.pt", f"hydra.run.dir={tmp_path}/longer", "trainer.epochs=2"]
    assert tiny("schedule=cosine", "trainer.epochs=1").code == 0
    outcome = tiny(*run)
    assert "a resumed run must keep it. It follows trainer.epochs; with schedule.T_max=1 the run" in outcome.err
    assert "was begun with" not in outcome.err
    assert tiny(*run, "schedule.T_max=1").code == 0


@pytest.mark.slow
def test_a_sweep_does_not_go_on_with_one_run(tiny, tmp_path):
    """Before its first job: in a study every trial but that one would fail."""
    assert tiny("trainer.epochs=1").code == 0
    outcome = tiny("-m", "optimizer.lr=0.1,0.2", "trainer.epochs=2", f"resume={tmp_path}/run")
    assert outcome.code == 1
    assert "optimizer.lr=0.1: " in outcome.err
    assert "a resumed run must keep it" in outcome.err
    assert not list(tmp_path.glob("sweep/*/last.pt"))
    longer = tiny("-m", "trainer.epochs=2,3", f"resume={tmp_path}/run")
    assert longer.code == 0, longer.err


@pytest.mark.parametrize(
    ("key", "right", "wrong"),
    [
        ("objective", ["val/acc", ["val/loss", "model/macs"]], [[], "val", ["val/acc", "x"]]),
        ("seed", [0, 2**32 - 1], [-1, 2**32, 1.0, True, None]),
        ("optimizer.lr", [1e-9, 1], [0, -1, "0.1", True, float("nan"), float("inf"), None]),
        ("optimizer.momentum", [0, 0.999], [-0.1, 1, "0"]),
        ("optimizer.nesterov", [True, False], [0, "true", None]),
        ("optimizer.weight_decay", [0, 0.1], [-1e-9, None]),
        ("optimizer.eps", [1e-8], [0, -1, "x"]),
        ("optimizer.alpha", [0, 0.99], [-0.1, 1, "x"]),
        ("optimizer.betas", [[0, 0.999]], [[0.9], [0.9, 1], [0.9, 0.9, 0.9], 0.9, "ab", [0.9, "x"]]),
        ("schedule.decay_epochs", [1, None], [0, 1.5]),
        ("schedule.decay", [1e-9, 1], [0, 1.1, "x"]),
        ("schedule.pct_start", [0.01, 0.99], [0, 1, "x"]),
        ("schedule.warmup_ratio", [0, 0.5], [-0.1, 1, "x"]),
        ("schedule.patience", [0, 10], [-1, 2.5, None]),
        ("schedule.factor", [0, 0.5, 1], [-0.1, 1.1, "x"]),
        ("schedule.min_lr", [0, 0.1, [0, 0.1]], [-0.1, "x", [0.1, "x"], None]),
        ("schedule.eta_min", [0, 0.1], [-0.1, "x"]),
        ("schedule.max_lr", [0.1], [0, -1, "x"]),
    ],
)
def test_what_is_in_range(key, right, wrong):
    assert [value for value in right if not RULES[key].holds(value)] == []
    assert [value for value in wrong if RULES[key].holds(value)] == []


def test_no_rule_is_left_out():
    (mark,) = [m for m in test_what_is_in_range.pytestmark if m.name == "parametrize"]
    assert [row[0] for row in mark.args[1]] == list(RULES)


def test_every_rule_belongs_to_an_option_that_exists(configure):
    from omegaconf import OmegaConf

    composed = [
        configure(),
        configure("optimizer=adamw", "schedule=onecycle"),
        configure("optimizer=rmsprop", "schedule=plateau"),
        configure("schedule=step"),
        configure("schedule=cosine"),
        configure("schedule=warmup_cosine"),
    ]
    for key in RULES:
        assert any(OmegaConf.select(cfg, key) is not None for cfg in composed), key


def test_a_mistake_in_the_users_own_model_is_placed(tiny, tmp_path, monkeypatch, capsys):
    (tmp_path / "narrow_models.py").write_text(NARROW)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    model = ["~model", "+model={_target_: narrow_models.Narrow}"]
    outcome = tiny(*model)
    assert "Narrow does not take images of 3×32×32 (RuntimeError: " in outcome.err
    assert ", narrow_models.py:10 in forward)" in outcome.err
    assert "Traceback" not in outcome.err
    monkeypatch.setenv("HYDRA_FULL_ERROR", "1")
    with pytest.raises(ConfigError):
        tiny(*model)
    assert 'narrow_models.py", line 10, in forward' in capsys.readouterr().out


MEMORY = (
    r"Out of memory: .* MB are free on this machine\. A smaller data\.batch_size \(it is 64\) or model needs less\."
)
CPP = "[enforce fail at x.cpp:1] . DefaultCPUAllocator: can't allocate memory: 9"


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (MemoryError(), MEMORY),
        (RuntimeError(CPP), MEMORY),
        (
            OSError(28, "No space"),
            r"\[Errno 28\] No space\. Make room; the same command goes on, in .*/run\.",
        ),
        (OSError(30, "Read-only"), r"\[Errno 30\] Read-only\. Make it writable; the same command goes on, in"),
    ],
)
def test_what_the_machine_lacks_is_said_without_a_traceback(tiny, monkeypatch, error, said):
    def fail(*a, **k):
        raise type(error)(*error.args)  # pytest keeps the error itself, and with its traceback the run would stay

    monkeypatch.setattr("cifar_tuning.training.trainer.Trainer.fit", fail)
    outcome = tiny()
    assert outcome.code == 1
    assert re.search("error: " + said, outcome.err)
    assert "Traceback" not in outcome.err


@pytest.mark.parametrize(("gpu", "refused"), [(False, True), (True, False)])
def test_transforms_that_only_a_gpu_has_are_tried_there(monkeypatch, gpu, refused):
    def on_the_gpu(image: Tensor) -> Tensor:
        if image.is_cpu:
            raise TypeError("must be on the GPU")
        return image

    monkeypatch.setattr(torch.cuda, "is_available", lambda: gpu)
    monkeypatch.setattr(fitting, "resolve_device", lambda device: torch.device("meta"))
    data, trainer = SimpleNamespace(image_shape=(32, 32, 3)), SimpleNamespace(device="auto")
    parts = SimpleNamespace(augmentation=TransformsV2([on_the_gpu]), data=data, trainer=trainer)
    assert bool(fitting._augmentation_problems(parts)) == refused
