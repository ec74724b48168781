"""`report.py` on sweeps of ours and of others, and on what is no sweep."""

import os
import re
import shutil
from pathlib import Path

import optuna
import pytest
from mlflow import MlflowClient
from mlflow.entities import Metric, Param
from omegaconf import OmegaConf

from cifar_tuning.jobs.report import written_at_once
from cifar_tuning.reporting.metric_names import in_words

FILES = {"report.md", "report.html", "table.csv", "table.tex"}


def uri(folder):
    return f"sqlite:///{folder}/mlflow.db"


def logger(folder):
    """Makes a function that logs a run by hand: its curves by metric, its parameters, its end."""
    client = MlflowClient(uri(folder))
    known = client.get_experiment_by_name("by hand")
    experiment = known.experiment_id if known else client.create_experiment("by hand", (folder / "files").as_uri())

    def log(name, parent=None, curves=None, status="FINISHED", tags=None, **params):
        tags = {**({"mlflow.parentRunId": parent} if parent else {}), **(tags or {})}
        run = client.create_run(experiment, run_name=name, tags=tags).info.run_id
        client.log_batch(
            run,
            metrics=[Metric(key, y, x, x) for key, ys in (curves or {}).items() for x, y in enumerate(ys)],
            params=[Param(key, str(value)) for key, value in params.items()],
        )
        client.set_terminated(run, status)
        return run

    return log


@pytest.fixture
def store(tmp_path, pristine_database):
    """The override that means an empty store."""
    shutil.copy(pristine_database, tmp_path / "mlflow.db")
    return f"tracking.uri={uri(tmp_path)}"


@pytest.fixture
def log(store, tmp_path):
    return logger(tmp_path)


@pytest.fixture(scope="module")
def filled(tmp_path_factory, pristine_database):
    """A folder with a store that has sweeps of another user.

    `depths` has other names than ours, no parameter called `seed`, a run without the metric and one that failed;
    `hopeless` has nothing but failures, and there is an empty experiment.
    """
    folder = tmp_path_factory.mktemp("filled")
    shutil.copy(pristine_database, folder / "mlflow.db")
    log = logger(folder)
    parent = log("depths")
    for depth in (2, 4):
        for rep in (0, 1, 2):
            value = 60 + depth + rep + 0.1 * depth * rep
            curves = {"test accuracy": [value / 2, value], "loss": [2.0, 1.0 / depth]}
            log(f"d{depth} r{rep}", parent, curves, depth=depth, random_seed=rep, out_dir=f"/tmp/{depth}/{rep}")
    log("no metric", parent, {"loss": [3.0, 2.0]}, depth=2, random_seed=9)
    log("crashed", parent, {}, "FAILED", depth=8, random_seed=0)
    hopeless = MlflowClient(uri(folder)).create_experiment("hopeless")
    for _ in range(2):
        MlflowClient(uri(folder)).set_terminated(MlflowClient(uri(folder)).create_run(hopeless).info.run_id, "FAILED")
    MlflowClient(uri(folder)).create_experiment("empty")
    return folder


@pytest.fixture
def others(filled):
    """The override that means the other user's store."""
    return f"tracking.uri={uri(filled)}"


@pytest.mark.slow
def test_a_sweep_of_ours(tiny, command, reporting, store, tmp_path):
    sweep = ["optimizer.lr=0.0001,0.05", "seed=0,1", "tracking=mlflow", "tracking.log_model=false", store]
    trained = tiny("-m", *sweep)
    assert trained.code == 0
    assert f"python report.py sweep={tmp_path}/sweep {store}  # all of it" in trained.out
    overlay = tmp_path / "conf/experiment/best.yaml"
    overlay.parent.mkdir(parents=True)
    outcome = reporting(f"sweep={tmp_path}/sweep", store, "weights=true", f"export={overlay}")
    assert outcome.code == 0, outcome.text
    assert re.search(r"lr=0.05 (beats|is ahead of) lr=0.0001|No difference between lr=0.05", outcome.out)
    folder = tmp_path / "sweep/report"
    files = {file.name for file in folder.iterdir()}
    assert files == FILES | {"curves.png", "effects.png", "weights.png"}
    text = (folder / "report.md").read_text()
    assert re.search(r"\| 0.05 \| 0\.\d{4} ± 0\.\d{4} \| 2 \| \d", text)
    line = next(line for line in text.splitlines() if line.startswith("python train.py"))
    assert "optimizer.lr=0.05" in line
    assert "seed" not in line
    assert "tracking" not in line
    assert "| lr=0.05 | conv1 |" in text
    # The parent run has the same files.
    parent = (tmp_path / "sweep/mlflow_run_id").read_text().strip()
    assert {Path(item.path).name for item in MlflowClient(uri(tmp_path)).list_artifacts(parent, "report")} == files
    # The overlay is that configuration.
    shown = command(f"--config-dir={tmp_path}/conf", "--cfg", "job", "experiment=best")
    assert shown.code == 0, shown.text
    config = OmegaConf.create(shown.out)
    assert (config.optimizer.lr, config.trainer.epochs) == (0.05, 2)
    assert config.data._target_ == "cifar_tuning.data.Synthetic"
    # Checkpoints alone.
    alone = reporting(f"checkpoint=[{tmp_path}/sweep/0,{tmp_path}/sweep/1/best.pt]", f"output={tmp_path}/weights")
    assert alone.code == 0, alone.text
    assert "| sweep/1 | conv1 |" in (tmp_path / "weights/report.md").read_text()
    # The folder that is given counts, not where it once was.
    moved = (tmp_path / "sweep").rename(tmp_path / "moved")
    (moved / "report/report.md").unlink()
    again = reporting(f"sweep={moved}", store)
    assert again.code == 0, again.text
    assert (moved / "report/report.md").is_file()
    assert not (tmp_path / "sweep").exists()


