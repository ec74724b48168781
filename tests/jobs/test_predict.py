import csv
import json
import os
import shutil
import sqlite3
from types import SimpleNamespace

import numpy as np
import optuna
import pytest
import torch
from hydra.utils import execution_whitelist
from omegaconf import OmegaConf
from PIL import Image
from torch import nn

from cifar_tuning.data import ImageFolder, Synthetic, TorchvisionData
from cifar_tuning.data.unlabelled import Unlabelled
from cifar_tuning.errors import UserError
from cifar_tuning.jobs import named_runs
from cifar_tuning.jobs.export import load_classifier, model_from_checkpoint
from cifar_tuning.jobs.predict import _are_same, _check_alike, _own_images, _test_images
from cifar_tuning.jobs.process import trusted_targets
from cifar_tuning.jobs.testing import label_test_images
from cifar_tuning.jobs.testing import test_figures as figures_of
from cifar_tuning.reporting.predictions import write_csv
from cifar_tuning.training import checkpoint as checkpoints
from cifar_tuning.training.checkpoint import Checkpoint
from cifar_tuning.training.events import Progress
from tests.conftest import STUDY


@pytest.fixture(scope="module")
def kept(tmp_path_factory):
    """Where the first test that needs a run leaves it for the others."""
    return tmp_path_factory.mktemp("kept") / "run"


@pytest.fixture
def trained(tiny, tmp_path, kept):
    run = tmp_path / "run"
    if not kept.exists():
        assert tiny("trainer.epochs=3", "model.batch_norm=true", "optimizer.lr=0.05").code == 0
        run.rename(kept)
    return shutil.copytree(kept, run)


def read(file) -> list[list[str]]:
    with file.open() as stream:
        return list(csv.reader(stream))


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["folder", "checkpoint"])
def test_predictions_in_kaggles_form(trained, predicting, tmp_path, kind):
    run = trained if kind == "folder" else trained / "best.pt"
    outcome = predicting(f"run={run}", f"output={tmp_path}/p.csv")
    assert outcome.code == 0, outcome.err
    header, *rows = read(tmp_path / "p.csv")
    assert header == ["id", "label"]
    assert [int(number) for number, _ in rows] == list(range(1, 129))
    labels = Synthetic().load_test().labels
    accuracy = np.mean([int(label) == truth for (_, label), truth in zip(rows, labels.tolist(), strict=True)])
    assert f"test accuracy {accuracy:.4f}" in outcome.out
    assert accuracy > 0.2


def test_the_name_of_a_folder_below_multirun_will_do(trained, predicting, tmp_path, monkeypatch):
    monkeypatch.setattr("cifar_tuning.jobs.named_runs.MULTIRUN", tmp_path / "multirun")
    trained.rename(tmp_path / "mine")
    (tmp_path / "multirun").mkdir()
    (tmp_path / "mine").rename(tmp_path / "multirun" / "mine")
    assert predicting("run=mine", f"output={tmp_path}/p.csv").code == 0


@pytest.mark.slow
def test_images_without_files_have_numbers_alone(trained, predicting, tmp_path):
    outcome = predicting(f"run={trained}", f"output={tmp_path}/n.csv", "ids=files")
    assert outcome.code != 0
    assert "ids=files: the images of synthetic are no files of their own; take ids=numbers" in outcome.err
    assert not (tmp_path / "n.csv").exists()


def test_images_of_ones_own_get_the_border_of_the_training_images(tmp_path):
    Image.new("L", (56, 56), 255).save(tmp_path / "digit.png")
    images, _ = _own_images(Unlabelled(tmp_path), TorchvisionData("MNIST", size=32))
    assert images.shape == (1, 32, 32, 3)
    assert (images[0, 2:30, 2:30] == 255).all()
    assert images.sum() == 28 * 28 * 3 * 255


