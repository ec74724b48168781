import json
import math
import re
import shutil
import subprocess
import sys
from unittest.mock import MagicMock

import pytest
import torch
from mlflow import MlflowClient

from cifar_tuning import PROJECT_ROOT, devices
from cifar_tuning.jobs.training import EpochTracking
from cifar_tuning.text import counted
from cifar_tuning.tracking import MLflowTracker
from cifar_tuning.training import checkpoint as checkpoints
from cifar_tuning.training import computation, probe
from cifar_tuning.training.evaluation import Evaluation
from cifar_tuning.training.events import EpochMetrics
from tests.conftest import TINY
from tests.jobs.stopping import check_that_it_goes_on, history, same_weights, stopped


@pytest.mark.usefixtures("old_locale")
def test_the_log_is_in_utf_8_in_any_locale(tiny, tmp_path):
    outcome = tiny(f"hydra.run.dir='{tmp_path}/Bücher'", "trainer.epochs=1")
    assert outcome.code == 0, outcome.err
    assert "Logging error" not in outcome.err
    assert f"pictures in {tmp_path}/Bücher" in (tmp_path / "Bücher/train.log").read_text(encoding="utf-8")


@pytest.mark.usefixtures("pictures")
def test_one_configuration(tiny, tmp_path):
    outcome = tiny()
    run = tmp_path / "run"
    assert outcome.code == 0, outcome.err
    for name in ("best.pt", "last.pt", "metrics.jsonl", "train.log"):
        assert (run / name).stat().st_size > 0
    for name in ("learning_curves.png", "confusion_matrix.png"):
        assert (run / name).stat().st_size > 5000
    result = json.loads((run / "result.json").read_text())
    steps = history(run)
    assert [step["step"] for step in steps] == [0, 1, 2]
    assert result["value"] == max(step["val/acc"] for step in steps)
    assert (result["state"], result["epochs"]) == ("complete", 2)
    assert checkpoints.load(run).config["optimizer"]["lr"] == 0.01
    assert "SimpleNN: 82,030 parameters, 716,328 MACs" in outcome.out
    assert re.search(r"epoch 2/2  train loss \d\.\d{4} acc .* images/s", outcome.out)


@pytest.mark.slow
def test_the_same_seed_gives_the_same_run(tiny, tmp_path):
    weights = []
    for name, seed in (("a", 3), ("b", 3), ("c", 4)):
        torch.manual_seed(len(weights))  # whatever the process did before must not matter
        assert tiny(f"seed={seed}", "model.dropout=0.3", f"hydra.run.dir={tmp_path}/{name}").code == 0
        weights.append(tmp_path / name / "last.pt")
    assert same_weights(*weights[:2])
    assert not same_weights(weights[0], weights[2])


