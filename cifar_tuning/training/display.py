"""What a person sees while a model trains: one bar with the time left, one line an epoch."""

import logging
import sys
from collections.abc import Sequence
from contextlib import ExitStack
from typing import TYPE_CHECKING

import torch
from tqdm import tqdm
from tqdm.contrib.logging import logging_redirect_tqdm

from cifar_tuning.text import counted
from cifar_tuning.training.events import EpochMetrics

if TYPE_CHECKING:
    from cifar_tuning.training.trainer import Trainer

log = logging.getLogger(__name__)

# In 80 columns the bar itself has twenty: an epoch's other figures are in its line.
BAR = "{desc} {percentage:3.0f}%|{bar}| {remaining} left {rate_fmt}{postfix}"


class Display:
    """The progress bar, counting images so that its rate is images/s; silent where there is no terminal.

    Args:
        images: in all epochs of all runs.
        finished: images of the epochs already done, when a run is resumed.
    """

    def __init__(self, images: int, finished: int = 0) -> None:
        # Of the longest of the runs that are in training now.
        self.epochs = 0
        # Whether runs are trained side by side, whose own lines are kept from the terminal.
        self.of_several = False
        self._stack = ExitStack()
        self._bar = tqdm(
            total=images,
            initial=finished,
            unit=" images",
            unit_scale=True,
            dynamic_ncols=True,
            bar_format=BAR,
            leave=False,
            mininterval=0.2,
            disable=not sys.stderr.isatty(),
        )

    @classmethod
    def of(cls, runs: "Sequence[Trainer]") -> "Display":
        """Returns the display of runs that are trained side by side."""
        images = sum(run.epochs * run.train.count for run in runs)
        finished = sum(run.progress.epoch * run.train.count for run in runs)
        display = cls(images, finished)
        display.of_several = len(runs) > 1
        return display

    def __enter__(self) -> "Display":
        # Log lines appear above the bar instead of tearing it.
        self._stack.enter_context(logging_redirect_tqdm())
        self._stack.callback(self._bar.close)
        return self

    def __exit__(self, *exception: object) -> None:
        self._stack.close()

    def begin(self, epoch: int, epochs: int) -> None:
        """Names the epoch that is running, out of so many."""
        self.epochs = epochs
        self._bar.set_description_str(f"epoch {epoch}/{self.epochs}", refresh=False)

    def advance(self, images: int) -> None:
        """Counts images trained."""
        self._bar.update(images)

    def join(self, run: "Trainer") -> None:
        """Adds a run to what is left to do."""
        self.of_several = True
        self._bar.total = (self._bar.total or 0) + run.epochs * run.train.count
        self._bar.update(run.progress.epoch * run.train.count)

    def leave(self, run: "Trainer") -> None:
        """Takes a run that has ended out of what is left to do."""
        if self._bar.total is not None:
            self._bar.total -= max(0, run.epochs - run.progress.epoch) * run.train.count

    def summarize(self, runs: "Sequence[Trainer]", seconds: float) -> None:
        """Prints one line for an epoch of several runs, or of the last that is left, trained in so many seconds."""
        if not self.of_several or not runs:
            return
        epochs = sorted({run.progress.epoch for run in runs})
        best = [run.progress.best_acc for run in runs if run.progress.best_acc is not None]
        shown = best or [run.progress.history[-1].train_acc for run in runs]
        log.info(
            "epoch %s/%d  %s  %s %s  %s model-images/s",
            f"{epochs[0]} to {epochs[-1]}" if len(epochs) > 1 else epochs[0],
            self.epochs,
            f"{len(runs)} runs side by side" if len(runs) > 1 else "1 run",
            "best" if best else "training",
            f"accuracies {min(shown):.4f} to {max(shown):.4f}" if len(runs) > 1 else f"accuracy {shown[0]:.4f}",
            f"{len(runs) * runs[0].train.count / seconds:,.0f}",
        )

    def report(self, metrics: EpochMetrics, epochs: int) -> None:
        """Prints the line of a run's epoch, out of so many."""
        speed = f"  {metrics.images_per_second:,.0f} images/s" if metrics.epoch else "  (before training)"
        val = {"val_loss": metrics.val_loss, "val_acc": metrics.val_acc, "best": metrics.val_acc_best}
        known = {name: value for name, value in val.items() if value is not None}
        log.info(
            "epoch %*d/%d  train loss %.4f acc %.4f%s  lr %.3g%s",
            len(str(epochs)),
            metrics.epoch,
            epochs,
            metrics.train_loss,
            metrics.train_acc,
            "  val loss {val_loss:.4f} acc {val_acc:.4f}  best {best:.4f}".format(**known) if known else "",
            metrics.lr,
            speed,
        )
        name, figure = ("loss", metrics.train_loss) if metrics.val_acc_best is None else ("best", metrics.val_acc_best)
        self._bar.set_postfix_str(f"{name} {figure:.3f}", refresh=False)


def describe_device(device: torch.device, precision: str, memory_format: str, before: int) -> str:
    """Returns the start-up line: the device, and on CUDA its memory before and after the model moved there.

    Args:
        device, precision, memory_format: of the model now.
        before: bytes in use on the device before the model moved (see `memory_in_use`).
    """
    if device.type != "cuda":
        return f"device cpu, {counted(torch.get_num_threads(), 'thread')}, {precision}, {memory_format}"
    mib = 2**20
    total = torch.cuda.get_device_properties(device).total_memory
    return (
        f"device {torch.cuda.get_device_name(device)}, {precision}, {memory_format}, "
        f"memory {before / mib:,.0f} MiB before the model, {memory_in_use(device) / mib:,.0f} MiB after, "
        f"of {total / mib:,.0f} MiB"
    )


def memory_in_use(device: torch.device) -> int:
    """Returns the bytes in use on a CUDA device by everybody, as nvidia-smi counts them; 0 on a CPU."""
    if device.type != "cuda":
        return 0
    free, total = torch.cuda.mem_get_info(device)
    return total - free
