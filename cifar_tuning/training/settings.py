"""The `trainer` config group: how long to train, and on what."""

import logging
import re
from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import nn

from cifar_tuning.errors import UserError
from cifar_tuning.numeric import is_number, is_whole
from cifar_tuning.option_rules import BELOW_ONE, FLAG, UP_TO_ONE, Rule, broken, number, one_of, raise_all, whole

log = logging.getLogger(__name__)

PRECISIONS = ("auto", "fp32", "bf16")
# By the names that they have in `torch`.
MEMORY_FORMATS = ("auto", "channels_last", "contiguous_format")
# Beta(α, α) is a spike at one half long before that.
MAX_MIXUP = 100
AUTO = Rule(lambda value: isinstance(value, bool) or value == "auto", "true, false or auto")
RULES = {
    "epochs": whole(1),
    "precision": one_of(PRECISIONS),
    "memory_format": one_of(MEMORY_FORMATS),
    "compile": AUTO,
    "cuda_graphs": AUTO,
    "deterministic": FLAG,
    "label_smoothing": BELOW_ONE,
    "class_weights": Rule(lambda value: value in (None, "balanced"), "balanced or null"),
    "mixup": number(lambda value: 0 <= value <= MAX_MIXUP, f"a number from 0 to {MAX_MIXUP}"),
    "ema_decay": BELOW_ONE,
    "patience": Rule(lambda value: value is None or is_whole(value, 1), "a whole number, 1 or above, or null"),
    "max_grad_norm": Rule(lambda value: value is None or (is_number(value) and value > 0), "a number above 0, or null"),
    "initial_scale": number(lambda value: 0 < value <= 1, "a number above 0 and at most 1"),
    "delay_fraction": UP_TO_ONE,
    "finetune_fraction": UP_TO_ONE,
}


@dataclass(frozen=True)
class TrainerSettings:
    """How long, where and in which precision to train.

    Args:
        epochs: passes over the training images.
        patience: epochs without a better validation accuracy (of the average, where there is one) after which a run
            ends; None: it has all its epochs.
        device: `auto` (a GPU if there is one), `cpu`, `cuda` or `cuda:1` and so on.
        precision: `fp32`, `bf16` (autocast; weights stay fp32) or `auto`, the faster of the two by a short
            measurement that is remembered per model and machine.
        memory_format: `channels_last` (N×H×W×C in memory), `contiguous_format` (N×C×H×W) or `auto`, the faster of the
            two by the same measurement.
        compile: run the model through `torch.compile` in training; `auto`: where that pays within the run, by a
            measurement that is taken where the run is long enough for it.
        cuda_graphs: record steps and evaluation on a GPU and replay them, so that the host need not launch each kernel;
            `auto`: where all layers are PyTorch's, torchvision's or ours. A model whose code does something else in
            each step must not be recorded.
        deterministic: ask for bitwise repeatable kernels on CUDA too, at some cost in speed. On a CPU the
            same seed on the same machine always repeats.
        label_smoothing: share of each label that is spread over all classes in training (Szegedy et al. 2016);
            `train/loss` then includes it, `val/loss` does not.
        class_weights: `balanced` has each class weigh the same in the training loss, however many images it has, as
            scikit-learn's `class_weight` does; `train/loss` is then weighted, `val/loss` is not. None: each image does.
        mixup: α of mixup (Zhang et al. 2018): each batch is mixed with itself in another order; 0: it is not.
            `train/acc` then counts the class of the larger share.
        ema_decay: what the exponential moving average of the weights keeps of itself at each step (Polyak and Juditsky
            1992); such as 0.995. Validation and `best.pt` take the average, which
            keeps less of itself in the first steps. 0: there is none.
        max_grad_norm: longer gradients, all weights' taken as one vector, are shortened to this norm before each update
            (Pascanu et al. 2013); None: they are not.
        initial_scale: progressive resizing: the training images' side at the beginning, as a share of the whole;
            1: they are whole from the beginning.
        delay_fraction: share of the epochs with the initial size.
        finetune_fraction: share of the epochs, the last ones, with whole images.

    Raises:
        ValueError: an option is out of range; the message names all that are.
    """

    epochs: int = 30
    patience: int | None = None
    device: str = "auto"
    precision: str = "auto"
    memory_format: str = "auto"
    compile: bool | str = False
    cuda_graphs: bool | str = "auto"
    deterministic: bool = False
    label_smoothing: float = 0.0
    class_weights: str | None = None
    mixup: float = 0.0
    ema_decay: float = 0.0
    max_grad_norm: float | None = None
    initial_scale: float = 1.0
    delay_fraction: float = 0.5
    finetune_fraction: float = 0.2

    def __post_init__(self) -> None:
        raise_all(self.check(**vars(self)))

    @staticmethod
    def check(**options: object) -> list[str]:
        """Returns a line for each option that is out of range; empty if all are right."""
        problems = broken("trainer", RULES, options) + check_device(options["device"])
        delay, finetune = options["delay_fraction"], options["finetune_fraction"]
        if is_number(delay) and is_number(finetune) and delay <= 1 and finetune <= 1 and delay + finetune > 1:
            together = f"and delay_fraction={delay} must not be more than 1 together"
            problems.append(f"trainer.finetune_fraction={finetune}: {together}")
        return problems


