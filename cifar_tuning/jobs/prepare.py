"""Everything about a job that can be wrong, found before any compute is spent and reported together."""

import copy
import inspect
import logging
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf, read_write
from omegaconf.errors import OmegaConfBaseException

from cifar_tuning.databases import in_folder
from cifar_tuning.errors import ConfigError, UserError
from cifar_tuning.jobs.build import Parts, build_parts, plain, seed_everything
from cifar_tuning.jobs.checks import OF_THE_SWEEP, find_problems, find_target, lacking_parts
from cifar_tuning.jobs.result import JobResult
from cifar_tuning.jobs.unread_keys import key_problems
from cifar_tuning.ranking import ENDED
from cifar_tuning.text import flatten, is_elsewhere, without_password
from cifar_tuning.training import checkpoint as checkpoints
from cifar_tuning.training.checkpoint import Checkpoint
from cifar_tuning.training.settings import TrainerSettings

log = logging.getLogger(__name__)

# A continued run is the same experiment: these groups must be as they were.
SAME = ("model", "optimizer", "schedule", "regularizer", "augmentation", "data", "seed")
# And these of the trainer.
SAME_OF_TRAINER = (
    *("label_smoothing", "mixup", "ema_decay"),
    *("initial_scale", "delay_fraction", "finetune_fraction"),
)
# Of schedules that have no learning rate for further epochs.
ENDING = ("schedule.epochs", "schedule.total_steps")


@dataclass
class Prepared:
    """A job ready to train; the model holds its initial or resumed weights."""

    config: dict[str, Any]
    parts: Parts
    checkpoint: Checkpoint | None = None
    checkpoint_file: Path | None = None


def prepare(cfg: DictConfig, own: Path | None = None) -> Prepared:
    """Checks the whole configuration and builds the job's parts.

    Args:
        cfg: the job's configuration.
        own: the job's folder, if the job may have been begun before: it goes on from its last checkpoint, which is
            newer than the one of `resume` that it was begun from.

    Raises:
        ConfigError: with every mistake that was found.
        UserError: the checkpoint to resume from holds another model's weights.
    """
    config = job_config(cfg)
    if lacking := lacking_parts(config):
        raise ConfigError(lacking)
    problems = key_problems(cfg) + find_problems(config)
    checkpoint, file = (None, None) if own is None else own_checkpoint(config, own)
    if checkpoint is not None and cfg.resume not in (None, checkpoint.config.get("resume")):
        checkpoint, file = None, None  # what it has was not begun there
    if checkpoint is None and cfg.resume is not None:
        try:
            file = checkpoints.find(cfg.resume)
            checkpoint = checkpoints.load(file)
        except UserError as error:
            problems.append(f"resume={cfg.resume}: {error}")
        if checkpoint is not None and file is not None and not problems:
            checkpoints.check_same_model(config["model"], checkpoint, str(cfg.resume))
            problems += differences(config, checkpoint, str(cfg.resume), has_ended(file.parent))
    if not any(problem.startswith(("seed=", "trainer.")) for problem in problems):
        seed_everything(config["seed"], deterministic=config["trainer"].get("deterministic", False))
    # A group whose options are wrong can't be built; the others are, to find what only their constructors know.
    wrong = {problem.partition(":")[0].partition(".")[0].partition("=")[0] for problem in problems}
    parts, failures = build_parts(cfg, without=wrong)
    if problems + failures:
        raise ConfigError(problems + failures)
    assert parts is not None
    if checkpoint is not None:
        checkpoints.load_weights(parts.model, checkpoint, str(file))
    return Prepared(config, parts, checkpoint, file)


def where_typed(cfg: DictConfig, cwd: Path) -> DictConfig:
    """Returns a job's configuration with its paths as they were meant where the command was typed.

    Args:
        cfg: the job's configuration.
        cwd: where that was; with `hydra.job.chdir` the job is elsewhere.
    """
    if cwd == Path.cwd():
        return cfg
    found = {}
    for key in ("data.root", "resume", "tracking.uri"):
        with suppress(OmegaConfBaseException):  # said with the other mistakes
            if isinstance(value := OmegaConf.select(cfg, key), str) and value:
                found[key] = value
    if "tracking.uri" in found:
        found["tracking.uri"] = in_folder(found["tracking.uri"], cwd)
    found |= {key: str(cwd / Path(found[key]).expanduser()) for key in ("data.root", "resume") if key in found}
    cfg = copy.deepcopy(cfg)
    with read_write(cfg):
        for key, value in found.items():
            OmegaConf.update(cfg, key, value)
    return cfg


