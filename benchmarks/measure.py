"""What every benchmark needs: contestants in turn, medians, the machine, a JSON file."""

import json
import os
import platform
import statistics
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from tqdm import tqdm

from cifar_tuning.files import write_text

RESULTS = Path(__file__).parent / "results"
# What benchmarks write themselves, in Git's eyes.
WRITTEN = ("benchmarks/results", "docs")
# The folder of a GPU's figures.
GPU = "gpu"
PACKAGES = ("torch", "torchvision", "numpy", "mlflow", "optuna", "hydra-core")


def alternate(contestants: Mapping[str, Callable[[], int]], repeats: int) -> dict[str, list[float]]:
    """Runs the contestants in turn, so that what else the machine does hits all of them alike.

    Args:
        contestants: each does one round of work and returns how many images it was.
        repeats: rounds that count; one more goes before, to warm up.

    Returns:
        images/s of each contestant's rounds.
    """
    rates: dict[str, list[float]] = {name: [] for name in contestants}
    for round_number in tqdm(range(repeats + 1), desc=" against ".join(contestants), leave=False):
        for name, work in contestants.items():
            start = time.perf_counter()
            images = work()
            if torch.cuda.is_available():
                torch.cuda.synchronize()
            if round_number:
                rates[name].append(images / (time.perf_counter() - start))
    return rates


def compare(rates: Mapping[str, list[float]], baseline: str) -> dict[str, Any]:
    """Returns median, spread and ratio to the baseline of each contestant.

    The ratio is the median of the rounds' ratios: both sides of each were measured within seconds.
    """
    return {
        name: spread(values)
        | {"ratio": round(statistics.median(v / b for v, b in zip(values, rates[baseline], strict=True)), 3)}
        for name, values in rates.items()
    }


def spread(values: Sequence[float], digits: int = 1) -> dict[str, float]:
    """Returns median and range of rounds."""
    found = {"median": statistics.median(values), "min": min(values), "max": max(values)}
    return {name: round(value, digits) for name, value in found.items()}


def machine() -> dict[str, Any]:
    """Returns what the figures depend on: processor, device, versions, commit."""
    capabilities = torch.cpu.get_capabilities()
    return {
        "processor": capabilities.get("cpu_name") or platform.processor(),
        "threads": torch.get_num_threads(),
        "cores": os.cpu_count(),
        "bf16": bool(capabilities.get("avx512_bf16") or capabilities.get("amx_bf16")),
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
        "python": platform.python_version(),
        "versions": {name: version(name) for name in PACKAGES},
        "commit": _commit(),
    }


def write_networks(name: str, unit: str, figures: Mapping[str, dict[str, Any]], repeats: int) -> Path:
    """Writes a benchmark's networks, with those that were measured before, if that was on this machine.

    Args:
        name: of the benchmark.
        unit: of the figures.
        figures: by network; each gets the commit and the rounds that it was measured with.
        repeats: rounds that count.
    """
    commit = _commit()
    figures = {network: one | {"commit": commit, "repeats": repeats} for network, one in figures.items()}
    file = file_of(name)
    known = json.loads(file.read_text()) if file.is_file() else {}
    here = {key: value for key, value in machine().items() if key != "commit"}
    there = {key: value for key, value in known.get("machine", {}).items() if key != "commit"}
    networks = {**(known.get("networks", {}) if here == there else {}), **figures}
    return write(name, {"repeats": repeats, "unit": unit, "networks": networks})


def file_of(name: str) -> Path:
    """Returns where a benchmark's figures go; a GPU's lie apart."""
    return RESULTS / (GPU if torch.cuda.is_available() else "") / f"{name}.json"


def write(name: str, content: Mapping[str, Any]) -> Path:
    """Writes a benchmark's figures and the machine's as JSON; returns the file."""
    file = file_of(name)
    file.parent.mkdir(parents=True, exist_ok=True)
    return write_text(file, json.dumps({"benchmark": name, **content, "machine": machine()}, indent=2) + "\n")


def _commit() -> str:
    """Names the commit that is measured; `-dirty` where files are changed but for those that benchmarks write."""
    try:
        commit = _git("describe", "--always")
        changed = _git("status", "--porcelain", "--untracked-files=no", "--", ".", *(f":!{path}" for path in WRITTEN))
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
    return f"{commit}-dirty" if changed else commit


def _git(*arguments: str) -> str:
    command = ["git", "-C", str(Path(__file__).parent.parent), *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
