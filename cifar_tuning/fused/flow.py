"""A launch that takes jobs as it goes: whenever a job ends, another takes its place in the stack."""

import logging
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import cached_property, partial

from hydra.core.utils import filter_overrides
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig

from cifar_tuning.fused import grouping
from cifar_tuning.fused.launch import Launch, failed, say_together
from cifar_tuning.fused.launcher import Ended, More
from cifar_tuning.fused.paused_jobs import PausedJob, stopped_on_error
from cifar_tuning.fused.plan import Key, key_of, plan
from cifar_tuning.fused.size import Stacking
from cifar_tuning.fused.stack import Stack, computation_of, own_generator, use_global_generator
from cifar_tuning.training.computation import Computation
from cifar_tuning.training.display import Display
from cifar_tuning.training.events import State
from cifar_tuning.training.loop import Aside, Ends, before_training, one_epoch
from cifar_tuning.training.measurement_cache import of_sweep

log = logging.getLogger(__name__)

# What the jobs of a crew have in common: their options, and their models' structure.
CrewKey = tuple[tuple[tuple[str, str], ...], Key]


class Crew:
    """Jobs that are trained as one model; others join between two epochs.

    Args:
        key: what they agree in.
        size: how many they may be.
    """

    def __init__(self, key: CrewKey, size: int) -> None:
        self.key, self.size = key, size
        self.jobs: list[PausedJob] = []
        self.newcomers: list[PausedJob] = []
        self.computation: Computation | None = None

    def __len__(self) -> int:
        return len(self.jobs) + len(self.newcomers)

    def disband(self) -> None:
        """Gives every run its own memory back; who is left is computed anew."""
        if self.computation is not None:
            self.computation.release()
        self.computation = None