def check_device(device: object, key: str = "trainer.device") -> list[str]:
    """Returns what is wrong with a device's name, or that this machine lacks it; empty if nothing is."""
    if not isinstance(device, str) or not re.fullmatch(r"auto|cpu|cuda(:\d+)?", device):
        on_a_mac = "; a Mac trains on its processor (auto or cpu)" if str(device).startswith("mps") else ""
        return [f"{key}={device}: must be auto, cpu, cuda or cuda:N{on_a_mac}"]
    if not device.startswith("cuda"):
        return []
    if not torch.cuda.is_available():
        built = "PyTorch sees none" if torch.version.cuda else "this PyTorch was built without CUDA"
        return [f"{key}={device}: no CUDA device here ({built}); use {key}=cpu or auto"]
    index = int(device.partition(":")[2] or 0)
    count = torch.cuda.device_count()
    if index >= count:
        return [f"{key}={device}: this machine has {count} CUDA devices, numbered from 0"]
    return []


def resolve_device(device: str) -> torch.device:
    """Returns the device that a valid `trainer.device` means; for a process that is about to use it.

    Raises:
        UserError: the installed PyTorch was not built for the GPU that was asked for; `auto` passes it over.
    """
    if device == "cpu" or (device == "auto" and not torch.cuda.is_available()):
        return torch.device("cpu")
    found = torch.device("cuda" if device == "auto" else device)
    if not _was_built_for(found):
        problem = f"PyTorch {torch.__version__} was not built for {torch.cuda.get_device_name(found)}"
        advice = "pytorch.org names the builds for older GPUs"
        if device != "auto":
            raise UserError(f"device {device}: {problem}; {advice}, or take cpu")
        log.warning("%s; the processor takes its place. %s.", problem, advice)
        return torch.device("cpu")
    return found


@lru_cache
def _was_built_for(device: torch.device) -> bool:
    """Whether a GPU can run PyTorch's kernels at all: wheels leave out older ones, and still call them available."""
    try:
        torch.ones(1, device=device)
    except RuntimeError as error:
        if "no kernel image" in str(error):
            return False
        raise
    return True


def place(model: nn.Module, device: torch.device, memory_format: str = "channels_last") -> nn.Module:
    """Moves a model to the device, into a memory format: `channels_last` or `contiguous_format`."""
    placed: nn.Module = model.to(device=device, memory_format=getattr(torch, memory_format))  # type: ignore[call-overload]
    return placed
