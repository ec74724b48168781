"""A dataset of one's own: what its folders may hold, how images become squares, and that they are decoded once."""

import logging
import os
import shutil
import stat
import unicodedata
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from filelock import FileLock
from PIL import Image

from cifar_tuning.data import ImageFolder, decoded, folders, kept, pictures
from cifar_tuning.errors import DataError
from cifar_tuning.jobs.checks import problems_with

COLOURS = {"daisy": (250, 250, 250), "rose": (250, 0, 0), "tulip": (0, 0, 250)}


def draw(file: Path, colour: tuple[int, ...] = (0, 0, 0), size: tuple[int, int] = (12, 10), mode: str = "RGB") -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    Image.new(mode, size, colour if mode == "RGB" else colour[0]).save(file)


@pytest.fixture
def flowers(tmp_path, monkeypatch) -> Path:
    """Twenty images of each of three classes to train on, four to test."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    root = tmp_path / "flowers"
    for part, count in (("train", 20), ("test", 4)):
        for name, colour in COLOURS.items():
            for number in range(count):
                draw(root / part / name / f"{number:02}.png", colour)
    return root


def opened(root: Path, **options: object) -> ImageFolder:
    return ImageFolder(root, **{"size": 8, "batch_size": 4} | options)


def test_classes_are_folders_and_a_tenth_of_each_validates(flowers):
    data = opened(flowers)
    assert data.classes == ("daisy", "rose", "tulip")
    assert (data.image_shape, data.val_size) == ((8, 8, 3), 6)
    splits = data.load()
    assert (len(splits.train), len(splits.val)) == (54, 6)
    assert np.bincount(splits.val.labels).tolist() == [2, 2, 2]
    for one in (splits.train, splits.val, data.load_test()):
        for image, label in zip(one.images, one.labels, strict=True):
            assert tuple(image[4, 4].tolist()) == COLOURS[data.classes[label]]
    assert opened(flowers, split_seed=1).load().val.rows.tolist() != splits.val.rows.tolist()


@pytest.mark.parametrize(
    ("in_val", "options", "train", "val"),
    [
        (0, {"val_size": 0.25}, 45, 15),
        (0, {"val_size": 9}, 51, 9),
        (0, {"val_size": 0}, 60, 0),
        (0, {"val_size": 0.001}, 59, 1),
        (0, {"val_size": 0.25, "train_limit": 30}, 30, 15),
        (1, {}, 60, 1),
        (1, {"train_limit": 12}, 12, 1),
        (1, {"val_size": 0}, 60, 0),
    ],
)
def test_how_many_validate(flowers, in_val, options, train, val):
    if in_val:
        draw(flowers / "val" / "tulip" / "00.png", COLOURS["tulip"])
    data = opened(flowers, **options)
    splits = data.load()
    assert (len(splits.train), len(splits.val), data.val_size) == (train, val, val)
    assert not in_val or splits.val.labels.tolist() == [2] * val


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        ({"size": 7}, "data.size=7: must be a whole number from 8 to 512 (pixels)"),
        ({"val_size": 60}, "data.val_size=60: must be a number of images up to 59 (60 images in train/), a share of"),
        ({"val_size": -0.1}, "data.val_size=-0.1: must be"),
        ({"val_size": True}, "data.val_size=True: must be"),
        ({"train_limit": 55}, "data.train_limit=55: must be between 1 and 54 (60 images in train/, 6 of which"),
        ({"batch_size": 128}, "data.batch_size=128: must be between 1 and 54 (60 images in train/, 6 of which"),
        ({"train_limit": 8, "batch_size": 9}, "data.batch_size=9: must be between 1 and 8 (data.train_limit=8)"),
        ({"split_seed": -1}, "data.split_seed=-1: must be"),
        ({"mean": [0.5]}, "data.mean=[0.5]: must be a number for each of three channels"),
        ({"std": [0.5, 0, 0.5]}, "data.std=[0.5, 0, 0.5]: must be"),
        ({"white": 254}, "data.white=254: must be a whole number from 255 to 65535"),
        ({"classes": ["daisy", "daisy"]}, "data.classes=['daisy', 'daisy']: must be a list of different names"),
        ({"root": ""}, "data.root=: must be the path of a folder"),
        ({"root": None}, "data.root=None: must be the path of a folder"),
    ],
)
def test_what_is_wrong_with_the_options_is_said(flowers, options, problem):
    given = {"root": str(flowers), "batch_size": 4} | options
    (found,) = problems_with(ImageFolder, given)
    assert found.startswith(problem)
    with pytest.raises(ValueError, match=r"^data\."):
        ImageFolder(**given)


def remove_two(root: Path) -> None:
    for name in ("rose", "tulip"):
        shutil.rmtree(root / "train" / name)


@pytest.mark.parametrize(
    ("change", "options", "problem"),
    [
        (lambda root: (root / "train").rename(root / "training"), {}, "has no folder train/; put each image into"),
        (lambda root: (root / "train/oak").mkdir(), {}, "there is no image in train/oak (of the kinds .jpg, .jpeg"),
        (lambda root: draw(root / "test/oak/1.png"), {}, "test/oak is none of the classes daisy, r"),
        (lambda root: draw(root / "val/oak/1.png"), {}, "val/oak is none of the classes daisy, rose, tulip"),
        (lambda root: root.rename(root.with_name("elsewhere")), {}, "there is no such folder"),
        (remove_two, {}, "has 1 classes with images in train/; put each image"),
        (lambda root: draw(root / "val/tulip/1.png"), {"val_size": 0.2}, "the images in val/ validate; leave it null"),
    ],
)
def test_what_is_wrong_with_the_folders_is_said(flowers, change, options, problem):
    change(flowers)
    (found,) = problems_with(ImageFolder, {"root": flowers, "batch_size": 4} | options)
    ((key, value),) = (options or {"root": flowers}).items()
    assert found.startswith(f"data.{key}={value}: {problem}")


def test_what_is_no_image_is_passed_over(flowers):
    for name in ("notes.txt", ".hidden.png", "Thumbs.db"):
        (flowers / "train" / "rose" / name).write_bytes(b"no image")
    (flowers / "train" / ".cache").mkdir()
    draw(flowers / "train" / "rose" / "more" / "00.JPG", COLOURS["rose"])
    draw(flowers / "train" / "rose" / ".ipynb_checkpoints" / "00.png", COLOURS["rose"])
    draw(flowers / "elsewhere" / "00.png", COLOURS["rose"])
    (flowers / "train" / "rose" / "link").symlink_to(flowers / "elsewhere")
    for number, back in enumerate((".", "..", "../..")):
        (flowers / "train" / "rose" / f"back{number}").symlink_to(back)
    images, labels = opened(flowers).arrays("train")
    assert len(images) == 62
    assert np.bincount(labels).tolist() == [20, 22, 20]


def test_it_says_what_it_found(flowers, caplog):
    """Above all what a share leaves out of small classes, and what was passed over."""
    caplog.set_level(logging.INFO)
    draw(flowers / "train" / "oak" / "1.png")
    (flowers / "train" / "rose" / "1.heic").touch()
    opened(flowers).load()
    assert caplog.messages == [
        f"{flowers}: 55 images of 4 classes (1 to 20 of each in train/) are trained on, 6 validate; "
        "passed over: 1 .heic",
        f"{flowers}: no image of oak validates",
    ]


def test_a_name_is_the_same_however_its_accents_are_stored(flowers):
    for part, form in (("train", "NFC"), ("test", "NFD")):
        draw(flowers / part / unicodedata.normalize(form, "Märzveilchen") / "1.png")
    data = opened(flowers)
    assert data.classes == ("Märzveilchen", *COLOURS)
    assert data.load_test().labels.tolist()[0] == 0


def test_for_predictions_test_images_and_the_names_of_the_classes_will_do(flowers):
    """Here one of a class that a network was not trained on lies in the training folder, there none at all."""
    draw(flowers / "train" / "oak" / "1.png")
    data = opened(flowers, classes=list(COLOURS))
    with pytest.raises(DataError, match=r"train/oak is none of the classes daisy, rose, tulip"):
        data.load()
    (flowers / "test").rename(flowers.parent / "test")
    data = opened(flowers.parent, classes=["tulip", "rose", "daisy"])
    assert data.load_test().labels.tolist() == [2] * 4 + [1] * 4 + [0] * 4
    for nothing in (data, ImageFolder(None, classes=["tulip", "rose", "daisy"])):
        with pytest.raises(DataError, match=r"no image in train/CLASS/, so nothing to be trained on"):
            nothing.load()


def test_images_of_any_shape_and_mode_become_squares(flowers):
    """The longer side is cropped at both ends alike, a picture that was held upright is turned."""
    wide = Image.new("RGB", (30, 10), (9, 9, 9))
    wide.paste((200, 100, 50), (10, 0, 20, 10))
    wide.save(flowers / "test" / "rose" / "a.png")
    half = Image.new("RGB", (10, 10))
    half.paste((250, 250, 250), (0, 0, 10, 5))
    exif = Image.Exif()
    exif[0x0112] = 3  # upside down
    half.save(flowers / "test" / "rose" / "b.jpg", exif=exif, quality=100)
    draw(flowers / "test" / "rose" / "c.png", (77,), mode="L")
    images, _ = opened(flowers).arrays("test")
    a, b, c = images[[-7, -6, -5]]
    assert (a[:, 2:6] == (200, 100, 50)).all()  # at its sides lie the pixels beside it
    assert b[1, 1].max() < 20
    assert b[6, 6].min() > 230
    assert (c == 77).all()


@pytest.mark.parametrize(
    ("values", "white", "expected"),
    [
        (np.array([0, 32768, 65535], "<u2"), 65535, [0, 128, 255]),
        (np.array([0, 32768, 65535], ">u2"), 65535, [0, 128, 255]),
        (np.array([0, 2048, 4095, 5000], "<u2"), 4095, [0, 128, 255, 255]),
        (np.array([0, 32768, 65535], "<i4"), 65535, [0, 128, 255]),
    ],
)
def test_sixteen_bits_become_eight(tmp_path, values, white, expected):
    file = tmp_path / "1.tif"
    Image.fromarray(np.repeat(values, 8)[:, None].repeat(8 * len(values), 1)).save(file)
    square, brightest = pictures.read_image(file, 8 * len(values), 8 * len(values), white)
    assert square[4::8, 0].tolist() == [[value] * 3 for value in expected]
    assert brightest == values.max()


@pytest.mark.filterwarnings("error")
def test_a_palette_with_transparency_is_no_reason_to_warn(tmp_path):
    """Pillow does so in the midst of the progress bar, without the file's name; the colours are right."""
    image = Image.new("P", (8, 8), 1)
    image.putpalette([0, 0, 0, 200, 100, 50])
    image.save(tmp_path / "1.png", transparency=bytes([0, 128]))
    square, _ = pictures.read_image(tmp_path / "1.png", 8, 8, 65535)
    assert (square == [200, 100, 50]).all()


