"""What is wrong with the words of a command, before Hydra reads them; imports nothing heavy."""

import re
from collections.abc import Sequence
from pathlib import Path

from hydra._internal.utils import get_args

from cifar_tuning import PROJECT_ROOT
from cifar_tuning.errors import ConfigError, UserError
from cifar_tuning.jobs.other_words import of_a_run, of_a_study
from cifar_tuning.overrides import key_of
from cifar_tuning.text import MAIN_CONFIG, config_flags, is_own_script

SWEEPER = "hydra/sweeper"
STUDY = f"{SWEEPER}=study"
# The groups of the main configuration that are one constructor each.
_PARTS = ("data", "augmentation", "model", "optimizer", "schedule", "regularizer", "trainer", "tracking")
# What of the main configuration no choice of a sweeper comes with; a group of the user's may have one.
_NO_OVERLAYS = (*_PARTS, "seed")
# What Hydra's own sweeper has too.
_OF_A_GRID = ("hydra.sweeper._", "hydra.sweeper.params", "hydra.sweeper.max_batch_size")
_CONF = PROJECT_ROOT / "conf"


def check_overrides(command: Sequence[str]) -> None:
    """Says what of a command Hydra would answer in its own terms, such as tokens.

    Args:
        command: its program and what follows.

    Raises:
        UserError: some words have no equals sign: they were typed with spaces around it, or as values alone. Or they
            are options of a study, and none is asked for. Or an option lacks its group, or has the name that it has
            elsewhere. Or a sweep is to be shown.
    """
    typed = get_args(command[1:])
    given, program = typed.overrides, Path(command[0])
    if typed.multirun and (typed.cfg or typed.info):
        flag = "--cfg" if typed.cfg else "--info"
        raise UserError(f"{flag} is for a single run; leave out -m, and give one value for each option")
    wrong = [one for one in given if "=" not in one and not one.startswith("~")]
    if wrong:
        usual = {"predict.py": "run=outputs/demo", "report.py": "sweep=multirun/tune"}
        example = usual.get(program.name, "optimizer.lr=0.1")
        raise UserError(f"{' '.join(wrong)}: no option; write OPTION=VALUE, without spaces, such as {example}")
    if is_own_script(program) or config_flags(command):  # the main configuration is elsewhere
        return
    keys = [key_of(one) for one in given]
    of_studies = [key for key in keys if key.startswith("hydra.sweeper.") and not key.startswith(_OF_A_GRID)]
    if of_studies and not _may_choose_a_sweeper(keys):
        raise UserError(
            f"{', '.join(of_studies)}: of an Optuna study; add hydra/sweeper=study, or one of conf/study, such as "
            "study=simplenn"
        )
    if (STUDY in given or "study" in keys) and (elsewhere := of_a_study(given)):
        raise ConfigError(elsewhere)
    if program.name == "train.py" and (lacking := _without_group(given)):
        raise UserError("\n  - ".join(["an option has another name here:", *lacking]))


def _may_choose_a_sweeper(keys: Sequence[str]) -> bool:
    """Whether some override, or the main configuration as the user has changed it, may choose another than a grid."""
    choices = [key for key in keys if "." not in key and key not in _NO_OVERLAYS]
    return bool(choices) or SWEEPER in _main_config()


def _without_group(given: Sequence[str]) -> list[str]:
    """Returns what to type for options that lack their group, such as `optimizer.lr=0.1, not lr=0.1`.

    Named are the groups whose present choice has the option; where none has, those with another choice that has. An
    overlay, or a group of the user's, may have an option of that name at its top: then nothing is said. What no group
    has is looked for among the words of other programs.
    """
    groups = {folder.name for folder in _CONF.iterdir() if folder.is_dir()}
    known = groups.union(_top(_main_config()))
    keys = {key for key, _, value in (one.partition("=") for one in given) if (key, value) not in _ready_studies()}
    strange = [one for one in given if (key := one.partition("=")[0]).isidentifier() and key not in known]
    if not strange or any(key.startswith("+") or key in groups.difference(_PARTS) for key in keys):
        return []
    chosen = dict(re.findall(r"^ *- (\w+): (\S+)", _main_config(), flags=re.MULTILINE))
    chosen |= {key: value for key, _, value in (one.partition("=") for one in given)}
    lines = []
    for one in strange:
        having = {part: _choices_with(one.partition("=")[0], part) for part in _PARTS}
        now = [part for part in _PARTS if having[part].intersection(chosen.get(part, "").split(","))]
        if meant := now or [part for part in _PARTS if having[part]]:
            lines.append(f"{' or '.join(f'{part}.{one}' for part in meant)}, not {one}")
        elif (ours := of_a_run(one)) is not None:
            lines.append(f"{ours}, not {one}")
    return lines


def _ready_studies() -> set[tuple[str, str]]:
    """Returns the overrides that choose a study with nothing at its top but what the main configuration has."""
    known = {*_PARTS, *_top(_main_config())}
    files = [(file.stem, file.read_text(encoding="utf-8")) for file in (_CONF / "study").glob("*.yaml")]
    lists = re.compile(r"^ *- (?!override )/?\w+: ", re.MULTILINE)
    return {("study", name) for name, text in files if known.issuperset(_top(text)) and not lists.search(text)}


def _choices_with(option: str, part: str) -> set[str]:
    files = (_CONF / part).glob("*.yaml")
    return {file.stem for file in files if option in _top(file.read_text(encoding="utf-8"))}


def _main_config() -> str:
    return (_CONF / f"{MAIN_CONFIG}.yaml").read_text(encoding="utf-8")


def _top(text: str) -> list[str]:
    """Returns the keys at the top of a YAML's text."""
    return re.findall(r"^(\w+):", text, flags=re.MULTILINE)
