"""What each technique gives ResNet-20 by itself: the sweep `experiment=techniques`, compared seed by seed."""

import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import torch
from tqdm import tqdm

from benchmarks import measure, studies
from cifar_tuning import PROJECT_ROOT
from cifar_tuning.processes import cores
from cifar_tuning.reporting.statistics import compare, holm, summarize

BASE = "none"
TECHNIQUES = (
    *("swish", "label_smoothing", "weight_averaging", "alternating_flip", "narrow_crops", "cutout", "mixup"),
    *("selective_decay", "progressive_resizing"),
)


def run(repeats: int, train_limit: int | None, epochs: int = 10) -> Path:
    """Trains each technique and none of them, and compares; returns the JSON file.

    What is trained stays in multirun/, so that the same command goes on where it was stopped.

    Args:
        repeats: seeds, 0, 1, …
        train_limit: training images; None: 10,000.
        epochs: of a run.
    """
    settings = [f"data.train_limit={train_limit or 10_000}", f"trainer.epochs={epochs}"]
    folder = PROJECT_ROOT / "multirun" / "_".join(["techniques", *(one.partition("=")[2] for one in settings)])
    jobs = [(name, seed) for seed in range(repeats) for name in (BASE, *TECHNIQUES)]
    # On a CPU a run a core: accuracies are what counts, and two threads would train fewer of them.
    together = 1 if torch.cuda.is_available() else cores()

    def train(job: tuple[str, int]) -> dict[str, Any]:
        name, seed = job
        own = folder / f"{name}_{seed}"
        if not (own / "0" / "result.json").is_file():
            which = ["experiment=techniques", f"variant=technique/{name}", f"seed={seed}", f"hydra.sweep.dir={own}"]
            studies.train("-m", "tracking=none", *which, *settings, threads=1 if together > 1 else None)
        return dict(json.loads((own / "0" / "result.json").read_text()))

    with ThreadPoolExecutor(together) as pool:
        results = dict(zip(jobs, tqdm(pool.map(train, jobs), desc="techniques", total=len(jobs)), strict=True))
    figures = compared({name: {seed: results[name, seed] for seed in range(repeats)} for name in (BASE, *TECHNIQUES)})
    for name, one in figures.items():
        print(f"techniques  {name}: {one['accuracy']:.4f}, {one.get('points', 0):+.2f} points, {one['seconds']:.0f} s")
    return measure.write("techniques", {"seeds": repeats, "settings": settings, "techniques": figures})


def compared(results: dict[str, dict[int, dict[str, Any]]]) -> dict[str, dict[str, Any]]:
    """Returns each technique's accuracy, seconds a run, and its gain over none with interval and corrected p value."""
    values = {name: {seed: one["value"] for seed, one in runs.items()} for name, runs in results.items()}
    gains = {name: compare(values[name], values[BASE]) for name in TECHNIQUES}
    corrected = dict(zip(gains, holm([gain.p for gain in gains.values()]), strict=True))
    figures: dict[str, dict[str, Any]] = {}
    for name, runs in results.items():
        mean = summarize(values[name].values())
        figures[name] = {
            "accuracy": round(mean.mean, 4),
            "std": None if mean.std is None else round(mean.std, 4),
            "seconds": round(summarize(one["seconds"] for one in runs.values()).mean, 1),
        }
        if name in gains:
            half = gains[name].half_width
            figures[name] |= {
                "points": round(100 * gains[name].difference, 2),
                "half_width": None if half is None else round(100 * half, 2),
                "p": corrected[name],
            }
    return figures
