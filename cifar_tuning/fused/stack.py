"""Several runs trained as one stacked model: each run keeps its own optimizer, schedule, data order and progress."""

import itertools
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext

import torch
from torch import Tensor, nn

from cifar_tuning.devices import is_asynchronous
from cifar_tuning.fused.layers import Given
from cifar_tuning.fused.model import give, stack_models
from cifar_tuning.fused.sgd import StackedSGD
from cifar_tuning.fused.twin import NotStackableError
from cifar_tuning.training import checkpoint as checkpoints
from cifar_tuning.training.computation import Batch, Computation, Trained
from cifar_tuning.training.cuda_graphs import Recorded
from cifar_tuning.training.display import Display
from cifar_tuning.training.trainer import Trainer


class Stack(Computation):
    """Computes several runs whose models are stacked into one.

    The runs' own models stay what is trained: their parameters are views of the stacked ones, so each optimizer
    updates, and each checkpoint keeps, exactly what it does when its run is alone.

    Args:
        runs: of one structure, data, device, precision and memory format; two or more.

    Raises:
        NotStackableError: their models can't be stacked.
    """

    def __init__(self, runs: Sequence[Trainer]) -> None:
        # Runs of one seed that are at the same epoch share their batches: neighbours, and they stay so.
        streams = [(run.train.seed, run.progress.epoch) for run in runs]
        runs = [run for _, run in sorted(zip(streams, runs, strict=True), key=lambda one: streams.index(one[0]))]
        self.stacked = stack_models([run.model for run in runs])
        self._own_generators = [own_generator(run) for run in runs]
        super().__init__(runs, self.stacked, self._own_generators)
        # On a CPU the runs' own optimizers are as fast.
        self.sgd = StackedSGD(runs, self.stacked) if is_asynchronous(self.device) and StackedSGD.fits(runs) else None
        self.gradients = [p.grad for p in self.stacked.parameters() if p.grad is not None]
        if self.sgd is not None and self.learning is not None:
            self.updating = Recorded(self.device)
        self.given = Given()
        give(self.stacked, self.given, self._own_generators)
        self._trained = self._trained_weights()

    def compile(self, model: nn.Module) -> None:
        """Leaves a stack as it is: compiled anew whenever a run leaves, it would lose more than it gains."""

    def begin_epoch(self) -> None:
        """Looks whether the runs still train the weights that they did.

        Raises:
            NotStackableError: a schedule has frozen some, say; the stack would go on with them.
        """
        if self._trained_weights() != self._trained:
            raise NotStackableError("other weights are trained than before (requires_grad has changed)")
        super().begin_epoch()

    def _trained_weights(self) -> list[list[bool]]:
        return [[value.requires_grad for value in run.model.parameters()] for run in self.runs]

    def train(
        self, epochs: Sequence[int], display: Display, chores: Sequence[Callable[[], None]] = ()
    ) -> list[Trained]:
        """Trains one epoch of each run.

        Raises:
            NotStackableError: something drew from PyTorch's global generator, from which all runs would draw.
        """
        # On a GPU the batches alone are looked at: making a recording, which only known parts are in, may move it.
        with self._nothing_drawn() if self.device.type == "cpu" else nullcontext():
            return super().train(epochs, display, chores)

    @contextmanager
    def _nothing_drawn(self) -> Iterator[None]:
        before = global_state(self.device)
        yield
        if not torch.equal(before, global_state(self.device)):
            raise NotStackableError(
                "an augmentation, a regularizer, a schedule or an optimizer draws from PyTorch's global generator, "
                "which the runs of a stack would share"
            )

    def batches(self, epochs: Sequence[int]) -> Iterator[Batch]:
        """Returns the training batches: shared by runs of one seed that are at the same epoch."""
        of = self._streams(epochs)
        each = [self._laid_out(run.train.epoch(epoch)) for (_, epoch), run in of.items()]
        with self._nothing_drawn():  # also in the look before training, which undoes all draws
            each = [itertools.chain([next(batches)], batches) for batches in map(iter, each)]
        if len(each) == 1:
            yield from each[0]
            return
        order = [list(of).index((run.train.seed, epoch)) for run, epoch in zip(self.runs, epochs, strict=True)]
        neighbours = order == sorted(order)
        self.given.sharing = tuple(order.count(i) for i in range(len(each)))
        try:
            for several in zip(*each, strict=True):
                images = torch.cat([several[i][0] for i in order], 1).contiguous(memory_format=self.memory_format)
                if neighbours:
                    self.given.images = images
                    # A recording on a GPU has the images alone.
                    self.given.batches = () if is_asynchronous(self.device) else [batch for batch, _ in several]
                yield images, torch.stack([several[i][1] for i in order], 1)
        finally:  # the look before training takes only the first ones
            self.given.images, self.given.batches = None, ()

    def key(self) -> object:
        """Returns what else than its images a step depends on: which runs have them in common."""
        return self.given.sharing, self.given.images is None

    def _learn(self, images: Tensor, labels: Tensor) -> None:
        if self.given.images is not None:  # they may be a copy, in a recording's memory
            self.given.images = images
        super()._learn(images, labels)

    def untrained(self) -> list[tuple[float, float]]:
        """Returns each run's loss and accuracy on some training batches before anything is learnt."""
        states = [generator.get_state() for generator in self._own_generators]
        try:
            return super().untrained()
        finally:
            for generator, state in zip(self._own_generators, states, strict=True):
                generator.set_state(state)

    def zero_grad(self) -> None:
        """Forgets the last step's gradients; the runs' own are views of the stacked ones, which must stay."""
        if self.sgd is not None:
            self.sgd.zero_grad()
        else:
            torch._foreach_zero_(self.gradients)

    def _begin_update(self) -> object:
        """Has the optimizers' numbers where an update finds them; returns what else it depends on."""
        if self.sgd is None:
            return super()._begin_update()
        self.sgd.take_numbers()
        return self.sgd.nesterov

    def _update(self) -> None:
        if self.sgd is None:
            super()._update()
        else:
            self.sgd.step()

    def without(self, gone: Sequence[int]) -> Computation:
        """Returns a smaller stack, or one run by itself, with the weights as they are now."""
        self.release()
        staying = [run for index, run in enumerate(self.runs) if index not in gone]
        if len(staying) == 1:
            use_global_generator(staying[0])
        return computation_of(staying)

    def release(self) -> None:
        """Gives every run its own memory back."""
        super().release()
        for run in self.runs:
            own_memory(run)


