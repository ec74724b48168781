"""A tiny dataset in CIFAR-10's real formats, so that every source can be tried without a network."""

import gzip
import hashlib
import io
import json
import struct
import tarfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from cifar_tuning.data.spec import Arrays, Spec, array_sha256

PER_BATCH = 20


@dataclass(frozen=True)
class StandIn:
    spec: Spec
    arrays: Arrays
    pickles: dict[str, bytes]
    pngs: dict[str, bytes]

    def pickle_archive(self) -> bytes:
        return pickle_archive_of(self.pickles)

    def npm_archive(self) -> bytes:
        return tar({f"package/{name}": content for name, content in ({"package.json": b"{}"} | self.pngs).items()})

    def place(self, root: Path, form: str) -> None:
        """Put the files there as a user would."""
        root.mkdir(parents=True, exist_ok=True)
        if form == "pickle archive":
            (root / self.spec.pickle_archive).write_bytes(self.pickle_archive())
        elif form == "npm archive":
            (root / self.spec.npm_archive).write_bytes(self.npm_archive())
        else:
            folder, files = {
                "pickle folder": ("cifar-10-batches-py", self.pickles),
                "package folder": ("package", self.pngs),
                "loose pngs": (".", self.pngs),
            }[form]
            (root / folder).mkdir(exist_ok=True)
            for name, content in files.items():
                (root / folder / name).write_bytes(content)


def stand_in() -> StandIn:
    random = np.random.RandomState(0)
    pngs: dict[str, bytes] = {}
    pickles: dict[str, bytes] = {}
    arrays: Arrays = {}
    names = {"train": [f"data_batch_{i}" for i in range(1, 6)], "test": ["test_batch"]}
    for part, batches in names.items():
        count = PER_BATCH * len(batches)
        images = random.randint(0, 256, (count, 32, 32, 3)).astype(np.uint8)
        labels = random.permutation(np.arange(count) % 10).astype(np.uint8)
        arrays[f"{part}_images"], arrays[f"{part}_labels"] = images, labels
        pngs[f"{part}_lables.json"] = json.dumps(labels.tolist()).encode()
        for index, name in enumerate(batches):
            rows = slice(index * PER_BATCH, (index + 1) * PER_BATCH)
            pngs[f"{name}.png"] = png(images[rows])
            pickles[name] = python2_pickle(images[rows], labels[rows])
    archive = pickle_archive_of(pickles)
    spec = Spec(
        sha256={name: array_sha256(array) for name, array in arrays.items()},
        train_pickles={name: md5(pickles[name]) for name in names["train"]},
        test_pickles={name: md5(pickles[name]) for name in names["test"]},
        pickle_archive_md5=md5(archive),
        npm_bytes=200_000,
    )
    return StandIn(spec, arrays, pickles, pngs)


def pickle_archive_of(pickles: dict[str, bytes]) -> bytes:
    """The batches, and what else the real archive holds."""
    more = {"batches.meta": b"names", "readme.html": b"<html>"}
    return tar({f"cifar-10-batches-py/{name}": content for name, content in (more | pickles).items()})


def md5(content: bytes) -> str:
    return hashlib.md5(content).hexdigest()


def tar(files: dict[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    # mtime=0 keeps the archive's bytes, and so its checksum, the same every time.
    with (
        gzip.GzipFile(fileobj=buffer, mode="wb", mtime=0) as zipped,
        tarfile.open(fileobj=zipped, mode="w") as archive,
    ):
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return buffer.getvalue()


def png(images: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(images.reshape(len(images), -1, 3)).save(buffer, "PNG")
    return buffer.getvalue()


def python2_pickle(images: np.ndarray, labels: np.ndarray) -> bytes:
    """Opcode by opcode what Python 2 and an old NumPy wrote: byte strings, `numpy.core`, a dict of two keys."""
    planes = np.ascontiguousarray(images.transpose(0, 3, 1, 2)).tobytes()
    array = (
        b"cnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\nK\x00\x85U\x01btR"
        b"(K\x01" + b"K" + bytes([len(images)]) + b"M\x00\x0c\x86"
        b"cnumpy\ndtype\nU\x02u1K\x00K\x01\x87R(K\x03U\x01|NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb"
        b"\x89T" + struct.pack("<i", len(planes)) + planes + b"tb"
    )
    numbers = b"](" + b"".join(b"K" + bytes([label]) for label in labels) + b"e"
    return b"\x80\x02}(U\x04data" + array + b"U\x06labels" + numbers + b"u."


class Ready:
    """A source that has the arrays at once, and counts how often it was asked."""

    name = "ready"

    def __init__(self, arrays, errors=()):
        self.arrays, self.errors, self.calls = arrays, list(errors), 0

    def fetch(self, root, scratch, spec):
        self.calls += 1
        (scratch / "half").write_bytes(b"half a download")
        if self.errors:
            raise self.errors.pop(0)
        return self.arrays


def assert_complete(store, tiny):
    for part in ("train", "test"):
        images, labels = store.open(part)
        np.testing.assert_array_equal(images, tiny.arrays[f"{part}_images"])
        np.testing.assert_array_equal(labels, tiny.arrays[f"{part}_labels"])


def leftovers(root):
    return {path.name for path in root.iterdir()} - {"cifar10", ".cifar10.lock"}
