"""CIFAR-10: 50,000 training and 10,000 test images of 32×32 pixels in ten classes."""

from collections.abc import Sequence
from dataclasses import KW_ONLY, InitVar, dataclass
from pathlib import Path

import numpy as np

from cifar_tuning import PROJECT_ROOT
from cifar_tuning.data.base import ImageData, check_root, check_settings
from cifar_tuning.data.sources import Source, default_sources
from cifar_tuning.data.spec import CIFAR10_SPEC, Spec
from cifar_tuning.data.store import Store
from cifar_tuning.option_rules import raise_all

TRAIN_IMAGES = 50_000


@dataclass(eq=False)
class CIFAR10(ImageData):
    """Real CIFAR-10, fetched at the first use; `conf/data/cifar10.yaml` is this constructor.

    Args:
        root: folder that holds the data, or files put there by hand.
        val_size, split_seed, train_limit, batch_size: see `ImageData`.
        spec: what the dataset must be; another one only in tests.
        sources: where it may come from; None for the usual ones.

    Raises:
        ValueError: every problem that `check` finds.
    """

    name = "cifar10"
    classes = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
    mean = (0.4914, 0.4822, 0.4465)
    std = (0.2470, 0.2435, 0.2616)

    root: str | Path = PROJECT_ROOT / "data"
    _: KW_ONLY
    val_size: int = 5000
    split_seed: int = 0
    train_limit: int | None = None
    batch_size: int = 128
    spec: InitVar[Spec] = CIFAR10_SPEC
    sources: InitVar[Sequence[Source] | None] = None

    def __post_init__(self, spec: Spec, sources: Sequence[Source] | None) -> None:
        raise_all(self.check(**vars(self)))
        self.root = Path(self.root).expanduser().absolute()
        self._store = Store(self.root, spec, default_sources() if sources is None else sources)

    @staticmethod
    def check(**options: object) -> list[str]:
        """Problems of the given settings, one line each; an empty list when the constructor takes them."""
        return check_root(options["root"]) + check_settings(TRAIN_IMAGES, options)

    def arrays(self, part: str) -> tuple[np.ndarray, np.ndarray]:
        """Memory-mapped uint8 images N×32×32×3 and uint8 labels N of "train" (all 50,000) or "test"."""
        return self._store.open(part)

    def prepare(self) -> str:
        """Fetch and verify the dataset unless that has been done; returns where it lies."""
        self._store.open("train")
        self._store.open("test")
        return str(self._store.path)