def test_what_has_thirty_two_bits_is_refused(tmp_path):
    for number, values in enumerate((np.zeros((8, 8), np.float32), np.full((8, 8), -1, np.int32))):
        Image.fromarray(values).save(tmp_path / f"{number}.tif")
        with pytest.raises(ValueError, match=r"numbers have 32 bits.*save it with 8 or 16"):
            pictures.read_image(tmp_path / f"{number}.tif", 8, 8, 65535)


def test_dark_images_of_sixteen_bits_are_noticed(flowers, caplog):
    Image.fromarray(np.full((8, 8), 4095, np.uint16)).save(flowers / "test" / "rose" / "1.tif")
    opened(flowers).load_test()
    assert "4095 as their largest number and are dark, as 65535 is white: data=image_folder can be" in caplog.text


def test_a_large_photograph_is_decoded_in_part(tmp_path):
    """Which makes no difference to be seen."""
    large = Image.fromarray(np.linspace(0, 255, 640, dtype=np.uint8)[None].repeat(480, 0)).convert("RGB")
    large.save(tmp_path / "1.jpg", quality=95)
    large.save(tmp_path / "1.png")
    (a, _), (b, _) = (pictures.read_image(tmp_path / f"1.{kind}", 16, 16, 65535) for kind in ("jpg", "png"))
    assert np.abs(a.astype(int) - b).max() <= 3