@pytest.mark.slow
@pytest.mark.parametrize("options", [[], ["model.dropout=0.3", "schedule=warmup_cosine", "augmentation=crop_flip"]])
def test_resume_is_bitwise_the_uninterrupted_run(tiny, tmp_path, options):
    check_that_it_goes_on(tiny, tmp_path, *options)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("precision", "memory_format"), [("fp32", "contiguous_format"), ("bf16", "channels_last")], ids=["fp32", "bf16"]
)
def test_a_resumed_run_keeps_what_was_measured_when_it_began(tiny, tmp_path, monkeypatch, precision, memory_format):
    """Another measurement may come out another way, and so would the numbers."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(probe, "has_bf16", lambda device: True)
    fastest = (precision, memory_format)
    monkeypatch.setattr(probe, "measure_step", lambda formats, *rest: 1.0 if formats == fastest else 2.0)
    auto = ["trainer.precision=auto", "trainer.memory_format=auto", "model.batch_norm=true"]
    begun = tiny(*auto)
    assert begun.code == 0, begun.err
    assert f"device cpu, {counted(torch.get_num_threads(), 'thread')}, {precision}, {memory_format}" in begun.out
    kept = checkpoints.load(tmp_path / "run")
    assert (kept.precision, kept.memory_format, kept.compile) == (*fastest, False)
    left = json.loads((tmp_path / "run/result.json").read_text())
    assert left["chosen"] == {"trainer.precision": precision, "trainer.memory_format": memory_format}
    monkeypatch.setattr(probe, "measure_step", lambda *a: pytest.fail("measured again"))
    resumed = tiny(*auto, "trainer.epochs=3", f"resume={tmp_path}/run", f"hydra.run.dir={tmp_path}/longer")
    assert resumed.code == 0, resumed.err
    assert f"device cpu, {counted(torch.get_num_threads(), 'thread')}, {precision}, {memory_format}" in resumed.out
    assert checkpoints.load(tmp_path / "longer").memory_format == memory_format


@pytest.mark.parametrize("has", [True, False])
def test_bf16_without_hardware_for_it_is_said_to_be_slow(tiny, monkeypatch, has):
    monkeypatch.setattr("cifar_tuning.jobs.auto_options.has_bf16", lambda device: has)
    outcome = tiny("trainer.precision=bf16", "trainer.epochs=1")
    assert outcome.code == 0
    assert ("trainer.precision=bf16 is only emulated here" in outcome.text) is not has


@pytest.mark.slow
@pytest.mark.parametrize("pays", [True, False])
def test_a_resumed_run_is_compiled_as_it_began(tiny, tmp_path, monkeypatch, pays):
    asked = []
    monkeypatch.setattr(torch, "compile", lambda model: model)
    monkeypatch.setattr("cifar_tuning.jobs.auto_options.resolve_compile", lambda *a: asked.append(a) or pays)
    assert tiny("trainer.compile=auto").code == 0
    assert checkpoints.load(tmp_path / "run").compile is pays
    resumed = tiny("trainer.compile=auto", "trainer.epochs=3", f"resume={tmp_path}/run")
    assert resumed.code == 0, resumed.err
    batches = 8  # of an epoch
    expected = [("auto", 2 * batches, None), ("auto", 3 * batches, pays)]
    assert [(one[0], *one[-2:]) for one in asked] == expected


@pytest.mark.slow
def test_a_checkpoint_of_an_older_release_lacks_the_options_that_came_since(tiny, tmp_path):
    options = ["augmentation=crop_flip", "-m", "hydra/launcher=fused", "seed=0,1"]
    assert tiny(*options).code == 0
    for file in tmp_path.glob("sweep/?/*.pt"):
        content = torch.load(file, weights_only=True)
        for group, option in (("augmentation", "cutout"), ("trainer", "mixup"), ("trainer", "ema_decay")):
            del content["config"][group][option]
        del content["unaveraged"]
        torch.save(content, file)
    again = tiny(*options)
    assert again.out.count("finished already") == 2
    resumed = tiny("augmentation=crop_flip", "trainer.epochs=3", f"resume={tmp_path}/sweep/0")
    assert resumed.code == 0, resumed.err
    assert "resuming after epoch 2 of 3" in resumed.out
    other = tiny("augmentation=crop_flip", "augmentation.cutout=4", "trainer.epochs=3", f"resume={tmp_path}/sweep/0")
    assert "augmentation.cutout=4" in other.err
    assert "was trained with 0; a resumed run must keep it" in other.err


def test_only_numbers_are_told_of_a_diverged_epoch():
    """MLflow would keep an infinite loss as 1.8e308."""
    tracker = MagicMock()
    EpochTracking(tracker).on_epoch(EpochMetrics(1, math.inf, 0.1, math.nan, 0.2, 0.3, 0.4, 5.0, 6.0))
    ((told, epoch),) = (call.args for call in tracker.log_epoch.call_args_list)
    assert told.keys() == {"train/acc", "val/acc", "val/acc_best", "lr", "images_per_second", "epoch_seconds"}
    assert epoch == 1


def test_the_store_is_told_while_a_gpu_computes(tiny, tmp_path, monkeypatch):
    from cifar_tuning.tracking.base import Tracker

    told = []
    monkeypatch.setattr(devices, "QUEUES", ("cpu",))
    monkeypatch.setattr(Tracker, "deliver", lambda self: told.append(len(history(tmp_path / "run"))))
    assert tiny("trainer.epochs=2").code == 0
    assert told == [1, 2]
    monkeypatch.delattr(Tracker, "deliver")  # a tracker of the user's own may lack it
    assert tiny("trainer.epochs=2", f"hydra.run.dir={tmp_path}/other").code == 0


def test_an_interrupted_run_says_so(tiny, tmp_path):
    with stopped(epoch=1):
        tiny()
    result = json.loads((tmp_path / "run/result.json").read_text())
    assert (result["state"], result["epochs"]) == ("killed", 1)
    assert result["value"] == max(step["val/acc"] for step in history(tmp_path / "run"))


@pytest.mark.slow
def test_resuming_for_longer_without_beating_the_past(tiny, tmp_path):
    """The best weights come along from the first folder."""
    assert tiny("trainer.epochs=2", f"hydra.run.dir={tmp_path}/first").code == 0
    first = tmp_path / "first"
    last = torch.load(first / "last.pt", weights_only=True)
    last["progress"]["history"][1]["epoch_seconds"] = 1000.0
    torch.save(last, first / "last.pt")
    outcome = spoil(tiny, "trainer.epochs=3", f"resume={first}", f"hydra.run.dir={tmp_path}/second")
    assert outcome.code == 0, outcome.err
    result = json.loads((tmp_path / "second/result.json").read_text())
    assert 1000 < result["seconds"] < 2000
    before = checkpoints.load(first / "best.pt").progress
    assert (result["state"], result["value"], result["best_epoch"]) == ("complete", before.best_acc, before.best_epoch)
    assert same_weights(first / "best.pt", tmp_path / "second/best.pt")
    assert not same_weights(first / "last.pt", tmp_path / "second/last.pt")


def test_a_run_that_was_stopped_behind_its_last_epoch_has_only_its_end_to_repeat(tiny, tmp_path, monkeypatch):
    def interrupted(*a, **k):
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr("cifar_tuning.reporting.plots.learning_curves", interrupted)
        with pytest.raises(KeyboardInterrupt):
            tiny("trainer.epochs=2")
    assert json.loads((tmp_path / "run/result.json").read_text())["state"] == "killed"
    hint = f"Stopped after epoch 2; go on with the same command and resume={tmp_path}/run"
    assert hint in (tmp_path / "run/train.log").read_text()
    outcome = tiny("trainer.epochs=2", f"resume={tmp_path}/run", f"hydra.run.dir={tmp_path}/end")
    assert outcome.code == 0, outcome.err
    assert json.loads((tmp_path / "end/result.json").read_text())["state"] == "complete"


@pytest.mark.slow
def test_the_best_weights_may_have_missed_the_last_epoch(tiny, tmp_path):
    """The process was stopped between last.pt and best.pt: its folder goes on with the newer of the two."""
    options = ["-m", "hydra/launcher=fused", "hydra.launcher.stack=1", "trainer.epochs=2", "seed=0,1"]
    assert tiny(*options).code == 0
    job = tmp_path / "sweep/0"
    assert checkpoints.load(job / "last.pt").progress.best_epoch == 2, "no case for this test"
    wanted = (job / "best.pt").read_bytes()
    (job / "best.pt").write_bytes(b"of an earlier epoch")
    (job / "result.json").unlink()
    assert tiny(*options).code == 0
    assert same_weights(job / "best.pt", job / "last.pt")
    assert len((job / "best.pt").read_bytes()) == len(wanted)


def spoil(tiny, *arguments):
    """Runs with an evaluation that finds nothing right, so that no later epoch can be the best."""
    original = computation.evaluate
    computation.evaluate = lambda *a, **k: [Evaluation(9.9, 0.0, [[0]])]
    try:
        return tiny(*arguments)
    finally:
        computation.evaluate = original


def test_trouble_with_a_picture_is_no_failure(tiny, tmp_path, monkeypatch):
    monkeypatch.setattr("cifar_tuning.reporting.plots.confusion_matrix", lambda *a: 1 / 0)
    outcome = tiny("trainer.epochs=1")
    assert outcome.code == 0, outcome.err
    assert "not all of its files could be kept" in outcome.out
    assert json.loads((tmp_path / "run/result.json").read_text())["state"] == "complete"


def test_a_diverged_run_returns_its_best(tiny, tmp_path):
    outcome = tiny("optimizer.lr=1e30", "trainer.epochs=5")
    assert outcome.code == 0
    assert "this run has diverged" in outcome.out
    result = json.loads((tmp_path / "run/result.json").read_text())
    assert result["state"] == "diverged"
    assert 0 <= result["value"] < 0.5
    assert math.isfinite(result["value"])


TECHNIQUES = ["augmentation=crop_flip", "trainer.ema_decay=0.9", "trainer.epochs=2"]


@pytest.mark.slow
@pytest.mark.parametrize(
    "options",
    [
        ["model=resnet20", "model.depth=8", "model.shortcut=B"],
        ["model=resnet20", "model.depth=8", "model.separable=true", "model.activation=swish"],
        ["optimizer=adam", "schedule=cosine"],
        ["optimizer=rmsprop", "schedule=plateau"],
        ["optimizer=nadam"],
        ["optimizer=adam", "schedule=warmup_cosine", "schedule.warmup_ratio=0.5"],
        ["optimizer=adamw", "schedule=onecycle", "regularizer.strength=0.01"],
        ["schedule=step", "schedule.decay_epochs=1", "regularizer=l1"],
        ["regularizer=elastic_net", "augmentation=crop_flip", "augmentation.flip=false"],
        ["regularizer=none", "augmentation=trivial_augment", "data.train_limit=128"],
        ["trainer.precision=bf16", "model.batch_norm=true", "optimizer.nesterov=true"],
        ["trainer.deterministic=true"],
        [*TECHNIQUES, "augmentation.flip=alternating", "augmentation.cutout=8", "trainer.mixup=0.2"],
        [*TECHNIQUES, "model=resnet20", "model.depth=8", "trainer.initial_scale=0.5", "trainer.delay_fraction=0.5"],
    ],
)
def test_choices_work_together(tiny, tmp_path, options):
    outcome = tiny("trainer.epochs=1", *options)
    assert outcome.code == 0, outcome.err
    steps = history(tmp_path / "run")
    assert math.isfinite(steps[-1]["train/loss"])
    assert steps[-1]["train/loss"] != steps[0]["train/loss"]


MY_PARTS = """
import torch
from torch import nn

