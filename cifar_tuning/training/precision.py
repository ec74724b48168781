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
            return torch.cuda.is_bf16_supported(including_emulation=False)
    return any(value is True for name, value in torch.cpu.get_capabilities().items() if name.endswith("bf16"))
