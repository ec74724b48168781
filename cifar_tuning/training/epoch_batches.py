"""What the training asks of a run's training images."""

from collections.abc import Callable, Iterable
from typing import Protocol

from cifar_tuning.training.computation import Batch


class EpochBatches(Protocol):
    """The training images in a new order each epoch: float N×C×H×W with labels N or shares N×classes, on the device.

    Attributes:
        seed: decides, with the epoch's number, the order and the augmentation.
        side: returns an epoch's height and width of the images; None: they are whole in every epoch.
    """

    seed: int
    side: Callable[[int], tuple[int, int]] | None

    def __len__(self) -> int:
        """Number of batches."""

    @property
    def count(self) -> int:
        """Number of images."""

    def epoch(self, epoch: int) -> Iterable[Batch]:
        """The batches of an epoch, decided by the seed and the epoch's number alone."""

    def prepare(self, epoch: int | None) -> None:
        """Makes an epoch ready that will probably be the next, while a GPU computes; None forgets it."""
