"""Our pipeline against the usual one: same architecture, batch, optimiser, images and augmentation."""

import argparse
import shutil
from collections.abc import Callable
from functools import partial
from pathlib import Path

import torch

from benchmarks import measure, usual
from benchmarks.ours import make_parts, make_run
from cifar_tuning.jobs.build import Parts
from cifar_tuning.training.computation import Computation
from cifar_tuning.training.display import Display
from cifar_tuning.training.settings import resolve_device

# Images in a round: some seconds of work for the slower contestant on two cores.
ROUND = {"simplenn": 12_800, "resnet20": 2_560}
# Where `trainer.compile=true` pays on a CPU: compiling takes most of a minute, a third of ResNet-20's epoch.
COMPILED = ("resnet20",)
GOALS = {"simplenn": 2.5, "resnet20": 1.6}
OVERRIDES = {
    "simplenn": ["model=simplenn", "model.batch_norm=true"],
    "resnet20": ["model=resnet20", "optimizer.lr=0.1"],
}


def run(models: list[str], repeats: int) -> Path:
    """Measures each model and prints the table; returns the JSON file."""
    figures = {}
    for model in models:
        rates = measure.alternate(contestants(model), repeats)
        figures[model] = {
            **measure.compare(rates, "usual"),
            "images_per_round": ROUND[model],
            "goal": GOALS[model],
        }
        for name in rates:
            f = figures[model][name]
            print(f"{model:9} {name:8} {f['median']:>9,.0f} images/s  ({f['min']:,.0f} to {f['max']:,.0f})")
        for name in list(rates)[1:]:
            ratio = figures[model][name]["ratio"]
            print(f"{model:9} {name} / usual = {ratio:.2f}  (goal on a two-core bf16 CPU: {GOALS[model]})")
    return measure.write("pipeline", {"repeats": repeats, "unit": "images/s", "models": figures})


def contestants(model: str) -> dict[str, Callable[[], int]]:
    """Both pipelines, ready to train an epoch on the same images."""
    parts = _parts(model)
    device = resolve_device("auto")
    theirs = usual.MODELS[model]().to(device)
    optimizer = torch.optim.SGD(theirs.parameters(), lr=0.01, momentum=0.9, weight_decay=1e-4)
    loader = usual.loader(parts.data, parts.data.load().train)
    both: dict[str, Callable[[], int]] = {
        "usual": partial(usual.epoch, theirs, optimizer, loader, device),
        "ours": partial(_our_epoch, _computation(parts, device)),
    }
    if model in COMPILED and shutil.which("g++"):
        # A part of its own: compiled and eager training must not share a model.
        both["compiled"] = partial(_our_epoch, _computation(_parts(model), device, compile=True))
    return both


def _our_epoch(computation: Computation) -> int:
    count = computation.runs[0].train.count
    computation.train([1], Display(1, count))
    return count


def _parts(model: str) -> Parts:
    return make_parts(*OVERRIDES[model], f"data.train_limit={ROUND[model]}")


def _computation(parts: Parts, device: torch.device, compile: bool = False) -> Computation:
    run = make_run(parts, device, compile)
    return Computation([run], run.model)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares this benchmark's options."""
    parser.add_argument("--models", nargs="+", choices=list(ROUND), default=list(ROUND))
    parser.add_argument("--repeats", type=int, help="how often each contestant runs")
