"""The precisions that a model can be computed in: fp32, or bf16 by autocast."""

import torch
from torch import Tensor


def autocast(device: torch.device, precision: str) -> torch.autocast:
    """Returns the context in which the model runs; it does nothing for `fp32`."""
    return torch.autocast(device.type, torch.bfloat16, enabled=precision == "bf16")


def at_least_fp32(logits: Tensor) -> Tensor:
    """Returns what the loss is computed from: in bf16 it would be too coarse."""
    return logits if logits.dtype == torch.float64 else logits.float()


def has_bf16(device: torch.device) -> bool:
    """Whether the device computes in bf16 by itself rather than by emulation."""
    if device.type == "cuda":
        with torch.cuda.device(device):  # it answers for the current one, which need not be ours
            return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    # The second says what ONEDNN_MAX_CPU_ISA leaves of it, and true of some processors that only emulate it.
    return bool(bf16_units()) and torch.backends.mkldnn.is_available() and torch.ops.mkldnn._is_mkldnn_bf16_supported()


def bf16_units() -> list[str]:
    """Returns which of its units the processor computes bf16 in, such as `avx512_bf16` and `amx_bf16`."""
    return sorted(name for name, value in torch.cpu.get_capabilities().items() if name.endswith("bf16") and value)
