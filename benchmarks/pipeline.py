"""A single run of ours, the usual pipeline and a plain script: same network, batch, optimizer, images, augmentation."""

import argparse
import tempfile
import time
from collections.abc import Callable
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any

import torch

from benchmarks import measure, roofline, usual
from benchmarks.ours import NETWORKS, limits, make_parts, tracked_run, whole_epoch
from cifar_tuning.training.computation import Computation
from cifar_tuning.training.display import Display
from cifar_tuning.training.settings import resolve_device
from cifar_tuning.training.trainer import Trainer

# Training and validation images of a round: a whole run's, but for what takes a CPU minutes.
WHOLE, FEW = (45_000, 5000), (2304, 256)
# Against the usual pipeline: on a two-core CPU with bf16, on a GPU; and the share of the matrix product's rate.
GOALS = {"simplenn_bn": 4.0, "simplenn": 5.0, "resnet20": 2.0}
GPU_GOALS = {"simplenn_bn": 15.0, "simplenn": 15.0, "resnet20": 6.0}
FLOPS_GOALS = {"resnet20": 0.45}
USUAL, SCRIPT, OURS = "usual", "script", "ours"
SHAPE = (3, 32, 32)


def run(networks: list[str], repeats: int) -> Path:
    """Measures whole epochs of each network and prints the table; returns the JSON file."""
    device, file = resolve_device("auto"), Path()
    for network in networks:
        goal = (GPU_GOALS if device.type == "cuda" else GOALS)[network]
        with tempfile.TemporaryDirectory() as folder, ExitStack() as ending:
            images = FEW if device.type == "cpu" and network == "resnet20" else WHOLE
            single = tracked_run(network, usual.LR, device, Path(folder) / "single", ending, images)
            rates = measure.alternate(_contestants(network, single, device, images), repeats)
        compared = measure.compare(rates, USUAL) | {"goal": goal}
        compared["flops_goal"] = FLOPS_GOALS.get(network) if device.type == "cpu" else None
        ceilings = roofline.ceilings(device, single.precision)
        layers = roofline.costs(single.model, SHAPE)
        compared["precision"] = single.precision
        compared["roofline"] = roofline.share(layers, ceilings, single.precision, compared[OURS]["median"])
        for name in rates:
            f = compared[name]
            spread = f"({f['min']:,.0f} to {f['max']:,.0f})"
            print(
                f"pipeline  {network:11} {name:6} {f['median']:>9,.0f} images/s {spread}, {f['ratio']:.2f} of the usual"
            )
        line = compared["roofline"]
        print(
            f"pipeline  {network:11} {line['of_roofline']:.0%} of the roofline, {line['of_flops']:.0%} of the "
            f"{single.precision} matrix product's rate; goal {goal:g} times the usual",
            flush=True,
        )
        # Each by itself: whatever ends the next one must not cost what was measured.
        file = measure.write_networks("pipeline", "images/s, whole epochs", {network: compared}, repeats)
    return file


def _contestants(
    network: str, single: Trainer, device: torch.device, images: tuple[int, int]
) -> dict[str, Callable[[], int]]:
    """Whole epochs, evaluation included; ours with checkpoints and a run in MLflow as well."""
    parts = make_parts(*NETWORKS[network], *limits(images))
    splits = parts.data.load()
    theirs, script = (usual.MODELS[network]().to(device) for _ in range(2))
    loaders = usual.loader(parts.data, splits.train), usual.loader(parts.data, splits.val, train=False)
    train = usual.DeviceBatches(parts.data, splits.train, True, device)
    val = usual.DeviceBatches(parts.data, splits.val, False, device)
    return {
        USUAL: partial(usual.whole_epoch, theirs, usual.optimizer(theirs), *loaders, device),
        SCRIPT: partial(usual.whole_epoch, script, usual.optimizer(script), train, val, device),
        OURS: partial(whole_epoch, Computation([single], single.model)),
    }


def loading(repeats: int, images: int = 12_800) -> Path:
    """Measures the input pipeline alone against the usual loader, and against a training step of SimpleNN."""
    device = resolve_device("auto")
    parts = make_parts(*NETWORKS["simplenn_bn"], f"data.train_limit={images}")
    single = tracked_run("simplenn_bn", usual.LR, device, images=(images, 1000))
    loader = usual.loader(parts.data, parts.data.load().train)

    def drawn(batches: Any) -> int:
        return sum(len(labels) for _, labels in batches)

    work: dict[str, Callable[[], int]] = {
        USUAL: lambda: drawn(loader),
        OURS: lambda: drawn(single.train.epoch(1)),
        "training": partial(_train, Computation([single], single.model)),
    }
    compared = measure.compare(measure.alternate(work, repeats), USUAL)
    of_step = compared["training"]["median"] / compared[OURS]["median"]
    print(
        f"loading   usual {compared[USUAL]['median']:,.0f}, ours {compared[OURS]['median']:,.0f} images/s: "
        f"{compared[OURS]['ratio']:.1f} of the usual (goal 20), {of_step:.1%} of a step of SimpleNN (goal 10%)"
    )
    return measure.write("loading", {"repeats": repeats, "contestants": compared, "of_step": round(of_step, 4)})


def _train(computation: Computation) -> int:
    count = computation.runs[0].train.count
    computation.train([1], Display(count))
    return count


def checkpoints(repeats: int = 20) -> dict[str, float]:
    """Returns the milliseconds that both checkpoints of an epoch take, for each network."""
    milliseconds = {}
    for network in ("simplenn_bn", "resnet20"):
        with tempfile.TemporaryDirectory() as folder, ExitStack() as ending:
            single = tracked_run(network, usual.LR, resolve_device("auto"), Path(folder) / "single", ending, (256, 100))
            times = []
            for _ in range(repeats):
                start = time.perf_counter()
                single._save(is_best=True)
                times.append(time.perf_counter() - start)
        milliseconds[network] = round(1000 * sorted(times)[repeats // 2], 2)
    return milliseconds


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares what several benchmarks take."""
    parser.add_argument(
        "--networks",
        nargs="+",
        choices=list(NETWORKS),
        help="those of the networks that are measured, where a benchmark measures several",
    )
    parser.add_argument("--repeats", type=int, help="how often each contestant runs")
