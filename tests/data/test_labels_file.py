"""Images of one's own whose classes a CSV file says: what it may look like, and what is wrong with it."""

from pathlib import Path

import pytest
from PIL import Image

from cifar_tuning.data import ImageFolder
from cifar_tuning.data.listing import classes_in
from cifar_tuning.errors import DataError
from cifar_tuning.jobs.checks import problems_with

COLOURS = {"nevus": (90, 60, 40), "melanoma": (20, 20, 20)}


def draw(file: Path, label: str = "nevus") -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (8, 8), COLOURS.get(label, (0, 0, 0))).save(file)


@pytest.fixture
def skin(tmp_path, monkeypatch) -> Path:
    """1.png … 20.png, every fifth of the rarer class; 21.png is for nobody. Two of each patient."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    root = tmp_path / "skin"
    lines = ["id,label,patient"]
    for number in range(1, 21):
        label = "nevus" if number % 5 else "melanoma"
        draw(root / "train" / f"{number}.png", label)
        lines.append(f"{number},{label},p{number // 2}")
    draw(root / "test" / "1.png")
    (root / "labels.csv").write_text("\n".join(lines) + "\n")
    return root


def made(root: Path | None, **options) -> ImageFolder:
    given = {"labels": "labels.csv", "size": 8, "batch_size": 2} | options
    return ImageFolder(root, **given)


def test_images_have_the_classes_that_the_file_says(skin, caplog):
    caplog.set_level("INFO")
    data = made(skin, group_column="patient", val_size=0.2)
    assert data.classes == ("melanoma", "nevus")
    splits = data.load()
    for one in (splits.train, splits.val):
        for image, label in zip(one.images, one.labels, strict=True):
            assert tuple(image[0, 0].tolist()) == COLOURS[data.classes[label]]
    files = [Path(file).stem for file in data.files("train")]
    patients = [{int(files[row]) // 2 for row in one.rows} for one in (splits.train, splits.val)]
    assert not patients[0] & patients[1]
    assert len(splits.val) == data.val_size == pytest.approx(4, abs=1)  # groups are whole
    assert len(splits.train) + len(splits.val) == 20
    assert set(splits.val.labels.tolist()) == {0, 1}
    assert "passed over: 1 images that labels.csv does not name" in caplog.text
    with pytest.raises(DataError, match=r"no image is for test.*split_column"):
        data.load_test()


def test_a_network_that_is_to_be_shown_other_images_needs_neither_file_nor_folder():
    data = made(None, classes=["melanoma", "nevus"], group_column="patient")
    assert (data.classes, data.image_shape) == (("melanoma", "nevus"), (8, 8, 3))


@pytest.mark.parametrize(
    ("content", "options", "found"),
    [
        ("id,label\n1,nevus\n3,melanoma\n", {}, ["train/1.png", "train/3.png"]),
        ("id;label\n1.png;nevus\n\n3.png;melanoma\n", {}, ["train/1.png", "train/3.png"]),
        ("\ufeffdx\tid\nnevus\ttrain/1\nmelanoma\t.\\train\\3.png\n", {"label_column": "dx"}, None),
        (",id,label\n0, 1 ,nevus\n1,3,melanoma\n", {}, None),
        ('id, "label"\n1, "nevus"\n3, "melanoma"\n', {}, None),
        ("id,label\nROOT/train/1.png,nevus\nROOT/train/3,melanoma\n", {}, None),
        ("id,label\n1,nevus\n21,melanoma\n", {}, ["more/21.png", "train/1.png"]),
        (
            "dx,patient,image,age\nnevus,p1,1,30\nmelanoma,p2,3,40\n",
            {"file_column": "image", "label_column": "dx", "group_column": "patient"},
            None,
        ),
    ],
)
def test_forms_of_the_file(skin, content, options, found):
    draw(skin / "more" / "21.png")
    (skin / "own.csv").write_text(content.replace("ROOT", str(skin)), encoding="utf-8")
    data = made(skin, labels=str(skin / "own.csv"), val_size=0, **options)
    assert {f"train/{file}" if "/" not in file else file for file in data.files("train")} == set(
        found or ["train/1.png", "train/3.png"]
    )
    _, labels = data.arrays("train")
    assert sorted(data.classes[label] for label in labels) == ["melanoma", "nevus"]


def test_a_column_says_what_validates_and_what_is_for_the_end(skin):
    """Numbers are classes in their own order; the same name may be in the folders of two parts."""
    (skin / "labels.csv").write_text(
        "id,label,fold\n1,10,train\n2,9,train\n3,9,Train\n4,10,valid\n1,9,test\n2,10,test\n"
    )
    draw(skin / "test" / "2.png", "melanoma")
    data = made(skin, split_column="fold")
    assert (data.classes, data.val_size) == (("9", "10"), 1)
    splits = data.load()
    assert (splits.train.labels.tolist(), splits.val.labels.tolist()) == ([1, 0, 0], [1])
    test = data.load_test()
    assert (data.files("test"), test.labels.tolist()) == (["1.png", "2.png"], [0, 1])
    assert test.images[:, 0, 0, 0].tolist() == [90, 20]


@pytest.mark.parametrize(
    ("content", "options", "problem"),
    [
        (None, {"labels": "no.csv"}, "data.labels=ROOT/no.csv: there is no such file (a relative path is one in data."),
        (None, {"labels": 3}, "data.labels=3: must be the path of a CSV file, or null"),
        (None, {"labels": None, "label_column": "dx"}, "data.label_column: is a column of the file data.labels, which"),
        (
            None,
            {"label_column": "dx"},
            "data.label_column=dx: ROOT/labels.csv has no such column; it has id, la",
        ),
        (None, {}, "data.labels=ROOT/labels.csv: has the columns id, label, patient; say by data.file_column= and"),
        ("", {}, "data.labels=ROOT/labels.csv: its first line must name the columns, such as id,label, but is empty"),
        ("id,label\n", {}, "data.labels=ROOT/labels.csv: has no line but the names of its columns"),
        (b"id,label\n\xff,a\n", {}, "data.labels=ROOT/labels.csv: is no CSV file in UTF-8"),
        (
            'id,label\n1,"a\n2,b\n3,c\n',
            {},
            "data.labels=ROOT/labels.csv: is no CSV file in UTF-8 (unexpected end of data)",
        ),
        ("id,label\n1,nevus\n", {}, "data.labels=ROOT/labels.csv: has 1 classes; at least two are needed"),
        ("id,label\n1,\n2\n", {}, "data.labels=ROOT/labels.csv: line 2 has no label; line 3 has no label"),
        (
            "id,label\n1,a\n71,b\n72,b\n",
            {},
            "data.labels=ROOT/labels.csv: 2 of 3 images are not in ROOT: 71 (li",
        ),
        ("id,label\n1,a\ntrain/1.png,b\n", {}, "data.labels=ROOT/labels.csv: lines 2 and 3 are both about train/1.png"),
        ("id,label\n99,a\n1,b\n", {}, "data.labels=ROOT/labels.csv: line 2: 99 may be x/99.png or y/99.png"),
        (
            "id,label,f\n1,a,2\n",
            {"split_column": "f"},
            "data.labels=ROOT/labels.csv: line 2 is for 2, in place of tr",
        ),
        (
            "id,label,f\n1,a,train\n2,b,train\n3,c,val\n",
            {"split_column": "f"},
            "data.labels=ROOT/labels.csv: c, in val, is none of the classes a, b",
        ),
        (
            "id,label,f,g\n1,a,train,p\n2,b,train,q\n3,b,val,p\n",
            {"split_column": "f", "group_column": "g"},
            "data.group_column=g: p is in train and in val, by data.split_column=f of ROOT/labels.csv",
        ),
        (
            "id,label,g\n1,a,p\n2,b,p\n3,a,q\n4,c,q\n",  # a has two
            {"group_column": "g", "val_size": 1},
            "data.group_column=g: each group has all images of a class, so none can validate; data.val_size=0 trains",
        ),
        (
            None,
            {"group_column": "patient", "val_size": 20},
            "data.val_size=20: must be a number of images up to 19 (20 images in labels.csv), a share",
        ),
    ],
)
def test_what_is_wrong_is_said(skin, content, options, problem):
    for folder in "xy":
        draw(skin / folder / "99.png")
    if content is not None:
        (skin / "labels.csv").write_bytes(content if isinstance(content, bytes) else content.encode())
    (found,) = problems_with(ImageFolder, {"root": skin, "labels": "labels.csv", "batch_size": 1} | options)
    assert found.startswith(problem.replace("ROOT", str(skin)))
    assert classes_in(skin, labels="no.csv") is None  # it is the check that says so
