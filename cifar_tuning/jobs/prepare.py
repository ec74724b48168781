"""Everything about a job that can be wrong, found before any compute is spent and reported together."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from omegaconf import DictConfig

from cifar_tuning.errors import ConfigError, UserError
from cifar_tuning.jobs.build import Parts, build_parts, plain, seed_everything
from cifar_tuning.jobs.checks import find_problems
from cifar_tuning.training import checkpoint as checkpoints
from cifar_tuning.training.checkpoint import Checkpoint

# A continued run is the same experiment: these groups must be as they were.
SAME = ("model", "optimizer", "schedule", "regularizer", "augmentation", "data", "seed")
# Where the files lie changes nothing that is learnt.
FREE = ("data.root",)


@dataclass
class Prepared:
    """A job ready to train; the model holds its initial or resumed weights."""

    config: dict[str, Any]
    parts: Parts
    checkpoint: Checkpoint | None = None
    checkpoint_file: Path | None = None


def prepare(cfg: DictConfig) -> Prepared:
    """Checks the whole configuration and builds the job's parts.

    Raises:
        ConfigError: with every mistake that was found.
        UserError: the checkpoint to resume from holds another model's weights.
    """
    config = plain(cfg)
    problems = find_problems(config)
    checkpoint, file = None, None
    if cfg.resume is not None:
        try:
            file = checkpoints.find(cfg.resume)
            checkpoint = checkpoints.load(file)
        except UserError as error:
            problems.append(f"resume={cfg.resume}: {error}")
    if checkpoint is not None and not problems:
        checkpoints.check_same_model(config["model"], checkpoint, str(cfg.resume))
        problems += differences(config, checkpoint, str(cfg.resume))
    if not any(problem.startswith(("seed=", "trainer.")) for problem in problems):
        seed_everything(config["seed"], deterministic=config["trainer"].get("deterministic", False))
    # A group whose options are wrong can't be built; the others are, to find what only their constructors know.
    wrong = {problem.partition(":")[0].partition(".")[0].partition("=")[0] for problem in problems}
    parts, failures = build_parts(cfg, without=wrong)
    if problems + failures:
        raise ConfigError(problems + failures)
    assert parts is not None
    if checkpoint is not None:
        checkpoints.load_weights(parts.model, checkpoint, str(cfg.resume))
    return Prepared(config, parts, checkpoint, file)


def differences(config: dict[str, Any], checkpoint: Checkpoint, source: str) -> list[str]:
    """Returns a line for each option that would make the continued run another one.

    More epochs are fine where the schedule does not depend on their number.
    """
    was = _flatten({name: checkpoint.config.get(name) for name in SAME})
    now = _flatten({name: config.get(name) for name in SAME})
    problems = [
        f"{key}={now.get(key, '(absent)')}: {source} was trained with {was.get(key, '(absent)')}; "
        "a resumed run must keep it"
        for key in sorted(was.keys() | now.keys())
        if key not in FREE and was.get(key) != now.get(key)
    ]
    done, asked = checkpoint.progress.epoch, config["trainer"]["epochs"]
    if asked <= done:
        problems.append(
            f"trainer.epochs={asked}: {source} has finished {done} epochs already; ask for more to go on from there"
        )
    return problems


def _flatten(value: Any, key: str = "") -> dict[str, Any]:
    if not isinstance(value, dict):
        return {key: value}
    return {name: v for k, child in value.items() for name, v in _flatten(child, f"{key}.{k}" if key else k).items()}
