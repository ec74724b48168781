"""CIFAR-100, MNIST, Fashion-MNIST and SVHN: fetched, checked and read by torchvision, kept as arrays."""

import http.client
import logging
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from cifar_tuning import PROJECT_ROOT
from cifar_tuning.data.base import ImageData, check_root, check_settings
from cifar_tuning.data.kept import Kept, key_of_files
from cifar_tuning.data.scratch import scratch
from cifar_tuning.data.standard_sets import STANDARD_SETS
from cifar_tuning.errors import DataError, full_disk
from cifar_tuning.locked import locked
from cifar_tuning.network import lend_certificates, socket_timeout
from cifar_tuning.numeric import is_whole
from cifar_tuning.option_rules import broken, one_of, raise_all
from cifar_tuning.text import on_one_line

log = logging.getLogger(__name__)

MOST_SIDE = 512
# Without an answer for so many seconds an address counts as unreachable.
TIMEOUT = 15.0
_IMAGES, _LABELS = "images", "labels"


class TorchvisionData(ImageData):
    """A benchmark dataset of torchvision; `conf/data/mnist.yaml` and others are this constructor.

    It is fetched at the first use, unless its files, as torchvision has them or as they are published, lie in `root`
    already. Grey images get three equal channels. The arrays are kept in the user's cache folder, which all processes
    map; where a file changes, they are made again.

    Args:
        dataset: torchvision's name, one of `STANDARD_SETS`.
        root: folder that holds the data, or files put there by hand.
        size: side of the images in pixels; they are not scaled, but get a black border (LeCun et al. 1998,
            "Gradient-Based Learning Applied to Document Recognition", section II.B: 28×28 within 32×32). None: as they
            are.
        val_size, split_seed, train_limit, batch_size: see `ImageData`.

    Raises:
        ValueError: every problem that `check` finds.
    """

    def __init__(
        self,
        dataset: str,
        root: str | Path = PROJECT_ROOT / "data",
        *,
        size: int | None = None,
        val_size: int = 5000,
        split_seed: int = 0,
        train_limit: int | None = None,
        batch_size: int = 128,
    ) -> None:
        raise_all(TorchvisionData.check(**locals()))
        self.name, self._known = dataset, STANDARD_SETS[dataset]
        self.root = Path(root).expanduser().absolute()
        side = self._known.side if size is None else size
        self.image_shape, self.border = (side, side, 3), (side - self._known.side) // 2
        self.classes, (self.mean, self.std) = self._known.classes, self._known.bordered(side)
        self.val_size, self.split_seed = val_size, split_seed
        self.train_limit, self.batch_size = train_limit, batch_size

    @staticmethod
    def check(**options: object) -> list[str]:
        """Problems of the given settings, one line each; an empty list when the constructor takes them."""
        problems, size = check_root(options["root"]), options["size"]
        if unknown := broken("data", {"dataset": one_of(STANDARD_SETS)}, options):
            return unknown + problems
        one = STANDARD_SETS[str(options["dataset"])]
        if size is not None and (not is_whole(size, one.side, MOST_SIDE) or (size - one.side) % 2):
            problems.append(
                f"data.size={size}: must be {one.side} (pixels), as the images are, or an even number more, for a "
                f"black border, up to {MOST_SIDE}"
            )
        return problems + check_settings(one.images["train"], options)

    def arrays(self, part: str) -> tuple[np.ndarray, np.ndarray]:
        """Memory-mapped uint8 images N×size×size×3 and int64 labels N of "train" or "test"."""
        if not self._is_there(part):
            self._fetch(part)
        key = key_of_files(self.root, [self.root / file for file in self._known.files[part]])
        side = self.image_shape[0]
        which = f"{self.root}\n{self.name}\n{part}\n{side}"
        kept = Kept(which, key, self.root, [_IMAGES, _LABELS], self._known.images[part] * (side * side * 3 + 8))
        found = kept.open(lambda folder: self._write(folder, part), lambda: self._read(part))
        return found[_IMAGES], found[_LABELS]

    def prepare(self) -> str:
        """Fetch and read whatever was not yet; returns where the files are."""
        for part in ("train", "test"):
            self.arrays(part)
        return str(self.root)

    def _is_there(self, part: str) -> bool:
        return all((self.root / file).is_file() for file in self._known.files[part])

    def _fetch(self, part: str) -> None:
        """Has torchvision download and unpack the files; one process does, and the others wait for it.

        Raises:
            DataError: they can't be had; says what to do.
        """
        busy = f"Another process is fetching {self.name} into {self.root}; waiting for it"
        try:
            self.root.mkdir(parents=True, exist_ok=True)
            with locked(self.root / f".{self.name}.lock", busy):
                if self._is_there(part):  # another process has been here while we waited
                    return
                # Files appear whole or not at all: torchvision takes one that is there for a whole one.
                with scratch(self.root, f".{self.name}-fetching-") as folder:
                    self._fetch_into(folder, part)
        except OSError as error:
            raise DataError(
                f"data.root={self.root}: {self.name} can't be stored there: {error.strerror or error}. Make room, or "
                "choose a folder with data.root=PATH."
            ) from error

    def _fetch_into(self, folder: Path, part: str) -> None:
        for archive in self._known.archives[part]:
            if (self.root / archive).is_file():  # a copy, as torchvision writes over one that is damaged
                (folder / archive).parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(self.root / archive, folder / archive)
        try:
            lend_certificates()
            with socket_timeout(TIMEOUT):
                self._torchvisions(folder, part, download=True)
        except (OSError, http.client.HTTPException, RuntimeError) as error:  # the last is torchvision's own
            if full_disk(error) is not None or isinstance(error, PermissionError):
                raise
            raise DataError(self._by_hand(error, self._known.archives[part])) from error
        for file in self._known.files[part]:
            (self.root / file).parent.mkdir(parents=True, exist_ok=True)
            (folder / file).replace(self.root / file)
        log.info("%s lies in %s", self.name, self.root)

    def _torchvisions(self, root: Path, part: str, **options: Any) -> Any:
        from cifar_tuning.torchvision_compat import torchvision

        return getattr(torchvision.datasets, self.name)(root, **self._known.options(part), **options)

    def _by_hand(self, error: Exception, archives: Sequence[str]) -> str:
        lines = "".join(f"\n  - {archive}" for archive in archives)
        there = all((self.root / archive).is_file() for archive in archives)
        damaged = "what lies there is damaged, by its checksum, and could not be replaced: " if there else ""
        return (
            f"{self.name} could not be fetched: {damaged}{on_one_line(error)}\n"
            f"Put this into {self.root} by hand and run the same command again ({self._known.home} has it):{lines}\n"
            "Another folder can be named with data.root=PATH."
        )

    def _read(self, part: str) -> dict[str, np.ndarray]:
        """Returns the arrays by their names.

        Raises:
            DataError: the files can't be read, or are not what they should be.
        """
        try:
            found = self._torchvisions(self.root, part)
        except (OSError, MemoryError) as error:
            reason = getattr(error, "strerror", None) or "out of memory"
            raise DataError(f"data.root={self.root}: {self.name} is there, but can't be read now: {reason}.") from error
        except Exception as error:  # a damaged file can raise anything
            raise DataError(self._damaged(part, on_one_line(error) or type(error).__name__)) from error
        images = np.asarray(found.data)
        labels = np.asarray(found.labels if hasattr(found, "labels") else found.targets, np.int64)
        if len(images) != (count := self._known.images[part]) or labels.shape != (count,):
            there = f"{len(images):,} are there, with {len(labels):,} labels"
            raise DataError(self._damaged(part, f"{count:,} images were expected, and {there}"))
        return {_IMAGES: self._framed(images), _LABELS: labels}

    def _framed(self, images: np.ndarray) -> np.ndarray:
        """Returns images N×H×W, N×H×W×3 or N×3×H×W as N×size×size×3, within their border."""
        if images.ndim == 3:
            images = images[..., np.newaxis]
        elif images.shape[1] == 3:
            images = images.transpose(0, 2, 3, 1)
        if not self.border and images.shape[3] == 3:
            return np.ascontiguousarray(images)
        framed = np.zeros((len(images), *self.image_shape), np.uint8)
        inside = slice(self.border, self.border + self._known.side)
        framed[:, inside, inside] = images
        return framed

    def _write(self, folder: Path, part: str) -> None:
        for name, array in self._read(part).items():
            np.save(folder / f"{name}.npy", array)

    def _damaged(self, part: str, reason: str) -> str:
        files = ", ".join(self._known.files[part])
        return (
            f"data.root={self.root}: what is there is not {self.name}: {reason}. Take these away, and the same command "
            f"fetches them anew: {files}"
        )
