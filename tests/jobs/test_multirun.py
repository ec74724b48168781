import json
import subprocess
import sys

import optuna
import pytest
import torch
import yaml
from hydra._internal.core_plugins.basic_launcher import BasicLauncher
from omegaconf import OmegaConf

from cifar_tuning import PROJECT_ROOT
from cifar_tuning.jobs.context import model_name, name_alone


def results(tmp_path) -> dict[str, dict]:
    return {f.parent.name: json.loads(f.read_text()) for f in (tmp_path / "sweep").glob("*/result.json")}


@pytest.mark.parametrize("before", [[], ["optimizer.lr=0.5"]], ids=["", "given before"])
def test_a_grid_is_a_parent_with_a_child_for_each_job(tiny, tmp_path, tracked, before):
    grid = [*before, "optimizer.lr=0.1,0.012345678"]
    outcome = tiny("-m", *grid, "trainer.epochs=1", "model.batch_norm=true", *tracked.overrides)
    assert outcome.code == 0, outcome.err
    runs = tracked()
    (parent,) = [run for run in runs if "mlflow.parentRunId" not in run.data.tags]
    assert parent.info.status == "FINISHED"
    children = [run for run in runs if run is not parent]
    assert {run.data.tags["mlflow.parentRunId"] for run in children} == {parent.info.run_id}
    assert {run.data.params["optimizer.lr"] for run in children} == {"0.1", "0.012345678"}
    assert {(run.data.tags["state"], run.info.status) for run in children} == {("complete", "FINISHED")}
    assert {run.info.run_name for run in children} == {"0: optimizer.lr=0.1", "1: optimizer.lr=0.01235"}
    assert {r["run_id"] for r in results(tmp_path).values()} == {run.info.run_id for run in children}


@pytest.mark.parametrize(
    ("overrides", "resumed", "name"),
    [
        ([], False, "SimpleNN"),
        (["augmentation=crop_flip", "trainer.epochs=2"], False, "SimpleNN augmentation=crop_flip trainer.epochs=2"),
        (["tracking.uri=x", "trainer.device=cpu", "optimizer.lr=0.0123456"], False, "SimpleNN optimizer.lr=0.01235"),
        (["resume=x", "seed=3", "objective=val/loss", "~optimizer"], True, "SimpleNN seed=3 ~optimizer (resumed)"),
        ([f"a{number}=10" for number in range(30)], True, None),
    ],
)
def test_a_single_run_is_called_what_it_is_made_of(overrides, resumed, name):
    found = name_alone("SimpleNN", overrides, resumed)
    assert len(found) <= 100
    assert found == name if name else found.endswith(" a11=10 … (resumed)")


@pytest.mark.parametrize(
    ("options", "name"),
    [
        ({"_target_": "cifar_tuning.models.SimpleNN", "activation": "relu"}, "SimpleNN"),
        ({"_target_": "cifar_tuning.models.torchvision_model", "name": "resnet18"}, "resnet18"),
        ({"_target_": "my_models.Net", "name": None}, "Net"),
    ],
)
def test_a_model_is_called_by_its_name_or_its_class(options, name):
    assert model_name(options) == name


