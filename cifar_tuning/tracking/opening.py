"""A run's beginning in the store: made anew with all that is known of it, or gone on with."""

from __future__ import annotations

import hashlib
import json
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cifar_tuning.errors import TrackingError
from cifar_tuning.targets import VERIFIED_DATA
from cifar_tuning.text import is_elsewhere
from cifar_tuning.tracking import facts
from cifar_tuning.tracking.base import RunContext
from cifar_tuning.tracking.reachable import may_pass, said
from cifar_tuning.tracking.store import Store

if TYPE_CHECKING:
    from mlflow.entities import DatasetInput
    from mlflow.system_metrics.system_metrics_monitor import SystemMetricsMonitor


# A sweep's jobs in the UI's charts; the colours MLflow makes from run ids may be hard to tell apart.
COLOURS = ["#2272b4", "#e8710a", "#3ba65e", "#c83243", "#8a63bf", "#8c564b", "#d1609b", "#6b7785", "#a8a01e", "#17a2b8"]


def create(store: Store, context: RunContext, tags: Mapping[str, str], parent: str | None) -> str:
    """Create a job's run; returns its id.

    Args:
        store: where.
        context: what is known of the job.
        tags: of the job.
        parent: the run that it is nested in.
    """
    more = {}
    if context.run_id is not None:
        more["resumed_from"] = context.run_id
    if context.job_num is not None:
        more["mlflow.runColor"] = COLOURS[context.job_num % len(COLOURS)]
    if parent is not None:
        more[facts.PARENT] = parent
    name = tags.get(facts.RUN_NAME, context.name)
    run = store.client.create_run(store.experiment_id, tags={**tags, **more}, run_name=name)
    return str(run.info.run_id)


def describe(store: Store, run_id: str, context: RunContext, params: Mapping[str, str]) -> None:
    """Put a new run's configuration on it; may be repeated.

    Raises:
        TrackingError: the store takes runs, but no files.
    """
    from mlflow.exceptions import MlflowException

    store.log_params(run_id, params)
    dataset = _dataset_input(context.config)
    if dataset is not None:
        try:
            store.client.log_inputs(run_id, [dataset])
        except MlflowException as error:
            if may_pass(error):  # else a server too old to know them: the parameters say the same
                raise
    try:
        _log_texts(store, run_id, context)
    except Exception as error:  # every artifact store has its own
        if may_pass(error):
            raise
        raise TrackingError(
            f"tracking.uri={store.location.shown}: takes runs, but not their files ({said(error)}). Have its artifact "
            "store let you write, give another store, or train without one (tracking=none)."
        ) from error


def go_on(
    store: Store, known: str, context: RunContext, tags: Mapping[str, str], params: Mapping[str, str]
) -> int | None:
    """Go on with a run that an earlier process began; returns its last step, -1 if it has none.

    None if it can't be gone on with: it isn't there, was deleted or is of another configuration.
    """
    from mlflow.exceptions import MlflowException

    try:
        run = store.client.get_run(known)
    except MlflowException as error:
        if may_pass(error):  # or a server's hiccup would begin another run
            raise
        return None
    logged, asked = _compared(run.data.params), _compared(params)
    # A process that was killed while it opened the run may have logged half of its parameters. An older release lacked
    # some options; one whose null is as it was before is no difference.
    added = asked.items() - logged.items()
    same = logged.items() <= asked.items() and (context.again or all(value == "null" for _, value in added))
    if run.info.lifecycle_stage != "active" or not same:
        return None
    store.reopen(known, {**tags, "continued": "true"})
    if facts.ERROR in run.data.tags:
        store.client.delete_tag(known, facts.ERROR)  # the process before this one had it
    store.log_params(known, {key: value for key, value in params.items() if key not in run.data.params})
    # A run without validation has the other alone.
    histories = [store.client.get_metric_history(known, name) for name in ("val/acc", "train/acc")]
    return max((metric.step for history in histories for metric in history), default=-1)


def monitor(uri: str, run_id: str, continued: bool) -> SystemMetricsMonitor | None:
    """Start MLflow's monitor of CPU, memory, GPU, disk and network for a run; its metrics begin with `system/`.

    It writes in a thread of its own, and stops with a warning where the store does not answer.

    Args:
        uri: of the store.
        run_id: the run.
        continued: whether the run has such metrics from an earlier process.

    Returns:
        The monitor, to be finished before the run ends; None unless `MLFLOW_ENABLE_SYSTEM_METRICS_LOGGING` is true.
    """
    from mlflow.environment_variables import MLFLOW_ENABLE_SYSTEM_METRICS_LOGGING

    if not MLFLOW_ENABLE_SYSTEM_METRICS_LOGGING.get():
        return None
    from mlflow.system_metrics.system_metrics_monitor import SystemMetricsMonitor

    started = SystemMetricsMonitor(run_id, resume_logging=continued, tracking_uri=uri)
    started.start()
    return started


def _dataset_input(config: Mapping[str, Any]) -> DatasetInput | None:
    """Describe the images of a configuration's `data` group; None if it has none.

    The digest is of the options that choose images, the split's among them, so that runs with the same digest can be
    compared: data is loaded after the run is opened, and CIFAR-10 is verified. Of other images the folder is all that
    is known.
    """
    from mlflow.entities import Dataset, DatasetInput, InputTag

    data = config.get("data")
    if not isinstance(data, Mapping) or "_target_" not in data:
        return None
    named = data.get("dataset")  # a class of the user's may mean a part of its own by it
    left_out = ("batch_size", "root") if data["_target_"] in VERIFIED_DATA else ("batch_size",)
    chosen = {key: value for key, value in data.items() if key not in left_out}
    text = json.dumps(chosen, sort_keys=True, default=str)
    dataset = Dataset(
        name=named if isinstance(named, str) else str(data["_target_"]).rpartition(".")[2],
        digest=hashlib.sha256(text.encode()).hexdigest()[:8],  # as many characters as MLflow's own
        source_type="code",
        source=json.dumps({"tags": {"mlflow.source.name": str(data["_target_"])}}),
        profile=text,
    )
    return DatasetInput(dataset, [InputTag("mlflow.data.context", "training")])


def _log_texts(store: Store, run_id: str, context: RunContext) -> None:
    import yaml

    with tempfile.TemporaryDirectory() as temporary:
        for name, content in (("config.yaml", context.config), ("overrides.yaml", context.overrides)):
            Path(temporary, name).write_text(yaml.safe_dump(content, sort_keys=False), encoding="utf-8")
        store.client.log_artifacts(run_id, temporary)


def _compared(params: Mapping[str, str]) -> dict[str, str]:
    # Of a run that an older release began, `lr` may be `1.0`, not `1`.
    return {key: facts.whole(value) for key, value in params.items() if not is_elsewhere(key)}
