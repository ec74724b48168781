"""What a store has, read back: any sweep of any user as plain data, for a report, and a file of a run."""

from __future__ import annotations

import json
import math
import shlex
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cifar_tuning import PROJECT_ROOT
from cifar_tuning.errors import TrackingError, UserError
from cifar_tuning.overrides import split_list
from cifar_tuning.ranking import ENDED
from cifar_tuning.tracking import facts, finding, sweeps
from cifar_tuning.tracking.base import STATUS_OF_STATE
from cifar_tuning.tracking.store import Location, connect, locate, store_errors

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Run


STATE_OF_STATUS = {"FINISHED": "complete", "FAILED": "failed", "KILLED": "killed", "RUNNING": "running"}
# Ends of a trial before all of its seeds were trained.
STOPPED = ("pruned", "failed", "killed")
ADVICE = (
    "Start the server, or give the store in which the sweep was tracked (tracking.uri=sqlite:///path/to/mlflow.db)."
)


@dataclass(frozen=True)
class RunRecord:
    """One run as the store has it.

    Attributes:
        run_id: its id in the store.
        name: its name.
        state: complete, pruned, diverged, failed, killed or running; of a seed whose trial was stopped, the trial's.
        params: its parameters, as text.
        tags: its tags.
        metrics: the last value of each metric.
        seconds: from start to end; None while it runs.
        began: in seconds since 1970.
    """

    run_id: str
    name: str
    state: str
    params: dict[str, str]
    tags: dict[str, str]
    metrics: dict[str, float]
    seconds: float | None
    began: float | None = None

    @property
    def folder(self) -> Path | None:
        """Where the run's files were written, if it said so."""
        return Path(self.tags[facts.FOLDER]) if facts.FOLDER in self.tags else None

    @property
    def job(self) -> str | None:
        """Its number in the sweep, if it said so; all seeds of a trial have the trial's."""
        return self.tags.get(facts.JOB_NUM)

    @property
    def overrides(self) -> list[str]:
        """What was asked for on its command line."""
        return split_list(self.tags.get(facts.OVERRIDES, ""))

    @property
    def config_flags(self) -> list[str]:
        """Where its command line had the configuration looked for, as flags of the command."""
        return shlex.split(self.tags.get(facts.CONFIG_FLAGS, ""))

    @property
    def retrained(self) -> bool:
        """Whether it trained a study's winner once more: it was chosen, so it does not compete."""
        return self.tags.get("role") == "retrained"


@dataclass(frozen=True)
class SweepRecord:
    """A sweep: its runs, its own run if it has one, and how to read more of it.

    Attributes:
        name: what to call it.
        parent: the run that the others are nested in; None for all runs of an experiment.
        runs: those that trained something; a trial of several seeds is its seeds.
        location: the store.
        notes: sentences about what else the name could have meant.
        given: the folder that the name is of; it may have been moved since its run was told of it.
    """

    name: str
    parent: RunRecord | None
    runs: list[RunRecord]
    location: Location
    _client: MlflowClient = field(repr=False)
    notes: list[str] = field(default_factory=list)
    given: Path | None = None

    @property
    def folder(self) -> Path | None:
        """The sweep's folder, if it is on this machine."""
        if self.given is not None:
            return self.given
        folder = self.parent.folder if self.parent is not None else None
        return folder if folder is not None and folder.is_dir() else None

    @property
    def published(self) -> list[dict[str, Any]]:
        """Results of others that the sweep's overlay carries: metrics, and the options they belong to."""
        params = self.parent.params if self.parent is not None else {}
        rows = [params[key] for key in sorted(params, key=_natural) if key.startswith(f"{facts.PUBLISHED}.")]
        texts = rows or ([params[facts.PUBLISHED]] if facts.PUBLISHED in params else [])
        try:
            found = [json.loads(text) for text in texts]
        except ValueError:  # somebody else's parameter of this name
            return []
        flat = [row for entry in found for row in (entry if isinstance(entry, list) else [entry])]
        return [row for row in flat if isinstance(row, dict)]

    def curves(self, metric: str, runs: Iterable[RunRecord]) -> dict[str, list[tuple[int, float]]]:
        """Reads a metric over the epochs.

        Returns:
            For each of the runs that has it, by id: (step, value) in the order of the steps.

        Raises:
            TrackingError: the store can't be reached any more.
        """
        with store_errors(self.location, ADVICE):
            return {run.run_id: self._curve(metric, run.run_id) for run in runs if metric in run.metrics}

    def _curve(self, metric: str, run_id: str) -> list[tuple[int, float]]:
        points = self._client.get_metric_history(run_id, metric)
        # A run that was continued may have a step twice: the later value stands.
        last = {point.step: _restored(point.value) for point in sorted(points, key=lambda p: (p.step, p.timestamp))}
        return list(last.items())

    def keep(self, files: Sequence[Path], folder: str) -> None:
        """Puts files into a folder of the sweep's own run; does nothing if it has none.

        Raises:
            TrackingError: the store does not take them.
        """
        if self.parent is None:
            return
        with store_errors(self.location, "The files on this machine are complete."):
            for file in files:
                self._client.log_artifact(self.parent.run_id, str(file), folder)


