"""Checkpoints: everything needed to go on as if nothing had happened, written all or not at all."""

import dataclasses
import io
import logging
import pickle
import shutil
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn.parameter import is_lazy

from cifar_tuning.errors import UserError
from cifar_tuning.files import written
from cifar_tuning.text import first_line
from cifar_tuning.training.events import EpochMetrics, Progress
from cifar_tuning.training.host_copy import OnHost

log = logging.getLogger(__name__)

FORMAT = 1
# What a run's parts make themselves, under the names that a `Checkpoint` has for it.
STATES = ("model", "unaveraged", "optimizer", "schedule")
# What to do with another version's.
USE_IT = "use it with the version that wrote it, or train again."
# What PyTorch and Python raise where something can't be written, or not be read without running code.
UNREADABLE = (pickle.PickleError, TypeError, AttributeError)


@dataclasses.dataclass
class Checkpoint:
    """The state of a run after an epoch.

    `model` is what predicts; where that is an average of the weights of `averaged_steps` steps, `unaveraged` is what is
    trained on.
    `config` is the job's whole resolved configuration, so that the model can be built again from the file
    alone; `run_id` is its MLflow run, if it has one; `precision`, `memory_format` and
    `compile` are what `auto` came to.
    """

    model: dict[str, Any]
    optimizer: dict[str, Any]
    schedule: dict[str, Any]
    generators: dict[str, Any]
    progress: Progress
    config: dict[str, Any]
    run_id: str | None = None
    precision: str = "fp32"
    memory_format: str = "channels_last"
    compile: bool = False
    unaveraged: dict[str, Any] | None = None
    averaged_steps: int = 0


def generator_states(device: torch.device, own: torch.Generator | None = None) -> dict[str, Any]:
    """Returns the states of PyTorch's global random generators, which dropout draws from: the CPU's, the run's GPU's.

    Args:
        device: of the run.
        own: what the run draws from instead of its device's global one.
    """
    if device.type == "cpu":
        return {"cpu": torch.get_rng_state() if own is None else own.get_state(), "cuda": []}
    state = torch.cuda.get_rng_state(device) if own is None else own.get_state()
    return {"cpu": torch.get_rng_state(), "cuda": [state]}


def restore_generators(states: dict[str, Any], device: torch.device) -> None:
    """Restores what `generator_states` returned; a GPU's state on whichever GPU the run has now."""
    torch.set_rng_state(states["cpu"])
    if device.type == "cuda" and states["cuda"]:
        torch.cuda.set_rng_state(states["cuda"][0], device)
    elif device.type == "cuda" or states["cuda"]:
        log.warning("The run began on another kind of device: dropout, if it has any, draws other numbers from now on.")


class Taken:
    """A checkpoint as it was when this was made: what is trained on, on a GPU as well, no longer changes it.

    To write it takes as long as a dozen steps of a small network on a GPU, which can do them meanwhile.
    """

    def __init__(self, checkpoint: Checkpoint) -> None:
        self._content = vars(checkpoint).copy()
        self._state = OnHost({name: self._content[name] for name in STATES})
        progress = checkpoint.progress  # of an epoch's figures nothing changes, more of them come
        self._progress = dataclasses.replace(progress, history=list(progress.history))

    def write(self, *paths: Path) -> None:
        """Writes the checkpoint to each path, all or nothing.

        Raises:
            OSError: the folder can't be written to.
            UserError: it can't be written, or is the run's first and could not be read again.
        """
        content = self._content | self._state.copied()
        content |= {"progress": dataclasses.asdict(self._progress), "format": FORMAT}
        buffer = io.BytesIO()
        try:
            torch.save(content, buffer)
            if self._progress.epoch == 0:  # that nobody can read it must not come to light behind the training
                _read(buffer)
        except UNREADABLE as error:
            raise _refusal(content, error) from error
        for path in paths:
            with written(path) as partial:
                partial.write_bytes(buffer.getbuffer())


def _read(file: Path | io.BytesIO) -> Any:
    if isinstance(file, io.BytesIO):
        file.seek(0)
    return torch.load(file, weights_only=True, map_location="cpu")


def _is_readable(value: Any) -> bool:
    buffer = io.BytesIO()
    try:
        torch.save(value, buffer)
        _read(buffer)
    except UNREADABLE:
        return False
    return True


