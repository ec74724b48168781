"""Which GPU is asked for its free memory, with a stand-in for nvidia-smi."""

import pytest

from cifar_tuning.processes import free_gpu_memory

PROGRAM = """#!/bin/sh
case "$1" in
  --id=0) echo 100;;
  --id=1) echo 200;;
  --id=GPU-5) echo 300;;
  *) echo "No devices were found"; exit 6;;
esac
"""


@pytest.mark.parametrize(
    ("device", "visible", "free"),
    [
        ("auto", None, 100),
        ("cuda:1", None, 200),
        ("cuda", "1,0", 200),
        ("cuda:1", "1, GPU-5", 300),
        ("cuda:7", None, None),
        ("auto", "", None),
    ],
)
def test_the_gpu_that_is_trained_on_is_asked(tmp_path, monkeypatch, device, visible, free):
    program = tmp_path / "nvidia-smi"
    program.write_text(PROGRAM)
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    if visible is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    assert free_gpu_memory(device) == free
