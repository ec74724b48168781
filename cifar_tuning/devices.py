"""Which devices compute asynchronously, so that the host queues work for them in advance."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

# Types of such devices. A few long kernels are faster there than many short ones, which end before the host has
# launched the next. The host has queued an epoch long before it is computed, and fetching a tensor waits for all that
# was queued before.
QUEUES = ("cuda",)


def is_asynchronous(device: "torch.device") -> bool:
    """Whether a device is given work ahead."""
    return device.type in QUEUES
