"""Time stamps of work on a device; on a GPU they are events, recorded when the work is done."""

import time

import torch


def now(device: torch.device) -> float | torch.cuda.Event:
    """Returns the time in seconds; on a GPU when it will have done what it was given to do."""
    if device.type != "cuda":
        return time.perf_counter()
    event = torch.cuda.Event(enable_timing=True)
    event.record(torch.cuda.current_stream(device))
    return event


def seconds_between(began: float | torch.cuda.Event, ended: float | torch.cuda.Event) -> float:
    """Returns the seconds between two times, both over by now."""
    if isinstance(began, float) or isinstance(ended, float):
        assert isinstance(began, float)
        assert isinstance(ended, float)
        return ended - began
    return float(began.elapsed_time(ended)) / 1000
