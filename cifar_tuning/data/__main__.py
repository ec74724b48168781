"""Brings a dataset to this machine, CIFAR-10 or another: `python -m cifar_tuning.data [FOLDER] [--dataset MNIST]`."""

import argparse
import logging
import sys

from cifar_tuning import PROJECT_ROOT
from cifar_tuning.data.cifar10 import CIFAR10
from cifar_tuning.data.standard_sets import STANDARD_SETS
from cifar_tuning.data.torchvision_data import TorchvisionData
from cifar_tuning.errors import DataError


def main() -> int:
    """Fetch and verify the dataset unless it is there; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m cifar_tuning.data", description=__doc__)
    parser.add_argument("root", nargs="?", default=PROJECT_ROOT / "data", help="data.root (%(default)s)")
    parser.add_argument("--dataset", choices=["CIFAR10", *STANDARD_SETS], default="CIFAR10", help="(%(default)s)")
    given = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    try:
        data = CIFAR10(given.root) if given.dataset == "CIFAR10" else TorchvisionData(given.dataset, given.root)
        print(f"{given.dataset}, verified: {data.prepare()}")
    except (DataError, ValueError) as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