def test_images_of_ones_own(trained, predicting, tmp_path):
    """Those of the test set as files: the same answers, and nothing where one is broken."""
    images = Synthetic().load_test().images.numpy()
    (tmp_path / "own" / "more").mkdir(parents=True)
    for number, image in enumerate(images):
        Image.fromarray(image).save(tmp_path / "own" / ("more" if number % 2 else ".") / f"{number:03}.png")
    given = [f"run={trained}", f"images={tmp_path}/own", f"output={tmp_path}/own.csv"]
    outcome = predicting(*given)
    assert outcome.code == 0, outcome.err
    assert f"{tmp_path}/own: 128 images" in outcome.out
    assert "accuracy" not in outcome.out
    header, *rows = read(tmp_path / "own.csv")
    assert header == ["id", "label", "probability"]
    assert [rows[0][0], rows[64][0]] == ["000.png", "more/001.png"]
    assert predicting(f"run={trained}", "labels=names", "probability=true", f"output={tmp_path}/t.csv").code == 0
    by_number = {
        f"{'more/' if row % 2 else ''}{row:03}.png": rest for row, (_, *rest) in enumerate(read(tmp_path / "t.csv")[1:])
    }
    assert all(label in Synthetic.classes and 0.1 <= float(share) <= 1 for _, label, share in rows)
    assert [by_number[name][0] for name, *_ in rows] == [label for _, label, _ in rows]
    (tmp_path / "own" / "000.png").write_bytes(b"no image")
    (tmp_path / "own.csv").unlink()
    outcome = predicting(*given)
    assert outcome.code == 1
    assert "mend these or take them away:\n" in outcome.err
    assert "Traceback" not in outcome.err
    assert not (tmp_path / "own.csv").exists()


def test_names_and_first_id(trained, predicting, tmp_path):
    assert predicting(f"run={trained}", f"output={tmp_path}/n.csv", "labels=names", "first_id=0").code == 0
    (tmp_path / "p.csv").touch()
    outcome = predicting(f"run={trained}", f"output={tmp_path}/p.csv")
    assert f"128 predictions in {tmp_path}/p.csv (what was there is replaced)" in outcome.out
    names = Synthetic().classes
    by_name, by_number = read(tmp_path / "n.csv")[1:], read(tmp_path / "p.csv")[1:]
    assert by_name[0][0] == "0"
    assert [names.index(label) for _, label in by_name] == [int(label) for _, label in by_number]


@pytest.mark.usefixtures("old_locale")
def test_names_of_classes_are_written_in_any_locale(tmp_path):
    write_csv(tmp_path / "p.csv", torch.tensor([0]), [1], names=["Vögel"])
    assert (tmp_path / "p.csv").read_text(encoding="utf-8") == "id,label\n1,Vögel\n"


def test_names_of_files_are_written_whatever_they_are(tmp_path):
    """Beside probabilities; a Latin-1 name from an old disk is no UTF-8."""
    names = ["a, b.png", os.fsdecode(b"\xfc.png")]
    write_csv(tmp_path / "p.csv", torch.tensor([0, 1]), names, probabilities=torch.tensor([0.9876, 1]))
    expected = b'id,label,probability\n"a, b.png",0,0.9876\n\xfc.png,1,1.0000\n'
    assert (tmp_path / "p.csv").read_bytes() == expected


@pytest.mark.slow
def test_an_mlflow_run_id(tiny, predicting, tmp_path, store):
    assert tiny(*store).code == 0
    run_id = json.loads((tmp_path / "run/result.json").read_text())["run_id"]
    assert predicting(f"run={tmp_path}/run", f"output={tmp_path}/folder.csv").code == 0
    shutil.rmtree(tmp_path / "run")
    outcome = predicting(f"run={run_id}", store[1], f"output={tmp_path}/id.csv")
    assert outcome.code == 0, outcome.err
    assert read(tmp_path / "id.csv") == read(tmp_path / "folder.csv")


