"""How many worker processes a study starts, and what each may use of the machine."""

import os
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

from omegaconf import OmegaConf

from cifar_tuning.gpus import free_gpu_memory, visible_gpus
from cifar_tuning.processes import cores, free_memory, is_worker
from cifar_tuning.targets import BASIC_LAUNCHER, is_fused
from cifar_tuning.text import main_module
from cifar_tuning.tuning.options import StudyOptions

# Set in a worker's environment: how many workers there are.
COUNT_VARIABLE = "CIFAR_TUNING_WORKERS"
# Memory of a worker: a process with PyTorch, MLflow and the images of CIFAR-10 takes 1 GiB, its trials' activations
# the rest.
BYTES_EACH = 2 * 2**30
# Least trials that each worker trains one after the other: samplers and pruners learn from those that have ended.
ROUNDS = 5
# Trials for which a stack pays.
STACK = 4


def script() -> list[str] | None:
    """Returns the command of this process, to be repeated; None where it is no script (a notebook, say)."""
    # With the flags (-X, -W, -O) that this interpreter was given.
    python = [sys.executable, *subprocess._args_from_interpreter_flags()]  # type: ignore[attr-defined]
    module, typed = main_module(), Path(sys.argv[0])
    if module == "pytest":
        return None
    if module is not None:
        return [*python, "-m", module, *sys.argv[1:]]
    return [*python, *sys.argv] if typed.suffix == ".py" and typed.is_file() else None


def workers_of(options: StudyOptions) -> int:
    """Returns how many workers the command has: as many as it asks for, or as many as pay.

    Small models leave a second thread little to do: two processes with a thread each train 1.2 to 1.5 times the images
    of one with two threads (`python -m benchmarks workers`). On GPUs one process each is enough.
    """
    if is_worker():
        return int(os.environ[COUNT_VARIABLE])
    if options.sweeper.workers is not None:
        return int(options.sweeper.workers)
    launcher = options.config.hydra.launcher
    fused = is_fused(options.config.hydra)
    if script() is None or not (fused or launcher.get("_target_") == BASIC_LAUNCHER):
        return 1  # joblib, ray and submitit have processes of their own
    most = [cores(), int(options.n_trials) // ROUNDS, free_memory() // BYTES_EACH]
    device = device_of(options)
    if device.startswith("cuda") or (device == "auto" and _has_gpu()):
        most.append(len(gpus_of(device)))
    if fused:
        most.append(options.sweeper.n_jobs // (launcher.get("stack") or STACK))
    return max(1, min(most))


def device_of(options: StudyOptions) -> str:
    """Returns the trials' `trainer.device`."""
    return str(OmegaConf.select(options.config, "trainer.device", default="cpu"))


def gpus_of(device: str) -> list[str]:
    """Returns the GPUs that workers are shared out among, as CUDA_VISIBLE_DEVICES names them.

    Empty where they all use what `device` says: one that is given by its number, one alone, or none.
    """
    gpus = visible_gpus() if device in ("auto", "cuda") and _may_use_gpus() else []
    return gpus if len(gpus) > 1 else []


def _may_use_gpus() -> bool:
    return not version("torch").endswith("+cpu") and sys.platform != "darwin"


def _has_gpu() -> bool:
    """Whether `trainer.device=auto` is going to be a GPU.

    PyTorch, which takes seconds to import, is only asked where nvidia-smi has no answer: it is not in every container,
    knows no AMD's, and tells the free memory neither of a part of a GPU (MIG) nor of one without memory of its own.
    """
    if not _may_use_gpus():
        return False
    if free_gpu_memory("auto") is not None:
        return True
    import torch

    return torch.cuda.is_available()


def threads_each(workers: int) -> int:
    """Returns how many threads each of several workers gets, so that all together use every core once."""
    given = os.environ.get("OMP_NUM_THREADS", "")
    share = max(1, cores() // workers)
    return min(int(given), share) if given.isdecimal() and int(given) > 0 else share
