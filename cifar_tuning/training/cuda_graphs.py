"""CUDA graphs: what a step does on a GPU is recorded once and then replayed, so that the host launches nothing."""

import gc
import logging
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Any

import torch
from torch import Tensor, nn

from cifar_tuning.models.layers import is_hooked
from cifar_tuning.text import first_line

log = logging.getLogger(__name__)

# Calls before a recording: libraries choose their kernels and allocate, optimizers make their buffers.
WARM_UP = 3
# Packages whose layers do the same in every step; a user's own code may not.
KNOWN_PACKAGES = ("torch.nn.", "cifar_tuning.", "torchvision.models.", "torchvision.ops.")
# Steps timed together, and times that this is done; the fastest counts.
TIMED, ROUNDS = 5, 3

Work = Callable[..., None]

# One for all that is recorded on a device: cuBLAS keeps some 60 MiB for each stream that it has ever worked in.
_streams: dict[int, torch.cuda.Stream] = {}


class NotRecordedError(RuntimeError):
    """What was to be measured as a CUDA graph can't be recorded."""


def resolve_recording(asked: bool | str, model: nn.Module, regularizer: object, device: torch.device) -> bool:
    """Returns whether to record the steps of a run.

    Args:
        asked: true, false or `auto`: where all code of a step is known to do the same each time.
        model: what is trained.
        regularizer: takes part in each step's loss.
        device: where.
    """
    if device.type != "cuda" or asked is False:
        return False
    if asked is True:
        return True
    own = [part for part in (*model.modules(), regularizer) if not _is_known(part)]
    if own:
        log.info(
            "steps are not recorded as CUDA graphs, which is slower for small networks: %s has code of its own; "
            "trainer.cuda_graphs=true records them if that does the same in every step",
            type(own[0]).__name__,
        )
    return not own


def _is_known(part: object) -> bool:
    if isinstance(part, nn.Module):
        if is_hooked(part) or "forward" in vars(part):
            return False
        if getattr(part, "momentum", 0.0) is None:  # a batch norm that counts batches on the host
            return False
    return f"{type(part).__module__}.".startswith(KNOWN_PACKAGES)


def _stream(device: torch.device) -> torch.cuda.Stream:
    """Returns the stream in which a device's recordings are made."""
    index = torch.cuda.current_device() if device.index is None else device.index
    if index not in _streams:
        _streams[index] = torch.cuda.Stream(index)
    return _streams[index]


