"""What of a single run's command is about a sweep: somebody may have forgotten `-m`."""

from typing import Any

from cifar_tuning.overrides import given_options, key_of, task_overrides, to_be_typed, unresolved
from cifar_tuning.text import SEARCHPATH, command_line, training_program, without_password

# Config groups whose configs may say what a sweep varies.
OVERLAYS = ("experiment", "study")
# Beginnings of Hydra's options that a single run does not use, and of those that a sweep does not.
OF_SWEEPS = ("hydra.sweep", "hydra/sweep", "hydra.launcher", "hydra/launcher")
NOT_OF_SWEEPS = ("hydra.run.", SEARCHPATH)  # the last one `command_line` adds


def missing_multirun(hydra: Any) -> str | None:
    """Returns what goes unnoticed without `-m`, and the command with it, on a line of its own; None if nothing does."""
    given = unresolved(hydra.overrides.hydra)
    if "hydra.mode" in given_options(hydra):  # a single run on purpose, such as `--experimental-rerun`'s
        return None
    task = task_overrides(hydra)
    ignored = [one for one in given if key_of(one).startswith(OF_SWEEPS)]
    keys = {key_of(one) for one in task}
    swept = [key for key in hydra.sweeper.get("params") or {} if key not in keys]
    if ignored:
        said = f"{' '.join(ignored)}: of no effect on a single run; add -m for a sweep or a study"
    elif swept:
        choices = hydra.runtime.choices
        overlays = " ".join(f"{group}={choices[group]}" for group in OVERLAYS if choices.get(group))
        said = f"a single run: {overlays or 'hydra.sweeper.params'} would vary {', '.join(swept)}; add -m for that"
    else:
        return None
    kept = [one for one in given if not key_of(one).startswith(NOT_OF_SWEEPS)]
    command = command_line(training_program(), "-m", *to_be_typed(map(without_password, [*task, *kept])))
    return f"{without_password(said)}:\n  {command}"
