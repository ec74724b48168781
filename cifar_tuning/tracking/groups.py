"""The run of a trial that is several jobs, one a seed: their runs are nested in it."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from cifar_tuning.overrides import key_of, split_list, value_of
from cifar_tuning.ranking import BEST_ACCURACY
from cifar_tuning.text import is_elsewhere
from cifar_tuning.tracking import facts
from cifar_tuning.tracking.base import STATUS_OF_STATE
from cifar_tuning.tracking.store import Store
from cifar_tuning.tracking.sweeps import children_of, log_new, search_parent

if TYPE_CHECKING:
    from mlflow.entities import Run


def open_group(
    store: Store,
    folder: Path,
    parent: str | None,
    job_num: int | None,
    overrides: Sequence[str],
    own_tags: Mapping[str, str] | None = None,
) -> str:
    """Create the run of a trial that is several jobs, or open it again for the next of them.

    Args:
        store: where.
        folder: the trial's.
        parent: the sweep's run, if there is one.
        job_num: the trial's.
        overrides: of the job that is to be nested in it.
        own_tags: the user's.
    """
    group = search_parent(store, facts.absolute(folder), within=parent)
    if group is not None and group.data.tags.get(facts.PARENT) == parent and _is_of(group, overrides):
        store.reopen(group.info.run_id, {**facts.process_tags(), facts.STATE: "running"})
        return str(group.info.run_id)
    tags = {
        **(own_tags or {}),
        **facts.process_tags(),
        facts.SWEEP_DIR: facts.absolute(folder),
        facts.FOLDER: facts.absolute(folder),
        facts.STATE: "running",
        **({facts.PARENT: parent} if parent else {}),
        **({facts.JOB_NUM: str(job_num)} if job_num is not None else {}),
    }
    return str(store.client.create_run(store.experiment_id, tags=tags, run_name=f"trial {job_num}").info.run_id)


def _is_of(group: Run, overrides: Sequence[str]) -> bool:
    """Whether a job is one of a trial's, as far as those that ended have said what they are called with.

    It is another trial's where a study began anew in its folder, because its database was lost.
    """
    known = _by_key(split_list(group.data.tags.get(facts.OVERRIDES, "")))
    return all(known.get(key, value) == value for key, value in _by_key(overrides).items())


def _by_key(overrides: Iterable[str]) -> dict[str, str]:
    asked = {key_of(one): value_of(one) for one in overrides}
    return {key: value for key, value in asked.items() if key != "seed" and not is_elsewhere(key)}


def close_group(store: Store, group: str, state: str) -> None:
    """Put the mean over the trial's jobs so far on its run, and the state of the last."""
    children = children_of(store, group)
    values = [run.data.metrics[BEST_ACCURACY] for run in children if BEST_ACCURACY in run.data.metrics]
    states = {state, *(run.data.tags.get(facts.STATE) for run in children)}
    state = next(s for s in ("failed", "killed", "pruned", "diverged", state) if s in states)
    if values:
        store.client.log_metric(group, BEST_ACCURACY, statistics.mean(values), step=0)
    if len(values) > 1:
        store.client.log_metric(group, f"{BEST_ACCURACY}_std", statistics.stdev(values), step=0)
    if children:
        _describe_group(store, group, children)
    store.client.set_tag(group, facts.STATE, state)
    store.client.set_terminated(group, STATUS_OF_STATE[state])


def _describe_group(store: Store, group: str, children: list[Run]) -> None:
    """Put what a trial's jobs have in common on its run: their parameters and overrides without the seed."""
    common = set.intersection(*(set(run.data.params.items()) for run in children))
    known = store.client.get_run(group).data
    log_new(store, group, {key: value for key, value in common if key != "seed"}, known.params)
    overrides = split_list(children[0].data.tags.get(facts.OVERRIDES, ""))
    store.client.set_tag(group, facts.OVERRIDES, ",".join(one for one in overrides if key_of(one) != "seed"))
