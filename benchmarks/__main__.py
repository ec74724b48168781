"""Runs a benchmark by name: `python -m benchmarks pipeline`, or the short ones: `python -m benchmarks all`."""

import argparse

from benchmarks import agreement, pipeline, stacks, studies, tracking, workers

# In minutes on two cores: tracking 0.2, overhead 1, waiting 10, pipeline 4, stacks 6, agreement 7, workers 2; pruning
# hours (`--train-limit` less).
SHORT = ("tracking", "overhead", "pipeline", "stacks")


def main() -> None:
    """Reads the command line and runs what it names."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("name", choices=["all", *SHORT, "stack_sizes", "waiting", "pruning", "agreement", "workers"])
    parser.add_argument(
        "--train-limit", type=int, help="training images of `pruning` (all of them) and `agreement` (10,000)"
    )
    pipeline.add_arguments(parser)
    parser.add_argument(
        "--networks", nargs="+", choices=stacks.NETWORKS, default=list(stacks.GOALS), help="of `stacks`, `workers`"
    )
    parser.add_argument("--stack", type=int, default=8, help="runs that `stacks` stacks")
    options = parser.parse_args()
    if options.repeats is not None and options.repeats < 1:
        parser.error(f"--repeats {options.repeats}: must be 1 or above")
    if not 2 <= options.stack <= len(stacks.RATES):
        parser.error(f"--stack {options.stack}: must be from 2 to {len(stacks.RATES)}")
    benchmarks = {
        "tracking": tracking.run,
        "overhead": studies.overhead,
        "waiting": lambda: studies.waiting(options.repeats or 1),
        "pipeline": lambda: pipeline.run(options.models, options.repeats or 5),
        "stacks": lambda: stacks.run(options.networks, options.stack, options.repeats or 5),
        "stack_sizes": lambda: stacks.sizes(options.networks, options.repeats or 3),
        "workers": lambda: workers.run(options.networks, options.repeats or 5),
        "agreement": lambda: agreement.run(options.train_limit),
        "pruning": lambda: studies.pruning(options.repeats or 3, options.train_limit),
    }
    for name in SHORT if options.name == "all" else [options.name]:
        print(f"figures: {benchmarks[name]()}")


if __name__ == "__main__":
    main()
