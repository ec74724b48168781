"""A sweep's best configuration as a command line and as an overlay."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from cifar_tuning import PROJECT_ROOT
from cifar_tuning.errors import UserError
from cifar_tuning.files import write_text
from cifar_tuning.overrides import key_of, to_be_typed, value_of
from cifar_tuning.reporting.selection import Run
from cifar_tuning.text import MAIN_CONFIG, SEARCHPATH, command_line, on_one_line

# The first line after Hydra's of a file that may be written again.
MARK = "# Written by report.py."


@dataclass(frozen=True)
class Best:
    """A sweep's best configuration, as its command line had it.

    Attributes:
        overrides: without where and by whom it was started and tracked.
        flags: which say where its configuration is looked for.
    """

    overrides: list[str]
    flags: list[str]

    @property
    def command(self) -> str:
        """The command line."""
        return command_line("train.py", *self.flags, *self.overrides)

    def overlay(self, header: str) -> str:
        """Returns the overlay: the groups that the configuration chose, and every value that it set.

        The seed is among them only where the overrides have it.

        Raises:
            UserError: the configuration can't be composed any more.
        """
        from hydra import compose
        from hydra.errors import HydraException

        from cifar_tuning.tuning.overlays import as_overlay

        try:
            with _looking_where(self.flags) as name:
                places = [flag for flag in self.flags if key_of(flag) == SEARCHPATH]
                config = compose(name, [*places, *self.overrides], return_hydra_config=True)
                without = () if "seed" in map(key_of, self.overrides) else ("seed",)
                return as_overlay(config, f"{MARK}\n{header}", without=without)
        except HydraException as error:
            raise UserError(
                f"The best configuration ({self.command}) can't be composed any more: {on_one_line(error)} "
                "If its files are in a folder of their own, give --config-dir=… with that."
            ) from error


def find_best(runs: Sequence[Run], seed_key: str) -> Best | None:
    """Returns what trains a configuration, given its runs; None if train.py did not make them.

    The seed is left open where there are several.
    """
    if not runs or not runs[0].overrides:
        return None
    seeds = (seed_key, "seed") if len(runs) > 1 else ()
    overrides = [o for o in to_be_typed(runs[0].overrides) if not _left_open(key_of(o), seeds)]
    return Best(overrides, list(runs[0].config_flags))


@contextmanager
def _looking_where(flags: Sequence[str]) -> Iterator[str]:
    """Has Hydra look for configurations where flags of a command say; yields the name of the first of them.

    A `--config-dir` of this command's takes the place of theirs, whose files may have been moved.
    """
    from hydra import initialize_config_search_path
    from hydra.core.global_hydra import GlobalHydra

    given = {key_of(flag): value_of(flag) for flag in flags}
    name = given.get("--config-name", MAIN_CONFIG)
    kept = GlobalHydra.instance().hydra
    assert kept is not None
    own = any(source.provider == "command-line" for source in kept.config_loader.get_search_path().get_path())
    places = [given[flag] for flag in ("--config-path", "--config-dir") if flag in given]
    if own or not places:
        yield name
        return
    if "--config-path" not in given:
        places.insert(0, str(PROJECT_ROOT / "conf"))
    GlobalHydra.instance().clear()
    try:
        with initialize_config_search_path([place if "://" in place else f"file://{place}" for place in places]):
            yield name
    finally:
        GlobalHydra.instance().hydra = kept


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