def test_a_sweep_means_its_best_job(tiny, predicting, tmp_path, store):
    assert tiny("-m", "optimizer.lr=0.00001,0.05", *store).code == 0
    with sqlite3.connect(tmp_path / "mlflow.db") as db:
        children = {run for (run,) in db.execute("select run_uuid from tags where key='mlflow.parentRunId'")}
        parent = next(run for (run,) in db.execute("select run_uuid from runs") if run not in children)
    for name, run in (("job", f"{tmp_path}/sweep/1"), ("sweep", f"{tmp_path}/sweep"), ("parent", parent)):
        outcome = predicting(f"run={run}", store[1], f"output={tmp_path}/{name}.csv")
        assert outcome.code == 0, outcome.err
        assert read(tmp_path / f"{name}.csv") == read(tmp_path / "job.csv")


@pytest.mark.slow
@pytest.mark.parametrize("place", ["lr_${optimizer.lr}/seed_${seed}", "${trainer.epochs}/seed_${seed}", "seed_${seed}"])
def test_a_grid_whose_jobs_are_in_folders_of_their_own_names(tiny, predicting, tmp_path, place):
    outcome = tiny("-m", "seed=0,1", "trainer.epochs=1", f"hydra.sweep.subdir='{place}'")
    assert outcome.code == 0, outcome.err
    assert "2 jobs, best first" in outcome.out
    for result in (tmp_path / "sweep").rglob("result.json"):  # the second is the best, whatever it came to
        value = 0.1 + result.parent.name.endswith("_1")
        result.write_text(json.dumps(json.loads(result.read_text()) | {"value": value}))
    best = place.replace("${optimizer.lr}", "0.01").replace("${trainer.epochs}", "1").replace("${seed}", "1")
    predicted = predicting(f"run={tmp_path}/sweep", f"output={tmp_path}/p.csv")
    assert predicted.code == 0, predicted.err
    assert f"taking its best job, {best}\n" in predicted.text
    for file in (tmp_path / "sweep").rglob("result.json"):
        file.unlink()
    lost = predicting(f"run={tmp_path}/sweep", f"output={tmp_path}/p.csv")
    assert "is a sweep of which no job ended" in lost.err


def test_several_runs_predict_together(trained, tiny, predicting, tmp_path):
    """By the mean of their probabilities; patterns are in the order of the jobs' numbers."""
    trained.rename(tmp_path / "2")
    assert tiny("seed=1", "trainer.epochs=2", f"hydra.run.dir={tmp_path}/10").code == 0
    outcome = predicting(f"run={tmp_path}/*", "probability=true", f"output={tmp_path}/p.csv")
    assert outcome.code == 0, outcome.err
    with execution_whitelist(trusted_targets()):
        models = [load_classifier(tmp_path / name)[0] for name in ("2", "10")]
    test = Synthetic().load_test()
    with torch.no_grad():
        each = torch.stack([model(test.images).softmax(1) for model in models])
    shares, classes = each.mean(0).max(1)
    _, *rows = read(tmp_path / "p.csv")
    assert [int(label) for _, label, _ in rows] == classes.tolist()
    assert [float(share) for *_, share in rows] == pytest.approx(shares.tolist(), abs=1e-3)
    single = [(one.argmax(1) == test.labels).float().mean().item() for one in each]
    lines = [f"{tmp_path}/{name}: test accuracy {value:.4f}" for name, value in zip(("2", "10"), single, strict=True)]
    lines += ["128 predictions by the mean of the probabilities of 2 runs in "]
    lines += [f"test accuracy of one {np.mean(single):.4f} ± {np.std(single, ddof=1):.4f} (mean ± standard deviation)"]
    lines += [f"test accuracy of all together {(classes == test.labels).float().mean():.4f}"]
    places = [outcome.out.index(line) for line in lines]
    assert places == sorted(places)


