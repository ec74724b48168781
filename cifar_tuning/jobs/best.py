"""A sweep's best configuration as a command line and as an overlay."""

from collections.abc import Sequence
from pathlib import Path

from cifar_tuning.errors import UserError
from cifar_tuning.files import write_text
from cifar_tuning.overrides import key_of, to_be_typed
from cifar_tuning.reporting.selection import Run
from cifar_tuning.text import command_line, on_one_line

# The first line after Hydra's of a file that may be written again.
MARK = "# Written by report.py."


def best_overrides(runs: Sequence[Run], seed_key: str) -> list[str] | None:
    """Returns what trains a configuration, given its runs; None if train.py did not make them.

    Where and by whom they were started and tracked is left open, and the seed where there are several.
    """
    if not runs or not runs[0].overrides:
        return None
    seeds = (seed_key, "seed") if len(runs) > 1 else ()
    return [o for o in to_be_typed(runs[0].overrides) if not _left_open(key_of(o), seeds)]


def command(overrides: list[str]) -> str:
    """Returns the command line."""
    return command_line("train.py", *overrides)


def overlay(overrides: list[str], header: str) -> str:
    """Returns the overlay: the groups that the configuration chose, and every value that it set.

    The seed is among them only where the overrides have it.

    Raises:
        UserError: the configuration can't be composed any more.
    """
    from hydra import compose
    from hydra.errors import HydraException

    from cifar_tuning.tuning.overlays import as_overlay

    try:
        config = compose("config", overrides, return_hydra_config=True)
        without = () if "seed" in map(key_of, overrides) else ("seed",)
        return as_overlay(config, f"{MARK}\n{header}", without=without)
    except HydraException as error:
        raise UserError(
            f"The best configuration ({command(overrides)}) can't be composed any more: {on_one_line(error)}"
        ) from error


def export_problem(export: object) -> str | None:
    """Returns what is wrong with a file for the overlay; None if it can be written."""
    file = Path(str(export))
    if file.suffix != ".yaml" or not file.absolute().parent.is_dir() or file.is_dir():
        return f"export={export}: must be a .yaml file in a folder that exists, such as conf/experiment/best.yaml"
    if file.is_file() and MARK not in file.read_text(errors="replace").splitlines()[:2]:
        return f"export={export}: exists, and was not written by this command; choose another name"
    return None


def write(file: Path, text: str) -> None:
    """Writes the overlay, all or nothing.

    Raises:
        UserError: the file can't be written.
    """
    try:
        write_text(file, text)
    except OSError as error:
        raise UserError(f"export={file} can't be written: {error}") from error


def _left_open(key: str, seeds: Sequence[str]) -> bool:
    return key in (*seeds, "resume") or key.partition(".")[0].partition("/")[0] in ("hydra", "tracking")
