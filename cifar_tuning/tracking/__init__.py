"""Where a run's configuration, metrics and files are kept; the only room that knows MLflow.

Importing it imports neither MLflow nor PyTorch: both happen when a run starts.
"""

from cifar_tuning.tracking.base import MetricsFile, NoTracker, RunContext, Tracker
from cifar_tuning.tracking.mlflow_tracker import MLflowTracker
from cifar_tuning.tracking.reading import download_artifact

__all__ = ["MLflowTracker", "MetricsFile", "NoTracker", "RunContext", "Tracker", "download_artifact"]
