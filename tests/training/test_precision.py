"""Whether the processor computes in bf16, and what is remembered of it."""

import subprocess
import sys

import pytest
import torch

from cifar_tuning import PROJECT_ROOT
from cifar_tuning.models import SimpleNN
from cifar_tuning.training import measurement_cache, precision
from cifar_tuning.training.precision import has_bf16

CPU = torch.device("cpu")


@pytest.mark.parametrize(
    ("units", "used", "expected"),
    [
        ({"avx512_bf16": True, "amx_bf16": False}, True, True),
        ({"avx512_bf16": False, "amx_bf16": False}, True, False),  # emulated
        ({"avx512_bf16": True, "amx_bf16": True}, False, False),  # the environment forbids it
        ({}, False, False),
    ],
)
def test_bf16_needs_hardware_that_is_used(monkeypatch, units, used, expected):
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"avx2": True, **units})
    monkeypatch.setattr(torch.ops.mkldnn, "_is_mkldnn_bf16_supported", lambda: used)
    assert has_bf16(CPU) is expected


def test_what_may_not_be_used_is_another_machine(monkeypatch):
    def key():
        return measurement_cache.key_of(SimpleNN(), CPU, (128, 3, 32, 32))

    keys = [key()]
    monkeypatch.setenv("ONEDNN_MAX_CPU_ISA", "AVX2")
    keys.append(key())
    monkeypatch.setattr(measurement_cache, "bf16_units", lambda: ["none"])
    keys.append(key())
    assert len(set(keys)) == 3


@pytest.mark.slow
def test_onednn_is_asked():
    code = "import torch; from cifar_tuning.training.precision import has_bf16; print(has_bf16(torch.device('cpu')))"
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=True,
        cwd=PROJECT_ROOT,
        env={"PATH": "", "ONEDNN_MAX_CPU_ISA": "AVX2"},
    )
    assert done.stdout.strip() == "False"
    assert precision.bf16_units() or not has_bf16(CPU)
