"""Which device is taken, and what is said where it can't be."""

import logging

import pytest
import torch

from cifar_tuning.errors import UserError
from cifar_tuning.training import settings
from cifar_tuning.training.settings import check_device, resolve_device


@pytest.mark.parametrize("device", ["gpu", "mps", "mps:0", "CPU", "cuda:-1", None])
def test_names_of_other_devices(device):
    (problem,) = check_device(device)
    assert problem.startswith(f"trainer.device={device}: must be auto, cpu, cuda or cuda:N")
    assert ("a Mac trains on its processor" in problem) is str(device).startswith("mps")


@pytest.fixture
def gpu(monkeypatch):
    """A GPU whose first kernel ends with an error, or with none."""

    def make(error: Exception | None) -> None:
        def ones(size, device):
            if error is not None:
                raise error

        monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
        monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "NVIDIA GeForce GTX 1080")
        monkeypatch.setattr(torch, "ones", ones)
        settings._was_built_for.cache_clear()

    yield make
    settings._was_built_for.cache_clear()


TOO_OLD = RuntimeError("CUDA error: no kernel image is available for execution on the device")


@pytest.mark.parametrize(
    ("error", "device", "expected"),
    [(None, "auto", "cuda"), (None, "cuda:1", "cuda:1"), (TOO_OLD, "auto", "cpu"), (TOO_OLD, "cpu", "cpu")],
)
def test_a_gpu_is_taken_if_pytorch_was_built_for_it(gpu, caplog, error, device, expected):
    gpu(error)
    with caplog.at_level(logging.WARNING):
        assert resolve_device(device) == torch.device(expected)
    assert ("not built for NVIDIA GeForce GTX 1080; the processor" in caplog.text) is (
        error is not None and device == "auto"
    )


@pytest.mark.parametrize(
    ("error", "kind", "said"),
    [
        (TOO_OLD, UserError, "device cuda: PyTorch .* was not built for NVIDIA GeForce GTX 1080; pytorch.org names"),
        (RuntimeError("CUDA error: out of memory"), RuntimeError, "out of memory"),  # not for ever: the GPU is meant
    ],
)
def test_a_gpu_that_was_asked_for_has_no_replacement(gpu, error, kind, said):
    gpu(error)
    with pytest.raises(kind, match=said):
        resolve_device("cuda")
