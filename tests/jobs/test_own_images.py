"""Images of one's own, from the command to the predictions."""

import csv
import json
import shutil

import numpy as np
import pytest
import yaml
from PIL import Image

from cifar_tuning.jobs.batches import evaluated_at_once
from cifar_tuning.training import checkpoint as checkpoints
from tests.conftest import STUDY, TINY


@pytest.mark.parametrize("options", [[], ["model=resnet20", "model.depth=8", "data.size=16"]])
def test_a_network_has_as_many_outputs_as_there_are_folders(command, predicting, tmp_path, monkeypatch, options):
    monkeypatch.chdir(tmp_path)
    random = np.random.default_rng(0)
    for part, count in (("train", 20), ("test", 5)):
        for label, name in enumerate(("daisy", "rose", "tulip")):
            folder = tmp_path / "flowers" / part / name
            folder.mkdir(parents=True)
            for number in range(count):
                image = random.integers(0, 60, (20, 24, 3), np.uint8)
                image[..., label] += 180
                Image.fromarray(image).save(folder / f"{number}.png")
    own = ["data=image_folder", "data.root=flowers", "data.batch_size=8", "optimizer.lr=0.03"]
    outcome = command(*TINY, *own, "trainer.epochs=8", f"hydra.run.dir={tmp_path}/run", *options)
    assert outcome.code == 0, outcome.err
    assert json.loads((tmp_path / "run" / "result.json").read_text())["value"] == 1
    checkpoint = checkpoints.load(tmp_path / "run")
    assert list(checkpoint.model.values())[-1].shape == (3,)
    assert checkpoint.config["data"]["classes"] == ["daisy", "rose", "tulip"]  # of which resuming sees to it
    (tmp_path / "flowers" / "train").rename(tmp_path / "train")  # another machine has no training images
    (tmp_path / "flowers").rename(tmp_path / "there")
    given = [f"run={tmp_path}/run", "labels=names", "tracking.uri=null", f"output={tmp_path}/p.csv"]
    outcome = predicting(*given)
    assert f"built here: data.root={tmp_path}/flowers: there is no such folder; if it lies elsewhere" in outcome.err
    outcome = predicting(*given, f"data_root={tmp_path}/there", "ids=files")
    assert outcome.code == 0, outcome.err
    rows = list(csv.DictReader((tmp_path / "p.csv").read_text().splitlines()))
    assert [row["label"] for row in rows] == ["daisy"] * 5 + ["rose"] * 5 + ["tulip"] * 5
    assert [row["id"] for row in rows[4:6]] == ["daisy/4.png", "rose/0.png"]
    own = [f"images={tmp_path}/there/test", "ids=stems", "probability=false"]  # the dataset itself need not be here
    outcome = predicting(*given, *own)
    assert outcome.code == 0, outcome.err
    again = list(csv.DictReader((tmp_path / "p.csv").read_text().splitlines()))
    assert again == [row | {"id": row["id"].removesuffix(".png")} for row in rows]