def test_images_are_decoded_once(flowers, monkeypatch):
    first, _ = opened(flowers).arrays("train")
    read = []
    usual = Image.open
    monkeypatch.setattr(pictures.Image, "open", lambda file, **kinds: read.append(file) or usual(file, **kinds))
    again, _ = opened(flowers).arrays("train")
    assert isinstance(again, np.memmap)
    assert (again == first).all()
    assert not read
    changed = flowers / "train" / "daisy" / "00.png"
    draw(changed, (1, 2, 3))
    os.utime(changed, ns=(1, 1))
    anew, _ = opened(flowers).arrays("train")
    assert len(read) == 60
    assert (anew[0] == (1, 2, 3)).all()
    assert (again[0] == 250).all()  # mapped before
    opened(flowers, size=9).arrays("train")
    assert len(read) == 120
    folders = [one for one in (flowers.parent / "cache" / "cifar_tuning" / "images").iterdir() if one.is_dir()]
    assert sorted(file.name for one in folders for file in one.iterdir()) == ["images.npy", "images.npy", "key", "key"]
    assert {stat.S_IMODE(one.stat().st_mode) for one in folders} == {0o700}  # the images' own folder may be closed too


@pytest.mark.parametrize("size", [0, 100, 200])
def test_an_array_that_a_power_cut_left_short_is_decoded_anew(flowers, size):
    data = opened(flowers)
    images, _ = data.arrays("train")
    os.truncate(images.filename, size)
    assert (opened(flowers).arrays("train")[0][0] == 250).all()


