"""The Hydra callback that opens and closes a multirun's parent run, whatever the sweeper."""

from __future__ import annotations

import logging
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hydra.experimental.callback import Callback
from omegaconf import DictConfig, OmegaConf

from cifar_tuning.errors import TrackingError, wants_traces
from cifar_tuning.files import read_json
from cifar_tuning.overrides import key_of, task_overrides, value_of
from cifar_tuning.processes import is_worker
from cifar_tuning.targets import is_study, is_tracked
from cifar_tuning.text import with_comment, without_password
from cifar_tuning.tracking import facts, reaper, sweeps
from cifar_tuning.tracking.base import STATUS_OF_STATE
from cifar_tuning.tracking.logged_model import log_classifier
from cifar_tuning.tracking.mlflow_tracker import MLflowTracker
from cifar_tuning.tracking.outbox import Outbox
from cifar_tuning.tracking.patience import is_back
from cifar_tuning.tracking.reachable import said
from cifar_tuning.tracking.store import Store, store_errors

if TYPE_CHECKING:
    import numpy as np
    from mlflow.entities import Run
    from torch import nn

log = logging.getLogger(__name__)

# Seconds that a sweep's end waits for a store that is away: without it nobody knows how the jobs ended.
SUMMING_UP = 60.0
STUDY_FILES = ("best.yaml", "optimization_results.yaml", "retrained.json")


class SweepRun(Callback):
    """Opens the parent run before the first job, closes it with the jobs' results.

    It costs nothing in a single run and without `tracking=mlflow`. What other rooms know is asked of methods, for
    subclasses to answer.
    """

    def __init__(self) -> None:
        # Plain data only: launchers send the callback to their workers.
        self._tracking: dict[str, Any] | None = None
        self._parent: str | None = None

    def sweep_key(self, hydra: Any) -> str | None:
        """Name the sweep where its folder, by which jobs find its run, is not the same for all of them."""
        return None

    def sweeper_options(self, hydra: Any) -> Any:
        """Return the sweeper's options as it uses them: here, as Hydra's configuration has them."""
        options = hydra.get("sweeper")
        return None if options is None else OmegaConf.to_container(options, resolve=True)

    def load_classifier(self, folder: Path) -> tuple[nn.Module, np.ndarray] | None:
        """Return a job's trained classifier and an example batch, for `tracking.log_model=auto` to log the winner's."""
        return None

    def on_multirun_start(self, config: DictConfig, **_: Any) -> None:
        """Create the parent run, or find it again where the same folder is continued."""
        if not is_tracked(config) or is_worker():  # its supervisor keeps the run
            return
        tracking = OmegaConf.to_container(config.tracking, resolve=True)
        assert isinstance(tracking, dict)
        self._tracking = {str(key): value for key, value in tracking.items() if key != "_target_"}
        tracker = MLflowTracker(**self._tracking)
        try:
            self._parent = self._open(tracker, config)
        except TrackingError as error:
            # Hydra makes warnings of a callback's exceptions, and a sweep that outlives failed jobs would
            # go through every one of them.
            print(f"error: {error}", file=sys.stderr)
            raise SystemExit(1) from error

    def _open(self, tracker: MLflowTracker, config: DictConfig) -> str:
        store = tracker.open_store()
        sweep_dir = Path(config.hydra.sweep.dir)
        with store_errors(store.location):
            reaper.reap_once(store)
            name = _name(config, sweep_dir)
            params = _params(config, self.sweeper_options(config.hydra))
            key = self.sweep_key(config.hydra)
            parent = sweeps.open_parent(store, name, sweep_dir, params, tracker.root, key, tracker.tags)
        if (page := store.location.page(store.experiment_id, parent)) is not None:
            log.info("MLflow: %s", page)
        return parent

    def on_multirun_end(self, config: DictConfig, **_: Any) -> None:
        """Close the parent run; Hydra calls this after errors and interrupts too."""
        if self._tracking is None or self._parent is None:
            return
        error = sys.exc_info()[1]  # Hydra calls from a `finally`, where the exception is still on its way
        tracker = MLflowTracker(**self._tracking)
        store = tracker.open_store(check=False)
        outbox = Outbox(store, self._parent, Path(config.hydra.sweep.dir))
        children: list[Run] = []
        if is_back(store.location, seconds=0 if error else SUMMING_UP):
            reaper.reap(store)  # a launcher's worker may have been killed
            Outbox.deliver_left(store)
            children = sweeps.children_of(store, self._parent)
        curve = sweeps.best_values(Path(config.hydra.sweep.dir))
        number = None if curve is None else sweeps.winner(curve)
        best = sweeps.best_of(children) if curve is None else sweeps.of_number(children, number)
        sweeps.summarise(outbox, children, best)
        outbox.add_metrics(sweeps.tested(Path(config.hydra.sweep.dir), number), step=0)
        history = store.client.get_metric_history(self._parent, "best_value") if children else []
        told = {metric.timestamp for metric in history}  # maybe of a study whose database was lost
        untold = [entry for entry in curve or [] if entry[2] not in told]
        _add_study(outbox, Path(config.hydra.sweep.dir), untold, len(history))
        state = sweeps.judge(children, error)
        if best is not None and state == "complete" and tracker.model_policy == "auto":
            self._log_winner(store, best, of_study=is_study(config.hydra))
        if any(run.info.status == "RUNNING" for run in children):
            outbox.flush()  # another command is still at this sweep; the last to end closes it
            return
        outbox.close(STATUS_OF_STATE[state], {facts.STATE: state})

    def _log_winner(self, store: Store, best: Run, of_study: bool) -> None:
        if best.outputs and best.outputs.model_outputs:
            return
        folder = Path(best.data.tags.get(facts.FOLDER, ""))
        left = read_json(folder / "result.json")  # a trial of several seeds has none of its own
        if isinstance(left, dict) and left.get("run_id", best.info.run_id) != best.info.run_id:
            log.warning("The best run's model was not logged: another job was trained in %s since.", folder)
            return
        try:
            loaded = self.load_classifier(folder)
            if loaded is None:
                return
            model_id = log_classifier(store.client, best.info.run_id, *loaded)
            if of_study:  # which has said by now what the best is, and where to look next
                print("  " + with_comment(f"models:/{model_id}", "the best trial's model, in MLflow"))
            else:
                log.info("Best run: %s; its model: models:/%s", best.info.run_name, model_id)
        except Exception as error:  # the sweep's results stand without it
            log.warning(
                "The best run's model was not logged (%s); its checkpoint is.", said(error), exc_info=wants_traces(log)
            )


