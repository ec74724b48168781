"""Seconds of training until a validation accuracy: ours, the usual pipeline and a plain script."""

import statistics
import tempfile
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import torch
from tqdm import tqdm

from benchmarks import measure, usual
from benchmarks.ours import NETWORKS, make_parts, tracked_run
from benchmarks.pipeline import OURS, SCRIPT, USUAL
from cifar_tuning.data import ArraySet
from cifar_tuning.training.computation import Computation
from cifar_tuning.training.display import Display
from cifar_tuning.training.loop import one_epoch
from cifar_tuning.training.settings import resolve_device

# A learning rate of 0.05 with crop and flip comes by these within a few epochs.
TARGETS = {"simplenn_bn": 0.65, "simplenn": 0.60, "resnet20": 0.80}
# A run that is not there by then will not be.
MOST_EPOCHS = 20

# Trains one epoch and returns its validation accuracy.
Epoch = Callable[[], float]


def run(networks: list[str], repeats: int) -> Path:
    """Trains each contestant from new weights to the network's target, `repeats` times; returns the JSON file.

    A repeat begins with the first batch and ends with the evaluation that reaches the target; ours has its checkpoints
    and its run in MLflow as well. Starting is measured by `start`.
    """
    device, file = resolve_device("auto"), Path()
    for network in networks:
        target = TARGETS[network]
        taken: dict[str, list[tuple[float, int]]] = {USUAL: [], SCRIPT: [], OURS: []}
        for repeat in tqdm(range(repeats), desc=f"{network} to {target:.0%}", leave=False):
            for name, make in _contestants(network, device, repeat).items():
                # A run is finished before its store goes with the folder.
                with tempfile.TemporaryDirectory() as folder, ExitStack() as ending:
                    taken[name].append(_until(target, make(Path(folder) / "run", ending)))
            # A round takes minutes: those that are there are kept.
            figures = _compared(taken)
            file = measure.write_networks("accuracy", "seconds", {network: {"target": target, **figures}}, repeat + 1)
        for name in taken:
            one = figures[name]
            print(
                f"accuracy  {network:11} {name:6} {target:.0%} after {one['median']:.1f} s "
                f"({one['min']:.1f} to {one['max']:.1f}, {one['epochs']:g} epochs), {one['ratio']:.2f} times as fast "
                "as the usual",
                flush=True,
            )
    return file


def _until(target: float, epoch: Epoch) -> tuple[float, int]:
    """Returns the seconds and epochs until the target.

    Raises:
        RuntimeError: it was not reached.
    """
    start = time.perf_counter()
    for number in range(1, MOST_EPOCHS + 1):
        if epoch() >= target:
            return time.perf_counter() - start, number
    raise RuntimeError(f"a contestant had not reached {target:.0%} after {MOST_EPOCHS} epochs")


def _compared(taken: dict[str, list[tuple[float, int]]]) -> dict[str, dict[str, Any]]:
    """Returns each contestant's figures, with how many times as fast as the usual pipeline it was, the median round."""
    figures: dict[str, dict[str, Any]] = {}
    for name, rounds in taken.items():
        seconds, epochs = zip(*rounds, strict=True)
        ratios = [usual / own for (usual, _), own in zip(taken[USUAL], seconds, strict=True)]
        figures[name] = measure.spread(seconds, digits=2)
        figures[name] |= {"epochs": statistics.median(epochs), "ratio": round(statistics.median(ratios), 3)}
    return figures


def _contestants(network: str, device: torch.device, seed: int) -> dict[str, Callable[[Path, ExitStack], Epoch]]:
    """Returns what makes each contestant anew, given the folder of a run and what finishes ours."""
    parts = make_parts(*NETWORKS[network])
    splits = parts.data.load()

    def theirs(batches: Callable[[ArraySet, bool], usual.Batches]) -> Epoch:
        torch.manual_seed(seed)
        model = usual.MODELS[network]().to(device)
        optimizer = usual.optimizer(model)
        train, val = batches(splits.train, True), batches(splits.val, False)

        def epoch() -> float:
            usual.epoch(model, optimizer, train, device)
            return usual.evaluate(model, val, device)

        return epoch

    def ours(folder: Path, ending: ExitStack) -> Epoch:
        images = (len(splits.train.labels), len(splits.val.labels))
        run = tracked_run(network, usual.LR, device, folder, ending, images, seed=seed)
        computation = Computation([run], run.model)

        def epoch() -> float:
            one_epoch(computation, Display(run.train.count))
            return run.progress.history[-1].val_acc or 0.0

        return epoch

    return {
        USUAL: lambda *_: theirs(lambda images, train: usual.loader(parts.data, images, train)),
        SCRIPT: lambda *_: theirs(lambda images, train: usual.DeviceBatches(parts.data, images, train, device)),
        OURS: ours,
    }
