"""Which images are trained on and which validate: stratified by class, decided by a seed alone.

NumPy promises that the streams of `RandomState` never change, so a split is the same on every machine and
with every NumPy. Don't replace it by `Generator`, whose methods carry no such promise.
"""

import numpy as np

# Keeps the choice of a smaller training set independent of the split's own draws.
_SUBSET_STREAM = 1


def stratified_split(labels: np.ndarray, val_size: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Set `val_size` images apart, each class in proportion to its share.

    Args:
        labels: class of each image, N.
        val_size: number of validation images, at most N.
        seed: decides the choice, 0 … 2³²-1.

    Returns:
        Sorted int64 indices of the training images and of the validation images.
    """
    val = _choose(labels, val_size, np.random.RandomState(seed))
    chosen = np.zeros(len(labels), bool)
    chosen[val] = True
    return np.flatnonzero(~chosen), val


def stratified_subset(labels: np.ndarray, size: int, seed: int) -> np.ndarray:
    """Sorted int64 indices of `size` images, each class in proportion to its share.

    Args:
        labels: class of each image, N.
        size: number of images to choose, at most N.
        seed: decides the choice, 0 … 2³²-1.
    """
    return _choose(labels, size, np.random.RandomState([seed, _SUBSET_STREAM]))


def _choose(labels: np.ndarray, size: int, random: np.random.RandomState) -> np.ndarray:
    classes, counts = np.unique(labels, return_counts=True)
    # Largest remainder, in whole numbers: exact on every machine; a tie goes to the lower class.
    shares, remainders = counts * size // len(labels), counts * size % len(labels)
    shares[np.argsort(-remainders, kind="stable")[: size - shares.sum()]] += 1
    chosen = []
    for label, share in zip(classes, shares, strict=True):
        members = np.flatnonzero(labels == label)
        chosen.append(members[random.permutation(len(members))[:share]])
    return np.sort(np.concatenate(chosen)).astype(np.int64)