@pytest.mark.parametrize(
    ("given", "found"),
    [
        ("tune/*", ["M/tune/2", "M/tune/9", "M/tune/10"]),  # by their numbers; what has no model is no run
        ("tune/?", ["M/tune/2", "M/tune/9"]),
        ("tune/[0-9]", ["M/tune/2", "M/tune/9"]),
        ("tune/9/*", ["M/tune/9/best.pt", "M/tune/9/last.pt"]),
        ("*[[]1]", ["T/odd[1]"]),
        ("odd[1]", ["odd[1]"]),  # it is there
        ("0" * 32, ["0" * 32]),
        (["tune/?", "tune/10", "tune/*", "M/tune/10"], ["M/tune/2", "M/tune/9", "tune/10"]),  # each has one voice
    ],
)
def test_which_runs_a_pattern_or_a_list_means(tmp_path, monkeypatch, given, found):
    for file in ("tune/10/best.pt", "tune/9/best.pt", "tune/9/last.pt", "tune/9/log", "tune/2/seed_0/best.pt"):
        (tmp_path / "multirun" / file).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "multirun" / file).touch()
    for folder in ("multirun/tune/1", "odd[1]"):
        (tmp_path / folder).mkdir()
    (tmp_path / "odd[1]" / "best.pt").touch()
    monkeypatch.setattr(named_runs, "MULTIRUN", tmp_path / "multirun")
    monkeypatch.chdir(tmp_path)

    def whole(names):
        return [one.replace("M/", f"{tmp_path}/multirun/").replace("T/", f"{tmp_path}/") for one in names]

    names = OmegaConf.create(whole(given)) if isinstance(given, list) else given
    assert named_runs.run_names(names) == whole(found)


@pytest.mark.parametrize(("name", "classes"), [("mine", ["a", "b"]), ("its", ["a", "c"]), ("its", ["b", "a"])])
def test_runs_of_other_data_or_classes_do_not_predict_together(name, classes):
    first = SimpleNamespace(name="its", classes=("a", "b"))
    _check_alike(["0", "1"], [first, first])
    with pytest.raises(UserError, match=rf"run=1: was trained on other data or classes \({name}\) than 0 \(its\)"):
        _check_alike(["0", "1"], [first, SimpleNamespace(name=name, classes=classes)])


def test_runs_of_other_images_do_not_predict_together(trained, predicting, tmp_path):
    """Here as many of other classes; what counts as the same, the next test asks."""
    shutil.copytree(trained, tmp_path / "1")
    checkpoint = torch.load(tmp_path / "1" / "best.pt", weights_only=True)
    checkpoint["config"]["data"]["data_seed"] = 1
    torch.save(checkpoint, tmp_path / "1" / "best.pt")
    outcome = predicting(f"run=[{trained},{tmp_path}/1]", f"output={tmp_path}/p.csv")
    assert outcome.code == 1
    assert "/1: has other test images than " in outcome.err
    assert not (tmp_path / "p.csv").exists()


@pytest.mark.parametrize(
    ("place", "size", "same"),
    [("one", 8, True), ("one", 16, True), ("other", 8, False), ("more", 16, False)],
)
def test_folders_with_as_many_of_each_class_are_not_the_same_images(tmp_path, place, size, same):
    def images_of(place, size):
        for label in ("a", "b"):
            for part in ("train", "test"):
                file = tmp_path / place / part / label / f"{place[:-1]}.png"
                file.parent.mkdir(parents=True, exist_ok=True)
                Image.new("RGB", (9, 9), (len(place), 0, 0)).save(file)
        data = ImageFolder(tmp_path / place, size=size, batch_size=1)
        return *_test_images(data), data

    assert _are_same(images_of(place, size), images_of("one", 8)) is same


@pytest.mark.slow
def test_a_study_means_its_winner(tiny, predicting, tmp_path):
    """By what it looks for, and where its trials have a folder for each seed."""
    options = ["objective=val/loss", "hydra.sweeper.direction=minimize", "hydra/sweeper/pruner=none"]
    options += ["hydra.sweeper.n_trials=3", "hydra.sweeper.repeats=2", "trainer.epochs=1"]
    assert tiny(*STUDY, *options).code == 0
    winner = optuna.load_study(study_name=None, storage=f"sqlite:///{tmp_path}/sweep/optuna.db").best_trial.number
    outcome = predicting(f"run={tmp_path}/sweep", f"output={tmp_path}/submission.csv")
    assert outcome.code == 0, outcome.text
    assert f"taking its best job, {winner}" in outcome.text
    assert "has 2 seeds; taking the first, seed_0" in outcome.text
    trial = predicting(f"run={tmp_path}/sweep/{winner}", f"output={tmp_path}/again.csv")
    assert trial.code == 0, trial.text
    assert (tmp_path / "again.csv").read_text() == (tmp_path / "submission.csv").read_text()


