"""The study sweeper as Hydra sees it: its options and a shell; importing it costs nothing.

Found through the `hydra.plugins` entry point, so that any Hydra application in the environment can use it.
"""

import hashlib
import signal
import sys
from dataclasses import dataclass, field
from typing import Any

from hydra.core.config_store import ConfigStore
from hydra.errors import CompactHydraException
from hydra.plugins.sweeper import Sweeper
from hydra.types import HydraContext, TaskFunction
from hydra_plugins.hydra_optuna_sweeper.config import OptunaSweeperConf, TPESamplerConfig
from omegaconf import II, MISSING, DictConfig, OmegaConf

from cifar_tuning.errors import UserError
from cifar_tuning.overrides import key_of, unresolved
from cifar_tuning.processes import is_worker, terminable
from cifar_tuning.targets import FUSED_LAUNCHER, STUDY_SWEEPER

# Prefixes of overrides of Hydra's own options that make it a different study.
TELL_STUDIES_APART = (
    "hydra/sweeper/sampler",
    "hydra.sweeper.sampler",
    "hydra.sweeper.params",
    "hydra.sweeper.custom",
    "hydra.sweeper.conditions",
    "hydra.sweeper.direction",
    "hydra.sweeper.repeats",
)


@dataclass
class StudyTPEConf(TPESamplerConfig):
    """The stock plugin's options of TPE, of which three depend on the sweeper that uses them."""

    multivariate: bool = II("cifar_tuning.study_tpe:multivariate")
    group: bool = II("cifar_tuning.study_tpe:group")
    constant_liar: bool = II("cifar_tuning.study_tpe:constant_liar")


@dataclass
class StudySweeperConf(OptunaSweeperConf):
    """The stock sweeper's options, which mean the same here, and those it lacks.

    Attributes:
        storage: Optuna storage URL; null: `optuna.db` in the sweep's folder.
        study_name: made from the command, so that the same command is the same study; null: the application's name.
        n_trials: finished trials of the study in total, over all commands and processes, without those that failed
            before the command began.
        n_jobs: trials that a launcher which runs several has at the same time; the basic one takes one. The fused one,
            for which it is made 8 (or its `stack`), takes another trial whenever one ends, and all workers share the
            number, though each has room for a whole `hydra.launcher.stack`; others (2) train batch after batch.
        max_failure_rate: the command stops when more than this share of `n_trials` failed since it began.
        pruner: a choice of the group hydra/sweeper/pruner; null: none.
        workers: processes that take one trial after the other; null: one a core on a CPU (of which the fused launcher
            feeds each with four trials or more), one a GPU.
        timeout: seconds after which no further trial is started.
        target: no further trial is drawn once one is as good as this; null: never.
        patience: no further trial is drawn once so many have ended without a better one than before; null: never.
        max_retry: how often a trial whose process died is taken up again; null: always.
        conditions: where a key is searched at all, such as {optimizer.momentum: optimizer=sgd}.
        enqueue: configurations to try first: `defaults`, or `{key: value}`.
        warm_start: an older study's folder, with whose trials a new study begins.
        skip_duplicates: a configuration that is drawn again has the value that it had, and is not trained again.
        allow_changed_space: continue a study although the search space or the configuration changed.
        repeats: seeds a trial is the mean of.
        retrain_best: seeds to train the winner with at the end, tested on the test set.
        retrain_overrides: what is different then, such as ["data.val_size=0", "trainer.epochs=200"].
        plots: draw Optuna's plots at the end.
        heartbeat_interval: seconds between signs of life.
        grace_period: seconds of silence after which a trial counts as dead; null: twice the interval.
    """

    _target_: str = STUDY_SWEEPER
    defaults: list[Any] = field(default_factory=lambda: ["_self_", {"sampler": "tpe"}, {"pruner": "median"}])
    study_name: str | None = (
        "${cifar_tuning.study_name:${hydra.overrides.task},${hydra.overrides.hydra},${hydra.job.name}}"
    )
    n_jobs: Any = "${cifar_tuning.study_jobs:${hydra.launcher}}"
    max_failure_rate: float = 0.5
    sampler: Any = MISSING  # so that a name in its place is said to be a choice of the group
    pruner: Any = None  # as an overlay with `override /hydra/sweeper/pruner: null` leaves it
    workers: int | None = 1
    timeout: float | None = None
    target: float | None = None
    patience: int | None = None
    max_retry: int | None = 3
    conditions: Any = None
    enqueue: list[Any] = field(default_factory=lambda: ["defaults"])
    warm_start: str | None = None
    skip_duplicates: bool = False
    allow_changed_space: bool = False
    repeats: int = 1
    retrain_best: int = 0
    retrain_overrides: list[Any] = field(default_factory=list)
    plots: bool = True
    heartbeat_interval: int = 60
    grace_period: int | None = None


