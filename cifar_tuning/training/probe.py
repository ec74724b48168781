"""Which precision and memory format are faster for this model on this machine: measured once, then remembered.

bf16 needs hardware for it, and even with that some PyTorch releases run a convolution slower in bf16 than in
fp32. Which memory format is faster depends on the processor, the precision and the layers. So neither is assumed.
"""

import copy
import logging
import math
import time
from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import nn

from cifar_tuning.errors import wants_traces
from cifar_tuning.text import first_line
from cifar_tuning.training.cuda_graphs import NotRecordedError, seconds_when_recorded
from cifar_tuning.training.measurement_cache import key_of, measured_once
from cifar_tuning.training.memory import out_of_memory
from cifar_tuning.training.precision import at_least_fp32, autocast, has_bf16
from cifar_tuning.training.settings import MEMORY_FORMATS, PRECISIONS, place

log = logging.getLogger(__name__)

STORE = "precision"
# Most rounds; fewest rounds, which are enough if they took LONG seconds. Fewest and most steps of a round, which takes
# more than the fewest for SPENT seconds. Several rounds, because other work may slow a whole round down to a third, and
# the choice is kept for good.
ROUNDS, ENOUGH, LONG = 6, 2, 3.0
REPEATS, MOST, SPENT = 2, 20, 0.05
# Least speed-up over the format that is named first, which is the more exact or better tried one.
NEEDED_GAIN = 1.05
# Times as slow as the fastest, in the first ENOUGH rounds and later: such formats are not measured again.
HOPELESS = (2.0, 1.25)


class Formats(NamedTuple):
    """How a model is computed: numbers of a precision, in a memory format.

    Attributes:
        precision: `fp32` or `bf16`.
        memory_format: `channels_last` or `contiguous_format`.
    """

    precision: str
    memory_format: str

    def __str__(self) -> str:
        return " ".join(self)


class Workload(NamedTuple):
    """The training steps that are timed.

    Attributes:
        model: on the device.
        device: where it is trained.
        batch_shape: N×C×H×W of a training batch.
        record: whether steps will be replayed as CUDA graphs.
    """

    model: nn.Module
    device: torch.device
    batch_shape: tuple[int, int, int, int]
    record: bool = False


@dataclass(frozen=True)
class StackProbe:
    """Several models as one, which may be how they are trained.

    Attributes:
        model: all of them.
        count: how many.
        needed_gain: over one after the other; below it they are trained one by one.
    """

    model: nn.Module
    count: int
    needed_gain: float


def resolve_formats(precision: str, memory_format: str, work: Workload, together: StackProbe | None = None) -> Formats:
    """Returns what was asked for; where that is `auto`, the fastest.

    Args:
        precision: `auto`, `fp32` or `bf16`.
        memory_format: `auto`, `channels_last` or `contiguous_format`.
        work: what is trained.
        together: what several such models may be trained as. Where that pays it decides, because bf16 may make no
            difference to one small model and a large one to a stack; where it doesn't, each is trained by itself.
    """
    candidates = _candidates(precision, memory_format, work.device)
    if len(candidates) == 1:
        return candidates[0]
    key = key_of(work.model, work.device, work.batch_shape)
    key += "" if together is None else f" or {together.count} as one"
    key += f" of {', '.join(map(str, candidates))}" + (" recorded" if work.record else "")

    def measure() -> str:
        found, seconds = _fastest("this model", candidates, work)
        return str(found if together is None else _of_all(found, seconds, candidates, together, work))

    return Formats(*measured_once(STORE, key, work.device, measure).split())


def _candidates(precision: str, memory_format: str, device: torch.device) -> list[Formats]:
    """Returns what may be chosen, in the order in which it is preferred where it makes no difference."""
    precisions = [precision]
    if precision == "auto":
        precisions = [name for name in PRECISIONS[1:] if name == "fp32" or has_bf16(device)]
    memory_formats = MEMORY_FORMATS[1:] if memory_format == "auto" else (memory_format,)
    return [Formats(one, other) for one in precisions for other in memory_formats]