class TinyNet(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(3, width, 3, stride=4), nn.ReLU(), nn.Flatten(), nn.LazyLinear(10))
        self.body(torch.zeros(1, 3, 32, 32))

    def forward(self, x):
        return self.body(x)

class SignSGD(torch.optim.SGD):
    def step(self, closure=None):
        for group in self.param_groups:
            for p in group["params"]:
                p.grad.sign_()
        return super().step(closure)

def warm_up(optimizer, steps_per_epoch, share):
    return torch.optim.lr_scheduler.LinearLR(optimizer, share, total_iters=steps_per_epoch)
"""


def test_a_users_own_model_optimizer_and_schedule(tiny, tmp_path, monkeypatch):
    (tmp_path / "my_parts.py").write_text(MY_PARTS)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    outcome = tiny(
        "~model",
        "+model={_target_:my_parts.TinyNet,width:6}",
        "~optimizer",
        "+optimizer={_target_:my_parts.SignSGD,_partial_:true,lr:0.001}",
        "~schedule",
        "+schedule={_target_:my_parts.warm_up,_partial_:true,share:0.1}",
    )
    assert outcome.code == 0, outcome.err
    assert "TinyNet" in outcome.out
    rates = [step["lr"] for step in history(tmp_path / "run")]
    assert rates[0] == pytest.approx(0.0001)
    assert rates[-1] == pytest.approx(0.001)


USES_TORCHVISION = """
from torchvision.models import squeezenet1_1

