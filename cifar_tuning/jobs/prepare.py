"""Checks a job's whole configuration and builds its parts before any compute is spent; reports all mistakes at once."""

import copy
import logging
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf, read_write
from omegaconf.errors import OmegaConfBaseException

from cifar_tuning.databases import in_folder
from cifar_tuning.errors import ConfigError, UserError
from cifar_tuning.files import whole_path
from cifar_tuning.jobs.build import build_parts, plain, seed_everything
from cifar_tuning.jobs.checks import OF_THE_SWEEP, find_problems, lacking_parts
from cifar_tuning.jobs.parts import Parts
from cifar_tuning.jobs.resuming import differences, with_defaults
from cifar_tuning.jobs.unread_keys import key_problems
from cifar_tuning.text import flatten, is_elsewhere, without_password
from cifar_tuning.training import checkpoint as checkpoints
from cifar_tuning.training.checkpoint import Checkpoint

log = logging.getLogger(__name__)


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
            problems += differences(config, checkpoint, str(cfg.resume), file.parent)
    if not any(problem.startswith(("seed=", "trainer.")) for problem in problems):
        seed_everything(config["seed"], deterministic=config["trainer"].get("deterministic", False))
    # A group whose options are wrong can't be built; the others are, to find what only their constructors know.
    wrong = {problem.partition(":")[0].partition(".")[0].partition("=")[0] for problem in problems}
    parts, failures = build_parts(cfg, without=wrong, restored=checkpoint is not None)
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
    with suppress(OmegaConfBaseException, OSError, RuntimeError):
        weights = OmegaConf.select(cfg, "model.weights")  # a file, or a name of torchvision's
        if isinstance(weights, str) and (file := cwd / Path(weights).expanduser()).exists():
            found["model.weights"] = str(file)
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

    It is kept, in checkpoints and in the store, which others may read, from other folders: hence a folder of images and
    a file of weights are given by their whole paths.

    Raises:
        ConfigError: a value is missing or refers to something that does not exist.
    """
    config = {key: value for key, value in plain(cfg).items() if key not in OF_THE_SWEEP}
    tracking = config.get("tracking")
    if isinstance(tracking, dict) and isinstance(uri := tracking.get("uri"), str):
        config["tracking"] = {**tracking, "uri": without_password(uri)}
    for group, option, is_there in (("data", "root", Path.is_dir), ("model", "weights", Path.exists)):
        options = config.get(group)
        if isinstance(options, dict) and isinstance(path := options.get(option), str):
            config[group] = {**options, option: whole_path(path, is_there)}
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
    return {key: value for key, value in flatten(with_defaults(config, other)) if not is_elsewhere(key)}
