"""Made-up images that a small network learns in seconds: for tests and smoke runs, without a download."""

from dataclasses import dataclass

import numpy as np

from cifar_tuning.data.base import SEED, ImageData, check_shared
from cifar_tuning.numeric import is_whole
from cifar_tuning.option_rules import Rule, broken, raise_all

_CLASSES = 10
_BLOCKS = 4  # a class's pattern is 4×4 coloured blocks of 8×8 pixels
_NONE_OR_MORE = Rule(lambda value: is_whole(value, 0), "a whole number of at least 0")
_ONE_OR_MORE = Rule(lambda value: is_whole(value, 1), "a whole number of at least 1")
RULES = {"train_size": _ONE_OR_MORE, "val_size": _NONE_OR_MORE, "test_size": _ONE_OR_MORE, "data_seed": SEED}


@dataclass(kw_only=True, eq=False)
class Synthetic(ImageData):
    """Each class is a pattern of coloured blocks under noise; `conf/data/synthetic.yaml` is this constructor.

    The patterns are symmetric, so that a horizontal flip keeps the class, and coarse, so that a crop does.

    Args:
        train_size, test_size: number of images; the former without those that validate.
        data_seed: decides the images.
        val_size, split_seed, train_limit, batch_size: see `ImageData`.

    Raises:
        ValueError: every problem that `check` finds.
    """

    name = "synthetic"
    classes = tuple(f"pattern_{index}" for index in range(_CLASSES))
    mean = (0.5, 0.5, 0.5)
    std = (0.25, 0.25, 0.25)

    train_size: int = 512
    val_size: int = 128
    test_size: int = 128
    train_limit: int | None = None
    batch_size: int = 64
    data_seed: int = 0
    split_seed: int = 0

    def __post_init__(self) -> None:
        raise_all(self.check(**vars(self)))

    @staticmethod
    def check(**options: object) -> list[str]:
        """Problems of the given settings, one line each; an empty list when the constructor takes them."""
        problems, train_size = broken("data", RULES, options), options["train_size"]
        if not is_whole(train_size, 1):
            return problems  # without it the rest can't be judged
        return problems + check_shared(train_size, f"data.train_size={train_size}", options)

    def arrays(self, part: str) -> tuple[np.ndarray, np.ndarray]:
        """uint8 images N×32×32×3 and uint8 labels N of "train" (with the validation images) or "test"."""
        patterns = _patterns(np.random.RandomState([self.data_seed, 0]))
        if part == "train":
            return _draw(patterns, self.train_size + self.val_size, np.random.RandomState([self.data_seed, 1]))
        return _draw(patterns, self.test_size, np.random.RandomState([self.data_seed, 2]))

    def prepare(self) -> str:
        """Nothing to fetch."""
        return "made in memory"


def _patterns(random: np.random.RandomState) -> np.ndarray:
    half = random.uniform(size=(_CLASSES, _BLOCKS, _BLOCKS // 2, 3))
    blocks = np.concatenate([half, half[:, :, ::-1]], axis=2)
    return blocks.repeat(32 // _BLOCKS, axis=1).repeat(32 // _BLOCKS, axis=2)


def _draw(patterns: np.ndarray, count: int, random: np.random.RandomState) -> tuple[np.ndarray, np.ndarray]:
    labels = random.permutation(np.arange(count) % len(patterns)).astype(np.uint8)  # balanced
    images = 0.7 * patterns[labels] + 0.3 * random.uniform(size=(count, 32, 32, 3))
    return (images * 255).astype(np.uint8), labels
