"""The machine's load beside a run's figures, where MLflow's own variable asks for it."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mlflow.system_metrics.system_metrics_monitor import SystemMetricsMonitor


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