@pytest.mark.slow
def test_the_sweep_ends_with_a_table(tiny, tmp_path, monkeypatch):
    """And it reads a group's file once for itself and once for all jobs, whose configurations it does not keep."""
    read, load, returns, launch = [], OmegaConf.load, [], BasicLauncher.launch
    monkeypatch.setattr(BasicLauncher, "launch", lambda *jobs, **at: returns.extend(launch(*jobs, **at)) or returns)
    monkeypatch.setattr(OmegaConf, "load", lambda file: read.append(getattr(file, "name", file)) or load(file))
    outcome = tiny("-m", "optimizer.lr=0.1,0.001", "model.activation=relu,swish", "trainer.epochs=1")
    assert outcome.code == 0, outcome.err
    assert read.count(str(PROJECT_ROOT / "conf/model/simplenn.yaml")) == 2
    assert [(one.cfg, one.hydra_cfg) for one in returns] == [(None, None)] * 4
    found = results(tmp_path)
    best = max(found.values(), key=lambda r: r["value"])
    table = outcome.out[outcome.out.index("4 jobs, best first") :]
    rows = [line for line in table.splitlines() if "│" in line]
    assert f"{best['value']:.4f}" in rows[0]
    assert len(rows) == 4
    assert "python train.py" in table
    assert " ".join(o for o in best["overrides"] if o.startswith("optimizer.lr")) in table


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["optimizer.lr=0.1,-1,0.01"], ["optimizer.lr=-1: must be a number above 0, such as 0.01  (job 1)"]),
        (["model.dropout=0,2", "optimizer.lr=0,0.1"], ["model.dropout=2: ", "optimizer.lr=0: "]),
        (
            ["augmentation.padding=1,2"],
            ["job 0 (augmentation.padding=1) can't be composed: ", "; augmentation=crop_flip has it"],
        ),
        (
            ["model=resnet21,simplenn"],
            ["job 0 (model=resnet21) can't be composed: In 'config': Could not find", "\n      simplenn\n"],
        ),
        (["+augmentation.padding=1,2"], ["NoAugmentation; it has none; augmentation=crop_flip has it  (jobs 0, 1)"]),
        (["+augmentation.paddings=1,2"], ["NoAugmentation; it has none  (jobs 0, 1)"]),
        (
            ["hydra/sweeper=study", "optimizer=sgd,adam", "optimizer.betas=choice(1,2)"],
            [
                "optimizer=adam, optimizer=adamw, ",
                """ 'hydra.sweeper.conditions={optimizer.betas:"optimizer=adam"}' """,
            ],
        ),
        (["study=simplenn", "model.dropout=1.5"], ["model.dropout=1.5: must be"]),
        (["study=simplenn", "regularizer=none"], [r" have it; '~hydra.sweeper.params.regularizer\.strength' leaves"]),
        (
            ["study=simplenn", "regularizer=none", r"~hydra.sweeper.params.regularizer\.strength", "seed=-1"],
            ["1 problem in the configuration; nothing was run.\n  - seed=-1"],
        ),
        (["experiment=lab2_l2", "regularizer=none", "seed=0"], [r"'~hydra.sweeper.params.regularizer\.strength'"]),
        *(
            ([*sweeper, "model=resnet20", "model={dropout:0.1},{dropout:0.2}"], ["would replace model=resnet20, "])
            for sweeper in ([], ["study=simplenn"])
        ),
        *(
            (
                [launcher, "model=simplenn,resnet20", "model.batch_norm=true", "optimizer.lr=0.1,0.01"],
                ["job 2 (model=resnet20 optimizer.lr=0.1) can't be composed: Could not override 'model.batch_norm'"],
            )
            for launcher in ("hydra/launcher=basic", "hydra/launcher=fused")
        ),
    ],
)
def test_a_mistake_in_a_sweep_is_found_before_its_first_job(mistakes, arguments, expected):
    said = mistakes(*arguments)
    assert all(line in said for line in expected), said


FAILING = """
from torch import nn

class Failing(nn.Module):
    def __init__(self, fail):
        super().__init__()
        self.layer, self.fail = nn.Linear(3072, 10), fail

    def forward(self, x):
        if self.fail and self.training:
            raise RuntimeError("out of order")
        return self.layer(x.flatten(1))
"""


@pytest.mark.slow
def test_a_failed_job_does_not_stop_a_sweep(tiny, tmp_path, tracked, monkeypatch):
    (tmp_path / "failing.py").write_text(FAILING)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    model = ["~model", "+model={_target_:failing.Failing}", "+model.fail=false,true,false"]
    outcome = tiny("-m", *model, "trainer.epochs=1", *tracked.overrides)
    assert outcome.code != 0
    assert "out of order" in outcome.err
    states = {name: r["state"] for name, r in results(tmp_path).items()}
    assert states == {"0": "complete", "1": "failed", "2": "complete"}
    assert "job 1 failed: RuntimeError: out of order" in outcome.out
    assert {run.data.tags["state"] for run in tracked()} == {"complete", "failed"}
    assert "RUNNING" not in {run.info.status for run in tracked()}


@pytest.mark.slow
@pytest.mark.parametrize("objective", ["epoch_seconds", "[val/acc_best,images_per_second]"])
def test_a_run_that_diverges_at_once_has_its_figures(tiny, tmp_path, objective):
    """Before training there is no speed to report."""
    outcome = tiny("-m", f"objective={objective}", "optimizer.lr=1e30", "trainer.epochs=2")
    assert outcome.code == 0, outcome.err
    assert results(tmp_path)["0"]["state"] == "diverged"