@pytest.mark.parametrize(
    ("state", "value", "curve", "expected"),
    [
        ("complete", 0.9, None, "holds 1 run and is no sweep; name one: run=TMP/0"),
        ("killed", 0.9, None, "is a sweep of which no job ended; give a job's folder."),
        (None, 0.9, None, "is a sweep of which no job ended; give a job's folder."),
        ("{bad", 0.9, None, "is a sweep of which no job ended; give a job's folder."),
        ("complete", None, None, "is a sweep without validation, so no job is the best; give a job's folder."),
        ("complete", 0.9, [], "is a study of several objectives, so no trial is the best; give a trial's folder"),
        ("complete", 0.9, [(7, 0.95, 0)], "its best job, 7, has no best.pt in TMP/7 (trained on another machine"),
    ],
)
def test_a_sweep_without_a_best_job(predicting, tmp_path, state, value, curve, expected):
    (tmp_path / "0").mkdir()
    (tmp_path / "0" / "best.pt").touch()
    if state is not None:  # otherwise it was killed in its first job
        content = state if state == "{bad" else json.dumps({"state": state, "value": value})
        (tmp_path / "0" / "result.json").write_text(content)
    if "no sweep" not in expected:
        (tmp_path / "multirun.yaml").touch()
    if curve is not None:
        (tmp_path / "best_values.json").write_text(json.dumps(curve))
    outcome = predicting(f"run={tmp_path}")
    assert outcome.code == 1
    assert f"run={tmp_path}: {expected.replace('TMP', str(tmp_path))}" in outcome.err
    assert ("result.json can't be read, so its job is left out" in outcome.text) == (state == "{bad")


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ([], "run: is missing"),
        (["run=[]"], "run: is missing"),
        (["run='TMP/x/*'"], "run=TMP/x/*: no folder of a run and no checkpoint fits this pattern"),
        (["run=/nowhere"], "is neither a run's folder, nor a checkpoint file, nor an MLflow run id"),
        (["run=TMP"], "the folder has no best.pt"),
        (["run=TMP/bad.pt"], "can't be read as a checkpoint"),
        (["run=TMP", "device=tpu"], "- device=tpu: must be auto"),
        (["run=TMP", "labels=words"], "labels=words: must be numbers or names"),
        (["run=TMP", "output=/nowhere/p.csv"], "output=/nowhere/p.csv: must be a file in a folder that exists"),
        (["run=TMP", "first_id=-1"], "first_id=-1: must be a whole number"),
        (["run=TMP", "ids=paths"], "ids=paths: must be numbers, files or stems"),
        (["run=TMP", "probability=0.5"], "probability=0.5: must be true or false"),
        (["run=TMP", "images=TMP"], "images=TMP: there is no image in it"),
        (["run=TMP", "images=TMP/nowhere"], "images=TMP/nowhere: there is no such folder or file"),
        (["run=TMP", "images='~nobody_at_all/x'"], "images=~nobody_at_all/x: Could not determine home"),
        (["run=TMP", "images=TMP", "ids=numbers"], "- ids=numbers: numbers are for the test set"),
        (["run=TMP", "images=TMP", "first_id=0"], "- first_id=0: the images of images= have names"),
        (["run=0123456789abcdef0123456789abcdef", "tracking.uri=sqlite:////nowhere/mlflow.db"], "/nowhere"),
    ],
)
def test_bad_input(predicting, tmp_path, arguments, expected):
    (tmp_path / "bad.pt").write_bytes(b"junk")
    outcome = predicting(*(a.replace("TMP", str(tmp_path)) for a in arguments))
    assert outcome.code != 0
    assert expected.replace("TMP", str(tmp_path)) in outcome.err
    assert "Traceback" not in outcome.err


