"""How an epoch is computed: training, evaluation and the look before training, for one run or several side by side."""

import itertools
import logging
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, suppress
from typing import TYPE_CHECKING, NamedTuple, TypeVar

import torch
from torch import Tensor, nn

from cifar_tuning.devices import is_asynchronous
from cifar_tuning.training.clock import now, seconds_between
from cifar_tuning.training.cuda_graphs import Recorded
from cifar_tuning.training.display import Display
from cifar_tuning.training.evaluation import Evaluation, Logits, class_of, evaluate, evaluate_untrained
from cifar_tuning.training.losses import Losses
from cifar_tuning.training.precision import at_least_fp32, autocast

if TYPE_CHECKING:
    from cifar_tuning.training.trainer import Trainer

log = logging.getLogger(__name__)

Batch = tuple[Tensor, Tensor]
# Steps that a device which queues is given before the host does anything else. It can't be given a whole epoch: the
# host then waits until some of it is done, in a step of its own work.
LEAD = 16


# Where an error keeps the run whose part it comes from.
WHOSE = "_run"

Made = TypeVar("Made")


def failing_run(error: BaseException) -> "Trainer | None":
    """Returns the run whose regularizer, optimizer or schedule an error in an epoch comes from, if it is one's own."""
    return vars(error).get(WHOSE)


class Trained(NamedTuple):
    """A run's epoch: mean loss and accuracy over its batches, the last step's learning rate, seconds of all its steps.

    Where runs are side by side each has the seconds that they take together.
    """

    loss: float
    accuracy: float
    lr: float
    seconds: float


def _due(chores: int, steps: int) -> Callable[[int], int]:
    """Returns how many of some chores, spread over an epoch of so many steps, come behind each of them."""
    spread = max(1, steps - LEAD)

    def until(index: int) -> int:
        return chores * max(0, index - LEAD) // spread

    return lambda index: until(index + 1) - until(index)


