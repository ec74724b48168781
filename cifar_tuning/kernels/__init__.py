"""Kernels of our own for GPUs, in Triton: where PyTorch's are slow for small networks, alone and many side by side.

They compute in bf16 with sums in fp32, over images in channels_last. Whoever calls them asks first, by `usable` and by
what each file says about itself, and otherwise lets PyTorch do the same. Triton is not imported until a GPU is there.
"""

import functools
import logging
import os

import torch
from torch import Tensor

from cifar_tuning.text import first_line

log = logging.getLogger(__name__)

# `CIFAR_TUNING_KERNELS=0` leaves everything to PyTorch, to compare or to look for an error.
SWITCH = "CIFAR_TUNING_KERNELS"
# Compute capability of GPUs that compute in bf16 by themselves, and have the memory in a multiprocessor that is asked.
NEEDED = (8, 0)
# The non-linearities that they know.
NONE, RELU, SILU = 0, 1, 2
# Places are counted in 32 bits.
MAX_ELEMENTS = 2**31


def usable(x: Tensor) -> bool:
    """Whether our kernels can compute with images N×C×H×W here and now: a GPU, autocast to bf16, channels_last."""
    return (
        x.device.type == "cuda"
        # The compiler makes kernels of its own, and a saved model holds plain operators.
        and not left_to_pytorch()
        and x.ndim == 4
        and 0 < x.numel() < MAX_ELEMENTS
        and torch.is_autocast_enabled("cuda")
        and torch.get_autocast_dtype("cuda") == torch.bfloat16
        and x.is_contiguous(memory_format=torch.channels_last)
        and x.stride(1) == 1  # of a single channel it is in either format
        and _work(x.device.index or 0)
    )


def left_to_pytorch() -> bool:
    """Whether the layers are to be PyTorch's own: it was asked for, or something else than a step looks at them."""
    return (
        os.environ.get(SWITCH) == "0"
        or torch.compiler.is_compiling()
        or torch.compiler.is_exporting()
        or torch.jit.is_tracing()
    )


def plain(tensor: Tensor | None, device: torch.device) -> bool:
    """Whether our kernels can read a model's own numbers: float32, on the device of the images."""
    return tensor is not None and tensor.dtype == torch.float32 and tensor.device == device


@functools.cache
def _work(index: int) -> bool:
    """Whether a GPU runs what Triton compiles; found out once in a process, with the kernels of a SimpleNN."""
    try:
        if torch.cuda.get_device_capability(index) < NEEDED:
            return False
        from cifar_tuning.kernels.smoke_test import try_all

        try_all(torch.device("cuda", index))
    except Exception as error:  # no Triton, no C compiler, a GPU that it doesn't know, a cache that can't be written
        reason = f"{type(error).__name__}: {first_line(str(error))[:200]}"
        log.info("Goes on with PyTorch's kernels, slower for small networks: Triton's can't be used (%s).", reason)
        return False
    log.info("kernels of our own: each is compiled at its first use, which takes a second or two, and then kept")
    return True
