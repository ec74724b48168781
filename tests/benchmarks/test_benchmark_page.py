"""The benchmarks' own arithmetic, their page and their bad input; what they measure is nobody's test."""

import json
import sys

import pytest
import torch
from omegaconf import OmegaConf
from torch import nn

from benchmarks import measure, page, roofline, techniques, usual
from benchmarks.__main__ import main
from benchmarks.tables import TABLES
from cifar_tuning import PROJECT_ROOT
from cifar_tuning.data import Synthetic

WAYS = ("usual", "one by one", "stacked")


def test_operations_and_numbers_of_each_layer():
    model = nn.Sequential(nn.Conv2d(3, 8, 3, bias=False), nn.ReLU(), nn.Conv2d(8, 4, 1, bias=False), nn.Flatten())
    first, relu, second, flatten = roofline.costs(model, (3, 6, 6))
    assert first.flops == 2 * (2 * 4 * 4 * 8 * 3 * 9)  # no gradient of the images
    assert first.numbers == 3 * 36 + 8 * 16 + 8 * 16 + 3 * 36
    assert (relu.flops, relu.numbers) == (0, 5 * 8 * 16)
    assert second.flops == 3 * (2 * 4 * 4 * 4 * 8)
    assert flatten.flops == 0


def test_the_share_is_of_the_ceiling_that_binds():
    layers = [roofline.LayerCost(flops=100, numbers=1), roofline.LayerCost(flops=0, numbers=50)]
    share = roofline.share(layers, roofline.Ceilings(flops=1000, bytes=1000), "bf16", images_per_second=2.0)
    # 0.1 s of operations and 0.1 s of bytes (two each) an image, at two images a second
    assert share["of_roofline"] == pytest.approx(0.4)
    assert share["of_flops"] == pytest.approx(0.2)


def test_the_script_crops_and_flips_on_the_device():
    data = Synthetic(train_size=64, val_size=32, test_size=64)
    images = data.load().train
    torch.manual_seed(0)
    whole = usual.DeviceBatches(data, images, train=False, device=torch.device("cpu"))
    x = torch.cat([x for x, _ in whole])
    assert torch.equal(torch.cat([y for _, y in whole]), images.labels)
    drawn = usual.DeviceBatches(data, images, train=True, device=torch.device("cpu"))
    count = 0
    for batch, labels in drawn:
        assert batch.shape[1:] == (3, 32, 32)
        count += len(labels)
        for image, label in zip(batch, labels, strict=True):  # its middle, moved by up to four pixels, perhaps mirrored
            candidates = x[images.labels == label]
            found = any(
                torch.equal(image[:, 8:24, 8:24], other[:, 8 + down : 24 + down, 8 + right : 24 + right])
                for other in torch.cat([candidates, candidates.flip(3)])
                for down in range(-4, 5)
                for right in range(-4, 5)
            )
            assert found
    assert count == 64


@pytest.mark.parametrize(
    ("gains", "expected"),
    [
        ([0.0062, -0.0010, -0.0022], "+0.10 ± 1.13, 95 % (goal −0.5: in the mean, not beyond chance)"),
        ([0.0012, 0.0010, 0.0008], "+0.10 ± 0.05, 95 % (goal −0.5: holds)"),
        ([-0.01, -0.012, -0.008], "-1.00 ± 0.50, 95 % (goal −0.5: **missed**)"),
        ([0.001], "+0.10 (goal −0.5: in the mean, not beyond chance)"),
    ],
)
def test_a_goal_is_reached_when_the_whole_interval_is_above_it(gains, expected):
    machine = {"processor": "some CPU", "threads": 1, "gpu": None, "versions": {"torch": "2.0"}, "commit": "abc"}
    rounds = [
        {"seed": seed, "stock": {"epochs": 600, "best": 0.7}, "study": {"epochs": 250, "best": 0.7 + gain}}
        for seed, gain in enumerate(gains)
    ]
    content = {"trials": 40, "epochs": 15, "train_limit": None, "machine": machine}
    content |= {"rounds": [*rounds, {"seed": 9}], "summary": {"times_fewer_epochs": 2.4, "points_gained": 0.1}}
    assert TABLES["pruning"](content)[-1].endswith(f"| {expected} |")


def test_the_page_keeps_its_words_and_gets_its_tables(tmp_path, monkeypatch):
    (tmp_path / "results").mkdir()
    machine = {"processor": "some CPU", "threads": 2, "gpu": None, "versions": {"torch": "2.0"}, "commit": "abc"}
    figures = {
        "trials": 200,
        "workers": 4,
        "complete": 200,
        "different": 200,
        "ms_per_trial": 151.2,
        "machine": machine,
    }
    (tmp_path / "results" / "overhead.json").write_text(json.dumps(figures))
    file = tmp_path / "performance.md"
    file.write_text(
        "Before.\n<!-- figures: overhead -->\nold\n<!-- end -->\nAfter.\n<!-- figures: waiting -->\n<!-- end -->\n"
    )
    monkeypatch.setattr(measure, "RESULTS", tmp_path / "results")
    monkeypatch.setattr(page, "PAGE", file)
    page.write()
    text = file.read_text()
    assert "old" not in text
    assert "**151 ms a trial** (goal 150: **missed**)" in text
    assert "Not measured yet: `python -m benchmarks waiting`." in text
    assert text.startswith("Before.\n<!-- figures: overhead -->\n")
    assert "<!-- end -->\nAfter.\n" in text
    page.write()
    assert file.read_text() == text


