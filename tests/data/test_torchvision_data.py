"""torchvision's benchmark datasets, a few images each, in the files that torchvision has."""

import errno
import functools
import gzip
import http.client
import http.server
import io
import os
import pickle
import socket
import struct
import threading
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from urllib.error import URLError

import numpy as np
import pytest
import scipy.io
import torch
from standin import md5, tar

from cifar_tuning.data import TorchvisionData, torchvision_data
from cifar_tuning.data.standard_sets import STANDARD_SETS
from cifar_tuning.errors import DataError
from cifar_tuning.torchvision_compat import torchvision

COUNTS = {"train": 40, "test": 20}


def like_mnist(name, arrays, kind, patch) -> tuple[dict[str, bytes], dict[str, bytes]]:
    files = {}
    for part, short in (("train", "train"), ("test", "t10k")):
        images, labels = arrays[part]
        files[f"{name}/raw/{short}-images-idx3-ubyte"] = struct.pack(">4I", 0x803, *images.shape) + images.tobytes()
        files[f"{name}/raw/{short}-labels-idx1-ubyte"] = struct.pack(">2I", 0x801, len(labels)) + labels.tobytes()
    published = {f"{file}.gz": gzip.compress(content) for file, content in files.items()}
    patch(kind, "resources", [(Path(file).name, md5(content)) for file, content in published.items()])
    return files, published


def cifar100(name, arrays, kind, patch) -> tuple[dict[str, bytes], dict[str, bytes]]:
    content = {"meta": pickle.dumps({"fine_label_names": list(STANDARD_SETS[name].classes)})}
    for part, (images, labels) in arrays.items():
        rows = images.transpose(0, 3, 1, 2).reshape(len(images), -1)
        content[part] = pickle.dumps({"data": rows, "fine_labels": labels.tolist()})
    for part in arrays:
        patch(kind, f"{part}_list", [[part, md5(content[part])]])
    patch(kind, "meta", {"filename": "meta", "key": "fine_label_names", "md5": md5(content["meta"])})
    files = {f"cifar-100-python/{name}": data for name, data in content.items()}
    archive = tar(files)
    patch(kind, "tgz_md5", md5(archive))
    return files, {kind.filename: archive}


def svhn(name, arrays, kind, patch) -> tuple[dict[str, bytes], dict[str, bytes]]:
    files, known = {}, {}
    for part, (images, labels) in arrays.items():
        stream = io.BytesIO()
        scipy.io.savemat(stream, {"X": images.transpose(1, 2, 3, 0), "y": np.where(labels, labels, 10)[:, None]})
        files[f"{part}_32x32.mat"] = stream.getvalue()
        known[part] = [f"file:///nowhere/{part}", f"{part}_32x32.mat", md5(stream.getvalue())]
    patch(kind, "split_list", known)
    return files, files


FORMS = {"CIFAR100": cifar100, "MNIST": like_mnist, "FashionMNIST": like_mnist, "SVHN": svhn}


