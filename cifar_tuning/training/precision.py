"""Which precision is faster for this model on this machine: measured once, then remembered.

bf16 needs hardware for it, and even with that some PyTorch releases run a convolution slower in bf16 than in
fp32. So it is never assumed.
"""

import copy
import logging
import math
import time
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from cifar_tuning.training.remembered import key_of, one_at_a_time, recall, remember

log = logging.getLogger(__name__)

ROUNDS, REPEATS = 2, 2
# Below this advantage the choice would be noise, and fp32 is the more exact of the two.
NEEDED_GAIN = 1.05


def autocast(device: torch.device, precision: str) -> torch.autocast:
    """Returns the context in which the model runs; it does nothing for `fp32`."""
    return torch.autocast(device.type, torch.bfloat16, enabled=precision == "bf16")


def at_least_fp32(logits: Tensor) -> Tensor:
    """Returns what the loss is computed from: in bf16 it would be too coarse."""
    return logits if logits.dtype == torch.float64 else logits.float()


@dataclass(frozen=True)
class Together:
    """Several models as one, which may be how they are trained.

    Attributes:
        model: all of them.
        count: how many.
        needed_gain: over one after the other; below it they are trained one by one.
    """

    model: nn.Module
    count: int
    needed_gain: float


def resolve_precision(
    precision: str,
    model: nn.Module,
    device: torch.device,
    batch_shape: tuple[int, int, int, int],
    together: Together | None = None,
) -> str:
    """Returns `fp32` or `bf16`: what was asked for, or the faster one for `auto`.

    Args:
        precision: `auto`, `fp32` or `bf16`.
        model: on the device, in the memory format it is trained in.
        device: where it is trained.
        batch_shape: N×C×H×W of a training batch.
        together: what several such models may be trained as. Where that pays it decides, because bf16 may make no
            difference to one small model and a large one to a stack; where it doesn't, each is trained by itself.
    """
    if precision != "auto":
        return precision
    if not has_bf16(device):
        return "fp32"
    key = key_of(model, device, batch_shape) + ("" if together is None else f" or {together.count} as one")
    if (known := recall("precision").get(key)) is not None:
        return str(known)
    with one_at_a_time("precision"):
        if (known := recall("precision").get(key)) is not None:  # by who was measuring just now
            return str(known)
        found, seconds = _faster("this model", model, device, batch_shape)
        if together is not None:
            found = _of_all(found, seconds, together, device, batch_shape)
        remember("precision", key, found)
    return found


def _of_all(
    own: str, seconds: float, together: Together, device: torch.device, batch_shape: tuple[int, int, int, int]
) -> str:
    """Returns the precision of several models, given that of one and the seconds of its step."""
    try:
        of_all, all_seconds = _faster(f"{together.count} of them as one", together.model, device, batch_shape)
    except Exception as error:  # its code is not for features side by side, or memory is short
        log.info("%d of them as one can't be measured (%s): taking %s", together.count, error, own)
        return own
    gain = together.count * seconds / all_seconds
    chosen, how = (of_all, "as one") if gain >= together.needed_gain else (own, "one by one")
    log.info("as one they are %.2f times as fast as one by one: taking %s, best %s", gain, chosen, how)
    return chosen


def _faster(
    what: str, model: nn.Module, device: torch.device, batch_shape: tuple[int, int, int, int]
) -> tuple[str, float]:
    """Returns the faster precision, and the seconds of a step in it."""
    times = dict.fromkeys(("fp32", "bf16"), math.inf)
    for _ in range(ROUNDS):  # in turn: a disturbance of some steps must not decide
        for name in times:
            times[name] = min(times[name], measure_step(name, model, device, batch_shape))
    gain = times["fp32"] / times["bf16"]
    faster = "bf16" if gain > NEEDED_GAIN else "fp32"
    log.info("bf16 runs %s at %.2f times the speed of fp32: best in %s", what, gain, faster)
    return faster, times[faster]


def has_bf16(device: torch.device) -> bool:
    """Whether the device computes in bf16 by itself rather than by emulation."""
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    return any(value is True for name, value in torch.cpu.get_capabilities().items() if name.endswith("bf16"))


def measure_step(
    precision: str, model: nn.Module, device: torch.device, batch_shape: tuple[int, int, int, int]
) -> float:
    """Returns the seconds of the fastest of several training steps; the model and generators stay untouched.

    The fastest, because what else the machine does can only slow a step down. Nothing is dropped: jobs that differ in
    their rates go by one measurement.
    """
    cuda = [device] if device.type == "cuda" else []
    with torch.random.fork_rng(devices=cuda):
        probe = without_dropout(model).train()
        images = torch.randn(batch_shape, device=device).to(memory_format=torch.channels_last)
        seconds = [_step(probe, images, device, precision) for _ in range(REPEATS + 2)]
    return min(seconds[2:])


def without_dropout(model: nn.Module) -> nn.Module:
    """Returns a copy of a model that drops nothing and draws no random numbers for it."""
    copied = copy.deepcopy(model)
    for module in copied.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0
    return copied


def _step(probe: nn.Module, images: Tensor, device: torch.device, precision: str) -> float:
    start = time.perf_counter()
    with autocast(device, precision):
        logits = probe(images)
        target = torch.zeros(len(images), dtype=torch.long, device=device)
        loss = F.cross_entropy(logits, target)
    loss.backward()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter() - start
