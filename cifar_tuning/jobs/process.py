"""What a command sets up before Hydra takes over; imports nothing heavy."""

import atexit
import errno
import gc
import io
import logging
import os
import signal
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any

from omegaconf import OmegaConf

from cifar_tuning import PROJECT_ROOT
from cifar_tuning.errors import UserError, full_disk, full_errors
from cifar_tuning.jobs.command_words import check_overrides
from cifar_tuning.processes import cores, stop, visible_cores
from cifar_tuning.targets import PRUNERS, SAMPLERS, TORCHVISION_MODELS, trusted_by_user
from cifar_tuning.tuning import plugin  # noqa: F401  registers the resolvers that conf/ uses
from cifar_tuning.tuning.overlays import register
from cifar_tuning.user_code import user_modules, user_traceback

# New objects until the garbage collector looks through them, and how often it does so before it looks through the
# survivors too. Imports make a million objects and hardly any garbage; with Python's 700 and 10 the collector takes a
# quarter of a short job's time.
_WHILE_IMPORTING, _COLLECT_AFTER = (1_000_000, 20), (100_000, 20)

# Loggers of others that bury a job's own lines where hydra.verbose=true asks for all. hydra.verbose=matplotlib has its.
_TALKATIVE = ("matplotlib", "PIL", "filelock", "urllib3", "alembic")

# What a configuration may call. Hydra refuses any other `_target_`, so that a config found on the web, or in a
# checkpoint, can't run commands. Of ours it may call the parts alone: there is code here that starts processes, fetches
# files and writes some.
_TRUSTED = [
    *(f"cifar_tuning.data.{name}" for name in ("CIFAR10", "ImageFolder", "Synthetic", "TorchvisionData")),
    *(f"cifar_tuning.data.{name}" for name in ("NoAugmentation", "CropFlip", "TransformsV2")),
    "cifar_tuning.models.*",
    *(f"cifar_tuning.training.{name}" for name in ("Regularizer", "L1", "L2", "ElasticNet", "TrainerSettings")),
    "cifar_tuning.training.regularizers.*",
    "cifar_tuning.training.schedules.*",
    *(f"cifar_tuning.tracking.{name}" for name in ("MLflowTracker", "NoTracker", "callback.SweepRun")),
    *(f"cifar_tuning.jobs.callback.{name}" for name in ("Sweep", "TrackedSweep")),
    *(f"cifar_tuning.tuning.spaces.{name}" for name in ("schedules", "resnet20")),
    *SAMPLERS,
    *PRUNERS,
    *TORCHVISION_MODELS,
    "torch.optim.*",
    "torch.nn.*",
    "torchvision.transforms.*",
    "hydra.experimental.callbacks.LogJobReturnCallback",  # does nothing any more
]


def _in_proportion(part: int, whole: int, *, _root_: Any) -> int:
    # ${of_epochs:50,200} keeps a schedule's shape when trainer.epochs is not the 200 that it was made for.
    epochs: int = _root_.trainer.epochs
    return max(1, round(epochs * part / whole))


def _callback_targets(*, _root_: Any) -> dict[str, str]:
    targets = {name: OmegaConf.select(_root_, f"hydra.callbacks.{name}._target_") for name in _root_.hydra.callbacks}
    return {name: str(target) for name, target in targets.items() if target is not None}


def _classes_in(root: Any, *, _parent_: Any) -> list[str] | None:
    from cifar_tuning.data.listing import OPTIONS, classes_in

    return classes_in(root, **{name: _parent_.get(name) for name in OPTIONS})


OmegaConf.register_resolver("project_root", lambda: str(PROJECT_ROOT), replace=True)
OmegaConf.register_resolver("of_epochs", _in_proportion, replace=True)
OmegaConf.register_resolver("callback_targets", _callback_targets, replace=True)
OmegaConf.register_resolver("classes_in", _classes_in, replace=True)
register()


def trusted_targets() -> list[str]:
    """Returns Hydra's execution whitelist: ours, the user's own modules, and what they declare.

    The user's own modules are the Python files and packages in the project's root and in the folder where the
    command is typed; `CIFAR_TUNING_TRUST=timm.*,my_package.*` adds installed packages.
    """
    return [*_TRUSTED, *(f"{name}.*" for name in user_modules()), *trusted_by_user()]


def start() -> None:
    """Prepares the process of a command: imports from where it was typed, short errors, a clean SIGTERM.

    The garbage collector looks more rarely while it runs, and takes no objects apart at its end.

    Raises:
        UserError: nothing can be run here.
    """
    if str(Path.cwd()) not in sys.path:
        sys.path.append(str(Path.cwd()))
    print_whatever_comes()
    sys.excepthook = _short_for_users(sys.excepthook)
    logging.Handler.handleError = _once_on_a_full_disk(logging.Handler.handleError)  # type: ignore[assignment, method-assign]
    check_machine()
    check_overrides(sys.argv)
    for name in _TALKATIVE:
        logging.getLogger(name).setLevel(logging.WARNING)
    # The default would end the process at once and leave its MLflow run RUNNING.
    signal.signal(signal.SIGTERM, stop)
    gc.set_threshold(*_WHILE_IMPORTING)
    gc.callbacks.append(_after_first_collection)  # in processes that train nothing, too
    fix_workspace()
    share_cores()
    # Python would look for cycles in all that is still there, and free it object by object.
    atexit.register(gc.freeze)


