"""One launch of the fused launcher: groups the jobs, stacks each group, trains what is left one by one."""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from hydra.core.utils import JobReturn, JobStatus, configure_log, filter_overrides, run_job, setup_globals
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig

from cifar_tuning.compose import numbered, remember_files
from cifar_tuning.fused import grouping
from cifar_tuning.fused.model import why_apart
from cifar_tuning.fused.paused_jobs import PausedJob, ends_one_job, stopped_on_error
from cifar_tuning.fused.plan import Key, key_of, plan
from cifar_tuning.fused.size import Stacking, give_back, split
from cifar_tuning.fused.stack import Stack, begin_again
from cifar_tuning.training.computation import failing_run
from cifar_tuning.training.display import Display
from cifar_tuning.training.loop import run_epochs
from cifar_tuning.training.measurement_cache import of_sweep

log = logging.getLogger(__name__)

# Jobs that may be begun and waiting at once, as a multiple of the stack's size: each holds a model, a run in MLflow and
# a log.
MOST_READY = 2


class Launch:
    """The jobs of one launch.

    Args:
        context: Hydra's.
        config: of the sweep.
        task: what trains a job.
        stack: runs to stack; None: measured.
    """

    def __init__(self, context: HydraContext, config: DictConfig, task: TaskFunction, stack: int | None) -> None:
        self.context, self.config, self.task, self.stack = remember_files(context), config, task, stack
        self.folder = Path(str(config.hydra.sweep.dir)).absolute()
        self.returns: dict[int, JobReturn] = {}
        # Of the jobs that have been ready to train.
        self._keys: dict[int, Key] = {}

    def run(self, job_overrides: Sequence[Sequence[str]], first: int) -> list[JobReturn]:
        """Runs the jobs, numbered from `first`; returns what they return, in their order."""
        self._prepare()
        log.info("Launching %d jobs", len(job_overrides))
        composed: dict[int, DictConfig] = {}
        for number, overrides in enumerate(job_overrides, first):
            log.info("\t#%d : %s", number, " ".join(filter_overrides(overrides)))
            try:
                composed[number] = self._compose(number, overrides)
            except Exception as error:  # the other jobs are none the worse for it
                log.error("\t#%d can't be composed: %s", number, error)
                self.returns[number] = failed(overrides, error)
        resolved, unresolved = grouping.resolve(composed)
        groups = grouping.group(resolved)
        grouping.describe(groups)
        with of_sweep(self.folder):
            for group in groups:
                self._run_group({number: composed[number] for number in group.jobs}, resolved)
        for number in unresolved:
            self.returns[number] = self._run_alone(composed[number])
        return [self.returns[number] for number in range(first, first + len(job_overrides))]

    def _prepare(self) -> None:
        setup_globals()
        self._configure_log()
        self.folder.mkdir(parents=True, exist_ok=True)

    def _compose(self, number: int, overrides: Sequence[str]) -> DictConfig:
        return numbered(self.context.config_loader.load_sweep_config(self.config, list(overrides)), number)

    def _run_alone(self, config: DictConfig) -> JobReturn:
        """Runs a job as the basic launcher does."""
        try:
            return run_job(
                hydra_context=self.context,
                task_function=self.task,
                config=config,
                job_dir_key="hydra.sweep.dir",
                job_subdir_key="hydra.sweep.subdir",
            )
        except SystemExit as error:
            if not ends_one_job(error):
                raise
            return failed([], error)
        finally:
            self._configure_log()

    def _configure_log(self) -> None:
        hydra = self.config.hydra
        configure_log(hydra.hydra_logging, hydra.verbose, execution_whitelist=self.context.execution_whitelist)

    def _run_group(self, configs: dict[int, DictConfig], resolved: dict[int, dict[str, Any]]) -> None:
        """Runs jobs of one structure: the first of those that can share a stack tells whether and how many to stack."""
        if len(configs) == 1 or self.stack == 1:
            for number, config in configs.items():
                self.returns[number] = self._run_alone(config)
            return
        seeds = {number: resolved[number].get("seed") for number in configs}
        known = list(dict.fromkeys(seeds.values()))
        waiting = sorted(configs, key=lambda number: known.index(seeds[number]))  # those of one seed share batches
        ready: list[PausedJob] = []
        plans: dict[Key, Stacking] = {}
        with stopped_on_error(ready):
            while waiting or ready:
                stack = self._gather(ready, waiting, configs, seeds, plans)
                if not stack:
                    continue
                key = self._keys[stack[0].number]
                fitting = self._train(stack)
                for job in stack:  # only now: an error would leave them open
                    ready.remove(job)
                if fitting is not None:
                    plans[key] = replace(plans[key], size=min(plans[key].size, fitting))

    def _gather(
        self,
        ready: list[PausedJob],
        waiting: list[int],
        configs: Mapping[int, DictConfig],
        seeds: Mapping[int, object],
        plans: dict[Key, Stacking],
    ) -> list[PausedJob]:
        """Begins jobs until some that can be stacked fill a stack, or none is left; returns these.

        What a job's options are does not tell all of what its model is: the others stay ready for the next stack.

        Args:
            ready: those that have begun; the new ones join them.
            waiting: those that have not; it is emptied.
            configs: of all.
            seeds: of all.
            plans: how many to stack, by what stacks have in common; found out for what is new.
        """
        while True:
            alike = self._largest(ready)
            known = plans[self._keys[alike[0].number]] if alike else None
            number = next_job(waiting, [job.number for job in alike], seeds, known)
            if number is None or len(ready) >= MOST_READY * max((one.size for one in plans.values()), default=1):
                return alike[: known.size] if known is not None else []
            waiting.remove(number)
            job = self._begin(number, configs[number])
            if job is None:
                continue
            ready.append(job)
            key = self._keys[number] = key_of(job)
            if key not in plans:
                others = [other for other, _ in plans if key[1] is None]
                if others:
                    log.info("#%d can't share a stack with those before: %s", number, why_apart(key[0], others[0]))
                left = [seeds[other] for other in [number, *waiting]]
                plans[key] = plan(job, self.stack, len(left), max(map(left.count, left)))

    def _largest(self, ready: Sequence[PausedJob]) -> list[PausedJob]:
        """Returns the most jobs that can share a stack, of those that are ready."""
        groups: dict[Key, list[PausedJob]] = {}
        for job in ready:
            groups.setdefault(self._keys[job.number], []).append(job)
        return max(groups.values(), key=len, default=[])

    def _begin(self, number: int, config: DictConfig) -> PausedJob | None:
        """Begins a job; returns it if it is ready to train then, and has not ended."""
        job = PausedJob(number, partial(self._run_alone, config))
        if (result := job.begin()) is None:
            return job
        self.returns[number] = result
        return None

    def _train(self, jobs: list[PausedJob]) -> int | None:
        """Trains jobs that are ready as one stack; if that fails as smaller ones, in the end one by one.

        Returns:
            how many runs to stack from now on, if so many ran out of memory.
        """
        if len(jobs) == 1:
            with stopped_on_error(jobs):
                self.returns[jobs[0].number] = jobs[0].end_alone()
            return None
        say_together(jobs)
        left = list(jobs)
        with stopped_on_error(left):
            failure = self._train_stack(left)
        return None if failure is None else self._train_apart(left, failure)

    def _train_apart(self, left: list[PausedJob], failure: Exception) -> int | None:
        """Trains what is left of a stack that failed: as smaller ones if memory ran out, else one by one.

        Returns:
            how many runs to stack from now on, if memory ran out.
        """
        fitting = None
        if isinstance(failure, torch.cuda.OutOfMemoryError):
            log.warning("%d runs do not fit into the device's memory; trying half of them.", len(left))
            fitting = max(1, -(-len(left) // 2))
        with stopped_on_error(left):
            for job in list(left):
                try:
                    begin_again(job.run)
                except Exception as error:  # its checkpoint can't be read, say: that is its own
                    job.error = error
                    self.returns[job.number] = job.end(None)
                    left.remove(job)
        if fitting is not None:
            give_back()
            parts = [left[:fitting], left[fitting:]]
        else:
            where = next((f" in #{job.number}'s part" for job in left if job.run is failing_run(failure)), "")
            kind = type(failure).__name__
            log.warning("The stack failed%s, its jobs go on one by one: %s: %s", where, kind, failure)
            parts = [[job] for job in left]
        waiting = [part for part in parts if part]
        while waiting:
            part = waiting.pop(0)
            with stopped_on_error([job for other in waiting for job in other]):
                fitting = self._train(part) or fitting
        return fitting

    def _train_stack(self, left: list[PausedJob]) -> Exception | None:
        """Trains jobs, each taken out of `left` when its run has ended; returns what stopped the others."""
        of_run = {id(job.run): job for job in left}
        runs = [job.run for job in left]
        try:
            with Display.of(runs) as display:
                for run, state in run_epochs(Stack(runs), display, lambda run: of_run[id(run)].aside()):
                    job = of_run[id(run)]
                    left.remove(job)
                    self.returns[job.number] = job.end(state)
        except Exception as error:
            # Without its traceback, which holds on to the activations.
            return error.with_traceback(None)
        return None


def say_together(jobs: Sequence[PausedJob]) -> None:
    """Logs which jobs are trained as one model."""
    log.info("Training jobs %s as one model", ", ".join(f"#{number}" for number in sorted(job.number for job in jobs)))


def next_job(
    waiting: Sequence[int], ready: Sequence[int], seeds: Mapping[int, object], plan: Stacking | None
) -> int | None:
    """Returns the job to begin next; None if the stack is full: as few and as equal stacks as possible.

    Args:
        waiting: jobs that have not begun.
        ready: those that are ready to train as one stack.
        seeds: of all jobs.
        plan: None as long as nothing has been measured.
    """
    candidates = list(waiting)
    if ready and plan is not None:
        if plan.by_seed:
            candidates = [job for job in waiting if seeds[job] == seeds[ready[0]]]
        if len(ready) >= len(split(range(len(ready) + len(candidates)), plan.size)[0]):
            return None
    return candidates[0] if candidates else None


def failed(overrides: Sequence[str], error: BaseException) -> JobReturn:
    """Returns what a job that could not begin returns."""
    result = JobReturn(overrides=list(overrides), status=JobStatus.FAILED)
    result.return_value = error
    return result
