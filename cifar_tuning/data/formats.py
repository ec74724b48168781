"""The two formats CIFAR-10 comes in (pickled batches; PNG sheets with JSON labels), turned into arrays.

Files are read from a folder or straight out of an archive, into memory: nothing of an archive ever lands on
disk, so no member's name, link or mode can do harm.
"""

import hashlib
import io
import json
import pickle
import tarfile
import zlib
from collections.abc import Callable, Collection, Iterable, Iterator
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
from PIL import Image

from cifar_tuning.data.spec import Arrays, CorruptError, Spec

Files = Iterable[tuple[str, bytes]]
Decoder = Callable[[Files, Spec], Arrays]

# All that an array needs that Python 2 and the NumPy of its time pickled.
_ALLOWED: dict[tuple[str, str], Any] = {
    ("numpy.core.multiarray", "_reconstruct"): np.empty(0).__reduce__()[0],
    ("numpy", "ndarray"): np.ndarray,
    ("numpy", "dtype"): np.dtype,
}


class _ArrayUnpickler(pickle.Unpickler):
    """Builds plain containers and numpy arrays, and refuses to look up anything else."""

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in _ALLOWED:
            raise CorruptError(f"{module}.{name} has no place in a dataset")
        return _ALLOWED[module, name]


def read_folder(folder: Path, names: Collection[str]) -> Iterator[tuple[str, bytes]]:
    """Name and content of each wanted file that lies in `folder`."""
    for name in names:
        if (folder / name).is_file():
            yield name, (folder / name).read_bytes()


def read_archive(archive: Path, names: Collection[str]) -> Iterator[tuple[str, bytes]]:
    """Name and content of each wanted file of a .tar.gz, in one pass, whatever folder it has in there.

    Raises:
        CorruptError: the archive is truncated or damaged.
    """
    try:
        with tarfile.open(archive, "r|gz") as tar:
            for member in tar:
                name = PurePosixPath(member.name).name
                content = tar.extractfile(member) if member.isfile() and name in names else None
                if content is not None:
                    yield name, content.read()
    except (tarfile.TarError, EOFError, zlib.error, OSError) as error:
        raise CorruptError(f"{archive} can't be read: {error}") from error


def decode_pickles(files: Files, spec: Spec) -> Arrays:
    """The original Python batches, each compared with its MD5 before it is unpickled.

    Raises:
        CorruptError: a batch is missing, or its checksum is wrong.
    """
    batches: dict[str, tuple[np.ndarray, np.ndarray]] = {}
    for name, content in files:
        if hashlib.md5(content, usedforsecurity=False).hexdigest() != spec.pickle_md5[name]:
            raise CorruptError(f"{name} has the wrong MD5; it was not unpickled")
        batch = _ArrayUnpickler(io.BytesIO(content), encoding="latin1").load()
        height, width, channels = spec.image_shape
        planes = batch["data"].reshape(-1, channels, height, width)
        batches[name] = planes.transpose(0, 2, 3, 1), np.asarray(batch["labels"], np.uint8)
    _require(spec.pickle_md5, batches)
    return {
        f"{part}_{kind}": np.concatenate([batches[name][column] for name in names])
        for part, names in (("train", spec.train_pickles), ("test", spec.test_pickles))
        for column, kind in enumerate(("images", "labels"))
    }


def decode_pngs(files: Files, spec: Spec) -> Arrays:
    """The npm package's PNG sheets (one image a line, row by row) and its JSON lists of labels.

    Raises:
        CorruptError: a file is missing or can't be decoded.
    """
    decoded: dict[str, np.ndarray] = {}
    for name, content in files:
        try:
            if name.endswith(".json"):
                decoded[name] = np.asarray(json.loads(content), np.uint8)
            else:
                with Image.open(io.BytesIO(content), formats=["PNG"]) as sheet:
                    decoded[name] = np.asarray(sheet.convert("RGB")).reshape(-1, *spec.image_shape)
        except (ValueError, TypeError, OverflowError, OSError, SyntaxError) as error:
            raise CorruptError(f"{name} can't be decoded: {error}") from error
    _require(spec.png_names, decoded)
    return {
        "train_images": np.concatenate([decoded[name] for name in spec.train_pngs]),
        "train_labels": decoded[spec.train_labels_json],
        "test_images": np.concatenate([decoded[name] for name in spec.test_pngs]),
        "test_labels": decoded[spec.test_labels_json],
    }


def _require(names: Iterable[str], found: Collection[str]) -> None:
    missing = [name for name in names if name not in found]
    if missing:
        raise CorruptError(f"{', '.join(missing)} missing")
