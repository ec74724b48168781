"""Several runs as one stacked model, against the same runs one by one and against the usual pipeline."""

import tempfile
from collections.abc import Callable
from contextlib import ExitStack
from functools import partial
from pathlib import Path

from benchmarks import measure, picture, usual
from benchmarks.ours import NETWORKS, limits, make_parts, tracked_run, whole_epoch
from cifar_tuning.fused.stack import Stack
from cifar_tuning.training.computation import Computation
from cifar_tuning.training.display import Display
from cifar_tuning.training.settings import resolve_device

RATES = (0.1, 0.05, 0.03, 0.02, 0.01, 0.005, 0.003, 0.001)
SIZES = (1, 2, 3, 4, 6, 8, 12, 16)
Goals = tuple[float | None, float | None]
# Runs in a stack, and the goals against the usual pipeline and against our runs one by one: on a two-core bf16 CPU, on
# a GPU.
ON_CPU: dict[str, tuple[int, Goals]] = {"simplenn_bn": (8, (7.0, 1.7)), "simplenn": (8, (8.0, 1.4))}
ON_GPU: dict[str, tuple[int, Goals]] = {
    "simplenn_bn": (32, (None, 10.0)),
    "simplenn": (32, (None, 10.0)),
    "resnet20": (8, (None, 3.0)),
}
MOST = 64
USUAL = "usual"
# Training and validation images of a round: on a GPU, where the goals are against our own runs, a whole run's.
IMAGES, GPU_IMAGES = (9000, 1000), (45_000, 5000)


def run(networks: list[str] | None, stack: int | None, repeats: int) -> Path:
    """Measures each network and prints the table; returns the JSON file.

    Args:
        networks: keys of `NETWORKS`; None: those that have goals here.
        stack: runs stacked, their learning rates those of `RATES` in turn; None: as many as the goals are for.
        repeats: rounds that count.
    """
    known, file = ON_GPU if resolve_device("auto").type == "cuda" else ON_CPU, Path()
    for network in networks or known:
        runs, goals = known.get(network, (8, (None, None)))
        count = stack or runs
        with tempfile.TemporaryDirectory() as folder, ExitStack() as ending:
            rates = measure.alternate(contestants(network, count, Path(folder), ending), repeats)
        baseline = USUAL if USUAL in rates else "one by one"
        compared = measure.compare(rates, baseline)
        own = measure.compare(rates, "one by one")
        for name, figure in compared.items():
            figure["ratio_to_one_by_one"] = own[name]["ratio"]
            print(
                f"{network:12} {name:11} {figure['median']:>9,.0f} model-images/s "
                f"({figure['min']:,.0f} to {figure['max']:,.0f}), {figure['ratio']:.2f} of {baseline}, "
                f"{figure['ratio_to_one_by_one']:.2f} of one by one",
                flush=True,
            )
        figures = {network: compared | {"goals": goals if count == runs else None, "stack": count}}
        # Each by itself: whatever ends the next one must not cost what was measured.
        file = measure.write_networks("stacks", "model-images/s, whole epochs", figures, repeats)
    return file


def sizes(networks: list[str] | None, repeats: int) -> Path:
    """Measures training by stack size, draws it into docs/images, and returns the JSON file."""
    device, figures = resolve_device("auto"), {}
    for network in networks or list(ON_CPU):
        work = {}
        for size in SIZES:
            runs = [tracked_run(network, RATES[i % len(RATES)], device, together=True) for i in range(size)]
            work[str(size)] = partial(training, Stack(runs) if size > 1 else Computation(runs, runs[0].model))
        figures[network] = measure.compare(measure.alternate(work, repeats), "1")
        shown = ", ".join(f"{size}: {figure['median']:,.0f}" for size, figure in figures[network].items())
        print(f"stack_sizes  {network}: {shown} model-images/s", flush=True)
    picture.draw_sizes(figures)
    return measure.write("stack_sizes", {"repeats": repeats, "unit": "model-images/s, training", "networks": figures})


def training(computation: Computation) -> int:
    """Trains one epoch, without evaluation; returns the model-images."""
    images = computation.runs[0].train.count * len(computation.runs)
    computation.train([1] * len(computation.runs), Display(images))
    return images


def contestants(network: str, stack: int, folder: Path, ending: ExitStack) -> dict[str, Callable[[], int]]:
    """Whole epochs, evaluation included; ours with checkpoints and an MLflow run each as well, which `ending` finishes.

    On a GPU the usual pipeline, which `pipeline` measures, is left out.
    """
    device = resolve_device("auto")
    images = GPU_IMAGES if device.type == "cuda" else IMAGES
    side_by_side = [
        tracked_run(network, RATES[i % len(RATES)], device, folder / f"stacked_{i}", ending, images, together=True)
        for i in range(stack)
    ]
    single = tracked_run(network, RATES[0], device, folder / "single", ending, images)
    ours: dict[str, Callable[[], int]] = {
        "one by one": partial(whole_epoch, Computation([single], single.model)),
        "stacked": partial(whole_epoch, Stack(side_by_side)),
    }
    if device.type == "cuda":
        return ours
    splits = (data := make_parts(*NETWORKS[network], *limits(images)).data).load()
    theirs = usual.MODELS[network]().to(device)
    loaders = usual.loader(data, splits.train), usual.loader(data, splits.val, train=False)
    return {USUAL: partial(usual.whole_epoch, theirs, usual.optimizer(theirs), *loaders, device), **ours}
