"""Runs whose process died without a word are closed by the next process on the same machine."""

from __future__ import annotations

import contextlib
import logging
import os
import time
from pathlib import Path
from typing import TYPE_CHECKING

from cifar_tuning import processes
from cifar_tuning.files import read_json
from cifar_tuning.tracking import facts
from cifar_tuning.tracking.base import STATUS_OF_STATE, MetricsFile
from cifar_tuning.tracking.outbox import UNSENT, Pending, read_unsent
from cifar_tuning.tracking.reachable import said
from cifar_tuning.tracking.store import Store

if TYPE_CHECKING:
    from mlflow.entities import Run


log = logging.getLogger(__name__)

_visited: set[tuple[str, str]] = set()


def reap_once(store: Store) -> None:
    """Reap at the first run this process opens in a store."""
    key = (store.location.uri, store.experiment_id)
    if key not in _visited:
        _visited.add(key)
        reap(store)


def reap(store: Store) -> list[str]:
    """Close this machine's runs that are RUNNING but whose process is gone; returns their ids.

    A run that ended while its store was unreachable gets what it left in its folder; every other one was killed,
    perhaps behind its end. Runs on other machines are left alone: nobody can tell from here. So are those whose folder
    holds what another user has left for the store: it names files, and this process may read some that its user would
    not send.
    """
    host = facts.process_tags()[facts.HOST]
    running = store.client.search_runs(
        [store.experiment_id],
        f"attributes.status = 'RUNNING' and tags.`{facts.HOST}` = '{host}'",
    )
    dead = [run for run in running if not _alive(run) and not _is_left_by_another(_folder(run))]
    for run in dead:
        _close(store, run)
    return [run.info.run_id for run in dead]


def _alive(run: Run) -> bool:
    pid, started = run.data.tags.get(facts.PID, ""), run.data.tags.get(facts.PROCESS_STARTED, "")
    if not pid.isdecimal() or not started:
        return True  # not ours to judge
    if run.data.tags.get(facts.MACHINE, processes.host()) != processes.host():
        # A container of the same host name, whose process ids are others; or this machine before it was started anew.
        known, boot = run.data.tags.get(facts.INSTALLATION), run.data.tags.get(facts.BOOT)
        return not (known and boot and known == processes.installation() and boot != processes.boot())
    return processes.lives(int(pid), started)


def _folder(run: Run) -> Path:
    return Path(run.data.tags.get(facts.FOLDER, ""))


def _is_left_by_another(folder: Path) -> bool:
    try:
        return (folder / UNSENT).lstat().st_uid != os.getuid()  # of a link, who has made it
    except OSError:
        return False


def _close(store: Store, run: Run) -> None:
    folder = _folder(run)
    unsent = read_unsent(folder)
    state = _state(run, folder)
    pending = unsent or Pending(tags={facts.STATE: state}, status=STATUS_OF_STATE[state], end_time=_last_sign(folder))
    try:
        if unsent is None:
            pending.metrics = _untold(store, run, folder)
        pending.deliver(store.client, run.info.run_id)
    except Exception as error:  # the next process tries again; today's run is what matters
        log.warning("Could not close run %s: %s", run.info.run_id, said(error))
        return
    if unsent is None:
        how = "was killed" if state == "killed" else f"had ended ({state}) when it was killed"
        log.warning("Run %s (%s) %s; marked so.", run.info.run_name, run.info.run_id, how)
        return
    log.warning("Run %s (%s): delivered what its store had missed.", run.info.run_name, run.info.run_id)
    with contextlib.suppress(OSError):
        (folder / UNSENT).unlink()


def _state(run: Run, folder: Path) -> str:
    """Returns how a run ended: the job tells its folder before the store, and may have been killed between the two."""
    file = folder / "result.json"
    left = read_json(file)
    if not isinstance(left, dict) or left.get("run_id") != run.info.run_id:
        return "killed"
    # A run that was gone on with has the end of an earlier process there until it ends itself.
    if file.stat().st_mtime < float(run.data.tags[facts.PROCESS_STARTED]):
        return "killed"
    return state if (state := str(left.get("state"))) in STATUS_OF_STATE else "killed"


def _untold(store: Store, run: Run, folder: Path) -> list[tuple[str, float, int, int]]:
    """Returns the epochs that are in the run's folder alone; short ones are told several at once."""
    lines = MetricsFile(folder).read()
    names = {name for line in lines for name in line} - {"step"}
    histories = [store.client.get_metric_history(run.info.run_id, facts.safe_key(name)) for name in names]
    told = max((metric.step for history in histories for metric in history), default=-1)
    when = _last_sign(folder)
    return [
        (facts.safe_key(name), float(value), when, int(line["step"]))
        for line in lines
        for name, value in line.items()
        if name != "step" and value is not None and line["step"] > told
    ]


def _last_sign(folder: Path) -> int:
    # The last epoch is when the run was last seen alive: its duration shouldn't include the night after.
    try:
        return int((folder / MetricsFile.NAME).stat().st_mtime * 1000)
    except OSError:
        return int(time.time() * 1000)
