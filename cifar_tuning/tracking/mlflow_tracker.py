"""One job's run in an MLflow store."""

from __future__ import annotations

import atexit
import contextlib
import logging
import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from cifar_tuning import PROJECT_ROOT
from cifar_tuning.option_rules import raise_all
from cifar_tuning.text import first_line, without_password
from cifar_tuning.tracking import facts, groups, opening, reaper, sweeps
from cifar_tuning.tracking.base import (
    STATUS_OF_STATE,
    TRACEBACK,
    RunContext,
    Tracker,
    state_of_error,
    write_traceback,
)
from cifar_tuning.tracking.logged_model import log_classifier
from cifar_tuning.tracking.outbox import Outbox
from cifar_tuning.tracking.patience import patiently
from cifar_tuning.tracking.reachable import said
from cifar_tuning.tracking.store import Location, Store, locate, open_store, store_errors

if TYPE_CHECKING:
    import numpy as np
    from mlflow.system_metrics.system_metrics_monitor import SystemMetricsMonitor
    from torch import nn

log = logging.getLogger(__name__)


class MLflowTracker(Tracker):
    """Keeps a run in MLflow; several may be open at once in one process.

    Args:
        uri: tracking URI; None for `mlflow.db` and `mlruns/` at the project's root.
        experiment: MLflow experiment, created if missing.
        log_model: keep loadable models: `auto` (a multirun's winner, and what a job says is worth it), true, false.
        root: the project's folder.
        tags: of your own, for each run and a multirun's; those that a run has anyway stay as they are.
        run_name: of each run; that of a multirun's job has its number before it. None: what the run is made of.
    """

    def __init__(
        self,
        uri: str | None = None,
        experiment: str = "cifar10",
        log_model: Literal["auto"] | bool = "auto",
        root: str | Path = PROJECT_ROOT,
        tags: Mapping[str, Any] | None = None,
        run_name: str | None = None,
    ) -> None:
        super().__init__()
        raise_all(self.check(uri=uri, experiment=experiment, log_model=log_model, tags=tags, run_name=run_name))
        self.uri = uri
        self.experiment = str(experiment)
        self.model_policy = log_model
        self.root = Path(root)
        self.tags = facts.own_tags(tags or {})
        self.run_name = run_name
        self._outbox: Outbox | None = None
        self._logged_through = -1
        self._group: str | None = None
        self._monitor: SystemMetricsMonitor | None = None

    @staticmethod
    def check(
        uri: object, experiment: object, log_model: object, tags: object = None, run_name: object = None
    ) -> list[str]:
        """Returns a line for each option that is out of range; empty if all are right."""
        problems = []
        if uri is not None and not isinstance(uri, str):
            problems.append(f"tracking.uri={uri}: must be a tracking URI, or null for the default store")
        if experiment is None or not str(experiment).strip():
            problems.append(f"tracking.experiment={experiment!r}: must be a name")
        if not isinstance(log_model, bool) and log_model != "auto":
            problems.append(f"tracking.log_model={log_model}: must be auto, true or false")
        if tags is not None and not isinstance(tags, Mapping):
            problems.append(f"tracking.tags={tags}: must be names with values, as {{team: vision}}")
        if run_name is not None and not str(run_name).strip():
            problems.append(f"tracking.run_name={run_name!r}: must be a name, such as lr_${{optimizer.lr}}, or null")
        return problems

    def wants_model(self, worth_keeping: bool) -> bool:
        """Tell whether the job should call `log_model`; under `auto` a multirun's winner is logged later."""
        return worth_keeping if self.model_policy == "auto" else bool(self.model_policy)

    def location(self) -> Location:
        """Say where the store is, without opening it."""
        return locate(self.uri, self.root)

    def open_store(self, check: bool = True) -> Store:
        """Open the store; raises `TrackingError`, for a store that is down only where `check` is set."""
        return open_store(self.location(), self.experiment, check)

    def start(self, context: RunContext) -> None:
        """Open the run and log everything known about it; raises `TrackingError`.

        A single run says at once that its store is away, a sweep's job waits for it.
        """
        try:
            if context.sweep_dir is None:
                self._open(context)
            else:
                patiently(lambda: self._open(context), self.location())
        except BaseException as error:
            self._leave(error)
            raise
        atexit.register(self._close_at_exit, os.getpid())
        super().start(context)
        outbox = self._running()
        location, run_id = outbox.store.location, outbox.run_id
        self._monitor = opening.monitor(location.uri, run_id, self.continued)
        if context.sweep_dir is None and (page := location.page(outbox.store.experiment_id, run_id)) is not None:
            log.info("MLflow: %s", page)

    def _open(self, context: RunContext) -> None:
        store = self.open_store()
        with store_errors(store.location):
            reaper.reap_once(store)
            Outbox.deliver_left(store)
            params = facts.as_params(context.config)
            said = ("tracking.tags.", "tracking.run_name.")  # of the run itself
            params = {key: value for key, value in params.items() if not f"{key}.".startswith(said)}
            params.setdefault("seed", str(context.seed))
            tags = {**self.tags, **facts.run_tags(context, self.root)}
            if context.sweep_dir is not None:  # its jobs are told apart by their names
                tags.pop(facts.RUN_NAME, None)
            if self.run_name is not None:
                number = "" if context.sweep_dir is None else f"{context.name.partition(':')[0]}: "
                tags[facts.RUN_NAME] = f"{number}{self.run_name}"[:200]
            parent = self._parent(store, context)
            known = context.run_id
            if context.again and parent is not None:
                known = sweeps.find_job(store, parent, context.job_num, context.seed) or known
            through = opening.go_on(store, known, context, tags, params) if known and self.run_id is None else None
            self.continued = through is not None
            if through is not None:
                self.run_id, self._logged_through = known, through
            else:
                if self.run_id is None:  # or else it was begun before the store went away
                    self.run_id = opening.create(store, context, tags, parent)
                opening.describe(store, self.run_id, context, params)
        assert self.run_id is not None
        self._outbox = Outbox(store, self.run_id, context.folder)

    def _leave(self, error: BaseException) -> None:
        """Close the run that could not be opened whole."""
        if self.run_id is None:
            return
        state = state_of_error(error)
        with contextlib.suppress(Exception):  # the store may be away
            client = self.open_store(check=False).client
            client.set_tag(self.run_id, facts.STATE, state)
            client.set_tag(self.run_id, facts.ERROR, _in_a_line(error)[: facts.MAX_TAG])
            client.set_terminated(self.run_id, STATUS_OF_STATE[state])

    def log_epoch(self, metrics: Mapping[str, float], step: int) -> None:
        """Write one line of `metrics.jsonl` and tell the store, where epochs are short about several at once."""
        super().log_epoch(metrics, step)
        outbox = self._running()
        # Continuing repeats what lies between the checkpoint and the interruption.
        if step > self._logged_through:
            outbox.add_metrics(metrics, step)
            outbox.flush(may_wait=True)

    def deliver(self) -> None:
        """Tell the store what waits; called while a GPU computes and the host would only wait."""
        self._running().flush(idle=True)

    def log_facts(self, facts: Mapping[str, float | str]) -> None:
        """Log numbers as metrics at step 0 (the UI sorts by them) and texts as tags, in one call."""
        outbox = self._running()
        outbox.add_metrics({k: v for k, v in facts.items() if not isinstance(v, str | bool)}, step=0)
        outbox.add_tags({k: str(v) for k, v in facts.items() if isinstance(v, str | bool)})
        outbox.flush()

    def log_artifacts(self, files: Mapping[str, Path]) -> None:
        """Copy files to the store: path there to local file."""
        outbox = self._running()
        outbox.add_artifacts(files)
        outbox.flush()

    def log_model(self, model: nn.Module, input_example: np.ndarray) -> str | None:
        """Keep the classifier as a loadable model; a failure costs a warning."""
        outbox = self._running()
        if not outbox.flush():
            return None
        try:
            return log_classifier(outbox.store.client, outbox.run_id, model, input_example)
        except Exception as error:  # an unusual model torch can't export, a store that goes just now
            log.warning("The model was not logged (%s); its checkpoint is.", said(error))
            return None

    def finish(self, state: str, of_trial: str | None = None) -> None:
        """Close the run; the second call does nothing."""
        if self._outbox is None:
            return
        outbox, self._outbox = self._outbox, None
        self._let_go()
        outbox.close(STATUS_OF_STATE[state], {facts.STATE: state})
        if self._group is not None:
            try:
                groups.close_group(outbox.store, self._group, of_trial or state)
            except Exception as error:  # the seed's own run is closed; the reaper closes its trial's
                log.warning("The trial's run was not closed: %s", said(error))

    def abandon(self) -> None:
        """Leave the run as it is: another process goes on with it."""
        self._outbox = None
        self._let_go()

    def fail(self, error: BaseException) -> None:
        """Close the run after an error, with its traceback."""
        if self._outbox is None:
            return
        file = write_traceback(self._outbox.folder, error)
        if file is not None:
            self._outbox.add_artifacts({TRACEBACK: file})
        self._outbox.add_tags({facts.ERROR: _in_a_line(error)})
        self.finish(state_of_error(error))

    def _let_go(self) -> None:
        atexit.unregister(self._close_at_exit)
        if self._monitor is not None:
            self._monitor.finish()
            self._monitor = None

    def _close_at_exit(self, pid: int) -> None:
        """Close the run that nobody closed before the interpreter ends."""
        if os.getpid() == pid:  # a forked child inherits the call, not the run
            with contextlib.suppress(Exception):
                self.finish("killed")

    def _running(self) -> Outbox:
        if self._outbox is None:
            raise RuntimeError("the tracker has no open run: call start() first")
        return self._outbox

    def _parent(self, store: Store, context: RunContext) -> str | None:
        """Find the run that this one is nested in: its sweep's, or that of its trial of several jobs."""
        if context.sweep_dir is None:
            return None
        parent = sweeps.find_parent(store, context.sweep_dir, context.sweep_key)
        if parent is None:
            log.warning("No parent run for %s; this run stands alone.", context.sweep_dir)
        if context.group_dir is not None:
            own = {key: value for key, value in self.tags.items() if key != facts.RUN_NAME}
            trial = context.group_dir, parent, context.job_num
            parent = self._group = groups.open_group(store, *trial, context.overrides, own)
        return parent


def _in_a_line(error: BaseException) -> str:
    return f"{type(error).__name__}: {without_password(first_line(error))}"