@pytest.mark.slow
def test_a_diverged_job_does_not_fail_a_sweep(tiny, tmp_path, tracked):
    outcome = tiny("-m", "optimizer.lr=1e30,0.01", "trainer.epochs=2", *tracked.overrides)
    assert outcome.code == 0, outcome.err
    assert {r["state"] for r in results(tmp_path).values()} == {"diverged", "complete"}
    assert {(run.data.tags["state"], run.info.status) for run in tracked()} == {
        ("diverged", "FINISHED"),
        ("complete", "FINISHED"),
    }


SIMPLENN = {"optimizer.lr", "regularizer.strength", "schedule.decay_epochs", "model.activation"}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("study", "sweeper", "names"),
    [
        ("simplenn", "optuna", SIMPLENN),
        ("resnet20", "study", SIMPLENN | {"optimizer", "schedule.decay", "model.shortcut"}),
    ],
)
def test_studies_run_on_either_sweeper_and_keep_the_highest_accuracy(tiny, tmp_path, study, sweeper, names):
    options = ["hydra.sweeper.n_trials=2", "hydra.sweeper.n_jobs=1", f"hydra/sweeper={sweeper}", "trainer.epochs=1"]
    options += ["model.depth=8", "hydra.sweeper.plots=false"] if study == "resnet20" else []
    options += [f"hydra.sweeper.storage=sqlite:///{tmp_path}/optuna.db"]
    outcome = tiny("-m", f"study={study}", *options)
    assert outcome.code == 0, outcome.err
    loaded = optuna.load_study(study_name=None, storage=f"sqlite:///{tmp_path}/optuna.db")
    assert loaded.direction == optuna.study.StudyDirection.MAXIMIZE
    assert all(names <= set(trial.params) for trial in loaded.trials)
    values = {name: r["value"] for name, r in results(tmp_path).items()}
    assert len(values) == 2
    assert {str(trial.number): trial.value for trial in loaded.trials} == values
    best = yaml.safe_load((tmp_path / "sweep/optimization_results.yaml").read_text())
    assert best["best_value"] == max(values.values())


def test_jobs_that_would_share_a_folder_are_refused(tiny, tmp_path):
    grid = ["-m", "optimizer.lr=0.1,0.2", "seed=0,1", "trainer.epochs=1"]
    refused = tiny(*grid, "hydra.sweep.subdir=${optimizer.lr}")
    assert refused.code == 1
    assert "several jobs would have the folder 0.1; tell them apart by" in refused.err
    assert "(jobs 2, 3)" in refused.err
    assert not (tmp_path / "sweep").exists()
    grid[1] = "optimizer.lr=0.1"
    for apart in ("${optimizer.lr}_${seed}", "${hydra:job.override_dirname}"):
        assert tiny(*grid, f"hydra.sweep.subdir={apart}").code == 0
    assert len(list((tmp_path / "sweep").glob("*/result.json"))) == 4


@pytest.mark.parametrize(
    ("grid", "subdir", "said"),
    [
        (["seed=0,1"], "${nope}", "hydra.sweep.subdir=${nope}: Interpolation key 'nope' not found"),
        (
            ["seed=0"],
            "x/" + "y" * 256 + "/${seed}",
            "names a folder yyyyyyyyyyyyyyyyyyyy… of 256 bytes, and a name has at most 255",
        ),
        (["seed=0,1"], "ü" * 128 + "${seed}", "… of 257 bytes"),
        *(
            ([*grid, "seed=0,1"], "a/file/${seed}", "a/file is a file, so there can't be a folder")
            for grid in ([], ["hydra/launcher=fused"])
        ),
    ],
)
def test_folders_that_jobs_can_not_have(mistakes, tmp_path, grid, subdir, said):
    (tmp_path / "sweep" / "a").mkdir(parents=True)
    (tmp_path / "sweep" / "a" / "file").touch()
    assert said in mistakes(*grid, f"hydra.sweep.subdir='{subdir}'")


@pytest.mark.parametrize("nothing", ["optimizer.lr=range(1,0)", "optimizer=glob(foo*)"])
def test_a_sweep_of_no_job_is_refused(tiny, tmp_path, nothing):
    refused = tiny("-m", nothing, "seed=0,1")
    assert refused.code == 1
    assert f"{nothing} seed=0,1: leaves no job to run" in refused.err
    assert "Traceback" not in refused.err
    assert not (tmp_path / "sweep").exists()