def computation_of(runs: Sequence[Trainer]) -> Computation:
    """Returns what computes runs: a stack, or the only one by itself."""
    return Stack(runs) if len(runs) > 1 else Computation(runs, runs[0].model)


def begin_again(run: Trainer) -> None:
    """Puts a run whose stack failed in the middle of an epoch back to the end of its last one, memory of its own.

    Raises:
        RuntimeError: nothing holds what the run was then: its loss before training was not finite.
        UserError: its checkpoint can't be read.
    """
    own_memory(run)
    run.write_anyway()
    run.model.zero_grad(set_to_none=True)
    if not run.progress.started:
        return  # no step has been taken yet
    if (saved := run.files.saved) is None:
        raise RuntimeError("its stack failed in the first epoch, and there is no checkpoint of this run to go on from")
    run.resume(checkpoints.load(saved), saved)
    run.generator = None
    own_generator(run)


def own_memory(run: Trainer) -> None:
    """Gives a run's model memory of its own, with what is in the stack's now."""
    for value in [*run.model.parameters(), *run.model.buffers()]:
        value.data, value.grad = value.data.clone(), None
    for state in run.optimizer.state.values():
        state |= {name: value.clone() for name, value in state.items() if isinstance(value, Tensor)}


def global_state(device: torch.device) -> Tensor:
    """Returns where a device's global generator stands."""
    return torch.cuda.get_rng_state(device) if device.type == "cuda" else torch.get_rng_state()


def set_global_state(device: torch.device, state: Tensor) -> None:
    """Puts a device's global generator to where it, or another one, stood."""
    if device.type == "cuda":
        torch.cuda.set_rng_state(state, device)
    else:
        torch.set_rng_state(state)


@contextmanager
def draws_of(run: Trainer) -> Iterator[None]:
    """Has what is done for one run of several draw what it would if the run were alone."""
    if run.generator is None:
        yield
        return
    others, own = global_state(run.device), run.generator.get_state()
    set_global_state(run.device, own)
    try:
        yield
    finally:
        drawn = global_state(run.device)
        if not torch.equal(drawn, own) and run.generator is not None:
            run.generator.set_state(drawn)
        set_global_state(run.device, others)


def use_global_generator(run: Trainer) -> None:
    """Has a run draw from its device's global generator, which goes on where the run's own stands now."""
    if run.generator is None:
        return
    set_global_state(run.device, run.generator.get_state())
    run.generator = None


def own_generator(run: Trainer) -> torch.Generator:
    """Returns the generator of a run in a stack; at first it stands where its device's global one does."""
    if run.generator is None:
        run.generator = torch.Generator(device=run.device)
        run.generator.set_state(global_state(run.device))
    return run.generator
