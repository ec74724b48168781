"""Training from Python, in a notebook say, as `python train.py` does it."""

from typing import Any

from hydra import initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.utils import execution_whitelist

from cifar_tuning import PROJECT_ROOT
from cifar_tuning.jobs.process import fix_workspace, trusted_targets
from cifar_tuning.text import MAIN_CONFIG


def train(*overrides: str) -> Any:
    """Trains one configuration in this process, and returns what `jobs.run.run` does: its validation accuracy.

    Hydra composes the configuration and makes the run's folder as for the command, and logs to standard output. A sweep
    or a study needs the command.

    Args:
        overrides: as they are typed behind `train.py`, such as `optimizer.lr=0.1`.

    Raises:
        HydraException: an override is none, or names what there is not.
        UserError: what `jobs.run.run` raises.
    """
    from cifar_tuning.jobs.run import run

    fix_workspace()
    with (
        initialize_config_dir(str(PROJECT_ROOT / "conf"), job_name="train"),
        execution_whitelist(trusted_targets()),
    ):
        hydra: Any = GlobalHydra.instance().hydra
        return hydra.run(MAIN_CONFIG, run, list(overrides)).return_value