def fix_workspace() -> None:
    """Has cuBLAS repeat itself (trainer.deterministic=true), which it only does with a fixed workspace.

    It reads that once a process: a sweep's second job would be too late.
    """
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")


def collect_garbage() -> None:
    """Has the collector look more often, now that nearly all is imported; does nothing in a process not ours.

    What is there by now it leaves alone from then on: modules, and a process's first configuration.
    """
    if gc.get_threshold()[:2] == _WHILE_IMPORTING:
        gc.freeze()
        gc.set_threshold(*_COLLECT_AFTER)


def _after_first_collection(phase: str, info: dict[str, int]) -> None:
    if phase == "stop":
        gc.callbacks.remove(_after_first_collection)
        collect_garbage()


def print_whatever_comes() -> None:
    """Has a terminal that lacks a character show another one, and output that was closed go nowhere.

    Else a `±` ends a command at its last table, under an old locale or PYTHONIOENCODING, and a sweep ends when the
    program behind its pipe does (`| head`, `| less`).
    """
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is None:
            setattr(sys, name, Path(os.devnull).open("w", encoding="utf-8"))  # noqa: SIM115  to the process's end
            continue
        if isinstance(stream, io.TextIOWrapper) and stream is getattr(sys, f"__{name}__"):
            stream = _unbreakable(stream)
            setattr(sys, name, stream)
        if isinstance(stream, io.TextIOWrapper) and stream.errors in ("strict", "surrogateescape"):
            stream.reconfigure(errors="replace")


def _once_on_a_full_disk(
    usual: Callable[[logging.Handler, logging.LogRecord], None],
) -> Callable[[logging.Handler, logging.LogRecord], None]:
    """Has one line say that a log's disk takes no more, in place of a traceback for each line of the log."""
    said = False

    def handle(handler: logging.Handler, record: logging.LogRecord) -> None:
        nonlocal said
        error = sys.exc_info()[1]
        full = None if error is None or full_errors() else full_disk(error, "until then logs lack lines")
        if full is None:
            usual(handler, record)
        elif not said:
            said = True
            with suppress(OSError):  # it may be on that disk too
                print(f"{getattr(handler, 'baseFilename', 'A log')} can't be written: {full}", file=sys.stderr)

    return handle


class _Unbreakable(io.FileIO):
    """A descriptor that leads nowhere once nobody reads it any more, for child processes too."""

    def write(self, data: Any, /) -> int:
        try:
            return super().write(data)
        except OSError as error:
            if error.errno not in (errno.EPIPE, errno.EIO):  # the latter of a terminal that is gone
                raise
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, self.fileno())
            os.close(nowhere)
            return super().write(data)


def _unbreakable(stream: io.TextIOWrapper) -> io.TextIOWrapper:
    """Returns a stream to the same descriptor, which the first one keeps open."""
    stream.flush()
    raw = _Unbreakable(stream.fileno(), "w", closefd=False)
    return io.TextIOWrapper(
        raw if isinstance(stream.buffer, io.RawIOBase) else io.BufferedWriter(raw),
        encoding=stream.encoding,
        errors=stream.errors,
        line_buffering=stream.line_buffering,
        write_through=stream.write_through,
    )


def share_cores() -> None:
    """Has PyTorch start no more threads than the container has cores; for before it is imported.

    It starts one for each core that it sees. Where fewer may be used (`docker --cpus`, Kubernetes), the kernel stops
    all of them for most of the time.
    """
    if cores() < visible_cores():
        os.environ.setdefault("OMP_NUM_THREADS", str(cores()))


def check_machine() -> None:
    """Says what keeps every command from running here.

    Raises:
        UserError: it is Windows, or the user has no home directory, in which MLflow and others keep something.
    """
    if sys.platform == "win32":
        raise UserError(
            "Windows is not supported: workers, signals and locks are those of Linux and macOS. Run it in WSL 2 "
            "(https://learn.microsoft.com/windows/wsl/install)."
        )
    try:
        Path.home()
    except RuntimeError as error:
        raise UserError(
            "This user has no home directory: set HOME to a folder of yours that can be written to, such as "
            'export HOME="$PWD".'
        ) from error


def _short_for_users(
    usual: Callable[[type[BaseException], BaseException, TracebackType | None], Any],
) -> Callable[[type[BaseException], BaseException, TracebackType | None], Any]:
    def hook(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
        if isinstance(error, UserError):
            print(f"error: {error}", file=sys.stderr)
        elif isinstance(error, KeyboardInterrupt):
            print("Interrupted.", file=sys.stderr)
        elif not full_errors() and (full := full_disk(error)) is not None:  # Hydra's own files
            print(f"error: {full}", file=sys.stderr)
        elif not full_errors() and (own := user_traceback(error.with_traceback(trace))) is not None:
            # The rest is PyTorch's and ours, some thirty lines, which would bury a sweep's table.
            print(own + "Only the frames of your own files; HYDRA_FULL_ERROR=1 shows all.", file=sys.stderr)
        else:
            usual(kind, error, trace)

    return hook
