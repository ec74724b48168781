"""`data.val_size=0`: all images are trained on, and whatever would need validation says so or is left out."""

import json

import pytest
import torch

from cifar_tuning.training import checkpoint as checkpoints
from tests.conftest import STUDY
from tests.jobs.stopping import history, same_weights, stopped

ALL = "data.val_size=0"
FUSED = ["hydra/launcher=fused", "hydra.launcher.stack=2"]
PLATEAU = ["~schedule", "+schedule={_target_: torch.optim.lr_scheduler.ReduceLROnPlateau, _partial_: true}"]


@pytest.mark.slow
@pytest.mark.usefixtures("pictures")
def test_a_run_keeps_its_last_epoch_and_has_no_value(tiny, predicting, tmp_path, tracked):
    outcome = tiny(ALL, "trainer.ema_decay=0.9", *tracked.overrides, "tracking.log_model=true")
    assert outcome.code == 0, outcome.text
    run = tmp_path / "run"
    result = json.loads((run / "result.json").read_text())
    assert (result["state"], result["value"], result["best_epoch"], result["epochs"]) == ("complete", None, None, 2)
    assert "complete: trained on 512 images, no validation accuracy; the weights of epoch 2" in outcome.out
    assert "nan" not in outcome.text.lower()
    assert "val loss" not in outcome.text
    assert [set(step) & {"train/acc", "val/acc", "val/loss", "val/acc_best"} for step in history(run)] == [
        {"train/acc"}
    ] * 3
    assert same_weights(run / "best.pt", run / "last.pt")
    assert (run / "learning_curves.png").stat().st_size > 5000
    assert not (run / "confusion_matrix.png").exists()
    assert not list(run.glob(".*.tmp"))
    (tracked_run,) = tracked()
    assert not [name for name in tracked_run.data.metrics if name.startswith("val/")]
    assert tracked_run.outputs.model_outputs, "the model is not there"
    predicted = predicting(f"run={run}", f"output={tmp_path}/p.csv")
    assert predicted.code == 0, predicted.text
    assert "test accuracy" in predicted.out


def test_all_of_cifar10_is_trained_on(configure, cifar10):
    from cifar_tuning.jobs.batches import make_batches
    from cifar_tuning.jobs.prepare import prepare

    parts = prepare(configure("data=cifar10", f"data.root={cifar10}", ALL)).parts
    train, val = make_batches(parts, 0, torch.device("cpu"))
    assert (train.count, val) == (50_000, None)
    assert sorted(train._rows.tolist()) == list(range(50_000))


@pytest.mark.slow
def test_resume_is_bitwise_the_uninterrupted_run(tiny, tmp_path):
    options = [ALL, "trainer.epochs=3", "trainer.ema_decay=0.9", "schedule=onecycle", "model.dropout=0.3"]
    assert tiny(*options, f"hydra.run.dir={tmp_path}/whole").code == 0
    with stopped(epoch=2):
        tiny(*options, f"hydra.run.dir={tmp_path}/broken")
    assert json.loads((tmp_path / "broken/result.json").read_text())["value"] is None
    outcome = tiny(*options, f"resume={tmp_path}/broken", f"hydra.run.dir={tmp_path}/resumed")
    assert outcome.code == 0, outcome.text
    for name in ("best.pt", "last.pt"):
        assert same_weights(tmp_path / "whole" / name, tmp_path / "resumed" / name)
    changed = tiny("trainer.epochs=4", f"resume={tmp_path}/broken")
    assert "data.val_size=128" in changed.err
    assert "was trained with 0; a resumed run must keep it" in changed.err


def test_a_diverged_run_is_recognised(tiny, tmp_path):
    outcome = tiny(ALL, "optimizer.lr=1e30", "trainer.epochs=3")
    assert outcome.code == 0, outcome.text
    result = json.loads((tmp_path / "run/result.json").read_text())
    assert (result["state"], result["value"]) == ("diverged", None)
    assert "diverged: trained on 512 images, no validation accuracy" in outcome.out
    assert all(value.isfinite().all() for value in checkpoints.load(tmp_path / "run/best.pt").model.values())


