"""How many runs to stack, if any: measured once per model, device and PyTorch version, then read from the cache."""

import copy
import itertools
import logging
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from cifar_tuning import processes
from cifar_tuning.fused.layers import Given
from cifar_tuning.fused.model import give, stack_models
from cifar_tuning.fused.twin import NotStackableError
from cifar_tuning.training.cuda_graphs import NotRecordedError, seconds_when_recorded
from cifar_tuning.training.measurement_cache import Neighbours, key_of, one_at_a_time, recall, remember
from cifar_tuning.training.precision import at_least_fp32, autocast
from cifar_tuning.training.probe import StackProbe, without_dropout
from cifar_tuning.training.trainer import Trainer

log = logging.getLogger(__name__)

# Kind of measurement in the cache.
STORE = "stacks"
LARGEST = 64
# Steps in a measurement, and measurements of each size: a disturbance by other work outlasts five steps.
REPEATS, ROUNDS = 5, 2
# Rounds of measurement before "stacking does not pay" is final. A command goes on to the next round for at most LONG
# seconds; later commands do the rest.
SURE, LONG = 4, 5.0
# Runs in a stack that stands for stacks of any size.
EXAMPLE = 4
# Least speed-up over training one run after the other; below it other work on the machine may undo the gain.
NEEDED_GAIN = 1.1
# After two sizes in a row below this share of the best rate, larger ones are not tried.
FALLING = 0.85
# Rates above this share of the best one count as equal: a second measurement might swap them.
AS_FAST = 0.95
# Share of the free memory that a stack may fill; the rest is for what measuring a step does not show.
MEMORY_SHARE = 0.7


@dataclass(frozen=True)
class Stacking:
    """How a group of jobs is trained.

    Attributes:
        size: runs in a stack, at most.
        by_seed: a stack takes runs of one seed only, which share their batches.
    """

    size: int
    by_seed: bool = False


def choose(run: Trainer, jobs: int, of_a_seed: int, batch_shape: tuple[int, int, int, int]) -> Stacking:
    """Returns how many runs to stack, 1 where it doesn't pay.

    Args:
        run: one of them, ready to train.
        jobs: how many there are.
        of_a_seed: how many of them have the same seed, at most.
        batch_shape: N×C×H×W of a training batch.
    """
    plans: dict[Stacking, float] = {}
    for by_seed, count in ((True, of_a_seed), (False, jobs)):
        if count < 2 or (not by_seed and of_a_seed == jobs):
            continue
        rates = measured(run, count, by_seed, batch_shape)
        # All in the precision that the jobs have by now. It is a stack's only where `resolve_formats` found stacks
        # faster than one run in its own.
        alone = rates.pop("1")
        # The largest of those that are as fast as a measurement can tell: fewer stacks, fuller ones.
        needed = max(AS_FAST * max(rates.values(), default=0.0), NEEDED_GAIN * alone)
        if fast := [size for size in rates if rates[size] >= needed]:
            best = max(fast, key=int)
            plans[Stacking(min(int(best), count), by_seed)] = rates[best]
    return max(plans, key=lambda plan: plans[plan], default=Stacking(1))


def measured(run: Trainer, jobs: int, same_seed: bool, batch_shape: tuple[int, int, int, int]) -> dict[str, float]:
    """Returns model-images/s by stack size, as far as it was worth looking and memory allows.

    Where a step can't be recorded, `run.record` is false afterwards: nor will it be in training.

    Raises:
        NotStackableError: it does not allow a single run.
    """
    sizes = candidates(jobs, min(jobs, affordable(run, batch_shape)))
    try:
        with one_at_a_time(STORE):
            rates = _measured(run, sizes, same_seed, batch_shape)
    except NotRecordedError:
        run.record = False
        return measured(run, jobs, same_seed, batch_shape)
    if not rates:
        raise NotStackableError("not even one run fits into the device's memory")
    shown = ", ".join(f"{size}: {rate:,.0f}" for size, rate in rates.items())
    log.info("model-images/s by the number of runs stacked: %s", shown)
    return rates


def _measured(
    run: Trainer, sizes: list[int], same_seed: bool, batch_shape: tuple[int, int, int, int]
) -> dict[str, float]:
    """Returns the rates that are remembered, and measures where some lack or too few rounds said that none pays."""
    formats = f"{run.precision} {run.memory_format}" + (" recorded" if run.record else "")
    key = f"{key_of(run.model, run.device, batch_shape)} {formats} {'shared' if same_seed else 'apart'}"
    entry = recall(STORE).get(key, {})
    known: dict[str, float] = entry.get("rates", {})
    rounds, until = entry.get("rounds", 0), time.monotonic() + LONG
    lacking = any(str(size) not in known for size in _worth_looking(sizes, known))
    left = ROUNDS if lacking or (rounds < SURE and not _pays(known, sizes)) else 0
    neighbours = Neighbours() if run.device.type == "cpu" else None
    while left > 0:
        for size in _worth_looking(sizes, known):
            try:
                rate = _rate(run, size, same_seed, batch_shape)
            except torch.cuda.OutOfMemoryError:
                rate = None  # the error, which holds on to the activations, ends here
            if rate is None:
                give_back()
                sizes = sizes[: sizes.index(size)]
                break
            known[str(size)] = max(round(rate), known.get(str(size), 0))
            remember(STORE, key, {"rates": known, "rounds": rounds}, neighbours)
        rounds, left = rounds + 1, left - 1
        remember(STORE, key, {"rates": known, "rounds": rounds}, neighbours)
        if left == 0 and rounds < SURE and not _pays(known, sizes) and time.monotonic() < until:
            left = 1
    return {str(size): known[str(size)] for size in _worth_looking(sizes, known)}


