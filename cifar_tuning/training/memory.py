"""Memory: what a CPU run frees stays in its process, because its next step needs it again; and when it ran out.

glibc gives a freed block above 32 MB, or the free end of its heap, back to the system at once; the next step gets it
anew, page by page, each fault a trap. The activations of a stack are that large.
"""

import ctypes

import torch

from cifar_tuning.processes import free_memory
from cifar_tuning.text import first_line

# malloc.h
_TRIM_THRESHOLD, _MMAP_MAX = -1, -4
# Free memory that the heap may keep at its end: 2 GiB, the largest number that mallopt takes.
_KEPT = 2**31 - 1


def keep_freed_memory() -> None:
    """Has the C library keep what is freed; does nothing where it is not glibc."""
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is None:
        return
    mallopt(_TRIM_THRESHOLD, _KEPT)
    mallopt(_MMAP_MAX, 0)  # all blocks in the heap; a higher MMAP_THRESHOLD is accepted, but ends at 32 MB


def out_of_memory(error: BaseException) -> str | None:
    """Returns in words what could not be had and what is free, if an error is that memory ran out; None if it isn't."""
    # PyTorch's allocator for the CPU raises a RuntimeError, which says so only in its text; a system call an OSError.
    told = "can't allocate memory", "Cannot allocate memory"
    if isinstance(error, torch.OutOfMemoryError):  # it counts what is free itself
        return f"Out of memory: {first_line(error)}"
    if not isinstance(error, MemoryError) and not any(text in str(error) for text in told):
        return None
    reason = first_line(error).rpartition("] . ")[2].rstrip(".")
    return f"Out of memory: {reason}; {free_memory() / 1e6:,.0f} MB are free on this machine."