def _of_all(
    own: Formats, seconds: float, candidates: Sequence[Formats], together: StackProbe, work: Workload
) -> Formats:
    """Returns the formats of several models, given those of one and the seconds of its step."""
    # Stacks are faster in channels_last by far; that is not measured anew each time.
    offered = [one for one in candidates if one.memory_format == "channels_last"] or list(candidates)
    if offered == [own]:
        return own
    what = f"{together.count} of them as one"
    try:
        of_all, all_seconds = _fastest(what, offered, work._replace(model=together.model))
    except Exception as error:  # its code is not for features side by side, or memory is short
        log.info("%s can't be measured (%s): taking %s", what, error, own, exc_info=wants_traces(log))
        return own
    gain = together.count * seconds / all_seconds
    chosen, how = (of_all, "as one") if gain >= together.needed_gain else (own, "one by one")
    log.info("as one they are %.2f times as fast as one by one: taking %s, best %s", gain, chosen, how)
    return chosen


def _fastest(what: str, candidates: Sequence[Formats], work: Workload) -> tuple[Formats, float]:
    """Returns the formats in which a training step is fastest, and its seconds; those that it fails in are passed over.

    Raises:
        Exception: it fails in all of them; the first one's error.
    """
    refused: dict[Formats, Exception] = {}
    times, began = dict.fromkeys(candidates, math.inf), time.perf_counter()
    for number in range(ROUNDS):  # in turn: a disturbance of some steps must not decide
        patience = HOPELESS[0 if number < ENOUGH else 1]
        hopeful = [one for one in candidates if times[one] <= patience * min(times.values())]
        alone = len(hopeful) == 1 < len(candidates)
        if alone or (number >= ENOUGH and time.perf_counter() - began > LONG):
            break
        for one in hopeful:
            try:
                times[one] = min(times[one], measure_step(one, work))
            except Exception as error:  # `view` wants an image's numbers in one order, say
                if isinstance(error, NotRecordedError) or out_of_memory(error):
                    raise
                refused.setdefault(one, error)
        if len(refused) == len(candidates):
            raise refused[candidates[0]]
    for one, reason in refused.items():
        log.info("%s does not run in %s: %s", what, one, first_line(reason))
    best = min(times.values())
    found = next(one for one in candidates if times[one] <= NEEDED_GAIN * best)
    shown = ", ".join(f"{one} {1000 * seconds:.1f}" for one, seconds in times.items() if math.isfinite(seconds))
    log.info("milliseconds of a step of %s: %s; best in %s", what, shown, found)
    return found, times[found]


def measure_step(formats: Formats, work: Workload) -> float:
    """Returns the seconds of a training step; see `Probe`."""
    return Probe(formats, work).seconds()


class Probe:
    """A copy of a model to take training steps with; the model and the random generators stay untouched.

    Nothing is dropped: jobs that differ in their rates go by one measurement.
    """

    def __init__(self, formats: Formats, work: Workload) -> None:
        self.device, self.precision, self.record = work.device, formats.precision, work.record
        self.memory_format: torch.memory_format = getattr(torch, formats.memory_format)
        self.model = place(without_dropout(work.model), work.device, formats.memory_format).train()
        generator = torch.Generator(work.device).manual_seed(0)
        images = torch.randn(work.batch_shape, device=work.device, generator=generator)
        self.images = images.to(memory_format=torch.channels_last)  # as batches are made

    def seconds(self) -> float:
        """Returns the seconds of the fastest of several steps, which are recorded where training records them.

        The fastest, because what else the machine does can only slow a step down.
        """
        if self.record:
            with self._generators_untouched():
                return seconds_when_recorded(self._step, self.device)
        self.step()  # allocates, and looks for kernels
        steps = [self.step() for _ in range(REPEATS)]
        while len(steps) < MOST and sum(steps) < SPENT:
            steps.append(self.step())
        return min(steps)

    def step(self) -> float:
        """Takes a forward and backward pass; returns its seconds."""
        with self._generators_untouched():
            if self.device.type == "cuda":  # what was queued before is none of this step's
                torch.cuda.synchronize(self.device)
            start = time.perf_counter()
            self._step()
            if self.device.type == "cuda":
                torch.cuda.synchronize(self.device)
            return time.perf_counter() - start

    def _generators_untouched(self) -> AbstractContextManager[None]:
        return torch.random.fork_rng(devices=[self.device] if self.device.type == "cuda" else [])

    def _step(self) -> None:
        self.model.zero_grad(set_to_none=True)
        with autocast(self.device, self.precision):
            logits = self.model(self.images.contiguous(memory_format=self.memory_format))
        target = torch.zeros(len(logits), dtype=torch.long, device=self.device)
        F.cross_entropy(at_least_fp32(logits), target).backward()


def without_dropout(model: nn.Module) -> nn.Module:
    """Returns a copy of a model that drops nothing and draws no random numbers for it."""
    copied = copy.deepcopy(model)
    for module in copied.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0
    return copied
