"""The fused launcher as Hydra sees it; importing it costs nothing.

    python train.py -m hydra/launcher=fused optimizer.lr=1.0,0.1,0.01

Found through the `hydra.plugins` entry point, as the study sweeper is.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from hydra.core.config_store import ConfigStore
from hydra.core.utils import JobReturn
from hydra.errors import CompactHydraException
from hydra.plugins.launcher import Launcher
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig, OmegaConf

from cifar_tuning.numeric import is_whole
from cifar_tuning.targets import FUSED_LAUNCHER
from cifar_tuning.text import counted


@dataclass
class FusedLauncherConf:
    """The launcher's options.

    Attributes:
        stack: runs to train as one model; null: as many as a short measurement finds best, if it pays at all.
    """

    _target_: str = FUSED_LAUNCHER
    stack: Any = None


class FusedLauncher(Launcher):
    """Trains a sweep's jobs in this process, as many as possible as one stacked model; see `fused.launch`."""

    def __init__(self, stack: int | None = None) -> None:
        self.stack = stack

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        """Keeps what `launch` needs; nothing is imported or opened yet."""
        self.context, self.task, self.config = hydra_context, task_function, config

    def launch(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> Sequence[JobReturn]:
        """Runs the jobs; returns what they return, in their order."""
        from cifar_tuning.fused.launch import Launch

        self._check()
        return Launch(self.context, self.config, self.task, self.stack).run(job_overrides, initial_job_idx)

    def flow(self, room: int, more: "More", ended: "Ended") -> None:
        """Trains jobs until there are no more, and takes another one whenever one ends; see `fused.flow`.

        No other launcher of Hydra's can: their jobs are a batch, whose slowest all wait for.

        Args:
            room: jobs in training at the same time, at most.
            more: returns up to so many further jobs, as pairs of number and overrides; none if there are none now.
            ended: told the number of a job that has ended, and what it returned.
        """
        from cifar_tuning.fused.flow import Flow

        self._check()
        Flow(self.context, self.config, self.task, self.stack, room, more, ended).train()

    def _check(self) -> None:
        if problem := stack_problem(self.config, None):
            raise CompactHydraException(f"error: {problem}")


More = Callable[[int], Sequence[tuple[int, Sequence[str]]]]
Ended = Callable[[int, JobReturn], object]


def stack_problem(config: DictConfig, jobs: int | None) -> str | None:
    """Returns what is wrong with the launcher's options, if something is.

    Args:
        config: of the sweep.
        jobs: how many it has; None: not known.
    """
    stack = OmegaConf.select(config, "hydra.launcher.stack")
    if stack is None:
        return None
    if not is_whole(stack, 1):
        return f"hydra.launcher.stack={stack}: must be a whole number, 1 or above, or null to have it measured"
    # An Optuna sweeper's last batch may be smaller; what it launches together is its n_jobs.
    # So is the basic one's max_batch_size.
    for key in ("n_jobs", "max_batch_size"):
        together = OmegaConf.select(config, f"hydra.sweeper.{key}")
        if together is not None and stack > together:
            return (
                f"hydra.launcher.stack={stack}: the sweeper launches {counted(together, 'job')} at a time; "
                f"give hydra.sweeper.{key}={stack} as well"
            )
    known = None if OmegaConf.select(config, "hydra.sweeper.n_jobs") is not None else jobs
    if known is None or stack <= known:
        return None
    fewer = "" if known == 1 else " or less"
    return f"hydra.launcher.stack={stack}: the sweep has {counted(known, 'job')}; give {known}{fewer}, or null"


def register() -> None:
    """Puts the launcher's options where Hydra looks for them."""
    store = ConfigStore.instance()
    store.store(group="hydra/launcher", name="fused", node=FusedLauncherConf, provider="cifar_tuning")


register()
