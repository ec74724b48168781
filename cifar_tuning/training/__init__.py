"""The epoch loop and what belongs to it. Knows nothing of Hydra, Optuna or MLflow."""

from cifar_tuning.training.events import EpochMetrics, Listener, Progress, Result
from cifar_tuning.training.regularizers import L1, L2, ElasticNet, Regularizer
from cifar_tuning.training.schedules import Schedule
from cifar_tuning.training.settings import TrainerSettings
from cifar_tuning.training.trainer import Trainer

__all__ = [
    "L1",
    "L2",
    "ElasticNet",
    "EpochMetrics",
    "Listener",
    "Progress",
    "Regularizer",
    "Result",
    "Schedule",
    "Trainer",
    "TrainerSettings",
]