class Computation:
    """Computes the epochs of one run; `fused.stack` does so for several whose models are stacked into one.

    Args:
        runs: whose models, optimizers and schedules take part; K of them.
        model: maps images to logits N×(K·classes), the runs' side by side.
        generators: what the runs draw random numbers from, where that is not the device's own generator.
    """

    def __init__(self, runs: "Sequence[Trainer]", model: nn.Module, generators: Sequence[torch.Generator] = ()) -> None:
        self.runs = list(runs)
        first = self.runs[0]
        self.device, self.precision = first.device, first.precision
        self.memory_format: torch.memory_format = getattr(torch, first.memory_format)
        smoothing, weights = zip(*((run.label_smoothing, run.class_weights) for run in self.runs), strict=True)
        self.losses = Losses(smoothing, weights, self.device)
        self.model = model
        # Each mode and shape would be compiled anew: only whole training batches are worth it.
        self.compiled = self.compile(model) if first.compile else None
        self.whole = 0
        # One part that may do something else in each step is in all steps of a stack.
        record = all(run.record for run in self.runs)
        self.logits = Logits(model, self.device, self.precision, record)
        # Zeroed for each epoch: what is recorded works in memory that stays.
        self.sums = (
            torch.zeros(len(runs), device=self.device),
            torch.zeros(len(runs), dtype=torch.long, device=self.device),
        )
        # What a GPU replays: gradients of a batch, and what the optimizers make of them.
        self.learning = self.updating = None
        if record:
            self.learning = Recorded(self.device, generators)
            # Others than SGD count their steps on the host, and some schedules change the numbers in each of them.
            if all(type(run.optimizer) is torch.optim.SGD and not run.schedule.every_step for run in self.runs):
                self.updating = Recorded(self.device)
        self._numbers: object = None
        self._trains: object = None

    def batches(self, epochs: Sequence[int]) -> Iterable[Batch]:
        """Returns the training batches, given the number of each run's epoch.

        Images are float N×C×H×W, the same for all runs, or N×(K·C)×H×W; labels accordingly N or N×K, or the
        shares of the classes, float N×classes or N×K×classes.
        """
        return self._laid_out(self.runs[0].train.epoch(epochs[0]))

    def _laid_out(self, batches: Iterable[Batch]) -> Iterator[Batch]:
        """Yields batches with their images in the runs' memory format; what is in it already is not copied."""
        for images, labels in batches:
            yield images.contiguous(memory_format=self.memory_format), labels

    def untrained(self) -> list[tuple[float, float]]:
        """Returns each run's loss and accuracy on some training batches before anything is learnt."""
        batches = self.batches([1] * len(self.runs))
        return evaluate_untrained(self.logits, batches, self.losses, len(self.runs))

    def compile(self, model: nn.Module) -> nn.Module | None:
        """Returns what computes whole training batches; None: the model as it is."""
        log.info("compiling: the first batches take a minute or more, and count into the first epoch's images/s")
        return torch.compile(model)  # type: ignore[return-value]

    def evaluate(self) -> Sequence[Evaluation | None]:
        """Returns each run's figures on the validation images; None for each where there are none."""
        if (val := self.runs[0].val) is None:
            return [None] * len(self.runs)
        with ExitStack() as averaged:
            for run in self.runs:
                averaged.enter_context(run.averaged())
            return evaluate(self.logits, self._laid_out(val), len(self.runs))

    def train(
        self, epochs: Sequence[int], display: Display, chores: Sequence[Callable[[], None]] = ()
    ) -> list[Trained]:
        """Trains one epoch of each run; the runs may be at different ones.

        Args:
            epochs: the number of each run's.
            display: shows how far it is.
            chores: called in turn while a GPU has work and the host would only wait; elsewhere they are left out.
        """
        self.model.train()
        self.begin_epoch()
        began = now(self.device)
        ahead = is_asynchronous(self.device)
        waiting = iter(chores if ahead else ())
        due = _due(len(chores), len(self.runs[0].train))
        for index, batch in enumerate(self.batches(epochs)):
            rates = [run.lr for run in self.runs]
            self.train_batch(batch, display)
            for chore in itertools.islice(waiting, due(index)):
                chore()
        ended = now(self.device)
        if ahead:
            for (_, epoch), run in self._streams(epochs).items():
                if epoch < run.epochs:
                    run.train.prepare(epoch + 1)
        for chore in waiting:
            chore()
        count = self.runs[0].train.count
        # They are read here only: reading one waits for all the work that is queued.
        losses, correct = (total.tolist() for total in self.sums)
        seconds = seconds_between(began, ended)
        return [
            Trained(loss / count, right / count, lr, seconds)
            for loss, right, lr in zip(losses, correct, rates, strict=True)
        ]

    def _streams(self, epochs: Sequence[int]) -> "dict[tuple[int, int], Trainer]":
        """Returns whose batches are taken, by seed and number of each run's epoch: the last such run's."""
        return {(run.train.seed, epoch): run for run, epoch in zip(self.runs, epochs, strict=True)}

    def begin_epoch(self) -> None:
        """Forgets the last epoch's losses and right answers, and looks what its steps train, and with which numbers."""
        for total in self.sums:
            total.zero_()
        groups = [group for run in self.runs for group in run.optimizer.param_groups]
        self._numbers = tuple(value for group in groups for name, value in group.items() if name != "params")
        # Layers that a schedule thaws, say, are in none of the steps that were recorded before.
        self._trains = tuple(value.requires_grad for run in self.runs for value in run.model.parameters())

    def train_batch(self, batch: Batch, display: Display) -> None:
        """Takes one step of every run; nothing in it waits for the device."""
        images, labels = batch
        self.whole = max(self.whole, len(images))
        if self.learning is None or len(images) < self.whole:  # an epoch's last batch may be smaller
            self._learn(images, labels)
        else:
            self.learning(self._learn, images, labels, key=self.key())
        numbers = self._begin_update()
        if self.updating is None or self.learning is None or self.learning.recording is None:
            self._update()
        else:
            self.updating(self._update, key=(numbers, self.learning.recording))
        self._of_each(lambda run: run.schedule.after_step())
        self._of_each(lambda run: run.update_average())
        display.advance(len(images) * len(self.runs))

    def key(self) -> object:
        """Returns what else than its images a step depends on: which weights it trains."""
        return self._trains

    def _learn(self, images: Tensor, labels: Tensor) -> None:
        """Computes the gradients of a batch, and adds up losses and right answers."""
        model = self.model if self.compiled is None or len(images) < self.whole else self.compiled
        with autocast(self.device, self.precision):
            logits = at_least_fp32(model(images))
        logits = logits.view(len(images), len(self.runs), -1)
        losses = self.losses(logits, labels)
        penalties = self._of_each(lambda run: run.regularizer.penalty(run.model))
        self.zero_grad()
        # Each weight belongs to one run, so the gradient of the sum is every run's own.
        sum((penalty for penalty in penalties if penalty is not None), losses.sum()).backward()
        for run in self.runs:
            run.clip_gradients()
        with torch.no_grad():
            self.sums[0].add_(losses, alpha=len(images))
            self.sums[1].add_((logits.argmax(2) == class_of(labels)).sum(0))

    def _begin_update(self) -> object:
        """Returns what else than the gradients an update depends on."""
        return self._numbers

    def _update(self) -> None:
        self._of_each(lambda run: run.optimizer.step())

    def _of_each(self, do: "Callable[[Trainer], Made]") -> list[Made]:
        """Does something with each run's own parts; an error of theirs keeps whose it is (see `failing_run`)."""
        made = []
        for run in self.runs:
            try:
                made.append(do(run))
            except Exception as error:
                vars(error)[WHOSE] = run
                raise
        return made

    def zero_grad(self) -> None:
        """Forgets the last step's gradients; where a recording has them in its memory, they must stay there."""
        recorded = self.learning is not None and self.learning.recording is not None
        for run in self.runs:
            run.optimizer.zero_grad(set_to_none=not recorded)

    def without(self, gone: Sequence[int]) -> "Computation":
        """Returns what computes the runs that stay.

        Args:
            gone: indices of the runs that have ended; not all of them.
        """
        raise NotImplementedError("one run alone has nobody to leave it")

    def release(self) -> None:
        """Gives every run its own memory back, where they share it, and forgets what was made ready for them."""
        self.forget()

    def forget(self) -> None:
        """Forgets what was made ready for the runs: their next epoch, and what is recorded."""
        for run in self.runs:
            run.train.prepare(None)
        for recorded in (self.learning, self.updating, self.logits):
            if recorded is not None:
                recorded.forget()
        if self.learning is not None:
            # PyTorch keeps the memory of a graph that is gone, and gives it to nobody else until none is left.
            with suppress(RuntimeError):
                torch.cuda.empty_cache()