@pytest.mark.slow
def test_a_study_that_was_moved(tiny, reporting, store, tmp_path):
    tracked = ["tracking=mlflow", "tracking.log_model=false", store]
    options = ["hydra/sweeper=study", "optimizer.lr=interval(0.01,0.1)", "hydra.sweeper.n_trials=2", "trainer.epochs=1"]
    assert tiny("-m", *options, *tracked).code == 0
    moved = (tmp_path / "sweep").rename(tmp_path / "moved")
    outcome = reporting(f"sweep={moved}", store)
    assert outcome.code == 0, outcome.text
    assert "which is not there" not in outcome.text
    assert (moved / "report/report.md").is_file()


@pytest.mark.parametrize("name", ["depths", "by hand"])
def test_a_sweep_of_somebody_else(reporting, others, filled, tmp_path, name):
    outcome = reporting(f"sweep={name}", others, f"output={tmp_path}/out")
    assert outcome.code == 0, outcome.text
    text = (tmp_path / "out/report.md").read_text()
    assert "No run has `val/acc_best`, so the last value of `test accuracy` is reported" in text
    assert "1 run is left out, having no `test accuracy`: `no metric`." in text
    assert "1 run is left out, being failed: `crashed`." in text
    assert "| depth | test accuracy | n | best epoch | time |" in text
    assert "| 4 | 65.4000 ± 1.4000 | 3 | 1 |" in text
    assert "`test accuracy` is of the images of the test set: by it no configuration is called the best." in text
    assert "depth=4 has a larger test accuracy than depth=2 by 2.20 ± 0.50 (p = 0.0027, n = 3); paired over" in text
    assert {file.name for file in (tmp_path / "out").iterdir()} == FILES | {"curves.png", "effects.png"}
    if name == "depths":
        client = MlflowClient(uri(filled))
        experiment = client.get_experiment_by_name("by hand").experiment_id
        (parent,) = client.search_runs([experiment], "tags.`mlflow.runName` = 'depths'")
        kept = {Path(item.path).name for item in client.list_artifacts(parent.info.run_id, "report")}
        assert kept == {file.name for file in (tmp_path / "out").iterdir()}


def test_less_is_better_and_other_choices(reporting, others, tmp_path):
    outcome = reporting(
        "sweep=depths", others, f"output={tmp_path}/out", "metric=loss", "seed_key=random_seed", "keep=false"
    )
    assert outcome.code == 0, outcome.text
    text = (tmp_path / "out/report.md").read_text()
    assert "judged by `loss` (less is better)" in text
    assert "depth=4: `loss` 0.2500" in text


def test_one_run(log, reporting, store, tmp_path):
    run = log("alone", None, {"val/acc_best": [0.1, 0.5]}, depth=2)
    outcome = reporting(f"sweep={run}", store, f"output={tmp_path}/out")
    assert outcome.code == 0, outcome.text
    assert "There is one run only" in outcome.out
    assert "so there is nothing to compare" in (tmp_path / "out/report.md").read_text()


def begun_study(log, folder, direction="maximize"):
    """Returns a study, its folder and its parent run."""
    folder.mkdir()
    (folder / "study.yaml").write_text("study_name: mine\nstorage: sqlite:///optuna.db\n")
    parent = log("mine", tags={"cifar_tuning.folder": str(folder)})
    study = optuna.create_study(study_name="mine", storage=f"sqlite:///{folder}/optuna.db", direction=direction)
    return study, folder, parent


