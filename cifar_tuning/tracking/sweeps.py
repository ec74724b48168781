"""The parent run of a multirun: found by its folder, closed with its jobs' results."""

from __future__ import annotations

import statistics
import time
from collections import Counter
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cifar_tuning.files import read_json, write_text
from cifar_tuning.ranking import BEST_ACCURACY, ENDED, competes, merit, rank
from cifar_tuning.tracking import facts
from cifar_tuning.tracking.outbox import Outbox
from cifar_tuning.tracking.reachable import may_pass
from cifar_tuning.tracking.store import Store

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Run


# Seconds that a run may take from its start time into the store.
ON_ITS_WAY = 0.5
# In the sweep's folder: the id of its run.
MARKER = "mlflow_run_id"
# Tag of a sweep's run: its best job's.
BEST_RUN = "best.run_id"
# In a study's folder: its winner's further seeds.
RETRAINED = "retrained.json"


def find_parent(store: Store, sweep_dir: Path, key: str | None = None) -> str | None:
    """Find the multirun's run from any process, by the folder alone, or by the sweep's own name.

    Its marker in the folder comes first: on another machine another sweep may have a folder of the same name.
    """
    try:
        return _cached_parent(store, key or facts.absolute(sweep_dir), key is not None)
    except LookupError:
        return None


@lru_cache(maxsize=64)
def _cached_parent(store: Store, sweep_dir: str, oldest: bool) -> str:
    run = (None if oldest else _marked(store, sweep_dir)) or search_parent(store, sweep_dir, oldest)
    if run is None:
        raise LookupError(sweep_dir)  # an answer would be remembered, an exception is not
    return str(run.info.run_id)


def _marked(store: Store, sweep_dir: str) -> Run | None:
    """Get the run that the folder names; None if it names none, or one that is not this folder's in this experiment."""
    from mlflow.exceptions import MlflowException

    try:
        run = store.client.get_run((Path(sweep_dir) / MARKER).read_text().strip())
    except OSError:
        return None
    except MlflowException as error:
        if may_pass(error):
            raise
        return None
    active = run.info.lifecycle_stage == "active" and run.info.experiment_id == store.experiment_id
    return run if active and run.data.tags.get(facts.SWEEP_DIR) == sweep_dir else None


def search_parent(store: Store, sweep_dir: str, oldest: bool = False, within: str | None = None) -> Run | None:
    """Ask the store for the run that is tagged with the folder, the newest unless told otherwise.

    Args:
        store: where.
        sweep_dir: the tag.
        oldest: the oldest one instead.
        within: only one that is nested in this run.
    """
    quote = '"' if "'" in sweep_dir else "'"
    nested = f" and tags.`{facts.PARENT}` = '{within}'" if within else ""
    runs = store.client.search_runs(
        [store.experiment_id],
        f"tags.`{facts.SWEEP_DIR}` = {quote}{sweep_dir}{quote}{nested}",
        max_results=1,
        order_by=[f"attributes.start_time {'ASC' if oldest else 'DESC'}"],
    )
    return runs[0] if runs else None


def open_parent(
    store: Store,
    name: str,
    sweep_dir: Path,
    params: Mapping[str, str],
    root: Path,
    key: str | None = None,
    own_tags: Mapping[str, str] | None = None,
) -> str:
    """Create the multirun's run, or open it again where the same folder, or the sweep named `key`, is continued."""
    folder = facts.absolute(sweep_dir)
    own_tags = dict(own_tags or {})
    name = own_tags.pop(facts.RUN_NAME, name)
    tags = {
        **own_tags,
        **facts.process_tags(),
        **facts.git_tags(root),
        facts.SWEEP_DIR: key or folder,
        facts.FOLDER: folder,
        facts.STATE: "running",
    }
    known = search_parent(store, key or folder, oldest=key is not None)
    marker = Path(folder) / MARKER
    # A folder that was moved away left its run behind: another sweep at the same place is another sweep.
    if key is None and known is not None and not (marker.is_file() and marker.read_text().strip() == known.info.run_id):
        known = None
    if known is None:
        run_id, logged = _create(store, name, tags, key)
    else:
        run_id, logged = str(known.info.run_id), known.data.params
        store.reopen(run_id, tags)
    _cached_parent.cache_clear()
    marker.parent.mkdir(parents=True, exist_ok=True)
    write_text(marker, run_id + "\n")
    log_new(store, run_id, params, logged)
    return run_id


def _create(store: Store, name: str, tags: dict[str, str], key: str | None) -> tuple[str, Mapping[str, str]]:
    """Creates a sweep's run, unless another process was faster; returns its id and the parameters that it has."""
    run_id = str(store.client.create_run(store.experiment_id, tags=tags, run_name=name).info.run_id)
    first = _first(store, key, run_id) if key else None
    if first is None or first.info.run_id == run_id:
        return run_id, {}
    store.client.delete_run(run_id)
    return str(first.info.run_id), first.data.params


def _first(store: Store, key: str, own: str) -> Run | None:
    """Returns the oldest run of a sweep that several processes may have begun at the same moment, each with one.

    Looks twice: an older one may have been on its way into the store still.
    """
    first = search_parent(store, key, oldest=True)
    if first is not None and first.info.run_id == own:
        time.sleep(ON_ITS_WAY)
        first = search_parent(store, key, oldest=True)
    return first


