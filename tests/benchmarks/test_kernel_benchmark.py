import pytest
import torch

from benchmarks import kernels
from cifar_tuning.errors import UserError


@pytest.mark.parametrize("name", kernels.LAYERS)
def test_both_sides_compute_the_same(name):
    work = kernels.contestants(kernels.LAYERS[name], torch.device("cpu"), images=2)
    results = [[one.float() for one in work[who]()] for who in (kernels.PYTORCH, kernels.OURS)]
    assert len(results[0]) == len(results[1]) >= 1
    for theirs, ours in zip(*results, strict=True):
        assert (theirs - ours).norm() <= 0.02 * theirs.norm() + 1e-3


@pytest.mark.skipif(torch.cuda.is_available(), reason="is measured here")
def test_without_a_gpu_there_is_nothing_to_compare():
    with pytest.raises(UserError, match="no CUDA device here"):
        kernels.run(1)