class Flow(Launch):
    """Trains jobs side by side, crew by crew and epoch by epoch, and takes new ones as others end.

    The jobs of a crew are at different epochs, so only those that began together share their batches. In exchange
    nobody waits for the slowest, and stacks stay full while a pruner thins them out. (Stacks of those that share and
    stacks of the others were no faster on two cores.) Each job is what it is in any other launch.

    Args:
        context, config, task, stack: as a launch's.
        room, more, ended: see `FusedLauncher.flow`.
    """

    def __init__(
        self,
        context: HydraContext,
        config: DictConfig,
        task: TaskFunction,
        stack: int | None,
        room: int,
        more: More,
        ended: Ended,
    ) -> None:
        super().__init__(context, config, task, stack)
        self.room, self.more, self.tell_ended = room, more, ended
        # What closes the display at the end, if it was opened.
        self.open = ExitStack()
        self.crews: list[Crew] = []
        self.plans: dict[CrewKey, Stacking] = {}
        # Taken, but not begun.
        self.waiting: list[tuple[int, Sequence[str]]] = []
        # All that have begun and not ended: what an error must not leave open.
        self.going: list[PausedJob] = []

    def train(self) -> None:
        """Trains until there are no more jobs."""
        self._prepare()
        with self.open, of_sweep(self.folder), stopped_on_error(self.going):
            while self._admit_all():
                for crew in list(self.crews):
                    self._advance(crew)

    @cached_property
    def display(self) -> Display:
        """Of all crews; opened when the first is."""
        return self.open.enter_context(Display(0))

    def _admit_all(self) -> bool:
        """Fills the vacancies, and says whether there is anything to train."""
        while (vacancies := self._vacancies()) > 0:
            if not self.waiting:
                self.waiting += self.more(vacancies)
            if not self.waiting:
                break
            joined = self._admit(*self.waiting.pop(0))
            if not joined and self.crews:  # it may have taken long; now it is their turn
                break
        return bool(self.going or self.waiting)

    def _vacancies(self) -> int:
        """Returns how many jobs to begin: one by one until a measurement has said that stacking pays."""
        pays = any(plan.size > 1 for plan in self.plans.values())
        return (self.room if pays else 1) - len(self.going)

    def _admit(self, number: int, overrides: Sequence[str]) -> bool:
        """Begins a job, which joins a crew (true), or is trained here and now."""
        log.info("\t#%d : %s", number, " ".join(filter_overrides(overrides)))
        try:
            config = self._compose(number, overrides)
        except Exception as error:
            log.error("\t#%d can't be composed: %s", number, error)
            self.tell_ended(number, failed(overrides, error))
            return False
        resolved, _ = grouping.resolve({number: config})
        if not resolved or 1 in (self.stack, self.room):
            self.tell_ended(number, self._run_alone(config))
            return False
        job = PausedJob(number, partial(self._run_alone, config))
        self.going.append(job)
        if job.begin() is not None:
            self._leave(job)
            return False
        key = tuple(sorted(grouping.structure(resolved[number]).items())), key_of(job)
        if key not in self.plans:
            # Jobs that take each other's places are at different epochs: each has batches of its own.
            self.plans[key] = plan(job, self.stack, self.room, of_a_seed=1)
        size = self.plans[key].size
        if size == 1:
            job.end_alone()
            self._leave(job)
            return False
        self._join(key, size, job)
        return True

    def _join(self, key: CrewKey, size: int, job: PausedJob) -> None:
        crew = next((crew for crew in self.crews if crew.key == key and len(crew) < size), None)
        if crew is None:
            crew = Crew(key, size)
            self.crews.append(crew)
        crew.newcomers.append(job)
        self.display.join(job.run)

    def _leave(self, job: PausedJob) -> None:
        self.going.remove(job)
        assert job.result is not None
        vars(job).pop("run", None)  # frees the model now, not when the garbage collector finds its circle
        self.tell_ended(job.number, job.result)

    def _advance(self, crew: Crew) -> None:
        """Trains one epoch of a crew, with those that join it."""
        for step in (self._take_in, self._train_epoch):
            try:
                ended = step(crew)
            except Exception as error:  # its traceback holds on to the activations
                self._dissolve(crew, error.with_traceback(None))
                return
            for job, state in ended:
                self.display.leave(job.run)
                job.end(state)
                crew.jobs.remove(job)
                self._leave(job)
            if ended:
                crew.disband()
        if not crew.jobs:
            self.crews.remove(crew)

    def _take_in(self, crew: Crew) -> list[tuple[PausedJob, State | None]]:
        """Looks at those that join before they learn anything; returns those that have ended all the same."""
        if not crew.newcomers:
            return []
        fresh = computation_of([job.run for job in crew.newcomers])
        with own_draws(fresh):
            ends = before_training(fresh, self.display, self._aside(crew.newcomers))
        fresh.release()
        ended = _ended(fresh, ends, crew.newcomers)
        crew.disband()
        crew.jobs, crew.newcomers = crew.jobs + crew.newcomers, []
        if len(crew.jobs) > 1:
            say_together(crew.jobs)
        return ended

    def _train_epoch(self, crew: Crew) -> list[tuple[PausedJob, State | None]]:
        if not crew.jobs:
            return []
        if crew.computation is None:
            crew.computation = computation_of([job.run for job in crew.jobs])
        with own_draws(crew.computation):
            ends = one_epoch(crew.computation, self.display, self._aside(crew.jobs))
        return _ended(crew.computation, ends, crew.jobs)

    def _dissolve(self, crew: Crew, failure: Exception) -> None:
        """Trains the jobs of a crew that failed to their ends, in smaller stacks or one by one."""
        self.crews.remove(crew)
        crew.computation = None
        jobs = crew.jobs + crew.newcomers
        for job in jobs:
            self.display.leave(job.run)
        fitting = self._train_apart(list(jobs), failure)
        if fitting is None:
            log.warning("Further jobs like these are trained one by one.")
        self.plans[crew.key] = Stacking(fitting or 1)  # the next crew would fail as this one did
        for job in jobs:
            self._leave(job)

    @staticmethod
    def _aside(jobs: Sequence[PausedJob]) -> Aside:
        of_run = {id(job.run): job for job in jobs}
        return lambda run: of_run[id(run)].aside()


@contextmanager
def own_draws(computation: Computation) -> Iterator[None]:
    """Lends the process's random generator to a run that is computed by itself; a stack's runs have their own."""
    alone = None if isinstance(computation, Stack) else computation.runs[0]
    if alone is not None:
        use_global_generator(alone)
    try:
        yield
    finally:
        if alone is not None:
            own_generator(alone)


def _ended(computation: Computation, ends: Ends, jobs: Sequence[PausedJob]) -> list[tuple[PausedJob, State | None]]:
    """Returns the jobs whose runs have ended, and how."""
    of_run = {id(job.run): job for job in jobs}
    return [(of_run[id(computation.runs[index])], state) for index, state in ends.items()]