def _add_study(outbox: Outbox, folder: Path, curve: list[tuple[int, float, int]], begin: int) -> None:
    """Put what a study left in its folder on the parent run: plots, result files, the best value over time.

    Args:
        outbox: of the parent.
        folder: the study's.
        curve: of the best value, as far as it is not on the run.
        begin: how many entries are; trials count in the order of their ends.
    """
    files = {file.name: file for name in STUDY_FILES for file in folder.glob(name)}
    if plots := sorted((folder / "plots").glob("*.*")):
        files |= {f"plots/{file.name}": file for file in plots}
    if files:
        outbox.add_artifacts(files)
    for step, (_, value, ended) in enumerate(curve, begin):
        outbox.add_metrics({"best_value": value}, step=step, milliseconds=ended)


def _name(config: DictConfig, sweep_dir: Path) -> str:
    if study := OmegaConf.select(config, "hydra.sweeper.study_name"):
        return str(study)
    choices = OmegaConf.select(config, "hydra.runtime.choices") or {}
    for group in ("study", "experiment"):
        if choices.get(group) not in (None, "null", "none"):
            return str(choices[group])
    return "/".join(sweep_dir.parts[-2:])


def _params(config: DictConfig, sweeper: Any) -> dict[str, str]:
    params = {}
    for override in task_overrides(config.hydra):
        params[facts.safe_key(key_of(override))] = value_of(override)[: facts.MAX_PARAM]
    choices = OmegaConf.select(config, "hydra.runtime.choices") or {}
    for group in ("hydra/sweeper", "hydra/launcher", "hydra/sweeper/sampler", "hydra/sweeper/pruner"):
        if choices.get(group) is not None:
            params[group] = str(choices[group])
    for key, value in facts.as_params({"hydra": {"sweeper": sweeper}} if sweeper else {}).items():
        params.setdefault(key, value)
    if config.get("published"):
        params |= facts.published_params(OmegaConf.to_container(config.published, resolve=True))
    # What is swept stands with the sweeper alone: beside the jobs' values it would make a chart's axis one of words.
    fixed = {key: value for key, value in params.items() if f"hydra.sweeper.params.{key}" not in params}
    # A storage's address may hold a password.
    return {key: without_password(value) for key, value in fixed.items()}
