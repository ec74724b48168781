"""Whether `torch.compile` pays within a run: measured if the run is long enough, then read from the cache."""

import logging
import math
import os
import shutil
from functools import partial

import torch

from cifar_tuning.errors import UserError, wants_traces
from cifar_tuning.text import first_line
from cifar_tuning.training.measurement_cache import key_of, measured_once, recall
from cifar_tuning.training.probe import NEEDED_GAIN, Formats, Probe, Workload

log = logging.getLogger(__name__)

STORE = "compile"
# Seconds that a compilation takes at most on two cores (ResNet-20; a busy machine may take longer).
EXPECTED = 60.0
# Largest share of a run's time in eager mode that a compilation may cost to find out; mostly it does not pay.
SHARE = 0.05
# Rounds of a measurement, eager and compiled steps in turn.
ROUNDS = 4


def resolve_compile(asked: bool | str, work: Workload, formats: Formats, steps: int, began: bool | None = None) -> bool:
    """Returns whether to compile: what was asked for, or what makes the run shorter for `auto`.

    Args:
        asked: true, false or `auto`.
        work: what is trained, in its memory format.
        formats: what it is computed in.
        steps: that the run takes, all its epochs'.
        began: whether a resumed run was compiled; `auto` keeps to that. None: it is a new one.

    Raises:
        UserError: `true` on a CPU, without the compiler that PyTorch would call.
    """
    compiler = missing_compiler()
    if asked is True and compiler is not None and work.device.type == "cpu":
        raise UserError(
            f"trainer.compile=true: torch.compile needs a C++ compiler, and {compiler} is not here; install one "
            "(Debian and Ubuntu: apt-get install g++), name another one in CXX, or leave trainer.compile=false."
        )
    if isinstance(asked, bool):
        return asked
    if compiler is not None:
        log.info("not compiled: there is no C++ compiler (%s) here", compiler)
        return False
    if began is not None:
        return began
    key = f"{key_of(work.model, work.device, work.batch_shape)} {formats}" + (" recorded" if work.record else "")
    if key not in recall(STORE):
        eager = Probe(formats, work).seconds()
        if SHARE * eager * steps < EXPECTED:
            log.info("not compiled: a run of about %.0f s is too short to find out whether that pays", eager * steps)
            return False
    found: dict[str, float] | None = measured_once(STORE, key, work.device, partial(_measure, formats, work))
    return found is not None and _pays(found, steps)


def missing_compiler() -> str | None:
    """Returns the name of the C++ compiler that PyTorch would call and that is not there; None if there is one."""
    names = [os.environ["CXX"]] if os.environ.get("CXX") else ["g++", "clang++"]
    return None if any(shutil.which(name) for name in names) else " or ".join(names)


def _measure(formats: Formats, work: Workload) -> dict[str, float] | None:
    """Returns the seconds of a compilation, and of a training step with and without; None if it can't be compiled."""
    log.info("finding out once whether to compile: this takes up to a minute or two")
    try:
        eager, compiled = Probe(formats, work), Probe(formats, work)
        compiled.model = torch.compile(compiled.model)  # type: ignore[assignment]
        seconds = {"compilation": compiled.step(), "compiled": math.inf, "eager": math.inf}
        for _ in range(ROUNDS):
            seconds["eager"] = min(seconds["eager"], eager.seconds())
            seconds["compiled"] = min(seconds["compiled"], compiled.seconds())
    except Exception as error:
        reason = first_line(str(error))[:200]
        log.info("not compiled: that failed (%s: %s)", type(error).__name__, reason, exc_info=wants_traces(log))
        return None
    return {name: round(value, 6) for name, value in seconds.items()}


def _pays(found: dict[str, float], steps: int) -> bool:
    with_it, without = found["compilation"] + steps * found["compiled"], steps * found["eager"]
    pays = without > NEEDED_GAIN * with_it
    log.info(
        "compiling takes %.0f s and makes a step %.2f times as fast: %scompiled for %d steps",
        found["compilation"],
        found["eager"] / found["compiled"],
        "" if pays else "not ",
        steps,
    )
    return pays
