"""This machine's GPUs, as nvidia-smi tells of them.

Asking PyTorch would take seconds for its import, and half a gigabyte of the GPU for a CUDA context.
"""

import os
import shutil
import subprocess
from itertools import takewhile

VISIBLE = "CUDA_VISIBLE_DEVICES"


def visible_gpus() -> list[str]:
    """Returns the GPUs that PyTorch sees, as CUDA_VISIBLE_DEVICES names them; empty where nobody tells.

    Nobody tells without nvidia-smi, and where a GPU is divided (MIG): unless that variable is set already.
    """
    known = [line.split(", ") for line in _asked("--query-gpu=uuid,mig.mode.current").splitlines()]
    if VISIBLE in os.environ:
        # CUDA sees none behind the first that it does not know.
        return list(takewhile(lambda name: not name.isdecimal() or not known or int(name) < len(known), _named()))
    return [] if any(mode == "Enabled" for _, mode in known) else [uuid for uuid, _ in known]


def free_gpu_memory(device: str) -> int | None:
    """Returns a GPU's free memory in MiB; None without one.

    Args:
        device: `auto`, `cuda` or `cuda:N`, counted among those that CUDA_VISIBLE_DEVICES leaves visible.
    """
    name = device.partition(":")[2] or "0"
    if VISIBLE in os.environ:
        if int(name) >= len(visible := _named()):
            return None
        name = visible[int(name)]
    answer = _asked("--query-gpu=memory.free", f"--id={name}")
    return int(answer) if answer.isdecimal() else None


def _named() -> list[str]:
    names = (name.strip() for name in os.environ.get(VISIBLE, "").split(","))
    return list(takewhile(lambda name: name not in ("", "-1"), names))


def _asked(*query: str) -> str:
    """Returns nvidia-smi's answer; nothing without it, or where it has none."""
    if (program := shutil.which("nvidia-smi")) is None:
        return ""
    command = [program, *query, "--format=csv,noheader,nounits"]
    answer = subprocess.run(command, capture_output=True, text=True, check=False)
    return "" if answer.returncode else answer.stdout.strip()
