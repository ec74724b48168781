"""Whether jobs can share a stack, and how many: decided with the first job of each kind."""

import logging

from cifar_tuning.errors import wants_traces
from cifar_tuning.fused.check import check_stackable
from cifar_tuning.fused.model import stack_key
from cifar_tuning.fused.paused_jobs import PausedJob
from cifar_tuning.fused.size import STORE, Stacking, choose
from cifar_tuning.fused.twin import NotStackableError
from cifar_tuning.training.measurement_cache import cache_file

log = logging.getLogger(__name__)

# What the runs of a stack have in common, and the job's number if it can't share a stack.
Key = tuple[tuple[str, ...], int | None]


def plan(job: PausedJob, stack: int | None, jobs: int, of_a_seed: int) -> Stacking:
    """Returns how many runs like a job's to stack, and which; says why if they are trained one by one.

    Args:
        job: ready to train.
        stack: how many the user wants; None: measured.
        jobs: how many there are.
        of_a_seed: how many of them have the same seed, at most.
    """
    run = job.run
    if has_own_optimizer(job):
        kind = type(run.optimizer).__name__
        log.warning("#%d is trained by itself: %s is no optimizer of PyTorch's", job.number, kind)
        return Stacking(1)
    try:
        images, _ = next(iter(run.train.epoch(1)))
        batch, channels, height, width = images.shape
        if run.train.side is not None:
            raise NotStackableError("the size of its images changes from epoch to epoch (trainer.initial_scale)")
        check_stackable(run.model, images)
        if stack:
            if run.compile:
                log.info("A stack is not compiled: trainer.compile has no effect on it.")
            return Stacking(stack)
        if run.compile:
            log.info("Trained one by one: a stack is not compiled; hydra.launcher.stack=N stacks all the same.")
            return Stacking(1)
        planned = choose(run, jobs, of_a_seed, (batch, channels, height, width))
    except NotStackableError as reason:
        log.warning("Trained one by one: %s.", reason)
        return Stacking(1)
    except Exception as error:  # what is wrong with the model shows when it is trained
        log.warning("Trained one by one: the model could not be measured (%s).", error, exc_info=wants_traces(log))
        return Stacking(1)
    if planned.size == 1:
        log.info(
            "Trained one by one: stacking this model does not pay on this device, as measured; see %s. "
            "hydra.launcher.stack=N stacks all the same.",
            cache_file(STORE),
        )
    return planned


def key_of(job: PausedJob) -> Key:
    """Returns what a job that is ready has in common with those that it can share a stack with."""
    return stack_key(job.run), job.number if has_own_optimizer(job) else None


def has_own_optimizer(job: PausedJob) -> bool:
    """Whether a job has an optimizer of the user's; it may put other tensors in the place of the parameters.

    PyTorch's don't, so that the parameters can be views of a stack's.
    """
    return not type(job.run.optimizer).__module__.startswith("torch.optim")