class StudySweeper(Sweeper):
    """Runs an Optuna study that prunes, resumes and shares its work; see `tuning.engine`."""

    def __init__(self, **options: Any) -> None:
        self.options = options

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        """Keeps what `sweep` needs; nothing is imported or opened yet."""
        self.context, self.task, self.config = hydra_context, task_function, config

    def sweep(self, arguments: list[str]) -> None:
        """Runs the study to its end."""
        from cifar_tuning.tuning.command import run_study
        from cifar_tuning.tuning.place import more_to_type
        from cifar_tuning.tuning.storage import STORAGE_ERRORS, lost
        from cifar_tuning.tuning.workers import report

        assert self.config is not None
        config = self.config

        def again() -> str:
            return f"the same command{more_to_type(config)} goes on with the study."

        try:
            with terminable():
                run_study(config, self.context, self.task, arguments)
        except STORAGE_ERRORS as error:
            raise CompactHydraException(f"error: {lost(error, again())}") from error
        except UserError as error:  # Hydra prints its own kind without a traceback, in every application
            report(error)
            raise CompactHydraException(f"error: {error}") from None
        except KeyboardInterrupt:
            print(f"Interrupted; {again()}", file=sys.stderr)
            raise SystemExit(130) from None
        except SystemExit as stop:
            if stop.code == 128 + signal.SIGTERM and not is_worker():  # as a cluster's scheduler asks
                print(f"Terminated; {again()}", file=sys.stderr)
            raise


def name_of(overrides: Any, hydras: Any, job: str) -> str:
    """Makes a study's name from the command, so that the same command is the same study.

    Of Hydra's own options those count that make it another study; a study may be given more trials or workers.
    """
    counting = [o for o in unresolved(hydras) if key_of(o).startswith(TELL_STUDIES_APART)]
    digest = hashlib.sha256("\n".join(sorted([*map(str, overrides), *counting])).encode())
    return f"{job}-{digest.hexdigest()[:6]}"


def is_ours(sweeper: Any) -> bool:
    """Whether a sweeper's options are the study sweeper's."""
    return sweeper.get("_target_") == STUDY_SWEEPER


def folder_of(sweeper: Any, usual: str) -> str:
    """A study's folder has its name, any other sweep's the usual one."""
    return str(sweeper.study_name or usual) if is_ours(sweeper) else usual


def jobs_of(launcher: Any) -> int:
    """Trials launched together: as many as the fused launcher stacks, or the stock plugin's two."""
    return (launcher.get("stack") or 8) if launcher.get("_target_") == FUSED_LAUNCHER else 2


