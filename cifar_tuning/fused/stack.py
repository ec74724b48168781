"""Several runs trained as one stacked model: each run keeps its own optimizer, schedule, data order and progress."""

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from cifar_tuning.fused.layers import Given, NotStackableError, StackedDropout
from cifar_tuning.fused.model import give, stack_models, twins
from cifar_tuning.fused.sgd import StackedSGD
from cifar_tuning.training import checkpoint as checkpoints
from cifar_tuning.training.computation import Batch, Computation
from cifar_tuning.training.recorded import Recorded
from cifar_tuning.training.trainer import Trainer

# Where a few long kernels are faster than many short ones; on a CPU the runs' own optimizers are as fast.
STEP_AS_ONE = ("cuda",)


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
        kinds = {(run.precision, run.memory_format, run.device) for run in runs}
        if len(kinds) > 1:
            raise NotStackableError(f"runs of different precision, memory format or device: {kinds}")
        # Runs of one seed that are at the same epoch share their batches: neighbours, and they stay so.
        streams = [(run.train.seed, run.progress.epoch) for run in runs]
        runs = [run for _, run in sorted(zip(streams, runs, strict=True), key=lambda one: streams.index(one[0]))]
        self.stacked = stack_models([run.model for run in runs])
        self._own_generators = [own_generator(run) for run in runs]
        super().__init__(runs, self.stacked)
        # Compiled anew whenever a run leaves, it would lose more than it gains.
        self.compiled = None
        self.sgd = StackedSGD(runs, self.stacked) if self.device.type in STEP_AS_ONE and StackedSGD.fits(runs) else None
        self.gradients = [p.grad for p in self.stacked.parameters() if p.grad is not None]
        if self.sgd is not None and self.learning is not None:
            self.updating = Recorded(self.device)
        self.given = Given()
        give(self.stacked, self.given)
        for twin in twins(self.stacked):
            if isinstance(twin, StackedDropout):
                twin.generators = self._own_generators

    def generators(self) -> list[torch.Generator]:
        """Returns what the runs draw random numbers from."""
        return self._own_generators

    def batches(self, epochs: Sequence[int]) -> Iterator[Batch]:
        """Returns the training batches: shared by runs of one seed that are at the same epoch."""
        of = self._streams(epochs)
        each = [run.train.epoch(epoch) for (_, epoch), run in of.items()]
        if len(each) == 1:
            yield from self._laid_out(each[0])
            return
        order = [list(of).index((run.train.seed, epoch)) for run, epoch in zip(self.runs, epochs, strict=True)]
        neighbours = order == sorted(order)
        self.given.sharing = tuple(order.count(i) for i in range(len(each)))
        try:
            for several in zip(*each, strict=True):
                images = torch.cat([several[i][0] for i in order], 1).contiguous(memory_format=self.memory_format)
                self.given.images = images if neighbours else None
                yield images, torch.stack([several[i][1] for i in order], 1)
        finally:  # the look before training takes only the first ones
            self.given.images = None

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
        return Stack(staying) if len(staying) > 1 else alone(staying[0])

    def release(self) -> None:
        """Gives every run its own memory back."""
        super().release()
        for run in self.runs:
            own_memory(run)


def alone(run: Trainer) -> Computation:
    """Returns what computes a run that was in a stack by itself."""
    use_global_generator(run)
    return Computation([run], run.model)


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
    if run.saved is None:
        raise RuntimeError("its stack failed in the first epoch, and there is no checkpoint of this run to go on from")
    run.resume(checkpoints.load(run.saved), run.saved)
    run.generator = None
    own_generator(run)


def own_memory(run: Trainer) -> None:
    """Gives a run's model memory of its own, with what is in the stack's now."""
    for value in [*run.model.parameters(), *run.model.buffers()]:
        value.data, value.grad = value.data.clone(), None
    for state in run.optimizer.state.values():
        state |= {name: value.clone() for name, value in state.items() if isinstance(value, Tensor)}


def use_global_generator(run: Trainer) -> None:
    """Has a run draw from its device's global generator, which goes on where the run's own stands now."""
    if run.generator is None:
        return
    state = run.generator.get_state()
    if run.device.type == "cuda":
        torch.cuda.set_rng_state(state, run.device)
    else:
        torch.set_rng_state(state)
    run.generator = None


def own_generator(run: Trainer) -> torch.Generator:
    """Returns the generator of a run in a stack; at first it stands where its device's global one does."""
    if run.generator is None:
        run.generator = torch.Generator(device=run.device)
        cuda = run.device.type == "cuda"
        run.generator.set_state(torch.cuda.get_rng_state(run.device) if cuda else torch.get_rng_state())
    return run.generator
