"""Runs a benchmark by name: `python -m benchmarks pipeline`, or all of them: `python -m benchmarks all`."""

import argparse

from benchmarks import pipeline


def main() -> None:
    """Reads the command line and runs what it names."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("name", choices=["all", "pipeline"])
    pipeline.add_arguments(parser)
    options = parser.parse_args()
    if options.repeats < 1:
        parser.error(f"--repeats {options.repeats}: must be 1 or above")
    print(f"figures: {pipeline.run(options.models, options.repeats)}")


if __name__ == "__main__":
    main()
