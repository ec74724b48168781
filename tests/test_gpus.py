"""Which GPUs there are and how much of their memory is free, with a stand-in for nvidia-smi."""

import pytest

from cifar_tuning.gpus import VISIBLE, free_gpu_memory, visible_gpus

PROGRAM = """#!/bin/sh
case "$*" in
  --query-gpu=uuid*) printf 'GPU-4, %s\\nGPU-5, [N/A]\\n';;
  *--id=0*) echo 100;;
  *--id=1*) echo 200;;
  *--id=GPU-5*) echo 300;;
  *) echo "No devices were found"; exit 6;;
esac
"""


@pytest.fixture
def machine(tmp_path, monkeypatch):
    """Gives this machine two GPUs, the first of them divided or not, and shows of them what a variable leaves."""

    def has(visible, mig="Disabled"):
        program = tmp_path / "nvidia-smi"
        program.write_text(PROGRAM % mig)
        program.chmod(0o755)
        monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
        monkeypatch.delenv(VISIBLE, raising=False)
        if visible is not None:
            monkeypatch.setenv(VISIBLE, visible)

    return has


@pytest.mark.parametrize(
    ("device", "visible", "free"),
    [
        ("auto", None, 100),
        ("cuda:1", None, 200),
        ("cuda", "1,0", 200),
        ("cuda:1", "1, GPU-5", 300),
        ("cuda:7", None, None),
        ("cuda:1", "1", None),
        ("auto", "", None),
        ("auto", "-1", None),
    ],
)
def test_the_gpu_that_is_trained_on_is_asked(machine, device, visible, free):
    machine(visible)
    assert free_gpu_memory(device) == free


@pytest.mark.parametrize(
    ("visible", "mig", "names"),
    [
        (None, "Disabled", ["GPU-4", "GPU-5"]),
        (None, "Enabled", []),
        ("1,0", "Disabled", ["1", "0"]),
        ("0,2,1", "Disabled", ["0"]),
        ("GPU-5", "Disabled", ["GPU-5"]),
        ("MIG-7, MIG-8", "Enabled", ["MIG-7", "MIG-8"]),
        ("", "Disabled", []),
        ("0,-1,1", "Disabled", ["0"]),
    ],
)
def test_the_gpus_that_pytorch_sees(machine, visible, mig, names):
    machine(visible, mig)
    assert visible_gpus() == names


@pytest.mark.parametrize(("visible", "names"), [(None, []), ("0,1", ["0", "1"])])
def test_without_nvidia_smi_the_variable_alone_tells(tmp_path, monkeypatch, visible, names):
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv(VISIBLE, raising=False)
    if visible is not None:
        monkeypatch.setenv(VISIBLE, visible)
    assert visible_gpus() == names