def test_where_nothing_can_be_kept_a_process_decodes_once(flowers, monkeypatch, caplog):
    (flowers.parent / "file").touch()
    monkeypatch.setenv("XDG_CACHE_HOME", str(flowers.parent / "file"))
    images, _ = opened(flowers).arrays("train")
    assert (images[0] == 250).all()
    assert "can't be kept" in caplog.text
    assert opened(flowers).arrays("train")[0] is images


def test_a_full_disk_is_noticed_before_decoding_and_too_little_memory_too(flowers, monkeypatch, caplog):
    monkeypatch.setattr(kept.shutil, "disk_usage", lambda folder: SimpleNamespace(free=9_999))
    images, _ = opened(flowers).arrays("train")
    assert "0.0 GB are needed, 0.0 GB are free" in caplog.text
    del images
    monkeypatch.setattr(decoded, "free_memory", lambda: 9_999)
    with pytest.raises(DataError, match=r"name a larger folder by XDG_CACHE_HOME, or take a smaller data.size"):
        opened(flowers).arrays("train")


def test_what_a_killed_process_left_is_removed(flowers):
    data = opened(flowers)
    (folder,) = {Path(data.arrays("test")[0].filename).parent}
    left = folder.with_name(f".{folder.name}-left")
    left.mkdir()
    draw(flowers / "test" / "rose" / "1.png")
    data = opened(flowers)
    folders.listed.cache_clear()
    data.load_test()
    assert not left.exists()


def test_what_no_command_has_used_for_a_month_is_removed(flowers, caplog):
    """Opening counts as using; what a process is decoding, by its lock, is left alone."""
    caplog.set_level(logging.INFO)
    for size in (8, 9, 10):
        opened(flowers, size=size).load_test()
    arrays = [one for one in (flowers.parent / "cache" / "cifar_tuning" / "images").iterdir() if one.is_dir()]
    sides = {np.load(one / "images.npy").shape[1]: one for one in arrays}
    left = sides[10].with_name(f".{sides[10].name}-left")
    left.mkdir()
    for file in (left, *(one / "key" for one in arrays)):
        os.utime(file, (1, 1))
    opened(flowers).load_test()
    with FileLock(f"{sides[9]}.lock"):
        opened(flowers, size=11).load_test()
    assert [sides[side].exists() for side in (8, 9, 10)] == [True, True, False]
    assert not left.exists()
    assert [line for line in caplog.messages if "Removed" in line] == [
        f"Removed 0.0 GB of decoded images, unused for 30 days, from {left.parent}"
    ]


@pytest.mark.parametrize("content", [b"", b"no image", "truncated"])
def test_bad_images_are_named_and_nothing_is_kept(flowers, content):
    bad = flowers / "train" / "rose" / "07.png"
    bad.write_bytes(bad.read_bytes()[:50] if isinstance(content, str) else content)
    # Pillow would give it to Ghostscript, whatever its name.
    (flowers / "train" / "tulip" / "09.png").write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EOF\n")
    with pytest.raises(DataError, match=r"(?s)decoded as an image.*rose.07\.png: .*tulip.09\.png: cannot identi"):
        opened(flowers).load()
    assert not [one for one in (flowers.parent / "cache" / "cifar_tuning" / "images").iterdir() if one.is_dir()]


def test_an_image_that_is_gone_is_named(flowers):
    data = opened(flowers)
    (flowers / "train" / "rose" / "07.png").unlink()
    with pytest.raises(DataError, match=r"rose.07\.png can't be read: No such file"):
        data.load()


def test_without_test_images_it_says_where_to_put_them(flowers):
    (flowers / "test").rename(flowers / "later")
    data = opened(flowers)
    assert data.prepare() == str(flowers)
    with pytest.raises(DataError, match=r"no image in test/CLASS/.*daisy, rose, tulip"):
        data.load_test()
