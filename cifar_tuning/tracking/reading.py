"""What a store knows of a sweep, read back for a report: any sweep of any user, as plain data."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from cifar_tuning import PROJECT_ROOT
from cifar_tuning.errors import TrackingError, UserError
from cifar_tuning.tracking import facts, sweeps
from cifar_tuning.tracking.store import connect, locate, store_errors

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Run

    from cifar_tuning.tracking.store import Location

STATE_OF_STATUS = {"FINISHED": "complete", "FAILED": "failed", "KILLED": "killed", "RUNNING": "running"}
# Names that an error proposes.
PROPOSED = 12


@dataclass(frozen=True)
class RunRecord:
    """One run as the store has it.

    Attributes:
        run_id: its id in the store.
        name: its name.
        state: complete, pruned, diverged, failed, killed or running.
        params: its parameters, as text.
        tags: its tags.
        metrics: the last value of each metric.
        seconds: from start to end; None while it runs.
    """

    run_id: str
    name: str
    state: str
    params: dict[str, str]
    tags: dict[str, str]
    metrics: dict[str, float]
    seconds: float | None

    @property
    def folder(self) -> Path | None:
        """Where the run's files were written, if it said so."""
        return Path(self.tags[facts.FOLDER]) if facts.FOLDER in self.tags else None

    @property
    def job(self) -> int | None:
        """Its number in the sweep."""
        number = self.tags.get(facts.JOB_NUM, "")
        return int(number) if number.isdigit() else None

    @property
    def overrides(self) -> list[str]:
        """What was asked for on its command line."""
        return split_overrides(self.tags.get(facts.OVERRIDES, ""))


@dataclass(frozen=True)
class SweepRecord:
    """A sweep: its runs, its own run if it has one, and how to read more of it.

    Attributes:
        name: what to call it.
        parent: the run that the others are nested in; None for all runs of an experiment.
        runs: those that trained something; a trial of several seeds is its seeds.
        location: the store.
    """

    name: str
    parent: RunRecord | None
    runs: list[RunRecord]
    location: Location
    _client: MlflowClient = field(repr=False)

    @property
    def folder(self) -> Path | None:
        """The sweep's folder, if it is on this machine."""
        folder = self.parent.folder if self.parent is not None else None
        return folder if folder is not None and folder.is_dir() else None

    def curves(self, metrics: Iterable[str]) -> dict[str, dict[str, list[tuple[int, float]]]]:
        """Reads metrics over the epochs.

        Returns:
            For each metric, for each run that has it: (step, value) in the order of the steps.
        """
        with store_errors(self.location):
            return {metric: self._curves_of(metric) for metric in metrics}

    def _curves_of(self, metric: str) -> dict[str, list[tuple[int, float]]]:
        curves = {}
        for run in self.runs:
            if metric in run.metrics:
                points = self._client.get_metric_history(run.run_id, metric)
                # A run that was continued may have a step twice: the later value stands.
                last = {point.step: point.value for point in sorted(points, key=lambda p: (p.step, p.timestamp))}
                curves[run.run_id] = list(last.items())
        return curves

    def keep(self, files: Mapping[str, Path]) -> None:
        """Puts files on the sweep's own run; maps the path in the store to the local file."""
        if self.parent is None:
            return
        with store_errors(self.location):
            for name, file in files.items():
                self._client.log_artifact(self.parent.run_id, str(file), str(Path(name).parent))


def read_sweep(name: str, uri: str | None = None, root: Path = PROJECT_ROOT) -> SweepRecord:
    """Finds a sweep and reads its runs.

    Args:
        name: the sweep's folder (also just its name below multirun/), the name or id of its run, the name of a
            study, or of an MLflow experiment, which means all its runs.
        uri: tracking URI; None for the default store.
        root: the project's folder.

    Raises:
        TrackingError: the store can't be reached.
        UserError: there is no such sweep, or it has no runs.
    """
    location = locate(uri, root)
    problem = location.problem(timeout=3)
    if problem is not None:
        raise TrackingError(f"tracking.uri={location.shown}: {problem}. Start the server or give the right address.")
    client = connect(location)
    with store_errors(location):
        parent = _parent(client, name, root)
        if parent is not None:
            found = _leaves(client, parent)
            record = SweepRecord(parent.info.run_name, _record(parent), list(map(_record, found)), location, client)
        else:
            experiment = client.get_experiment_by_name(name)
            if experiment is None:
                raise UserError(f"sweep={name}: {_unknown(client, location)}")
            everything = _search(client, [experiment.experiment_id])
            parents = {run.data.tags.get(facts.PARENT) for run in everything}
            runs = [_record(run) for run in everything if run.info.run_id not in parents]
            record = SweepRecord(name, None, runs, location, client)
    if not record.runs:
        raise UserError(f"sweep={name}: has no runs in {location.shown} yet, so there is nothing to report.")
    return record


