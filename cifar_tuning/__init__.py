"""Hyperparameter search for image classifiers with Hydra, Optuna and MLflow.

Importing the package costs nothing: PyTorch, MLflow and matplotlib are imported where they are used,
so that `--help`, `--cfg job` and shell completion answer at once.
"""

from pathlib import Path

__version__ = "0.1.0"

# Outputs (mlflow.db, mlruns/, multirun/, outputs/, data/) live here wherever a command was typed.
PROJECT_ROOT = Path(__file__).resolve().parent.parent