def steps(kind: str, *, _root_: Any) -> int | None:
    """When the median and percentile pruners look at a trial: the first time, how often, and the last time, in epochs.

    Of fifteen epochs after the 1st, 3rd and 5th. Looking after each from the second to the last saves no more and loses
    twice the accuracy (simulated studies, docs/performance.md).
    """
    epochs = OmegaConf.select(_root_, "trainer.epochs")
    if not isinstance(epochs, int):
        return {"first": 1, "every": 1, "last": None, "seed": None}[kind]
    first = max(1, epochs // 15)
    return {"first": first, "every": max(1, 2 * epochs // 15), "last": max(first, epochs // 3), "seed": epochs}[kind]


def resource(*, _root_: Any) -> int | str:
    """The epochs of a whole trial, all its seeds', or `auto` where the application has no such option."""
    epochs = OmegaConf.select(_root_, "trainer.epochs")
    return epochs * _root_.hydra.sweeper.repeats if isinstance(epochs, int) else "auto"


def tpe(option: str, *, _root_: Any) -> bool:
    """What TPE does unless it is told: under the study sweeper what Optuna does by itself, else as the stock plugin.

    `group` is a part of sampling jointly, for a space in which a function, or a condition, decides what is chosen.
    """
    sweeper = _root_.hydra.sweeper
    if option == "group":
        branching = sweeper.get("custom_search_space") is not None or bool(sweeper.get("conditions"))
        return bool(sweeper.sampler.multivariate) and branching and is_ours(sweeper)
    return is_ours(sweeper)


# Kept from the sweep for its jobs, like Hydra's own `now`: their overrides differ, their study does not.
OmegaConf.register_resolver("cifar_tuning.study_name", name_of, replace=True, use_cache=True)
OmegaConf.register_resolver("cifar_tuning.study_folder", folder_of, replace=True, use_cache=True)
OmegaConf.register_resolver("cifar_tuning.study_jobs", jobs_of, replace=True)
OmegaConf.register_resolver("cifar_tuning.study_steps", steps, replace=True)
OmegaConf.register_resolver("cifar_tuning.study_tpe", tpe, replace=True)
OmegaConf.register_resolver("cifar_tuning.study_resource", resource, replace=True)

_MEDIAN = {
    "_target_": "cifar_tuning.tuning.pruners.MedianPruner",
    "n_startup_trials": 3,
    "n_warmup_steps": "${cifar_tuning.study_steps:first}",
    "interval_steps": "${cifar_tuning.study_steps:every}",
    "n_last_steps": "${cifar_tuning.study_steps:last}",
    "n_seed_steps": "${cifar_tuning.study_steps:seed}",
    "n_min_trials": 1,
    "count_incomplete": True,
}
PRUNERS: dict[str, dict[str, Any]] = {
    "none": {"_target_": "optuna.pruners.NopPruner"},
    "median": _MEDIAN,
    "percentile": {
        **_MEDIAN,
        "_target_": "cifar_tuning.tuning.pruners.PercentilePruner",
        "percentile": 25.0,
        # Simulated for the median alone; the best quarter of four trials that have just begun is soon a matter of luck.
        "count_incomplete": False,
    },
    "hyperband": {
        "_target_": "optuna.pruners.HyperbandPruner",
        "min_resource": 1,
        "max_resource": "${cifar_tuning.study_resource:}",
        "reduction_factor": 3,
    },
    "successive_halving": {
        "_target_": "optuna.pruners.SuccessiveHalvingPruner",
        "min_resource": 1,
        "reduction_factor": 4,
        "min_early_stopping_rate": 0,
    },
    "threshold": {
        "_target_": "optuna.pruners.ThresholdPruner",
        "lower": None,
        "upper": None,
        "n_warmup_steps": 0,
        "interval_steps": 1,
    },
    "patient": {
        "_target_": "optuna.pruners.PatientPruner",
        # To the end: patience is what keeps it from pruning by chance.
        "wrapped_pruner": {"_target_": "optuna.pruners.MedianPruner", "n_startup_trials": 5, "n_warmup_steps": 1},
        "patience": 3,
        "min_delta": 0.0,
    },
}


def register() -> None:
    """Puts the options of the sweeper, its samplers and pruners where Hydra looks for them."""
    store = ConfigStore.instance()
    # Twice, so that an application's own conf/hydra/sweeper/study.yaml can begin with the options as they are.
    for name in ("study", "study_options"):
        store.store(group="hydra/sweeper", name=name, node=StudySweeperConf, provider="cifar_tuning")
    store.store(group="hydra/sweeper", name="optuna_options", node=OptunaSweeperConf, provider="cifar_tuning")
    # In the stock plugin's place, which sees its own defaults in it.
    store.store(group="hydra/sweeper/sampler", name="tpe", node=StudyTPEConf, provider="cifar_tuning", replace=True)
    brute_force = {"_target_": "optuna.samplers.BruteForceSampler", "seed": None}
    store.store(group="hydra/sweeper/sampler", name="brute_force", node=brute_force, provider="cifar_tuning")
    for name, node in PRUNERS.items():
        store.store(group="hydra/sweeper/pruner", name=name, node=node, provider="cifar_tuning")


register()