class Recorded:
    """Does the same work on a GPU again and again: the first times as it is, then as a CUDA graph.

    The kernels of a small network take a GPU a few microseconds each, and the host as long to launch each of them; a
    graph is launched as a whole (PyTorch's documentation, "CUDA semantics", CUDA Graphs).

    Args:
        device: a GPU.
        generators: that the work draws from, besides the device's own.
        what: the work in words, for the warning that it can't be recorded.
    """

    def __init__(
        self, device: torch.device, generators: Sequence[torch.Generator] = (), what: str = "a training step"
    ) -> None:
        self.device, self.generators, self.what = device, list(generators), what
        self.recordings = 0
        self._stream = _stream(device)
        self._like: object = None
        self._calls = 0
        self._graph: torch.cuda.CUDAGraph | None = None
        self._inputs: list[Tensor] = []
        self._possible = True

    @property
    def recording(self) -> int | None:
        """The number of the recording that is replayed now; None: there is none."""
        return None if self._graph is None else self.recordings

    def __call__(self, work: Work, *inputs: Tensor, key: object = None) -> None:
        """Does the work, or replays it.

        Args:
            work: always does the same with its inputs, keeps none of them, and never waits for the device.
            inputs: on the device. Once recorded, the work is given copies whose memory stays.
            key: what else the work depends on; whenever it or the inputs' shapes change, the work is recorded anew.

        Raises:
            OutOfMemoryError: the work does not fit into the device's memory even as it is.
        """
        like = (key, *((tuple(one.shape), one.stride(), one.dtype) for one in inputs))
        if like != self._like:
            self._like, self._calls, self._possible = like, 0, True
            self.forget()
        if self._graph is None:
            self._calls += 1
            if self._calls > WARM_UP and self._possible:
                self._record(work, inputs)
        if self._graph is None:
            with self._aside():
                work(*inputs)
            return
        for mine, given in zip(self._inputs, inputs, strict=True):
            mine.copy_(given)
        self._graph.replay()

    def forget(self) -> None:
        """Frees the graph and the memory that it works in."""
        self._graph, self._inputs = None, []

    def _record(self, work: Work, inputs: Sequence[Tensor]) -> None:
        """Makes the graph; where that fails the work is done as it is from then on."""
        reason = ""
        for _ in range(2):
            try:
                self._capture(work, inputs)
                return
            except torch.cuda.OutOfMemoryError as error:
                reason = str(error)
            except RuntimeError as error:
                reason = str(error)
                break
            # While it records PyTorch gives nothing back of what it keeps for later. Here it does, because the error,
            # which held on to what was computed, is gone.
            with suppress(RuntimeError):
                torch.cuda.empty_cache()
        self._possible = False
        said = first_line(reason)[:200]
        log.warning("Goes on without CUDA graphs, which is slower: %s could not be recorded (%s).", self.what, said)

    def _capture(self, work: Work, inputs: Sequence[Tensor]) -> None:
        graph = torch.cuda.CUDAGraph()
        for generator in self.generators:
            graph.register_generator_state(generator)
        copies = [one.clone() for one in inputs]
        torch.cuda.synchronize(self.device)
        collects = gc.isenabled()
        gc.disable()  # it might free another graph's memory meanwhile, which CUDA takes for an error
        try:
            with torch.cuda.device(self.device), torch.cuda.stream(self._stream):
                # Memory of its own: a pool that others worked in is none any more when all their graphs are gone.
                pool = torch.cuda.graph_pool_handle()
                graph.capture_begin(pool, capture_error_mode="thread_local")
                try:
                    work(*copies)
                finally:
                    self._end(graph, pool)
        finally:
            if collects:
                gc.enable()
        self._graph, self._inputs = graph, copies
        self.recordings += 1

    def _end(self, graph: torch.cuda.CUDAGraph, pool: Any) -> None:
        """Ends a recording, also one that CUDA has broken off.

        By hand, as `torch.cuda.graph` does not: PyTorch's older versions take it that such a one still goes on, and who
        draws a random number or gives memory back later would have its error. Newer ones know, and refuse.
        """
        try:
            graph.capture_end()
        except RuntimeError:
            index = self._stream.device_index
            for generator in (torch.cuda.default_generators[index], *self.generators):
                if not _can_draw(generator):
                    generator.graphsafe_set_state(generator.clone_state())
            with suppress(RuntimeError):
                torch._C._cuda_endAllocateToPool(index, pool)
            with suppress(RuntimeError):
                torch._C._cuda_releasePool(index, pool)
            raise

    @contextmanager
    def _aside(self) -> Iterator[None]:
        """Runs work on the capture stream: autograd binds a weight's gradient to the stream of its first use."""
        here = torch.cuda.current_stream(self.device)
        self._stream.wait_stream(here)
        with torch.cuda.stream(self._stream):
            yield
        here.wait_stream(self._stream)


def _can_draw(generator: torch.Generator) -> bool:
    """Whether a generator on a GPU gives random numbers; it stands where it stood."""
    try:
        state = generator.get_state()
        torch.empty(1, device=generator.device).uniform_(generator=generator)
        generator.set_state(state)
    except RuntimeError:
        return False
    return True


def seconds_when_recorded(work: Callable[[], None], device: torch.device) -> float:
    """Returns the seconds that recorded work takes on a GPU, the fastest of several measurements.

    Raises:
        NotRecordedError: it can't be recorded.
    """
    recorded = Recorded(device)

    def several() -> float:
        start = time.perf_counter()
        for _ in range(TIMED):
            recorded(work)
        torch.cuda.synchronize(device)
        return (time.perf_counter() - start) / TIMED

    several()
    if recorded.recording is None:
        raise NotRecordedError("the work can't be recorded as a CUDA graph")
    return min(several() for _ in range(ROUNDS))