def test_the_exported_classifier_takes_raw_images(trained):
    """Normalisation included, it agrees with the model on normalised images."""
    with execution_whitelist(trusted_targets()):
        classifier, example = load_classifier(trained)
    assert example.dtype == np.uint8
    data = Synthetic()
    images = data.load_test().images
    mean, std = torch.tensor(data.mean), torch.tensor(data.std)
    normalised = ((images / 255 - mean) / std).permute(0, 3, 1, 2)
    with torch.no_grad():
        torch.testing.assert_close(classifier(images), classifier.model(normalised), rtol=1e-4, atol=1e-4)


class Viewing(nn.Module):
    """Runs in one memory format alone, as many a model from a tutorial does."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.fc = nn.Conv2d(3, 2, 3, stride=8), nn.Linear(2 * 4 * 4, 10)

    def forward(self, x):
        return self.fc(self.conv(x).view(x.shape[0], -1))


def test_a_model_predicts_in_the_memory_format_it_was_trained_in(tmp_path):
    data, model = Synthetic(), Viewing()
    target = {"_target_": f"{__name__}.Viewing"}
    config = {"data": {"_target_": "cifar_tuning.data.Synthetic"}, "model": target}
    of_run = {"optimizer": {}, "schedule": {}, "generators": {}, "progress": Progress(), "config": config}
    state = Checkpoint(model.state_dict(), memory_format="contiguous_format", **of_run)
    checkpoints.Taken(state).write(tmp_path / "best.pt")
    with execution_whitelist([*trusted_targets(), f"{__name__}.*"]):
        classifier, _ = load_classifier(tmp_path)
        rebuilt, _ = model_from_checkpoint(tmp_path / "best.pt")
        with pytest.raises(UserError, match=r"data_root=/there: the data of this run, .* has no option `root`"):
            model_from_checkpoint(tmp_path / "best.pt", "/there")
    images = data.load_test().images
    predicted, _ = label_test_images(rebuilt, data, torch.device("cpu"))
    assert torch.equal(classifier(images).argmax(1), predicted)


@pytest.mark.slow
def test_a_model_whose_code_is_elsewhere(trained, predicting, tmp_path):
    checkpoint = torch.load(trained / "best.pt", weights_only=True)
    checkpoint["config"]["model"]["_target_"] = "somebodys.Net"
    torch.save(checkpoint, trained / "best.pt")
    outcome = predicting(f"run={trained}", f"output={tmp_path}/p.csv")
    assert outcome.code == 1
    assert "can't be built here" in outcome.err
    assert "somebodys.Net" in outcome.err
    assert "Traceback" not in outcome.err


@pytest.mark.parametrize("group", ["model", "data"])
def test_a_checkpoint_from_the_web_runs_nothing(trained, predicting, tmp_path, group):
    checkpoint = torch.load(trained / "best.pt", weights_only=True)
    call = {"_target_": "cifar_tuning.files.write_text", "path": str(tmp_path / "ran"), "text": "x"}
    checkpoint["config"][group] = call if group == "model" else {**checkpoint["config"][group], "root": call}
    torch.save(checkpoint, trained / "best.pt")
    outcome = predicting(f"run={trained}", f"output={tmp_path}/p.csv")
    assert outcome.code == 1
    assert "Traceback" not in outcome.err
    assert "configurations may not call" in outcome.err
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize(
    ("predicted", "balanced"),
    [
        ([0, 0, 0, 0, 0, 0], {"test/acc_balanced": 1 / 3}),
        ([0, 0, 0, 1, 1, 3], {"test/acc_balanced": (3 / 4 + 1 + 0) / 3}),
    ],
)
def test_of_classes_of_unequal_size_the_balanced_accuracy_is_known(predicted, balanced):
    labels = torch.tensor([0, 0, 0, 0, 1, 2])
    found = figures_of(torch.tensor(predicted), labels)
    assert found == pytest.approx({"test/acc": 4 / 6, **balanced})
    assert figures_of(labels[3:], labels[3:]) == {"test/acc": 1.0}  # they are of equal size
