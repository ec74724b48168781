"""Hyperparameter search for image classifiers with Hydra, Optuna and MLflow.

Importing the package costs nothing: PyTorch, MLflow and matplotlib are imported where they are used,
so that `--help`, `--cfg job` and shell completion answer at once.
"""

from pathlib import Path

__version__ = "0.1.0"

_above = Path(__file__).resolve().parent.parent
# Outputs (mlflow.db, mlruns/, multirun/, outputs/, data/) live here wherever a command was typed. Of a package that is
# installed into an environment, for another application to use, they are that application's: where it was started.
# (Among installed packages some application's own conf/ may lie.)
PROJECT_ROOT = _above if (_above / "conf" / "config.yaml").is_file() and (_above / "train.py").is_file() else Path.cwd()