@pytest.mark.slow
@pytest.mark.parametrize("launcher", [["hydra/launcher=basic"], FUSED], ids=["basic", "fused"])
def test_a_grid_ends_with_a_table_without_values(tiny, predicting, tmp_path, tracked, launcher):
    command = ["-m", *launcher, ALL, "optimizer.lr=0.1,0.01", *tracked.overrides]
    outcome = tiny(*command)
    assert outcome.code == 0, outcome.text
    left = {n: json.loads((tmp_path / f"sweep/{n}/result.json").read_text()) for n in (0, 1)}
    assert [(r["state"], r["value"]) for r in left.values()] == [("complete", None)] * 2
    table = outcome.out.partition("2 jobs")[2]
    assert "best first" not in table
    assert "No job has a validation accuracy, so none is the best." in table
    assert "No job finished" not in table
    parent = next(run for run in tracked() if "mlflow.parentRunId" not in run.data.tags)
    assert (parent.info.status, parent.data.metrics) == ("FINISHED", {"jobs/complete": 2})
    assert "best.run_id" not in parent.data.tags
    none = predicting(f"run={tmp_path}/sweep", f"output={tmp_path}/p.csv")
    assert none.code == 1
    assert "is a sweep without validation, so no job is the best; give a job's folder" in none.err
    if launcher is FUSED:
        assert "#0, #1 as one model" in outcome.text
        assert "2 runs side by side  training accuracies" in outcome.text
        before = (tmp_path / "sweep/0/last.pt").stat().st_mtime_ns
        again = tiny(*command)
        assert again.out.count("finished already: without validation") == 2
        assert (tmp_path / "sweep/0/last.pt").stat().st_mtime_ns == before


@pytest.mark.slow
def test_runs_with_and_without_validation_have_stacks_of_their_own(tiny, tmp_path):
    outcome = tiny("-m", *FUSED, "data.val_size=0,128", "optimizer.lr=0.1,0.01", "trainer.epochs=1")
    assert outcome.code == 0, outcome.text
    assert "#0, #1 as one model" in outcome.text
    assert "#2, #3 as one model" in outcome.text
    values = [json.loads((tmp_path / f"sweep/{n}/result.json").read_text())["value"] for n in range(4)]
    assert [value is None for value in values] == [True, True, False, False]
    assert "4 jobs, best first" in outcome.out


@pytest.mark.slow
def test_a_continued_run_in_mlflow_repeats_no_epoch(tiny, tmp_path, tracked, monkeypatch):
    """Its process died behind a checkpoint of an earlier epoch than MLflow has."""
    command = ["-m", *FUSED[:1], ALL, "seed=0", "trainer.epochs=3", *tracked.overrides]
    with stopped(epoch=2):
        tiny(*command)
    (run,) = (run for run in tracked() if "mlflow.parentRunId" in run.data.tags)
    assert tiny(*command).code == 0
    points = tracked.client().get_metric_history(run.info.run_id, "train/loss")
    assert [point.step for point in points] == [0, 1, 2, 3]


OPTUNA = ["-m", "hydra/sweeper=optuna", "optimizer.lr=tag(log,interval(0.01,0.1))"]


# Of which objectives this is true, `test_directions.py` asks.
@pytest.mark.parametrize(
    "search",
    [[*STUDY, ALL], [*STUDY, "data.val_size=choice(0,128)"], [*OPTUNA, ALL]],
    ids=["study", "swept", "optuna"],
)
def test_a_search_needs_what_it_optimises(mistakes, search):
    assert "data.val_size=0 leaves no image for val/" in mistakes(*search)


@pytest.mark.slow
def test_a_search_for_what_needs_no_validation(tiny, tmp_path):
    outcome = tiny(*STUDY, ALL, "objective=train/acc", "hydra.sweeper.n_trials=2", "trainer.epochs=1")
    assert outcome.code == 0, outcome.text
    assert "2 of 2 trials finished: 2 complete" in outcome.out
    assert f"predict.py run={tmp_path}/sweep" in outcome.out, outcome.out


@pytest.mark.parametrize(("asked", "value"), [("train/loss", float), ("val/loss", type(None))])
def test_a_single_run_returns_what_it_has(tiny, tmp_path, asked, value, monkeypatch):
    from cifar_tuning.jobs import run as jobs

    returned, objective = [], jobs.objective
    monkeypatch.setattr(jobs, "objective", lambda *a: returned.append(objective(*a)) or returned[-1])
    assert tiny(ALL, f"objective={asked}", "trainer.epochs=1").code == 0
    assert [type(each) for each in returned] == [value]


