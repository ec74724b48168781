"""The epoch loop, for one run or for several side by side."""

import math
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from typing import TYPE_CHECKING

from cifar_tuning.training.computation import Computation
from cifar_tuning.training.display import Display
from cifar_tuning.training.evaluation import Evaluation
from cifar_tuning.training.events import State

if TYPE_CHECKING:
    from cifar_tuning.training.trainer import Trainer

# Context in which something is done for one run among several.
Aside = Callable[["Trainer"], AbstractContextManager[object]]
# How runs ended, by index; None: by an error that is kept for that run.
Ends = dict[int, State | None]


def run_epochs(
    computation: Computation, display: Display, aside: Aside = nullcontext
) -> "Iterator[tuple[Trainer, State | None]]":
    """Trains the runs of a computation, epoch by epoch, and yields each as soon as it has ended.

    Args:
        computation: of one run, or of several side by side, which may be at different epochs.
        display: shows how far they are.
        aside: entered while something is done for one run alone; may swallow an error, which ends that run.

    Yields:
        a run and how it ended; None for one whose error was swallowed.
    """
    try:
        ended = before_training(computation, display, aside)
        while True:
            runs = computation.runs
            for index, state in ended.items():
                display.leave(runs[index])
                yield runs[index], state
            if len(ended) == len(runs):
                return
            if ended:  # only now, because who took the run may have drawn random numbers
                computation = computation.without(list(ended))
            ended = one_epoch(computation, display, aside)
    finally:
        for run in computation.runs:
            run.write_anyway()
        computation.forget()


def before_training(computation: Computation, display: Display, aside: Aside) -> Ends:
    """Looks at the runs before they learn anything; returns those that were resumed after their end."""
    ended: Ends = {i: "complete" for i, run in enumerate(computation.runs) if run.finished}
    if all(run.progress.started for run in computation.runs):
        return ended
    figures = zip(computation.untrained(), computation.evaluate(), strict=True)
    for index, (run, ((loss, accuracy), val)) in enumerate(zip(computation.runs, figures, strict=True)):
        if not run.progress.started:
            ended[index] = None
            with aside(run):
                run.finish_epoch(run.before_training(loss, accuracy, val), display)
                del ended[index]
    return ended


def one_epoch(computation: Computation, display: Display, aside: Aside = nullcontext) -> Ends:
    """Trains one epoch of each run; returns who ended and how."""
    runs = computation.runs
    epochs = [run.progress.epoch + 1 for run in runs]
    start = time.perf_counter()
    display.begin(min(epochs), max(run.epochs for run in runs))
    failed = set[int]()

    def chore(index: int) -> None:
        failed.add(index)
        with aside(runs[index]):
            runs[index].while_waiting()
            failed.remove(index)

    trained = computation.train(epochs, display, [partial(chore, index) for index in range(len(runs))])
    vals: Sequence[Evaluation | None] = [None] * len(runs)
    if any(math.isfinite(one.loss) for one in trained):
        vals = computation.evaluate()
    seconds = time.perf_counter() - start
    ended: Ends = {}
    for index, (run, one, val) in enumerate(zip(runs, trained, vals, strict=True)):
        ended[index] = None
        if index in failed:
            continue
        with aside(run):
            ended[index] = run.finish_epoch(run.after_epoch(one, val, seconds), display)
            if ended[index] is None:
                del ended[index]
    failed |= {index for index, state in ended.items() if state is None}
    display.summarize([run for index, run in enumerate(runs) if index not in failed], trained[0].seconds)
    return ended
