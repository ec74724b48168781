import hashlib

import numpy as np
import pytest

from cifar_tuning.data.split import grouped_split, stratified_split, stratified_subset

LABELS = np.arange(50_000) % 10


def sha(indices):
    assert indices.dtype == np.int64
    return hashlib.sha256(indices.astype("<i8").tobytes()).hexdigest()


def test_the_split_is_the_same_on_every_machine():
    train, val = stratified_split(LABELS, 5000, seed=0)
    assert sha(train) == "ef5b10e52ee8ea63e8744da6ebacd3b9b981c82b895a5331760c301940fd4e56"
    assert sha(val) == "39010c31f7e19609d4c8edfff2230d219e6de96c357c2fb04657b12db02238af"
    assert (
        sha(stratified_split(LABELS, 5000, seed=1)[1])
        == "7636134f337c6774c021c9da2db21ec65d4fdf81cfff81e050031aaec5050257"
    )
    assert (
        sha(stratified_subset(LABELS, 5000, seed=0))
        == "a90dc681e81ee0f153cad8929b0f3d4f65ed63985dd6d7b5013e5c4c42e94522"
    )


@pytest.mark.parametrize("seed", [0, 1, 2**32 - 1])
@pytest.mark.parametrize("val_size", [0, 1, 7, 5000, 49_999])
def test_split_is_a_sorted_stratified_partition(val_size, seed):
    train, val = stratified_split(LABELS, val_size, seed)
    assert (len(train), len(val)) == (50_000 - val_size, val_size)
    np.testing.assert_array_equal(np.sort(np.concatenate([train, val])), np.arange(50_000))
    assert (np.diff(train) > 0).all()
    assert (np.diff(val) > 0).all()
    counts = np.bincount(LABELS[val], minlength=10)
    assert counts.max() - counts.min() <= (val_size % 10 != 0)


@pytest.mark.parametrize(
    ("size", "counts"),
    [(1, [1, 0, 0]), (2, [1, 1, 0]), (10, [6, 3, 1]), (50, [30, 15, 5]), (99, [59, 30, 10]), (100, [60, 30, 10])],
)
def test_each_class_gets_its_share(size, counts):
    labels = np.repeat([0, 1, 2], [60, 30, 10])
    chosen = stratified_subset(labels, size, seed=0)
    np.testing.assert_array_equal(np.bincount(labels[chosen], minlength=3), counts)


def test_a_smaller_subset_lies_within_a_larger_one():
    small, large = (set(stratified_subset(LABELS, size, 0).tolist()) for size in (100, 1000))
    assert small < large


def test_other_seeds_choose_other_images():
    chosen = [set(stratified_split(LABELS, 5000, seed)[1].tolist()) for seed in (0, 1)]
    assert len(chosen[0] & chosen[1]) < 1000  # 500 by chance


# Seven classes, the rarest with two images of a hundred, and one to five images of each group.
RARE = np.repeat(np.arange(7), [500, 180, 120, 80, 60, 40, 20])
GROUPS = np.repeat(np.arange(400), 1 + np.arange(400) % 5)[:1000]


@pytest.mark.parametrize("seed", [0, 1, 2**32 - 1])
@pytest.mark.parametrize("share", [0.0, 0.001, 0.1, 0.5, 0.9])
@pytest.mark.parametrize("mixed", [False, True])
def test_no_group_is_split_and_each_class_gets_nearly_its_share(share, seed, mixed):
    shuffled = np.random.default_rng(0).permutation(1000)
    labels, groups = RARE[shuffled], GROUPS if mixed else GROUPS[shuffled]
    train, val = grouped_split(labels, groups, round(1000 * share), seed)
    np.testing.assert_array_equal(np.sort(np.concatenate([train, val])), np.arange(1000))
    assert not set(groups[train]) & set(groups[val])
    counts = np.bincount(labels[val], minlength=7)
    assert np.abs(counts - share * np.bincount(labels)).max() <= 6  # a group has up to five images
    assert np.bincount(labels[train], minlength=7).min() > 0
    assert (counts.min() > 0) == (share > 0)


def test_the_split_of_groups_is_the_same_on_every_machine():
    train, val = grouped_split(RARE, GROUPS, 100, seed=0)
    assert sha(val) == "2a0e7f704f9a2bfed16e2cd58b321bd1fbe7b885769e46f0a8bd732943299ed8"
    assert len(train) + len(val) == 1000


@pytest.mark.parametrize(("groups", "validating"), [("aab", 1), ("aaa", 0), ("abc", 1)])
def test_a_class_of_one_group_is_trained_on(groups, validating):
    """Here one class is in all groups but the last image's."""
    _, val = grouped_split(list("xxx"), list(groups), 1, seed=0)
    assert len(val) == validating
    _, val = grouped_split(list("xxxy"), [*groups, "d"], 1, seed=0)
    assert 3 not in val
