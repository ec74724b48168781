"""Brings a dataset to this machine, CIFAR-10 or another: `python -m cifar_tuning.data [FOLDER] [--dataset MNIST]`."""

import argparse
import logging
import sys

from cifar_tuning import PROJECT_ROOT
from cifar_tuning.data.cifar10 import CIFAR10
from cifar_tuning.data.standard_sets import STANDARD_SETS
from cifar_tuning.data.torchvision_data import TorchvisionData
from cifar_tuning.errors import DataError

NAMES = ["CIFAR10", *STANDARD_SETS]


def _known(name: str) -> str:
    """Returns torchvision's name of a dataset that may be given by that of its configuration, as fashion_mnist."""
    return {one.lower(): one for one in NAMES}.get(name.lower().replace("_", ""), name)


def main() -> int:
    """Fetch the dataset unless it is there; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m cifar_tuning.data", description=__doc__)
    parser.add_argument("root", nargs="?", default=PROJECT_ROOT / "data", help="data.root (%(default)s)")
    parser.add_argument("--dataset", type=_known, choices=NAMES, default="CIFAR10", help="(%(default)s)")
    given = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    try:
        data = CIFAR10(given.root) if given.dataset == "CIFAR10" else TorchvisionData(given.dataset, given.root)
        # Files of the others that were there before are read and counted, not hashed.
        verified = ", verified" if given.dataset == "CIFAR10" else ""
        print(f"{given.dataset}{verified}: {data.prepare()}")
    except (DataError, ValueError) as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