def small():
    return squeezenet1_1(num_classes=10)
"""


@pytest.mark.slow
@pytest.mark.parametrize(
    "model", ["{_target_:torchvision.models.squeezenet1_1,num_classes:10}", "{_target_:uses_torchvision.small}"]
)
def test_a_torchvision_model(tmp_path, model):
    """In a process of its own: once imported, torchvision stays importable."""
    (tmp_path / "uses_torchvision.py").write_text(USES_TORCHVISION)
    arguments = [*TINY, "~model", f"+model={model}", "trainer.epochs=1", "data.train_limit=64"]
    command = [sys.executable, str(PROJECT_ROOT / "train.py"), *arguments, f"hydra.run.dir={tmp_path}/run"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "SqueezeNet: 727,626 parameters" in done.stdout


def test_mlflows_own_variable_names_the_store(tiny, predicting, tmp_path, monkeypatch, pristine_database):
    store = f"sqlite:///{shutil.copy(pristine_database, tmp_path / 'own.db')}"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", store)
    assert tiny("tracking=mlflow", "tracking.log_model=false").code == 0
    client = MlflowClient(store)
    (run,) = client.search_runs([e.experiment_id for e in client.search_experiments()])
    assert run.info.status == "FINISHED"
    assert predicting(f"run={run.info.run_id}", f"output={tmp_path}/p.csv").code == 0


@pytest.mark.parametrize(
    ("options", "logged"),
    [([], True), (["data.train_limit=64"], False), (["data.train_limit=64", "tracking.log_model=true"], True)],
)
def test_a_run_on_a_few_images_logs_its_model_on_demand(
    tiny, tmp_path, monkeypatch, pristine_database, options, logged
):
    models = []
    monkeypatch.setattr(MLflowTracker, "log_model", lambda self, model, example: models.append(model))
    store = f"sqlite:///{shutil.copy(pristine_database, tmp_path / 'own.db')}"
    assert tiny("tracking=mlflow", f"tracking.uri={store}", "trainer.epochs=1", *options).code == 0
    assert len(models) == logged


def test_a_config_of_ones_own_on_top_of_ours(tiny, tmp_path):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "own.yaml").write_text("defaults: [config, _self_]\nseed: 7\n")
    outcome = tiny("--config-dir", str(tmp_path / "mine"), "--config-name", "own", "trainer.epochs=1")
    assert outcome.code == 0, outcome.err
    assert checkpoints.load(tmp_path / "run").config["seed"] == 7


@pytest.mark.parametrize(("regularizer", "warned"), [("l1", True), ("l2", False)])
def test_an_optimizers_own_decay_does_not_go_unnoticed(tiny, regularizer, warned):
    own = ["~optimizer", "+optimizer={_target_: torch.optim.AdamW, _partial_: true, lr: 0.01}", "trainer.epochs=1"]
    outcome = tiny(f"regularizer={regularizer}", *own)
    assert outcome.code == 0, outcome.err
    assert ("AdamW decays weights by 0.01, its own default" in outcome.text) == warned
