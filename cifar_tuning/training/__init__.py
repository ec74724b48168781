"""The epoch loop and what belongs to it. Knows nothing of Hydra, Optuna or MLflow.

PyTorch takes two seconds to import, and a study of somebody else's application needs only what an epoch is: what is
built of PyTorch is imported when it is asked for.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from cifar_tuning.training.events import EpochMetrics, Listener, Progress, Result

if TYPE_CHECKING:
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
# Where the others are.
_MODULES = dict.fromkeys(("L1", "L2", "ElasticNet", "Regularizer"), "regularizers") | {
    "Schedule": "schedules",
    "Trainer": "trainer",
    "TrainerSettings": "settings",
}


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_MODULES[name]}"), name)
