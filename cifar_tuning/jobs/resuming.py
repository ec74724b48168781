"""Whether a job may resume a given run: the options that must agree, and the command that makes them."""

import inspect
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import OmegaConf

from cifar_tuning.compose import choice_of
from cifar_tuning.jobs.checks import find_target
from cifar_tuning.jobs.result import JobResult
from cifar_tuning.overrides import job_overrides, key_of, spelled, to_be_typed, unresolved
from cifar_tuning.ranking import ENDED
from cifar_tuning.text import command_line, flatten, is_elsewhere, training_program
from cifar_tuning.training.checkpoint import Checkpoint
from cifar_tuning.training.settings import TrainerSettings

# A continued run is the same experiment: these groups must be as they were.
SAME = ("model", "optimizer", "schedule", "regularizer", "augmentation", "data", "seed")
# And these of the trainer.
SAME_OF_TRAINER = (
    *("label_smoothing", "class_weights", "mixup", "ema_decay", "max_grad_norm"),
    *("initial_scale", "delay_fraction", "finetune_fraction"),
)
# What says how long a run goes on may change.
LENGTH = ("trainer.epochs", "trainer.patience")
# Options of schedules that end after a number of epochs or steps.
ENDING = ("schedule.epochs", "schedule.total_steps")


def with_defaults(config: dict[str, Any], other: dict[str, Any]) -> dict[str, Any]:
    """Returns the configuration with what its constructors take for options that are absent.

    An option that came with a newer release is absent in an older checkpoint, which is none the worse for it.

    Args:
        config: by group.
        other: what it is to be compared with: where the classes differ, their defaults say nothing.
    """
    return {
        name: {**_defaults(group, other.get(name)), **group} if isinstance(group, dict) else group
        for name, group in config.items()
    }


def _defaults(group: dict[str, Any], other: object) -> dict[str, Any]:
    if not isinstance(other, dict) or other.get("_target_") != group.get("_target_"):
        return {}
    found = {name: p.default for name, p in _parameters(group).items() if p.default is not p.empty}
    return {name: list(value) if isinstance(value, tuple) else value for name, value in found.items()}


def _parameters(group: dict[str, Any]) -> Mapping[str, inspect.Parameter]:
    """Returns what a group's constructor takes; nothing where that can't be found out."""
    try:
        return inspect.signature(find_target(str(group.get("_target_")))).parameters
    except Exception:  # whoever builds the group will say what is wrong with it
        return {}


def differences(config: dict[str, Any], checkpoint: Checkpoint, source: str, folder: Path) -> list[str]:
    """Returns a line for each reason why the checkpoint's run can't be gone on with.

    More epochs are fine where the schedule does not depend on their number, and so is another patience.

    Args:
        config: of the job that is to go on.
        checkpoint: of the run.
        source: where it is, as the user gave it.
        folder: the run's.
    """
    problems = _changed_options(config, checkpoint, source)
    if problems and (command := _command(folder)) is not None:
        problems[-1] += f"\n    With the options that the run was begun with:\n      {command}"
    progress, trainer = checkpoint.progress, config["trainer"]
    done, asked, patience = progress.epoch, trainer["epochs"], trainer.get("patience")
    waited = done - progress.best_epoch
    # One that was stopped between its last epoch and its end has only that to repeat.
    if asked < done or (asked == done and _has_ended(folder)):
        problems.append(
            f"trainer.epochs={asked}: {source} has finished {done} epochs already; ask for more to go on from there"
        )
    elif patience is not None and (waited > patience or (waited == patience and _has_ended(folder))):
        problems.append(
            f"trainer.patience={patience}: {source} is complete: it has finished {done} epochs, with no better "
            f"validation accuracy since epoch {progress.best_epoch}; a larger number, or null, goes on from there"
        )
    return problems