def log_new(store: Store, run_id: str, params: Mapping[str, str], logged: Mapping[str, str]) -> None:
    """Log what is not there yet: a logged parameter can't be changed, what differs stays in the sweep's children.

    Another machine may be logging the same: the store refuses a batch in which one parameter came first from there
    (no batch is half written), so that what is left is tried again, as long as it gets less.
    """
    from mlflow.exceptions import MlflowException

    new = {key: value for key, value in params.items() if key not in logged}
    try:
        store.log_params(run_id, new)
    except MlflowException:
        there = store.client.get_run(run_id).data.params
        if not new.keys() & there.keys():
            raise
        log_new(store, run_id, params, there)


def find_job(store: Store, parent: str, job_num: int | None, seed: int) -> str | None:
    """Find the run that an earlier process of the same job opened, maybe on another machine in another folder."""
    query = f"tags.`{facts.PARENT}` = '{parent}' and tags.`{facts.JOB_NUM}` = '{job_num}' and tags.seed = '{seed}'"
    runs = store.client.search_runs([store.experiment_id], query, max_results=1)
    return str(runs[0].info.run_id) if runs else None


def children_of(store: Store, parent: str) -> list[Run]:
    """List a multirun's jobs, newest first."""
    return search(store.client, [store.experiment_id], f"tags.`{facts.PARENT}` = '{parent}'", "DESC")


def search(client: MlflowClient, experiments: list[str], query: str = "", order: str = "ASC") -> list[Run]:
    """Find all runs of a query, oldest first, or newest with `DESC`."""
    runs: list[Run] = []
    token = None
    while True:
        page = client.search_runs(
            experiments, query, max_results=1000, order_by=[f"attributes.start_time {order}"], page_token=token
        )
        runs += page
        token = page.token
        if not token:
            return runs


def best_of(children: list[Run]) -> Run | None:
    """Pick the job with the highest best validation accuracy, or whatever the jobs' objective is."""
    competing = [run for run in children if competes(*_end(run)) and not _is_retrained(run)]
    return min(competing, key=lambda run: rank(*_end(run), run.data.tags.get(facts.JOB_NUM)), default=None)


def _end(run: Run) -> tuple[str | None, float | None]:
    name = run.data.params.get("objective", BEST_ACCURACY)
    if name not in run.data.metrics:  # a list of several, say
        name = BEST_ACCURACY
    return run.data.tags.get(facts.STATE), merit(name, run.data.metrics.get(name))


def of_number(children: list[Run], number: int | None) -> Run | None:
    """Find the run of a job, or of a trial of several.

    A trial that was interrupted and then repeated with several seeds has two: the one that ended is meant. So does one
    of a study that began anew in its folder, because its database was lost: the later one is meant.
    """
    same = [run for run in children if run.data.tags.get(facts.JOB_NUM) == str(number) and not _is_retrained(run)]
    ended = [run for run in same if run.data.tags.get(facts.STATE) in ENDED]
    return max(ended or same, key=lambda run: run.info.start_time, default=None)


def _is_retrained(run: Run) -> bool:
    """Whether it is the winner, trained once more: it was chosen already."""
    return run.data.tags.get("role") == "retrained"


def best_values(folder: Path) -> list[tuple[int, float, int]] | None:
    """Read how a study's best value grew (see `reporting.study.best_values`); None for a sweep that is no study."""
    known = read_json(folder / "best_values.json")
    return None if known is None else [tuple(entry) for entry in known]


def winner(curve: list[tuple[int, float, int]]) -> int | None:
    """Name the trial that reached the best value first; None where several objectives have no best one."""
    return next((number for number, value, _ in curve if value == curve[-1][1]), None)


def tested(folder: Path, number: int | None) -> dict[str, float]:
    """Read what a study's winner reached on the test set with the seeds it was trained again with, as metrics.

    Args:
        folder: the study's.
        number: the winner's; another trial may have been the best before.
    """
    known = read_json(folder / RETRAINED) or {}
    runs = known["runs"].values() if known.get("trial") == number is not None else ()
    reached = [run["test"] for run in runs if run["test"] is not None]
    spread = {"test/acc_std": statistics.stdev(reached)} if len(reached) > 1 else {}
    return {"test/acc": statistics.mean(reached), **spread} if reached else {}


def judge(children: list[Run], error: BaseException | None) -> str:
    """Name a multirun's end.

    Args:
        children: its jobs.
        error: the exception that ended it, if one did.
    """
    if isinstance(error, KeyboardInterrupt | SystemExit):
        return "killed"
    states = Counter(run.data.tags.get(facts.STATE) for run in children)
    if error is not None or (children and states["failed"] == len(children)):
        return "failed"
    return "complete"


def summarise(outbox: Outbox, children: list[Run], best: Run | None) -> None:
    """Put the jobs' ends and the winner's result on the parent."""
    states = Counter(str(run.data.tags.get(facts.STATE)) for run in children if not _is_retrained(run))
    # What an earlier command left unfinished may be none any more.
    before = outbox.store.client.get_run(outbox.run_id).data.metrics if children else {}
    metrics: dict[str, Any] = {name: 0 for name in before if name.startswith("jobs/")}
    metrics |= {f"jobs/{state}": count for state, count in states.items()}
    if best is not None:
        if BEST_ACCURACY in best.data.metrics:
            metrics[BEST_ACCURACY] = best.data.metrics[BEST_ACCURACY]
        outbox.add_tags(
            {
                BEST_RUN: best.info.run_id,
                "best.name": best.info.run_name,
                "best.job_num": best.data.tags.get(facts.JOB_NUM, ""),
                "best.overrides": best.data.tags.get(facts.OVERRIDES, ""),
            }
        )
    outbox.add_metrics(metrics, step=0)
