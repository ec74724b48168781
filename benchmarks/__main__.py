"""Runs a benchmark by name: `python -m benchmarks pipeline`, or the short ones: `python -m benchmarks all`.

The figures go to benchmarks/results/, and from there into docs/performance.md.
"""

import argparse
import sys
from collections.abc import Callable
from pathlib import Path

from benchmarks import (
    accuracy,
    agreement,
    kernels,
    measure,
    page,
    pipeline,
    simulated,
    stacks,
    start,
    studies,
    targets,
    techniques,
    tracking,
    workers,
)
from benchmarks.ours import NETWORKS
from cifar_tuning.errors import UserError
from cifar_tuning.training.memory import out_of_memory

# What each finds out, and how long that takes on two cores.
SHORT = {
    "tracking": "what MLflow and checkpoints cost per epoch; 20 s",
    "overhead": "what the study sweeper costs per trial; 1 min",
    "loading": "images/s of our batches and of a DataLoader; 30 s",
    "start": "from the command to the end of a tiny job, against the imports alone; 2 min",
    "pipeline": "images/s of a single run, of the usual pipeline and of a plain script; 3 min",
    "stacks": "images/s of eight runs as one model and one by one; 6 min",
}
LONG = {
    "stack_sizes": "throughput by the number of runs stacked, with a picture; 3 min",
    "waiting": "trials of different lengths, two workers against batches; 10 min",
    "pruning": "epochs and accuracy with pruning against the stock sweeper; hours (less with --train-limit)",
    "agreement": "accuracies of stacked runs and of the same runs one by one; 14 min",
    "workers": "images/s of one process with two threads and of two with one each; 2 min",
    "simulated": "pruners on simulated studies; 5 min",
    "accuracy": "seconds to a validation accuracy; 25 min",
    "precision": "accuracies in bf16 against fp32; 16 min",
    "techniques": "what each training technique gains a ResNet-20; an hour",
    "kernels": "kernels of our own against PyTorch's, layer by layer; on a GPU",
    "targets": "seconds for the learning-rate table as one stack, and for a ResNet-20 to 90 %; on a GPU",
}
PAGE = "page"
# Images that a run needs at least.
BATCH = 128


def parse() -> argparse.Namespace:
    """Reads the command line."""
    listed = "\n".join(f"  {name:12} {what}" for name, what in {"all": "the next six", **SHORT, **LONG}.items())
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks",
        description=f"{__doc__}\nNames:\n{listed}\n  {PAGE:12} only writes the tables of docs/performance.md again",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    names = ["all", *SHORT, *LONG, PAGE]
    parser.add_argument("names", nargs="+", choices=names, metavar="NAME", help="one or several of these")
    parser.add_argument(
        "--train-limit",
        type=int,
        help="training images: of `pruning` (default: all), `agreement`, `precision` and `techniques` (10,000)",
    )
    parser.add_argument(
        "--stack", type=int, help="how many runs `stacks` puts into one stack (8; on a GPU 32 SimpleNNs)"
    )
    parser.add_argument("--output", type=Path, help="a folder for the figures; docs/performance.md is not changed then")
    pipeline.add_arguments(parser)
    options = parser.parse_args()
    if options.repeats is not None and options.repeats < 1:
        parser.error(f"--repeats {options.repeats}: must be 1 or above")
    if options.repeats == 1 and "simulated" in options.names:
        parser.error("--repeats 1: must be 2 or above, for an error of the mean")
    if options.stack is not None and not 2 <= options.stack <= stacks.MOST:
        parser.error(f"--stack {options.stack}: must be from 2 to {stacks.MOST}")
    if options.train_limit is not None and options.train_limit < BATCH:
        parser.error(f"--train-limit {options.train_limit}: must be {BATCH} or above, one batch")
    return options


def main() -> None:
    """Runs what the command line names and writes the page."""
    options = parse()
    if options.output is not None:
        options.output.mkdir(parents=True, exist_ok=True)
        measure.RESULTS = options.output
    networks, repeats = options.networks, options.repeats
    benchmarks: dict[str, Callable[[], Path]] = {
        "tracking": tracking.run,
        "overhead": studies.overhead,
        "loading": lambda: pipeline.loading(repeats or 5),
        "start": lambda: start.run(repeats or 5),
        "pipeline": lambda: pipeline.run(networks or list(NETWORKS), repeats or 5),
        "stacks": lambda: stacks.run(networks, options.stack, repeats or 5),
        "stack_sizes": lambda: stacks.sizes(networks, repeats or 3),
        "waiting": lambda: studies.waiting(repeats or 1),
        "workers": lambda: workers.run(networks or list(NETWORKS), repeats or 5),
        "simulated": lambda: simulated.run(repeats or 100),
        "targets": targets.run,
        "kernels": lambda: kernels.run(repeats or 5),
        "accuracy": lambda: accuracy.run(networks or ["simplenn_bn"], repeats or 5),
        "agreement": lambda: agreement.run("agreement", options.train_limit, repeats or agreement.SEEDS),
        "precision": lambda: agreement.run("precision", options.train_limit, repeats or agreement.SEEDS),
        "techniques": lambda: techniques.run(repeats or 3, options.train_limit),
        "pruning": lambda: studies.pruning(repeats or 3, options.train_limit),
    }
    names = [one for name in options.names for one in (SHORT if name == "all" else [name]) if one != PAGE]
    for name in dict.fromkeys(names):
        try:
            print(f"figures: {benchmarks[name]()}")
        except UserError as error:  # no dataset, say
            sys.exit(f"{name}: {error}")
        except (MemoryError, RuntimeError, OSError) as error:
            if (reason := out_of_memory(error)) is None:
                raise
            sys.exit(f"{name}: {reason}")
    if options.output is None:
        print(f"page: {page.write()}")


if __name__ == "__main__":
    main()
