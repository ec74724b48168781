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

# In minutes on two cores: tracking 0.3, overhead 1, loading 0.5, start 2, pipeline 3, stacks 6; waiting 10, agreement
# 14, workers 2, stack_sizes 3, simulated 5, accuracy 25, precision 16, techniques an hour; pruning hours
# (`--train-limit` less). targets are for a GPU.
SHORT = ("tracking", "overhead", "loading", "start", "pipeline", "stacks")
LONG = (
    *("stack_sizes", "waiting", "pruning", "agreement", "workers", "simulated", "accuracy", "precision", "techniques"),
    "targets",
)


def main() -> None:
    """Reads the command line, runs what it names and writes the page."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "name", choices=["all", *SHORT, *LONG, "page"], help="`page` only writes docs/performance.md anew"
    )
    parser.add_argument(
        "--train-limit",
        type=int,
        help="training images of `pruning` (all of them), `agreement`, `precision` and `techniques` (10,000)",
    )
    parser.add_argument("--stack", type=int, help="runs that `stacks` stacks (8; on a GPU 32 SimpleNNs)")
    pipeline.add_arguments(parser)
    options = parser.parse_args()
    if options.repeats is not None and options.repeats < 1:
        parser.error(f"--repeats {options.repeats}: must be 1 or above")
    if options.repeats == 1 and options.name == "simulated":
        parser.error("--repeats 1: must be 2 or above, for an error of the mean")
    if options.stack is not None and not 2 <= options.stack <= stacks.MOST:
        parser.error(f"--stack {options.stack}: must be from 2 to {stacks.MOST}")
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
        "accuracy": lambda: accuracy.run(networks or ["simplenn_bn"], repeats or 5),
        "agreement": lambda: agreement.run("agreement", options.train_limit, repeats or agreement.SEEDS),
        "precision": lambda: agreement.run("precision", options.train_limit, repeats or agreement.SEEDS),
        "techniques": lambda: techniques.run(repeats or 3, options.train_limit),
        "pruning": lambda: studies.pruning(repeats or 3, options.train_limit),
        "page": page.write,
    }
    try:
        for name in SHORT if options.name == "all" else [options.name]:
            print(f"figures: {benchmarks[name]()}")
    except UserError as error:  # no dataset, say
        sys.exit(f"{name}: {error}")
    print(f"page: {page.write()}")


if __name__ == "__main__":
    main()