def split_overrides(text: str) -> list[str]:
    """Splits comma-separated overrides, not within brackets or quotes."""
    parts, depth, quote = [""], 0, ""
    for character in text:
        if quote:
            quote = "" if character == quote else quote
        elif character in "'\"":
            quote = character
        elif character in "([{":
            depth += 1
        elif character in ")]}":
            depth -= 1
        if character == "," and not depth and not quote:
            parts.append("")
        else:
            parts[-1] += character
    return [part for part in parts if part]


def _parent(client: MlflowClient, name: str, root: Path) -> Run | None:
    from mlflow.exceptions import MlflowException

    for folder in (Path(name).expanduser(), root / "multirun" / name):
        marker = folder / sweeps.MARKER
        if marker.is_file():
            try:
                return client.get_run(marker.read_text().strip())
            except MlflowException as error:
                raise UserError(
                    f"sweep={name}: its run {marker.read_text().strip()} is not in this store; "
                    "give the one it was tracked in (tracking.uri=…)."
                ) from error
    try:
        return client.get_run(name)
    except MlflowException:
        pass
    quote = '"' if "'" in name else "'"
    experiments = [experiment.experiment_id for experiment in client.search_experiments()]
    for query in (
        f"tags.`mlflow.runName` = {quote}{name}{quote}",
        f"params.`hydra.sweeper.study_name` = {quote}{name}{quote}",
    ):
        runs = client.search_runs(experiments, query, order_by=["attributes.start_time DESC"], max_results=50)
        # A job has the name of its overrides; a sweep is what others are nested in.
        for run in runs:
            if facts.PARENT not in run.data.tags and _children(client, run):
                return run
    return None


def _leaves(client: MlflowClient, parent: Run) -> list[Run]:
    """Returns the runs below a run that have none below them; the run itself if there are none."""
    leaves: list[Run] = []
    children = _children(client, parent)
    # One search for all of the experiment's: a search for each of 300 jobs would take a minute.
    nested: dict[str, list[Run]] = {}
    for run in _search(client, [parent.info.experiment_id]) if children else []:
        nested.setdefault(run.data.tags.get(facts.PARENT, ""), []).append(run)
    for child in children:
        leaves += nested.get(child.info.run_id) or [child]
    return leaves or [parent]


def _children(client: MlflowClient, parent: Run) -> list[Run]:
    return _search(client, [parent.info.experiment_id], f"tags.`{facts.PARENT}` = '{parent.info.run_id}'")


def _search(client: MlflowClient, experiments: list[str], query: str = "") -> list[Run]:
    runs: list[Run] = []
    token = None
    while True:
        page = client.search_runs(
            experiments, query, max_results=1000, order_by=["attributes.start_time ASC"], page_token=token
        )
        runs += page
        token = page.token
        if not token:
            return runs


def _unknown(client: MlflowClient, location: Location) -> str:
    experiments = client.search_experiments()
    runs = client.search_runs(
        [e.experiment_id for e in experiments], order_by=["attributes.start_time DESC"], max_results=1000
    )
    nested = {run.data.tags.get(facts.PARENT) for run in runs}
    names = list(dict.fromkeys(run.info.run_name for run in runs if run.info.run_id in nested))[:PROPOSED]
    known = f"the newest sweeps there are {', '.join(names)}" if names else "there is no sweep in it"
    return (
        f"is neither a sweep's folder, nor a sweep, study or experiment in {location.shown}; {known}; "
        f"its experiments are {', '.join(e.name for e in experiments)}."
    )


def _record(run: Run) -> RunRecord:
    info, data = run.info, run.data
    seconds = (info.end_time - info.start_time) / 1000 if info.end_time and info.start_time else None
    state = data.tags.get(facts.STATE) or STATE_OF_STATUS.get(info.status, info.status.lower())
    return RunRecord(info.run_id, info.run_name, state, dict(data.params), dict(data.tags), dict(data.metrics), seconds)