def test_a_network_that_was_measured_before_keeps_its_commit_and_its_rounds(tmp_path, monkeypatch):
    monkeypatch.setattr(measure, "RESULTS", tmp_path)
    sides = {name: {"median": 1.0, "min": 1.0, "max": 1.0, "ratio": 1.0, "ratio_to_one_by_one": 1.0} for name in WAYS}
    for commit, network, repeats in (("old", "simplenn", 1), ("new", "resnet20", 5)):
        monkeypatch.setattr(measure, "_commit", lambda commit=commit: commit)
        measure.write_networks("stacks", "images/s", {network: sides | {"goals": None, "stack": 8}}, repeats)
    head, *rows = page.TABLES["stacks"](json.loads((tmp_path / "stacks.json").read_text()))
    assert head.endswith("commits old (SimpleNN), new (ResNet-20); only 1 rounds:")
    assert sum("ResNet-20, 8 runs" in row for row in rows) == len(WAYS)


def test_what_a_gpu_trains_within_seconds(tmp_path, monkeypatch):
    machine = {"gpu": "some GPU", "versions": {"torch": "2.0"}, "commit": "abc"}
    table = {"seconds": 9.94, "wall": 31.2, "best": {"1.0": 0.1, "0.01": 0.7319}}
    resnet = {"epochs": 25, "accuracy": 0.9102, "to_90": None, "epoch": 0.9012, "whole": 180.2}
    (tmp_path / "results" / "gpu").mkdir(parents=True)
    figures = {"table": table, "resnet20": resnet, "machine": machine, "note": "by hand"}
    (tmp_path / "results" / "gpu" / "targets.json").write_text(json.dumps(figures))
    file = tmp_path / "performance.md"
    file.write_text("<!-- figures: gpu_targets -->\n<!-- end -->\n<!-- figures: gpu_stacks -->\n<!-- end -->\n")
    monkeypatch.setattr(measure, "RESULTS", tmp_path / "results")
    monkeypatch.setattr(page, "PAGE", file)
    page.write()
    text = file.read_text()
    assert "`python -m benchmarks targets` on some GPU, PyTorch 2.0, commit abc (by hand):" in text
    assert "(best: 1.0 0.1000, 0.01 0.7319) | 9.9, 31 with everything around | 10: holds |" in text
    assert "(at the end 0.9102) | not reached | 30: **missed** |" in text
    assert "200 epochs at 0.90 s each, the recipe's median | 180 | 180: **missed** |" in text
    assert "Not measured yet on a GPU: `python -m benchmarks stacks`." in text


def test_every_marker_of_the_page_has_a_table():
    named = {name.removeprefix("gpu_") for _, name, _ in page.MARKED.findall(page.PAGE.read_text())}
    assert named == {*page.TABLES, page.GOALS}


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["nothing"], "invalid choice: 'nothing'"),
        (["pipeline", "--repeats", "0"], "--repeats 0: must be 1 or above"),
        (["stacks", "--stack", "99"], "--stack 99: must be from 2 to 64"),
        (["pipeline", "--networks", "vgg"], "invalid choice: 'vgg'"),
        (["loading", "nothing"], "invalid choice: 'nothing'"),
        (["precision", "--train-limit", "0"], "--train-limit 0: must be 128 or above"),
    ],
)
def test_bad_input(monkeypatch, capsys, arguments, expected):
    monkeypatch.setattr(sys, "argv", ["benchmarks", *arguments])
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 2
    assert expected in capsys.readouterr().err


@pytest.mark.slow
def test_each_technique_changes_one_option(configure):
    params = OmegaConf.load(PROJECT_ROOT / "conf" / "experiment" / "techniques.yaml").hydra.sweeper.params
    names = [one.removeprefix("technique/") for one in params.variant.split(",")]
    assert names == [techniques.BASE, *techniques.TECHNIQUES]

    def options(name):
        config = configure("experiment=techniques", f"variant=technique/{name}")
        return {
            key: OmegaConf.to_container(config[key], resolve=True) for key in ("model", "augmentation", "trainer")
        } | {"regularizer": OmegaConf.to_container(config.regularizer, resolve=True)}

    base = options(techniques.BASE)
    for name in techniques.TECHNIQUES:
        other = options(name)
        changed = [(group, key) for group in base for key in base[group] if base[group][key] != other[group][key]]
        assert len(changed) == 1, (name, changed)


def test_a_technique_is_compared_seed_by_seed():
    def runs(*values):
        return {seed: {"value": value, "seconds": 10.0 + seed} for seed, value in enumerate(values)}

    results = {name: runs(0.5, 0.6, 0.7) for name in techniques.TECHNIQUES} | {
        techniques.BASE: runs(0.5, 0.6, 0.7),
        "swish": runs(0.52, 0.61, 0.73),
    }
    figures = techniques.compared(results)
    assert figures["swish"]["points"] == pytest.approx(2.0)
    assert figures["swish"]["half_width"] == pytest.approx(2.48, abs=0.01)  # t of 2 degrees of freedom, s = 1 point
    assert figures["swish"]["accuracy"] == pytest.approx(0.62)
    assert figures["swish"]["seconds"] == 11
    assert "points" not in figures[techniques.BASE]
    assert figures["mixup"]["points"] == 0


@pytest.mark.parametrize(
    ("changed", "expected"), [("", "abc1234"), (" M cifar_tuning/training/loop.py", "abc1234-dirty")]
)
def test_the_commit_is_dirty_by_what_benchmarks_did_not_write(monkeypatch, changed, expected):
    asked = []
    monkeypatch.setattr(measure, "_git", lambda *a: asked.append(a) or (changed if a[0] == "status" else "abc1234"))
    assert measure._commit() == expected
    assert ":!benchmarks/results" in asked[-1]