def _worth_looking(sizes: Sequence[int], known: Mapping[str, float]) -> Iterator[int]:
    """Yields sizes, the smallest first, until two in a row are far behind the best; reads their rates as it goes."""
    best, behind = 0.0, 0
    for size in sizes:
        yield size
        rate = known.get(str(size), 0.0)
        best = max(best, rate)
        behind = behind + 1 if rate < FALLING * best else 0
        if behind == 2:
            return


def _pays(known: Mapping[str, float], sizes: Sequence[int]) -> bool:
    """Whether some size is fast enough, or there is none to choose from."""
    rates = [known.get(str(size), 0.0) for size in sizes]
    return len(rates) < 2 or max(rates[1:]) >= NEEDED_GAIN * rates[0]


def example(model: nn.Module) -> StackProbe | None:
    """Returns a stack of four such models that drop nothing, to be measured; None where they can't be stacked."""
    try:
        stacked = stack_models([without_dropout(model) for _ in range(EXAMPLE)])
    except Exception:  # why not is said where jobs are stacked
        return None
    return StackProbe(stacked, EXAMPLE, NEEDED_GAIN)


def candidates(jobs: int, limit: int) -> list[int]:
    """Returns the sizes to try: one, and what is left of all jobs when they are halved again and again."""
    sizes = {1}
    while jobs > 1:
        if jobs <= min(limit, LARGEST):
            sizes.add(jobs)
        jobs = -(-jobs // 2)
    return sorted(sizes)


def affordable(run: Trainer, batch_shape: tuple[int, int, int, int]) -> int:
    """Returns how many runs' activations and weights fit into the free memory."""
    kept: dict[int, int] = {}

    def keep(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    cuda = [run.device] if run.device.type == "cuda" else []
    with torch.random.fork_rng(devices=cuda), torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        probe = copy.deepcopy(run.model).train()
        with autocast(run.device, run.precision):
            probe(torch.randn(batch_shape, device=run.device)).sum()
    weights = sum(p.numel() * p.element_size() for p in run.model.parameters())
    # The backward pass holds a gradient beside each activation; optimizers keep up to two numbers for each weight, and
    # a stack's SGD on a GPU five more (`fused.sgd`).
    each = 2 * sum(kept.values()) + 10 * weights
    return max(1, int(MEMORY_SHARE * free_memory(run.device) / each))


def free_memory(device: torch.device) -> int:
    """Returns the bytes that are free; what PyTorch keeps of memory that was freed is its to use again."""
    if device.type != "cuda":
        return processes.free_memory()
    kept = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
    return int(torch.cuda.mem_get_info(device)[0]) + kept


def give_back() -> None:
    """Has PyTorch give the GPU memory back that it keeps for later."""
    with suppress(RuntimeError):  # a recording that was broken off may still hold on to some
        torch.cuda.empty_cache()


def _rate(run: Trainer, size: int, same_seed: bool, batch_shape: tuple[int, int, int, int]) -> float:
    """Returns the model-images/s of a forward and backward pass; the run and the generators stay untouched."""
    device, (batch, channels, height, width) = run.device, batch_shape
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        # A stack's dropouts would need generators, and the draws take no time to speak of.
        copies = [without_dropout(run.model) for _ in range(size)]
        model = (copies[0] if size == 1 else stack_models(copies)).train()
        shape = (batch, channels * (1 if same_seed else size), height, width)
        memory_format = getattr(torch, run.memory_format)
        images = torch.randn(shape, device=device).contiguous(memory_format=memory_format)
        if not same_seed:
            apart = [part.contiguous(memory_format=memory_format) for part in images.split(channels, 1)]
            give(model, Given(images, (1,) * size, apart))

        def step() -> None:
            with autocast(run.device, run.precision):
                logits = at_least_fp32(model(images))
            logits.log_softmax(1).sum().backward()

        # The fastest: what else the machine does can only slow a step down, several times where threads wait.
        seconds = (
            seconds_when_recorded(step, device)
            if run.record
            else min([_timed(step, device) for _ in range(REPEATS + 1)][1:])
        )
        return size * batch / seconds


def _timed(step: Callable[[], None], device: torch.device) -> float:
    start = time.perf_counter()
    step()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter() - start


def split(jobs: Sequence[int], size: int) -> list[list[int]]:
    """Splits jobs into as few stacks of at most `size` as possible, as equal as possible."""
    count = -(-len(jobs) // size)
    bounds = [round(i * len(jobs) / count) for i in range(count + 1)]
    return [list(jobs[a:b]) for a, b in itertools.pairwise(bounds)]
