import hashlib

import numpy as np
import pytest

from cifar_tuning.data.split import stratified_split, stratified_subset

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