@pytest.mark.slow
@pytest.mark.parametrize(("objective", "best"), [("model/parameters", 1), ("train/loss", None), ("val/acc_best", None)])
def test_a_grid_is_ranked_by_its_objective(tiny, predicting, tmp_path, tracked, objective, best):
    """In its table, in MLflow and for predict.py alike."""
    grid = ["-m", "model.batch_norm=true,false", "model.separable=true", "trainer.epochs=2", f"objective={objective}"]
    outcome = tiny(*grid, *tracked.overrides)
    assert outcome.code == 0, outcome.err
    values = {int(job): result["objective"][objective] for job, result in results(tmp_path).items()}
    if best is None:
        best = (min if objective == "train/loss" else max)(values, key=values.__getitem__)
    command = outcome.out.partition("once more, in full:")[2].partition("Where to look")[0].lower()
    assert f"model.batch_norm={['true', 'false'][best]}" in command
    assert (objective in outcome.out.partition("job ")[2].partition("seconds")[0]) == (objective != "val/acc_best")
    (parent,) = [run for run in tracked() if "mlflow.parentRunId" not in run.data.tags]
    assert parent.data.tags["best.job_num"] == str(best)
    predicted = predicting(f"run={tmp_path}/sweep", f"output={tmp_path}/p.csv")
    assert f"taking its best job, {best}" in predicted.text


@pytest.mark.slow
def test_jobs_in_other_processes(tiny, tmp_path, tracked):
    """Under joblib the jobs find their parent run, their folders and the same numbers."""
    joblib = ["hydra/launcher=joblib", "hydra.launcher.n_jobs=2"]
    outcome = tiny("-m", "optimizer.lr=0.1,0.01", "trainer.epochs=1", *joblib, *tracked.overrides)
    assert outcome.code == 0, outcome.err
    assert {r["state"] for r in results(tmp_path).values()} == {"complete"}
    assert [run.info.status for run in tracked()] == ["FINISHED"] * 3
    assert len({run.data.tags.get("mlflow.parentRunId") for run in tracked()}) == 2


@pytest.mark.slow
@pytest.mark.parametrize(
    ("program", "arguments"),
    [("train.py", ["--cfg", "job"]), *[(name, ["--help"]) for name in ("train.py", "predict.py", "report.py")]],
)
def test_looking_at_the_config_imports_nothing_heavy(program, arguments):
    code = (
        "import runpy, sys, atexit\n"
        "heavy = {'torch', 'mlflow', 'matplotlib', 'optuna'}\n"
        "atexit.register(lambda: print('heavy:', sorted(heavy & set(sys.modules))))\n"
        f"sys.argv = [{program!r}, *{arguments!r}]\n"
        f"runpy.run_path({program!r}, run_name='__main__')"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=PROJECT_ROOT)
    assert done.returncode == 0, done.stderr
    assert "heavy: []" in done.stdout


@pytest.mark.slow
@pytest.mark.parametrize("launcher", ["basic", "fused"])
@pytest.mark.parametrize("seed", ["seed='${hydra:job.num}'", "seed=${hydra:job.num}"], ids=["quoted", "in a shell"])
def test_a_job_may_know_its_number(tiny, tmp_path, launcher, seed):
    """The way to give each job of a grid a seed of its own."""
    outcome = tiny("-m", "optimizer.lr=0.1,0.01", seed, f"hydra/launcher={launcher}")
    assert outcome.code == 0, outcome.err
    assert "seed=0" in outcome.out.split() or "seed=1" in outcome.out.split()  # of the best, to be typed again
    for number in (0, 1):
        result = json.loads((tmp_path / f"sweep/{number}/result.json").read_text())
        assert f"seed={number}" in result["overrides"]
    checkpoints = [torch.load(tmp_path / f"sweep/{number}/last.pt", weights_only=True) for number in (0, 1)]
    assert [checkpoint["config"]["seed"] for checkpoint in checkpoints] == [0, 1]


@pytest.mark.slow
@pytest.mark.parametrize("sweeper", [[], ["hydra/sweeper=study", "hydra/sweeper/sampler=grid"]], ids=["grid", "study"])
def test_a_glob_of_groups(tiny, tmp_path, sweeper):
    outcome = tiny("-m", "optimizer=glob(adam*)", "trainer.epochs=1", *sweeper)
    assert outcome.code == 0, outcome.err
    assert "UserWarning" not in outcome.err
    configs = [yaml.safe_load(file.read_text()) for file in (tmp_path / "sweep").glob("?/.hydra/config.yaml")]
    assert {config["optimizer"]["_target_"] for config in configs} == {"torch.optim.Adam", "torch.optim.AdamW"}