def test_a_schedule_that_steps_on_the_validation_loss_is_refused(tiny, tmp_path):
    outcome = tiny(ALL, *PLATEAU)
    assert outcome.code == 1
    assert "schedule: ReduceLROnPlateau steps on the validation loss, and data.val_size=0 leaves none" in outcome.err
    assert not list((tmp_path / "run").glob("*.pt"))


@pytest.mark.slow
@pytest.mark.parametrize("launcher", [[], ["hydra/launcher=fused", "hydra.launcher.stack=2"]], ids=["basic", "fused"])
def test_the_winner_is_retrained_on_all_images(tiny, tmp_path, launcher, tracked):
    retrained = [
        "hydra.sweeper.retrain_best=2",
        'hydra.sweeper.retrain_overrides=["data.val_size=0","trainer.epochs=2"]',
    ]
    command = [*STUDY, *launcher, "trainer.epochs=1", "hydra.sweeper.n_trials=2", *tracked.overrides]
    outcome = tiny(*command, *retrained)
    assert outcome.code == 0, outcome.text
    kept = json.loads((tmp_path / "sweep/retrained.json").read_text())
    assert kept["overrides"] == ["data.val_size=0", "trainer.epochs=2"]
    assert [(run["value"], 0 <= run["test"] <= 1) for run in kept["runs"].values()] == [(None, True)] * 2
    assert "retrained with 2 other seeds, data.val_size=0, trainer.epochs=2: test accuracy" in outcome.out
    assert "2 other seeds, data.val_size=0, trainer.epochs=2: validation" not in outcome.out
    folder = tmp_path / f"sweep/best_{kept['trial']}/seed_1"
    assert checkpoints.load(folder).config["data"]["val_size"] == 0
    assert checkpoints.load(folder / "best.pt").progress.epoch == 2
    again = tiny(*command, *retrained)  # remembered
    assert "test accuracy" in again.out
    assert "epoch" not in again.out.partition("the best five")[0]
    # Others are other runs, although their seeds are the same.
    other = tiny(*command, "hydra.sweeper.retrain_best=2")
    assert other.code == 0, other.text
    assert "retrained with 2 other seeds: validation accuracy" in other.out
    now = json.loads((tmp_path / "sweep/retrained.json").read_text())
    assert now["overrides"] == []
    assert all(run["value"] is not None for run in now["runs"].values())
    assert checkpoints.load(folder).config["data"]["val_size"] == 128


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (['"data.val_sizee=0"'], "can't be composed: Could not override 'data.val_sizee'"),
        (['"data.val_size=-1"'], "data.val_size=-1: must be a whole number of at least 0  (with hydra.sweeper.retrain"),
        (['"optimizer.lr=0"'], "optimizer.lr=0: must be a number above 0"),
        (['"+optimizer.foo=1"'], "optimizer.foo: is no option of torch.optim.SGD"),
        (['"seed=3"'], "seed=3: seed is not for the retrained winner"),
        (['"hydra.run.dir=x"'], "hydra.run.dir is not for the retrained winner"),
        (['"trainer.epochs=1,2"'], "trainer.epochs=1,2: must have one value"),
        (["data.val_size"], "data.val_size: is no override"),
        (["{data.val_size:0}"], 'must be an override, in quotes, such as "data.val_size=0"'),
        (['"data.val_size=0"', *PLATEAU], "schedule: ReduceLROnPlateau steps on the validation loss"),
    ],
)
def test_overrides_of_the_retrained_winner_are_checked_before_the_search(mistakes, overrides, message):
    first, *others = overrides
    command = ["hydra/sweeper=study", "hydra.sweeper.workers=1", "optimizer.lr=interval(0.01,0.1)", *others]
    retrain = ["hydra.sweeper.retrain_best=1", f"hydra.sweeper.retrain_overrides=[{first}]"]
    assert message in mistakes(*command, *retrain)


def test_overrides_of_a_winner_that_is_not_retrained(mistakes):
    said = mistakes(*STUDY, 'hydra.sweeper.retrain_overrides=["data.val_size=0"]')
    assert "needs hydra.sweeper.retrain_best, the number of seeds" in said