def _refusal(content: dict[str, Any], error: Exception) -> UserError:
    """Returns what to say of a checkpoint that could not be read again."""
    entries = [(part, key, value) for part in STATES for key, value in (content[part] or {}).items()]
    names = ", ".join(f"{part}: {key}" for part, key, value in entries if not _is_readable(value))
    return UserError(
        "The run's checkpoints could not be read again: the state of its model, optimizer or schedule holds something "
        f"that is neither a tensor nor a plain value ({names + ': ' if names else ''}{first_line(error)}). A class of "
        "your own may have a state_dict without it, or with plain values in its place."
    )


def find(path: str | Path) -> Path:
    """Returns the checkpoint file meant by a file or a run's folder (`last.pt` in it).

    Raises:
        UserError: there is none.
    """
    path = Path(path).expanduser()
    file = path / "last.pt" if path.is_dir() else path
    if not file.is_file():
        raise UserError(f"No checkpoint at {file}: give a .pt file or a run's folder that holds last.pt.")
    return file


def load(path: str | Path) -> Checkpoint:
    """Reads a checkpoint; nothing but tensors and plain values is ever unpickled.

    Args:
        path: a checkpoint file, or the folder of a run.

    Raises:
        UserError: the file is missing, can't be read or isn't a checkpoint of this version of this project.
    """
    file = find(path)
    try:
        content = _read(file)
    except Exception as error:  # torch raises half a dozen types for a damaged or foreign file
        # PyTorch's own words go on for a page, and end in the advice to trust the file.
        wrong = "it is damaged or incomplete, no file of PyTorch's, or holds more than tensors and plain values"
        said = str(error) if isinstance(error, OSError) else wrong
        raise UserError(f"{file} can't be read as a checkpoint: {said} ({type(error).__name__}).") from error
    if not isinstance(content, dict) or "format" not in content:
        raise UserError(f"{file} is not a checkpoint of this project (a best.pt or last.pt of a run).")
    other = f"{file} is not a checkpoint of this version of the project"
    if (found := content.pop("format")) != FORMAT:
        raise UserError(f"{other}: its format is {found}, not {FORMAT}; {USE_IT}")
    try:
        progress = content.pop("progress")
        progress["history"] = [EpochMetrics(**epoch) for epoch in progress["history"]]
        return Checkpoint(progress=Progress(**progress), **content)
    except (TypeError, KeyError) as error:  # a field that it does not know, or lacks
        raise UserError(f"{other}: it has other fields ({type(error).__name__}: {error}); {USE_IT}") from error


def adopt_best(file: Path, checkpoint: Checkpoint, folder: Path) -> None:
    """Puts the best weights of the run that is resumed into the new folder, until better ones come.

    Args:
        file: the checkpoint that is resumed from; the best one lies beside it unless it is itself the best.
        checkpoint: its content.
        folder: the resumed run's.
    """
    is_best = checkpoint.progress.epoch == checkpoint.progress.best_epoch
    best = file if is_best else file.with_name("best.pt")
    target = folder / "best.pt"
    # One that is there may be older than the last epoch's: the process was stopped between the two files.
    if not best.is_file() or (target.exists() and (not is_best or target.samefile(best))):
        return
    with written(target) as partial:
        shutil.copyfile(best, partial)


def load_weights(model: torch.nn.Module, checkpoint: Checkpoint, source: Path | str) -> None:
    """Puts the checkpoint's weights into a model built by the present configuration.

    Raises:
        UserError: the weights are another model's; the message shows the first differences.
    """
    mine, theirs = model.state_dict(), checkpoint.model
    differences = [f"{name} is missing there" for name in mine.keys() - theirs.keys()]
    differences += [f"{name} is only there" for name in theirs.keys() - mine.keys()]
    differences += [
        f"{name}: {tuple(theirs[name].shape)} there, {tuple(mine[name].shape)} here"
        for name in mine.keys() & theirs.keys()
        if isinstance(mine[name], Tensor) and isinstance(theirs[name], Tensor)  # not a layer's extra state
        # A lazy layer takes whichever it gets.
        if not is_lazy(mine[name]) and mine[name].shape != theirs[name].shape
    ]
    if differences:
        shown = "\n".join(f"  - {line}" for line in sorted(differences)[:5])
        more = f"\n  - and {len(differences) - 5} more" if len(differences) > 5 else ""
        was = checkpoint.config.get("model", {})
        raise UserError(
            f"{source} is a checkpoint of another model.\nIts model: {was}\nIts weights differ from this run's:\n"
            f"{shown}{more}\nRepeat the overrides the checkpoint was trained with (they are in its run's folder, "
            ".hydra/overrides.yaml)."
        )
    model.load_state_dict(theirs)
