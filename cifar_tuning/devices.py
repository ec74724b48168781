"""Which devices work by themselves, so that the host hands them work ahead."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

# A few long kernels are faster there than many short ones, which are over before the host has launched the next; the
# host is through an epoch long before they are; and to fetch a tensor is to wait for all that was queued before it.
QUEUES = ("cuda",)


def queues(device: "torch.device") -> bool:
    """Whether a device is given work ahead."""
    return device.type in QUEUES