def _changed_options(config: dict[str, Any], checkpoint: Checkpoint, source: str) -> list[str]:
    """Returns a line for each option that would make the continued run another one, one for a group's other choice."""
    theirs, ours = (
        {name: one.get(name) for name in SAME} | {"trainer": _of_trainer(one)} for one in (checkpoint.config, config)
    )
    was, now = dict(flatten(with_defaults(theirs, ours))), dict(flatten(with_defaults(ours, theirs)))
    lengths = [one["trainer"]["epochs"] for one in (checkpoint.config, config)]
    lines = []
    for group in SAME:
        if was.get(f"{group}._target_") == now.get(f"{group}._target_"):
            continue
        chosen = [choice_of(group, one[group]) for one in (theirs, ours)]
        if None not in chosen:
            lines.append(f"{chosen[1]}: {source} was trained with {chosen[0]}; a resumed run must keep it")
            was, now = ({key: one[key] for key in one if not key.startswith(f"{group}.")} for one in (was, now))
    return lines + [
        f"{key}={_spelled(now, key)}: {source} was trained with {_spelled(was, key)}; "
        "a resumed run must keep it" + (_about_length(key, was[key]) if [was.get(key), now.get(key)] == lengths else "")
        for key in sorted(was.keys() | now.keys())
        if not is_elsewhere(key) and was.get(key) != now.get(key)
    ]


def _spelled(options: dict[str, Any], key: str) -> str:
    return spelled(options[key]) if key in options else "(absent)"


def _command(folder: Path) -> str | None:
    """Returns this command with the options that a run was begun with.

    Args:
        folder: the run's.

    Returns:
        None where they aren't known, where they are this command's already, and for a sweep.
    """
    hydra = HydraConfig.get() if HydraConfig.initialized() else None
    if hydra is None or hydra.mode == RunMode.MULTIRUN:
        return None
    known, file = JobResult.read(folder), folder / ".hydra" / "overrides.yaml"
    if known is not None:
        begun = known.overrides
    elif file.is_file() and folder.resolve() != Path(hydra.runtime.output_dir).resolve():  # where it is this command's
        begun = unresolved(OmegaConf.load(file))
    else:
        return None
    asked = job_overrides(hydra)
    kept = [one for one in asked if is_elsewhere(key_of(one)) or key_of(one) in LENGTH]
    given = {key_of(one) for one in kept}
    begun = [one for one in begun if not is_elsewhere(key_of(one)) and key_of(one) not in given]
    if set(asked) == {*begun, *kept}:
        return None
    place = [one for one in unresolved(hydra.overrides.hydra) if key_of(one) == "hydra.run.dir"]
    return command_line(training_program(), *to_be_typed([*begun, *kept, *place]))


def _about_length(key: str, before: Any) -> str:
    """Returns what to do about an option that has followed the number of epochs; nobody may have typed it."""
    if key == "trainer.epochs":
        return ". Its schedule, or the size of its images, follows the run's length: train anew for longer"
    if not key.startswith("schedule."):
        return ""
    if key in ENDING:
        return ". It is the run's whole length, and this schedule goes no further: train anew for longer"
    then = ", while the cosine takes the learning rate up again" if key == "schedule.T_max" else ""
    return f". It follows trainer.epochs; with {key}={before} the run goes on for longer{then}"


def _of_trainer(config: dict[str, Any]) -> dict[str, Any]:
    """Returns the options that say how a run is trained, its length too where schedule or images depend on it."""
    settings = {name: config["trainer"].get(name, getattr(TrainerSettings, name)) for name in SAME_OF_TRAINER}
    depends = settings["initial_scale"] != 1 or _is_given_epochs(config["schedule"])
    return settings | ({"epochs": config["trainer"]["epochs"]} if depends else {})


def _is_given_epochs(schedule: dict[str, Any]) -> bool:
    """Whether a schedule is told the run's length without a word in the configuration (see `Schedule`)."""
    return "epochs" in _parameters(schedule) and "epochs" not in schedule


def _has_ended(folder: Path) -> bool:
    """Whether a run's folder says that it came to its end."""
    result = JobResult.read(folder)
    return result is not None and result.state in ENDED