@pytest.fixture
def made(tmp_path, monkeypatch):
    """Makes a dataset of few images; no address that torchvision has for it leads anywhere."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))

    def make(name: str) -> SimpleNamespace:
        random, known = np.random.default_rng(0), STANDARD_SETS[name]
        shape = (28, 28) if known.side == 28 else (32, 32, 3)
        arrays = {
            part: (
                random.integers(0, 256, (count, *shape), np.uint8),
                (np.arange(count) % len(known.classes)).astype(np.uint8),
            )
            for part, count in COUNTS.items()
        }
        kind = getattr(torchvision.datasets, name)
        monkeypatch.setitem(STANDARD_SETS, name, replace(known, images=COUNTS))
        for address in ("url", "mirrors"):
            if hasattr(kind, address):
                monkeypatch.setattr(kind, address, "file:///nowhere" if address == "url" else ["file:///nowhere/"])
        files, published = FORMS[name](name, arrays, kind, monkeypatch.setattr)
        return SimpleNamespace(
            name=name, arrays=arrays, files=files, published=published, kind=kind, root=tmp_path / "data"
        )

    return make


def place(root: Path, files: dict[str, bytes]) -> None:
    for name, content in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(content)


def files_below(root: Path) -> set[str]:
    return {str(file.relative_to(root)) for file in root.rglob("*") if file.is_file()}


def opened(one: SimpleNamespace, **options) -> TorchvisionData:
    return TorchvisionData(one.name, one.root, **{"val_size": 10, "batch_size": 4} | options)


def shown(images: np.ndarray) -> np.ndarray:
    return images if images.ndim == 4 else np.repeat(images[..., None], 3, axis=3)


@pytest.mark.parametrize("name", FORMS)
@pytest.mark.parametrize("form", ["files", "published", "published, one unpacked"])
def test_what_was_put_there_by_hand_needs_no_network(made, name, form):
    one = made(name)
    put = one.files if form == "files" else one.published
    place(one.root, put | (dict([*one.files.items()][:1]) if "unpacked" in form else {}))
    data = opened(one)
    for part in ("train", "test"):
        images, labels = data.arrays(part)
        assert np.array_equal(images, shown(one.arrays[part][0]))
        assert np.array_equal(labels, one.arrays[part][1])
    splits = data.load()
    assert (len(splits.train), len(splits.val), len(data.load_test())) == (30, 10, 20)
    assert isinstance(data.arrays("train")[0], np.memmap)
    assert files_below(one.root) - {f".{name}.lock"} == {*one.files, *put}
    assert not list(one.root.glob("*fetching*"))


def test_what_is_published_is_downloaded(made, tmp_path, monkeypatch):
    one = made("MNIST")
    place(tmp_path / "home", {Path(file).name: content for file, content in one.published.items()})
    serve = functools.partial(http.server.SimpleHTTPRequestHandler, directory=tmp_path / "home")
    monkeypatch.setattr(serve.func, "log_message", lambda *given: None)
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    stale = one.root / ".MNIST-fetching-killed"
    stale.mkdir(parents=True)
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), serve) as server:
        threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
        monkeypatch.setattr(one.kind, "mirrors", [f"http://127.0.0.1:{server.server_port}/"])
        assert opened(one).prepare() == str(one.root)
        server.shutdown()
    assert files_below(one.root) == {".MNIST.lock", *one.files}
    assert not stale.exists()


@pytest.mark.parametrize(
    ("name", "size", "border"), [("MNIST", None, 0), ("MNIST", 28, 0), ("MNIST", 32, 2), ("CIFAR100", 36, 2)]
)
def test_a_border_is_black_and_mean_and_std_know_of_it(made, monkeypatch, name, size, border):
    one = made(name)
    place(one.root, one.files)
    inside, side = shown(one.arrays["train"][0]), STANDARD_SETS[name].side
    pixels = inside / 255
    known = replace(STANDARD_SETS[name], mean=tuple(pixels.mean((0, 1, 2))), std=tuple(pixels.std((0, 1, 2))))
    monkeypatch.setitem(STANDARD_SETS, name, known)
    data = opened(one, size=size)
    images, _ = data.arrays("train")
    assert (data.image_shape, data.border) == ((side + 2 * border, side + 2 * border, 3), border)
    assert np.array_equal(images[:, border : border + side, border : border + side], inside)
    assert images.sum() == inside.sum(dtype=int)
    assert data.mean == pytest.approx((images / 255).mean((0, 1, 2)))
    assert data.std == pytest.approx((images / 255).std((0, 1, 2)))


def test_the_test_set_is_not_opened_before_its_time(made):
    one = made("SVHN")
    place(one.root, {"train_32x32.mat": one.files["train_32x32.mat"]})
    assert len(opened(one).load().train) == 30
    with pytest.raises(DataError, match=r"SVHN could not be fetched: .*\n.*\n  - test_32x32\.mat\n"):
        opened(one).load_test()
    with pytest.raises(DataError, match="SVHN could not be fetched"):  # a machine whose jobs have no network wants both
        opened(one).prepare()


def test_arrays_are_made_once_and_again_where_a_file_changes(made, monkeypatch):
    one = made("MNIST")
    place(one.root, one.files)
    first, _ = opened(one).arrays("train")
    calls, usual = [], TorchvisionData._torchvisions
    monkeypatch.setattr(TorchvisionData, "_torchvisions", lambda *given: calls.append(given) or usual(*given))
    again, _ = opened(one).arrays("train")
    assert np.array_equal(first, again)
    assert not calls
    assert opened(one, size=32).arrays("train")[0].shape[1:] == (32, 32, 3)
    opened(one).arrays("train")
    assert len(calls) == 1
    calls.clear()
    os.utime(one.root / "MNIST/raw/train-images-idx3-ubyte", ns=(1, 1))
    opened(one).arrays("train")
    assert len(calls) == 1


def test_where_nothing_can_be_kept_a_process_reads_once(made, tmp_path, monkeypatch, caplog):
    one = made("CIFAR100")
    place(one.root, one.files)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "data" / "cifar-100-python" / "meta"))
    images, labels = opened(one).arrays("train")
    assert "can't be kept" in caplog.text
    assert [a is b for a, b in zip(opened(one).arrays("train"), (images, labels), strict=True)] == [True, True]


def test_a_process_that_waited_finds_what_another_fetched(made, monkeypatch):
    one = made("MNIST")

    @contextmanager
    def locked(file, busy):
        assert file == one.root / ".MNIST.lock"
        place(one.root, one.files)
        yield

    monkeypatch.setattr(torchvision_data, "locked", locked)
    assert len(opened(one).load().train) == 30


@pytest.mark.timeout(60)
def test_of_two_that_fetch_at_once_one_does(made, monkeypatch):
    one = made("FashionMNIST")
    place(one.root, one.published)
    calls, usual = [], TorchvisionData._fetch_into
    monkeypatch.setattr(TorchvisionData, "_fetch_into", lambda *given: calls.append(given) or usual(*given))
    threads = [threading.Thread(target=opened(one).prepare) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    ((_, scratch, _),) = calls
    assert scratch.parent == one.root  # on the disk that the files are moved to


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (OSError(errno.ENOSPC, "No space left on device"), "can't be stored there: No space left on device. Make room"),
        (PermissionError(errno.EACCES, "Permission denied"), "can't be stored there: Permission denied"),
        (
            URLError("no route to host"),
            "CIFAR100 could not be fetched: <urlopen error no route to host>\nPut this into",
        ),
        (TimeoutError("timed out"), "CIFAR100 could not be fetched: timed out\nPut this into"),
        (http.client.RemoteDisconnected("gone"), "CIFAR100 could not be fetched: gone\nPut this into"),
        (RuntimeError("File not found or corrupted."), "could not be fetched: File not found or corrupted.\nPut this"),
    ],
)
def test_what_keeps_it_from_being_fetched(made, monkeypatch, error, said):
    def fail(*given, **options):
        assert socket.getdefaulttimeout() == torchvision_data.TIMEOUT
        raise error

    one = made("CIFAR100")
    monkeypatch.setattr(TorchvisionData, "_torchvisions", fail)
    with pytest.raises(DataError) as caught:
        opened(one).load()
    assert said in str(caught.value)
    assert "data.root=PATH" in str(caught.value)
    assert "could not be" not in said or "  - cifar-100-python.tar.gz" in str(caught.value)
    assert {entry.name for entry in one.root.iterdir()} == {".CIFAR100.lock"}


def test_a_root_that_is_no_folder(made):
    one = made("CIFAR100")
    one.root.touch()
    with pytest.raises(DataError, match=r"CIFAR100 can't be stored there: File exists"):
        opened(one).load()


@pytest.mark.parametrize("name", FORMS)
def test_a_damaged_archive_is_named_and_left_alone(made, name):
    one = made(name)
    damaged = {file: content[:-9] for file, content in one.published.items()}
    place(one.root, damaged)
    said = "what is there is not SVHN" if name == "SVHN" else "what lies there is damaged, by its checksum"
    with pytest.raises(DataError, match=said):
        opened(one).load()
    assert {file: (one.root / file).read_bytes() for file in damaged} == damaged


@pytest.mark.parametrize(
    ("file", "content", "said"),
    [
        ("MNIST/raw/train-images-idx3-ubyte", lambda content: content[:-1], "what is there is not MNIST: "),
        ("MNIST/raw/train-images-idx3-ubyte", lambda content: b"", "what is there is not MNIST: "),
        (
            "MNIST/raw/train-labels-idx1-ubyte",
            lambda content: struct.pack(">2I", 0x801, 39) + content[8:-1],
            "40 images were expected, and 40 are there, with 39 labels",
        ),
        (
            "MNIST/raw/train-images-idx3-ubyte",
            lambda content: struct.pack(">4I", 0x803, 39, 28, 28) + content[16 : -28 * 28],
            "40 images were expected, and 39 are there, with 40 labels",
        ),
        ("cifar-100-python/train", lambda content: content[:-1], "what is there is not CIFAR100: Dataset not found or"),
        ("train_32x32.mat", lambda content: b"html", "what is there is not SVHN: Dataset not found or corrupted"),
    ],
)
def test_a_damaged_file_is_named(made, tmp_path, file, content, said):
    one = made({"M": "MNIST", "c": "CIFAR100", "t": "SVHN"}[file[0]])
    place(one.root, one.files | {file: content(one.files[file])})
    with pytest.raises(DataError) as caught:
        opened(one).load()
    assert said in str(caught.value)
    assert (
        f"Take these away, and the same command fetches them anew: {', '.join(STANDARD_SETS[one.name].files['train'])}"
        in str(caught.value)
    )
    assert not list(tmp_path.glob("cache/cifar_tuning/images/*/key"))


@pytest.mark.parametrize(
    ("error", "said"),
    [(PermissionError(errno.EACCES, "Permission denied"), "Permission denied"), (MemoryError(), "out of memory")],
)
def test_a_file_that_can_not_be_read_now(made, monkeypatch, error, said):
    one = made("MNIST")
    place(one.root, one.files)

    def fail(*given):
        raise error

    monkeypatch.setattr(TorchvisionData, "_torchvisions", fail)
    with pytest.raises(DataError, match=f"MNIST is there, but can't be read now: {said}"):
        opened(one).load()


@pytest.mark.parametrize("name", FORMS)
def test_what_is_known_beforehand_is_torchvisions(name):
    known, kind = STANDARD_SETS[name], getattr(torchvision.datasets, name)
    published = {file for part in known.archives.values() for file in part}
    if name == "SVHN":
        assert published == {kind.split_list[part][1] for part in ("train", "test")}
    elif name == "CIFAR100":
        assert published == {kind.filename}
        names = [file for file, _ in (*kind.train_list, *kind.test_list)] + [kind.meta["filename"]]
        assert sorted(known.files["train"]) == sorted(f"{kind.base_folder}/{file}" for file in names)
        assert (len(known.classes), list(known.classes)) == (100, sorted(known.classes))
    else:
        assert published == {f"{name}/raw/{file}" for file, _ in kind.resources}
        assert [text.partition(" - ")[0] for text in kind.classes] == list(known.classes)


@pytest.mark.parametrize("name", ["cifar100", "mnist", "fashion_mnist", "svhn"])
def test_simplenn_takes_each_and_the_data_need_not_be_there(configure, tmp_path, name):
    from cifar_tuning.jobs.prepare import prepare

    parts = prepare(configure(f"data={name}", f"data.root={tmp_path}/nowhere")).parts
    assert parts.model(torch.zeros(1, 3, 32, 32)).shape == (1, len(parts.data.classes))
    assert not (tmp_path / "nowhere").exists()
