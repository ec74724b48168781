"""Runs a benchmark by name: `python -m benchmarks pipeline`, or all of them: `python -m benchmarks all`."""

import argparse

from benchmarks import pipeline, tracking


def main() -> None:
    """Reads the command line and runs what it names."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("name", choices=["all", "pipeline", "tracking"])
    pipeline.add_arguments(parser)
    options = parser.parse_args()
    if options.repeats < 1:
        parser.error(f"--repeats {options.repeats}: must be 1 or above")
    if options.name in ("all", "tracking"):
        print(f"figures: {tracking.run()}")
    if options.name in ("all", "pipeline"):
        print(f"figures: {pipeline.run(options.models, options.repeats)}")


if __name__ == "__main__":
    main()
