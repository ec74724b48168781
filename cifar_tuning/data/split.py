"""Which images are trained on and which validate: stratified by class, decided by a seed alone.

NumPy promises that the streams of `RandomState` never change, so a split is the same on every machine and
with every NumPy. Don't replace it by `Generator`, whose methods carry no such promise.
"""

from collections.abc import Sequence

import numpy as np

# Keeps the choice of a smaller training set independent of the split's own draws.
_SUBSET_STREAM = 1
_GROUP_STREAM = 2


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


def grouped_split(
    labels: Sequence[str], groups: Sequence[str], val_size: int, seed: int
) -> tuple[np.ndarray, np.ndarray]:
    """Set about `val_size` images apart, each class nearly in proportion to its share, and no group in two.

    Classes are looked at from the rarest to the most frequent (after Sechidis et al. 2011, "On the Stratification of
    Multi-Label Data"), and their groups in random order: one is set apart where that brings the class nearer to its
    share. Each class of at least two groups has one on both sides, but for those that share groups with others.

    Args:
        labels: class of each image, N.
        groups: group of each image, N.
        val_size: number of validation images, at most N.
        seed: decides the choice, 0 … 2³²-1.

    Returns:
        Sorted int64 indices of the training images and of the validation images.
    """
    group_of = np.unique(np.asarray(groups), return_inverse=True)[1]
    class_of = np.unique(np.asarray(labels), return_inverse=True)[1]
    counts = np.zeros((group_of.max() + 1, class_of.max() + 1), np.int64)
    np.add.at(counts, (group_of, class_of), 1)
    order = np.random.RandomState([seed, _GROUP_STREAM]).permutation(len(counts))
    wanted = counts.sum(0) * val_size / len(labels)
    apart, left = np.zeros(len(wanted), np.int64), (counts > 0).sum(0)  # images; groups that are trained on
    chosen, decided = np.zeros((2, len(counts)), bool)

    def take(group: int) -> bool:
        has = counts[group] > 0
        if (left[has] < 2).any():
            return False
        chosen[group] = True
        np.add(apart, counts[group], out=apart)
        np.subtract(left, has, out=left)
        return True

    for label in np.argsort(counts.sum(0), kind="stable"):
        members = order[(counts[order, label] > 0) & ~decided[order]]
        decided[members] = True
        for group in members:
            lacking = wanted[label] - apart[label]
            if abs(lacking - counts[group, label]) < abs(lacking):
                take(group)
        if wanted[label] > 0 and apart[label] == 0:
            any(take(group) for group in members[np.argsort(counts[members, label], kind="stable")])
    return np.flatnonzero(~chosen[group_of]), np.flatnonzero(chosen[group_of])


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