def job_config(cfg: DictConfig) -> dict[str, Any]:
    """Returns a job's resolved configuration, without what is its sweep's alone and the password of its store.

    It is kept, in checkpoints and in the store, which others may read.

    Raises:
        ConfigError: a value is missing or refers to something that does not exist.
    """
    config = {key: value for key, value in plain(cfg).items() if key not in OF_THE_SWEEP}
    tracking = config.get("tracking")
    if isinstance(tracking, dict) and isinstance(uri := tracking.get("uri"), str):
        config["tracking"] = {**tracking, "uri": without_password(uri)}
    return config


def own_checkpoint(config: dict[str, Any], folder: Path) -> tuple[Checkpoint | None, Path | None]:
    """Returns the checkpoint that an interrupted process of the same job left, if it can be gone on from."""
    file = folder / "last.pt"
    try:
        checkpoint = checkpoints.load(file) if file.is_file() else None
    except UserError as error:
        log.warning("Beginning anew: %s", error)
        return None, None
    # One that was killed after its last epoch has only its end to repeat.
    if checkpoint is None or _compared(config, checkpoint.config) != _compared(checkpoint.config, config):
        return None, None
    return checkpoint, file


def _compared(config: dict[str, Any], other: dict[str, Any]) -> dict[str, Any]:
    """Returns all options that make a job what it is."""
    return {key: value for key, value in flatten(_with_defaults(config, other)) if not is_elsewhere(key)}


def _with_defaults(config: dict[str, Any], other: dict[str, Any]) -> dict[str, Any]:
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
    try:
        parameters = inspect.signature(find_target(str(group.get("_target_")))).parameters
    except Exception:  # whoever builds the group will say what is wrong with it
        return {}
    found = {name: p.default for name, p in parameters.items() if p.default is not inspect.Parameter.empty}
    return {name: list(value) if isinstance(value, tuple) else value for name, value in found.items()}


def differences(config: dict[str, Any], checkpoint: Checkpoint, source: str, ended: bool = True) -> list[str]:
    """Returns a line for each reason why the checkpoint's run can't be gone on with.

    More epochs are fine where the schedule does not depend on their number.

    Args:
        config: of the job that is to go on.
        checkpoint: of the run.
        source: where it is, as the user gave it.
        ended: whether the run came to its end.
    """
    problems = changed_options(config, checkpoint, source)
    done, asked = checkpoint.progress.epoch, config["trainer"]["epochs"]
    # One that was stopped between its last epoch and its end has only that to repeat.
    if asked < done or (asked == done and ended):
        problems.append(
            f"trainer.epochs={asked}: {source} has finished {done} epochs already; ask for more to go on from there"
        )
    return problems


def changed_options(config: dict[str, Any], checkpoint: Checkpoint, source: str) -> list[str]:
    """Returns a line for each option that would make the continued run another one."""
    theirs, ours = (
        {name: one.get(name) for name in SAME} | {"trainer": _of_trainer(one)} for one in (checkpoint.config, config)
    )
    was, now = dict(flatten(_with_defaults(theirs, ours))), dict(flatten(_with_defaults(ours, theirs)))
    lengths = [one["trainer"]["epochs"] for one in (checkpoint.config, config)]
    return [
        f"{key}={now.get(key, '(absent)')}: {source} was trained with {was.get(key, '(absent)')}; "
        "a resumed run must keep it" + (_about_length(key, was[key]) if [was.get(key), now.get(key)] == lengths else "")
        for key in sorted(was.keys() | now.keys())
        if not is_elsewhere(key) and was.get(key) != now.get(key)
    ]


def _about_length(key: str, before: Any) -> str:
    """Returns what to do about an option that has followed the number of epochs; nobody may have typed it."""
    if not key.startswith("schedule."):
        return ""
    if key in ENDING:
        return ". It is the run's whole length, and this schedule goes no further: train anew for longer"
    return f". It follows trainer.epochs; with {key}={before} the run goes on for longer"


def _of_trainer(config: dict[str, Any]) -> dict[str, Any]:
    """Returns the options that say how a run is trained, its length too where schedule or images depend on it."""
    settings = {name: config["trainer"].get(name, getattr(TrainerSettings, name)) for name in SAME_OF_TRAINER}
    depends = settings["initial_scale"] != 1 or _is_given_epochs(config["schedule"])
    return settings | ({"epochs": config["trainer"]["epochs"]} if depends else {})


def _is_given_epochs(schedule: dict[str, Any]) -> bool:
    """Whether a schedule is told the run's length without a word in the configuration (see `Schedule`)."""
    try:
        wanted = inspect.signature(find_target(str(schedule.get("_target_")))).parameters
    except Exception:  # whoever builds it will say what is wrong with it
        return False
    return "epochs" in wanted and "epochs" not in schedule


def has_ended(folder: Path) -> bool:
    """Whether a run's folder says that it came to its end."""
    result = JobResult.read(folder)
    return result is not None and result.state in ENDED
