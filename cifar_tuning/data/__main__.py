"""Brings CIFAR-10 to this machine: `python -m cifar_tuning.data [FOLDER]`."""

import argparse
import logging
import sys

from cifar_tuning import PROJECT_ROOT
from cifar_tuning.data.cifar10 import CIFAR10
from cifar_tuning.errors import DataError


def main() -> int:
    """Fetch and verify the dataset unless it is there; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m cifar_tuning.data", description=__doc__)
    parser.add_argument("root", nargs="?", default=PROJECT_ROOT / "data", help="data.root (%(default)s)")
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    try:
        print(f"CIFAR-10, verified: {CIFAR10(parser.parse_args().root).prepare()}")
    except (DataError, ValueError) as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
