"""Training from Python, in a notebook say, as `python train.py` does it."""

import logging
import random
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from hydra import initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.utils import execution_whitelist

from cifar_tuning import PROJECT_ROOT
from cifar_tuning.jobs.process import fix_workspace, trusted_targets
from cifar_tuning.text import MAIN_CONFIG


def train(*overrides: str) -> Any:
    """Trains one configuration in this process, and returns what `jobs.run.run` does: its validation accuracy.

    Hydra composes the configuration and makes the run's folder as for the command, and logs to standard output. What
    the run seeds and sets is put back at its end. A sweep or a study needs the command.

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
        _put_back(),
    ):
        hydra: Any = GlobalHydra.instance().hydra
        return hydra.run(MAIN_CONFIG, run, list(overrides)).return_value


@contextmanager
def _put_back() -> Iterator[None]:
    """Puts back what a run takes for itself: random generators, how exactly PyTorch repeats itself, the log.

    Without it, another cell's log would go to the run's file, and its draws would be the run's seed's.
    """
    import numpy as np
    import torch

    named = (one for one in logging.root.manager.loggerDict.values() if isinstance(one, logging.Logger))
    logs = [(one, one.level, one.disabled, one.handlers[:]) for one in (logging.root, *named)]
    writing = [h for *_, handlers in logs for h in handlers if isinstance(h, logging.FileHandler) and h.stream]
    draws = random.getstate(), np.random.get_state(legacy=False)
    cudnn = torch.backends.cudnn
    exactly = torch.get_deterministic_debug_mode(), cudnn.deterministic, cudnn.benchmark
    gpus = range(torch.cuda.device_count()) if torch.cuda.is_initialized() else ()
    try:
        with torch.random.fork_rng(devices=gpus):
            yield
    finally:
        mode, cudnn.deterministic, cudnn.benchmark = exactly
        if torch.get_deterministic_debug_mode() != mode:
            torch.use_deterministic_algorithms(mode > 0, warn_only=mode == 1)
        random.setstate(draws[0])
        np.random.set_state(draws[1])
        for logger, level, disabled, handlers in logs:
            for handler in logger.handlers:
                if handler not in handlers:
                    handler.close()
            logger.setLevel(level)
            logger.disabled = disabled
            logger.handlers[:] = handlers
        for file in writing:  # closed by Hydra's configuration of the log; only these open it again, at its end
            file.mode = "a"
