"""Memory that a CPU run frees stays in its process, because its next step needs it again.

glibc gives a freed block above 32 MB, or the free end of its heap, back to the system at once; the next step gets it
anew, page by page, each fault a trap. The activations of a stack are that large.
"""

import ctypes

# malloc.h
_TRIM_THRESHOLD, _MMAP_MAX = -1, -4
# The heap keeps as much free memory at its end: 2 GiB, the largest number that mallopt takes.
_KEPT = 2**31 - 1


def keep_freed_memory() -> None:
    """Has the C library keep what is freed; does nothing where it is not glibc."""
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is None:
        return
    mallopt(_TRIM_THRESHOLD, _KEPT)
    mallopt(_MMAP_MAX, 0)  # all blocks in the heap; a higher MMAP_THRESHOLD is accepted, but ends at 32 MB
