"""Where a run's checkpoints go, and when: what an epoch left is taken at once, and may be written later."""

from pathlib import Path

from cifar_tuning.training.checkpoint import Checkpoint, Taken

BEST, LAST = "best.pt", "last.pt"


class CheckpointFiles:
    """A run's `best.pt` and `last.pt`.

    Args:
        folder: where they go; None: there are none.

    Attributes:
        saved: holds the run as it was after its last epoch, or the one before (see `write`); None: nothing does.
    """

    def __init__(self, folder: Path | None) -> None:
        self.folder = folder
        self.saved: Path | None = None
        # What is still to be written, and under which names.
        self._unwritten: tuple[Taken, list[str]] | None = None

    def take(self, state: Checkpoint, is_best: bool) -> None:
        """Keeps what an epoch left until it is written, which the epoch before is now at the latest."""
        self.write()
        self._unwritten = Taken(state), [LAST, BEST] if is_best else [LAST]

    def write(self) -> None:
        """Writes what is not yet written of the last epoch's checkpoint, which on a GPU waits for the next epoch."""
        if self._unwritten is None:
            return
        assert self.folder is not None
        taken, names = self._unwritten
        try:
            taken.write(*(self.folder / name for name in names))
        except OSError:
            self._unwritten = None  # whoever cleans up behind this error would only meet it again
            raise
        self._unwritten, self.saved = None, self.folder / LAST