def test_a_study(log, reporting, store, tmp_path):
    study, folder, parent = begun_study(log, tmp_path / "study")
    for _ in range(6):
        trial = study.ask()
        x = trial.suggest_float("x", 0, 1)
        study.tell(trial, x)
        log(f"trial {trial.number}", parent, {"val/acc_best": [x / 2, x]}, x=x, seed=0)
    log("winner again", parent, {"val/acc_best": [0.9], "test/acc": [0.8]}, x=1, seed=7, tags={"role": "retrained"})
    for seed, reached in ((7, 0.84), (8, 0.86)):
        tags = {"role": "retrained", "cifar_tuning.overrides": f"seed={seed},data.val_size=0"}
        log("winner on all images", parent, {"test/acc": [reached]}, x=1, seed=seed, tags=tags)
    outcome = reporting("sweep=mine", store)
    assert outcome.code == 0, outcome.text
    text = (folder / "report/report.md").read_text()
    assert "6 runs of 6 configurations" in text
    assert "test accuracy 0.8000 (n = 1)" in text
    assert "The winner, trained again (`data.val_size=0`) with seeds that" in text
    assert "test accuracy 0.8500 ± 0.0141 (n = 2)" in text
    assert {"history.png", "slice.png", "timeline.png", "study.html"} <= {f.name for f in (folder / "report").iterdir()}
    assert "![Each trial's value, and the best until then](history.png)" in text
    (folder / "optuna.db").unlink()
    outcome = reporting("sweep=mine", store, f"output={tmp_path}/out", "keep=false")
    assert outcome.code == 0, outcome.text
    assert "which is not there: give storage=" in outcome.out


ACC, LOSS = ("val/acc_best", "maximize"), ("val/loss", "minimize")


@pytest.mark.slow
def test_a_study_s_draws_are_not_compared(log, reporting, store, tmp_path):
    """Two trials, numbers that might have been typed: that they were drawn is known from the study alone."""
    study, folder, parent = begun_study(log, tmp_path / "study")
    for x, y in ((0.1, 0.02), (0.2, 0.01)):
        study.enqueue_trial({"x": x, "y": y})
        trial = study.ask()
        study.tell(trial, trial.suggest_float("x", 0, 1) + trial.suggest_float("y", 0, 1))
        log(f"trial {trial.number}", parent, {"val/acc_best": [x]}, x=x, y=y, seed=0)
    outcome = reporting("sweep=mine", store)
    assert outcome.code == 0, outcome.text
    assert "No two values could be compared, and no trend can be told." in (folder / "report/report.md").read_text()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("objective", "arguments", "best", "said"),
    [
        (ACC, [], "x=0.8: `val/acc_best` 0.8000", "judged by `val/acc_best` (more"),
        (LOSS, [], "x=0.2: `val/loss` 0.2000", "judged by `val/loss` (less"),
        (LOSS, ["metric=val/acc_best"], "x=0.8: `val/acc_best`", "show `val/loss`, which the study minimises, and not"),
        (ACC, ["metric=val/loss"], "x=0.2: `val/loss`", "show `val/acc_best`, which the study maximises, and not"),
        # Which way is better the study knows, not the name.
        (("epoch_seconds", "maximize"), [], "x=0.8: `epoch_seconds`", "judged by `epoch_seconds` (more"),
        (LOSS, ["maximize=true"], "x=0.8: `val/loss`", "judged by `val/loss` (more"),
    ],
)
def test_a_study_is_judged_by_its_objective(log, reporting, store, tmp_path, objective, arguments, best, said):
    name, direction = objective
    study, folder, parent = begun_study(log, tmp_path / "study", direction)
    for x in (0.2, 0.8):
        study.enqueue_trial({"x": x})
        trial = study.ask()
        study.tell(trial, trial.suggest_float("x", 0, 1))
        curves = {metric: [x] for metric in ("val/acc_best", "val/loss", "epoch_seconds")}
        log(f"trial {trial.number}", parent, curves, x=x, seed=0, objective=name)
    outcome = reporting("sweep=mine", store, *arguments)
    assert outcome.code == 0, outcome.text
    asked = [argument.partition("=")[2].replace("/", "_") for argument in arguments if argument.startswith("metric=")]
    report = Path(folder, "report", *asked)  # a metric's own, so that it does not replace the study's
    text = (report / "report.md").read_text()
    assert best in text
    assert said in text
    page = (report / "study.html").read_text().replace("\\u002f", "/")
    named = [metric for metric in ("val/acc_best", "val/loss", name) if f'"text":"{in_words(metric)}"' in page]
    assert set(named) == {name}