def test_a_file_says_classes_patients_and_which_images_are_for_the_end(command, predicting, tmp_path):
    """As Kaggle has them, all in one folder; the rare class is learnt too."""
    random = np.random.default_rng(0)
    root, lines = tmp_path / "cells", ["image_id,dx,age,patient,fold"]
    root.mkdir()
    for number in range(80):
        rare = number % 8 == 0
        grey = 200 if rare else 60
        Image.fromarray(random.integers(grey - 40, grey + 40, (32, 32, 3), np.uint8)).save(root / f"{number}.png")
        lines.append(f"{number},{'rare' if rare else 'common'},30,p{number // 2},{'test' if number >= 64 else 'train'}")
    (root / "meta.csv").write_text("\n".join(lines))
    columns = [f"data.{name}_column={of}" for name, of in [("file", "image_id"), ("label", "dx"), ("group", "patient")]]
    own = ["data=image_folder", f"data.root={root}", f"data.labels={root}/meta.csv", *columns, "data.split_column=fold"]
    training = ["data.batch_size=8", "optimizer.lr=0.03", "trainer.epochs=4", "trainer.class_weights=balanced"]
    outcome = command(*TINY, *own, *training, f"hydra.run.dir={tmp_path}/run")
    assert outcome.code == 0, outcome.err
    checkpoint = checkpoints.load(tmp_path / "run")
    assert checkpoint.config["data"]["classes"] == ["common", "rare"]
    assert np.array(checkpoint.progress.confusion).sum(1).tolist() == [5, 1]
    root.rename(tmp_path / "there")
    given = [f"run={tmp_path}/run", "tracking.uri=null", f"output={tmp_path}/p.csv"]
    assert "if it lies elsewhere by now, give data_root=FOLDER" in predicting(*given).err
    outcome = predicting(*given, f"data_root={tmp_path}/there", "labels=names", "ids=stems")
    assert outcome.code == 0, outcome.err
    said = "balanced accuracy 1.0000, the mean over the classes; least of all: common 1.0000, rare 1.0000"
    assert said in outcome.out
    rows = {row["id"]: row["label"] for row in csv.DictReader((tmp_path / "p.csv").read_text().splitlines())}
    assert rows == {str(number): "common" if number % 8 else "rare" for number in range(64, 80)}


def test_a_network_for_other_images_is_refused(command, tmp_path):
    for name in ("daisy", "rose"):
        folder = tmp_path / "train" / name
        folder.mkdir(parents=True)
        Image.new("RGB", (8, 8)).save(folder / "1.png")
    own = ["data=image_folder", f"data.root={tmp_path}", "data.batch_size=1", "data.size=48"]
    outcome = command(*TINY, *own, f"hydra.run.dir={tmp_path}/run")
    assert outcome.code != 0
    assert "give it images of 32×32, or take a model that pools globally: model=resnet20" in outcome.err


def test_a_study_of_unequal_classes(command, tmp_path):
    """It may look for the best balanced accuracy, which all images by themselves say little of."""
    random = np.random.default_rng(0)
    for name, count, grey in (("common", 36, 60), ("rare", 4, 200)):
        folder = tmp_path / "cells" / "train" / name
        folder.mkdir(parents=True)
        for number in range(count):
            Image.fromarray(random.integers(grey - 50, grey + 50, (32, 32, 3), np.uint8)).save(folder / f"{number}.png")
    own = ["data=image_folder", f"data.root={tmp_path}/cells", "data.batch_size=8", "data.val_size=0.25"]
    study = [*STUDY, "hydra.sweeper.n_trials=1", "objective=val/acc_balanced", f"hydra.sweep.dir={tmp_path}/study"]
    outcome = command(*TINY, *own, *study, "trainer.epochs=1")
    assert outcome.code == 0, outcome.err
    result = json.loads((tmp_path / "study" / "0" / "result.json").read_text())
    *_, last = map(json.loads, (tmp_path / "study" / "0" / "metrics.jsonl").read_text().splitlines())
    assert result["objective"] == {"val/acc_balanced": last["val/acc_balanced"]} == {"val/acc_balanced": 0.5}
    assert last["val/acc"] == 0.9
    overlay = yaml.safe_load((tmp_path / "study" / "best.yaml").read_text())
    assert overlay["data"]["root"] == f"{tmp_path}/cells"
    others = tmp_path / "others" / "train"
    shutil.copytree(tmp_path / "cells" / "train", others)
    (others / "rare").rename(others / "scarce")
    outcome = command(*TINY, *own, *study, "trainer.epochs=1", "hydra.sweeper.n_trials=2", f"data.root={others.parent}")
    assert outcome.code != 0
    assert "data.classes: ['common', 'rare'] before, ['common', 'scarce'] now" in outcome.err


@pytest.mark.parametrize(
    ("side", "batch_size", "expected"), [(32, 64, 500), (28, 64, 500), (64, 64, 125), (224, 64, 64), (64, 1000, 500)]
)
def test_large_images_are_evaluated_in_batches_that_training_has_room_for(side, batch_size, expected):
    assert evaluated_at_once((9, side, side, 3), batch_size) == expected
