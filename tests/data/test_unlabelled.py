"""Images without classes: which are found, what they are called, and that they are decoded for this once."""

import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from cifar_tuning.data import decoded
from cifar_tuning.data.unlabelled import Unlabelled
from cifar_tuning.errors import DataError


def draw(file: Path, size: tuple[int, int] = (12, 12)) -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, (200, 100, 50)).save(file)
    return file


@pytest.fixture
def photographs(tmp_path, monkeypatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    root = tmp_path / "photographs"
    for name in ("2.png", "1.JPG", "b/3.png", "a/c/1.png", ".thumbnails/1.png"):
        draw(root / name)
    (root / "notes.txt").touch()
    return root


def test_a_folder_and_those_in_it(photographs):
    found = Unlabelled(photographs)
    assert found.names == ["1.JPG", "2.png", "a/c/1.png", "b/3.png"]
    assert str(found) == f"{photographs}: 4 images; passed over: 1 .txt"


def test_a_folder_that_may_not_be_looked_into_is_named(photographs, monkeypatch, caplog):
    usual = os.scandir

    def scandir(folder):
        if folder.endswith("a"):
            raise PermissionError(13, "Permission denied", folder)
        return usual(folder)

    monkeypatch.setattr(os, "scandir", scandir)
    assert Unlabelled(photographs).names == ["1.JPG", "2.png", "b/3.png"]
    assert f"{photographs}/a can't be looked into, so its images are left out: Permission denied" in caplog.text


def test_one_file_whatever_its_name_ends_in(photographs):
    file = (photographs / "2.png").rename(photographs / "2")
    found = Unlabelled(file)
    assert found.names == ["2"]
    assert (found.arrays((4, 4), 65535) == (200, 100, 50)).all()


def test_they_get_the_size_of_the_training_images_and_are_not_kept(photographs):
    images = Unlabelled(photographs).arrays((6, 8), 65535)
    assert (images.shape, images.dtype) == ((4, 6, 8, 3), np.uint8)
    assert np.abs(images.astype(int) - (200, 100, 50)).max() <= 2  # a JPEG
    assert not (photographs.parent / "cache").exists()


@pytest.mark.parametrize(
    ("place", "problem"),
    [
        ("TMP/nowhere", "there is no such folder or file"),
        ("TMP/empty", r"there is no image in it \(of the kinds .jpg, "),
        ("", "must be a folder of images, or one"),
    ],
)
def test_where_there_is_none(tmp_path, place, problem):
    (tmp_path / "empty" / ".hidden").mkdir(parents=True)
    draw(tmp_path / "empty" / ".hidden" / "1.png")
    with pytest.raises(ValueError, match=problem):
        Unlabelled(place.replace("TMP", str(tmp_path)))


def test_bad_files_are_named_all_at_once(photographs):
    (photographs / "a" / "broken.png").write_bytes((photographs / "2.png").read_bytes()[:50])
    (photographs / "lost.png").symlink_to("nowhere")
    with pytest.raises(DataError, match=r"(?s)mend these or take them away:.*lost\.png: .*a/broken\.png: "):
        Unlabelled(photographs).arrays((8, 8), 65535)


def test_too_many_for_the_memory(photographs, monkeypatch):
    monkeypatch.setattr(decoded, "free_memory", lambda: 99)
    with pytest.raises(DataError, match=r"take 0\.0 GB, and .* free: predict a part of them at a time"):
        Unlabelled(photographs).arrays((8, 8), 65535)