@pytest.mark.slow
def test_nothing_is_the_best_by_what_was_trained_on(log, reporting, store, tmp_path):
    parent = log("all images", tags={"cifar_tuning.overrides": ""})
    for lr, reached in ((0.1, 0.7), (0.01, 0.9)):
        for seed in (0, 1):
            tags = {"cifar_tuning.overrides": f"optimizer.lr={lr},seed={seed},data.val_size=0"}
            params = {"optimizer.lr": lr, "objective": "val/acc_best"}
            log(f"{lr} {seed}", parent, {"train/acc": [0.1, reached + seed / 50]}, tags=tags, seed=seed, **params)
    outcome = reporting("sweep=all images", store, f"output={tmp_path}/out")
    assert outcome.code == 0, outcome.text
    text = (tmp_path / "out/report.md").read_text()
    for said in (outcome.out.replace("note: ", ""), text.replace("`", "")):
        assert "No run has val/acc_best, so the last value of train/acc is reported" in said
        assert "train/acc is of the images that were trained on: by it no configuration is called the best." in said
        assert "lr=0.01 has a larger train/acc than lr=0.1" in said
        assert "best configuration" not in said
        assert "python train.py" not in said
    refused = reporting("sweep=all images", store, f"output={tmp_path}/none", f"export={tmp_path}/best.yaml")
    assert refused.code == 1
    assert "best.yaml: train/acc is of the images that were trained on" in refused.err
    assert not (tmp_path / "best.yaml").exists()
    asked = reporting("sweep=all images", store, f"output={tmp_path}/out", "metric=train/acc")
    assert "python train.py optimizer.lr=0.01 data.val_size=0" in asked.out
    assert "lr=0.01 is ahead of lr=0.1" in asked.out or "lr=0.01 beats lr=0.1" in asked.out


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ([], "- sweep: is missing"),
        (["sweep=nowhere"], "sweep=nowhere: is neither a sweep's folder, nor a sweep, study or experiment in"),
        (["sweep=empty"], "has no runs"),
        (["sweep=hopeless"], "All 2 runs failed, so there is nothing to report"),
        (["sweep=depths", "metric=acc"], "metric=acc: none of the 8 runs has it; they have loss, test accuracy."),
        (["sweep=depths", "tracking.uri=sqlite:////nowhere/mlflow.db"], "/nowhere/mlflow.db does not exist. Start"),
        (["sweep=depths", "tracking.uri=http://127.0.0.1:9"], "no MLflow server answers there"),
        (["sweep=depths", "maximize=yes", "weights=some", "figures=gif"], "3 problems"),
        (["sweep=depths", "export=TMP/best.txt"], "must be a .yaml file in a folder that exists"),
        (["sweep=depths", "export=TMP/mine.yaml"], "was not written by this command"),
        (["sweep=depths", "metric=loss", "export=TMP/new.yaml"], "these runs have no command line of train.py"),
        (["sweep=depths", "export=TMP/new.yaml"], "new.yaml: test accuracy is of the images of the test set"),
        (["sweep=depths", "output=TMP/mine.yaml"], "must be a folder, not a file"),
        (["sweep=depths", "output=/proc/none/out"], "can't be written"),
        (["checkpoint=TMP/mine.yaml"], "can't be read as a checkpoint"),
        (["checkpoint=nowhere"], "checkpoint=nowhere: is neither a run's folder"),
    ],
)
def test_bad_input(reporting, others, tmp_path, arguments, expected):
    (tmp_path / "mine.yaml").write_text("a: 1\n")
    given = [argument.replace("TMP", str(tmp_path)) for argument in arguments]
    defaults = {"tracking": others, "output": f"output={tmp_path}/out"}
    missing = [text for key, text in defaults.items() if not any(argument.startswith(key) for argument in given)]
    outcome = reporting(*given, *missing)
    assert outcome.code != 0
    assert expected in outcome.err
    assert "Traceback" not in outcome.err
    assert [file.name for file in tmp_path.iterdir()] == ["mine.yaml"]


def test_a_picture_of_an_earlier_report_is_said_to_be_old(tmp_path, caplog):
    for names in (["a.png", "a.pdf"], ["a.png"]):
        assert not caplog.messages
        with written_at_once(tmp_path / "report") as scratch:
            for name in names:
                (scratch / name).touch()
    assert caplog.messages == ["a.pdf: not of this report, but of an earlier one; figures=pdf renews it"]


def test_what_a_killed_report_left_is_removed(tmp_path):
    folder = tmp_path / "re[p]ort"
    with written_at_once(folder) as scratch:
        left = [scratch.with_name(f"{scratch.name}{number}") for number in (1, 2)]
    for old in left:
        old.mkdir()
    os.utime(left[0], (0, 0))  # the other one may be a report that is being written
    with written_at_once(folder):
        pass
    assert sorted(tmp_path.iterdir()) == [left[1], folder]
