"""Where a run's configuration, metrics and files are kept; the only room that knows MLflow.

Importing it imports neither MLflow nor PyTorch: both happen when a run starts.
"""

from cifar_tuning.tracking.artifacts import download_artifact
from cifar_tuning.tracking.base import MetricsFile, NoTracker, RunContext, Tracker
from cifar_tuning.tracking.mlflow_tracker import MLflowTracker

__all__ = ["MLflowTracker", "MetricsFile", "NoTracker", "RunContext", "Tracker", "download_artifact"]