def read_sweep(name: str, uri: str | None = None, root: Path = PROJECT_ROOT) -> SweepRecord:
    """Finds a sweep and reads its runs.

    Args:
        name: the sweep's folder (also just its name below multirun/), the name or id of its run, the name of a
            study, or of an MLflow experiment, which means all its runs; or else the last part of a run's name.
        uri: tracking URI; None for the default store.
        root: the project's folder.

    Raises:
        TrackingError: the store can't be reached.
        UserError: there is no such sweep, or it has no runs.
    """
    location, client = _look_into(uri, root, ADVICE)
    with store_errors(location, ADVICE):
        parent, others = finding.find_parent(client, name, root)
        experiment = client.get_experiment_by_name(name) if parent is None else None
        if parent is None and experiment is None:
            parent, others = finding.find_below(client, name)
        if parent is not None:
            runs = [_record(run, within) for run, within in finding.leaves(client, parent)]
            notes = finding.namesakes_in_words(name, parent, others)
            given = finding.folder_of(name, root)
            return SweepRecord(parent.info.run_name, _record(parent), runs, location, client, notes, given)
        if experiment is None:
            raise UserError(finding.unknown(client, name, root, location.shown))
        found = finding.leaves_of_experiment(client, experiment.experiment_id)
        runs = [_record(run, within) for run, within in found]
    if not runs:
        raise UserError(
            f"sweep={name}: this experiment in {location.shown} has no runs, so there is nothing to report."
        )
    return SweepRecord(name, None, runs, location, client)


def download_artifact(uri: str | None, run_id: str, name: str, folder: Path, root: Path = PROJECT_ROOT) -> Path:
    """Fetch one file of a run.

    Args:
        uri: tracking URI; None for the default store.
        run_id: the run; a multirun's stands for its best job's.
        name: the file's path in the run, such as `checkpoints/best.pt`.
        folder: where to put it.
        root: the project's folder.

    Raises:
        TrackingError: there is no such store, run or file.
    """
    location, client = _look_into(uri, root, f"So run {run_id} can't be looked up.")
    from mlflow.exceptions import MlflowException

    try:
        # A multirun's own run keeps no checkpoint; its best job's run does.
        run_id = client.get_run(run_id).data.tags.get(sweeps.BEST_RUN, run_id)
    except MlflowException as error:
        raise TrackingError(
            f"tracking.uri={location.shown} knows no run {run_id}. "
            "Give the store it was tracked in (tracking.uri=…), or the run's folder or checkpoint instead."
        ) from error
    try:
        return Path(client.download_artifacts(run_id, name, str(folder)))
    except Exception as error:  # every artifact store has its own way to say no
        kept = sorted(item.path for item in client.list_artifacts(run_id))
        raise TrackingError(
            f"Run {run_id} has no {name} (it keeps {', '.join(kept) or 'no files'}): "
            "a run that failed or was killed has none; its folder may still have a checkpoint."
        ) from error


def _look_into(uri: str | None, root: Path, advice: str) -> tuple[Location, MlflowClient]:
    """Returns a store that is there already: looking for something must not leave an empty database behind.

    Raises:
        TrackingError: it can't be reached; `advice` says what to do.
    """
    location = locate(uri, root)
    if (problem := location.problem(timeout=3)) is not None:
        raise TrackingError(f"tracking.uri={location.shown}: {problem}. {advice}")
    return location, connect(location)


def _natural(key: str) -> tuple[int, str]:
    number = key.rpartition(".")[2]
    return (int(number) if number.isdigit() else -1, key)


def _restored(value: float) -> float:
    """Returns infinity where the store kept the largest number instead: a loss of that size is none to report."""
    return math.copysign(math.inf, value) if abs(value) >= sys.float_info.max else value


def _record(run: Run, within: Run | None = None) -> RunRecord:
    info, data = run.info, run.data
    seconds = (info.end_time - info.start_time) / 1000 if info.end_time and info.start_time else None
    # Anybody may have a tag of this name: only our own words count.
    tag = data.tags.get(facts.STATE)
    state = tag if tag in (*STATUS_OF_STATE, "running") else STATE_OF_STATUS.get(info.status, info.status.lower())
    # A seed may have come to its end and its trial not: then there are too few of them, and the study chose without it.
    if state in ENDED and within is not None and facts.PARENT in within.data.tags:  # no trial is a whole sweep
        of_trial = within.data.tags.get(facts.STATE)
        state = of_trial if of_trial in STOPPED else state
    began = info.start_time / 1000 if info.start_time else None
    metrics = {name: _restored(value) for name, value in data.metrics.items()}
    plain = dict(data.params), dict(data.tags), metrics
    return RunRecord(info.run_id, info.run_name, state, *plain, seconds, began)
