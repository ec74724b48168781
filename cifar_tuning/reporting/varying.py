"""Which hyperparameters differ between runs, told from their recorded options alone."""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from cifar_tuning.overrides import key_of, value_of
from cifar_tuning.reporting.images import names_the_data
from cifar_tuning.reporting.selection import Run

# A run that lacks an option has this value of it.
MISSING = "–"
# Parameters that do not change what is learnt: places and addresses, and overlays, whose options are there themselves.
ELSEWHERE = re.compile(
    r"^(hydra|tracking|mlflow)([./_]|$)|^(resume|published|objective|study|experiment)$"
    r"|(^|[._/-])(run_?id|run_?name|timestamp|_partial_)$",
    re.IGNORECASE,
)
# Places too, unless the value is a number or a switch: `data_path` is a place, `drop_path` a rate.
PLACE = re.compile(r"(^|[._/-])(dir|directory|folder|path|root|file|uri|url|host|date)$", re.IGNORECASE)
SEED = re.compile(r"(^|[._/-])seed$", re.IGNORECASE)
NOT_VALUES = re.compile(r"(/|~|[A-Za-z]:\\|file:|s3:|gs:).*|[0-9a-f]{32}")


@dataclass(frozen=True)
class Options:
    """What tells runs apart.

    Attributes:
        names: the hyperparameters that vary.
        values: their values, for each run's id, in the order of the names.
        repetition: for each run's id, the values of its seeds; None for a run that recorded none.
        seeds: the parameters that are seeds.
        counted: all other parameters, those apart that say where and when.
    """

    names: list[str]
    values: dict[str, tuple[str, ...]]
    repetition: dict[str, tuple[str, ...] | None]
    seeds: list[str]
    counted: list[str]

    def seed_of(self, run: Run) -> tuple[str, ...] | None:
        """Returns the values of a run's seeds; None if it recorded none."""
        return tuple(spelled(run, key) for key in self.seeds) if any(key in run.params for key in self.seeds) else None


def find_options(runs: Sequence[Run], seed_key: str = "seed") -> Options:
    """Finds the hyperparameters that vary between runs.

    A parameter varies if it has two values, of which missing may be one. Where runs recorded their command lines, the
    options on these come first, and a config group's choice (`augmentation=crop_flip`, `variant=lab3/adam`) stands for
    all the parameters that follow from it. Seeds, paths, ids and addresses are left out.

    Args:
        runs: the runs to tell apart.
        seed_key: the parameter that tells repetitions of one configuration apart.
    """
    known = sorted({key for run in runs for key in run.params})
    varying = [key for key in known if _varies(runs, _param(key))]
    seeds = [key for key in varying if key == seed_key or SEED.search(key)]
    counted = [key for key in known if key not in (seed_key, *seeds) and not _elsewhere(runs, key)]
    columns = _columns(runs, [key for key in counted if key in varying], seed_key)
    options = Options(list(columns), {}, {}, list(dict.fromkeys([seed_key, *seeds])), counted)
    for run in runs:
        options.values[run.run_id] = tuple(read(run) for read in columns.values())
        options.repetition[run.run_id] = options.seed_of(run)
    return options


def spelled(run: Run, key: str) -> str:
    """Returns a run's value of a parameter in one spelling."""
    return spell(run.params[key]) if key in run.params else MISSING


def spell(value: object) -> str:
    """Returns a value in one spelling, by which equal ones are known: 1e-4 is 0.0001, True is true, None is null."""
    text = "null" if value is None else str(value).strip()
    if text.lower() in ("true", "false", "null", "none", "nan"):
        return "null" if text.lower() == "none" else text.lower()
    number = as_number(text)
    return text if number is None else f"{number:.10g}"


def as_number(text: str) -> float | None:
    """Returns the number that a text is; None if it is none."""
    try:
        number = float(text)
    except ValueError:
        return None
    return number if abs(number) < float("inf") else None


def short(value: str) -> str:
    """Returns a value as a table shows it: in one line, four digits that count, a class without its module."""
    value = " ".join(value.split())
    number = as_number(value)
    if number is None:
        return value.rpartition(".")[2] if re.fullmatch(r"[A-Za-z_][\w]*(\.[A-Za-z_]\w*)+", value) else value
    return value if value.lstrip("-").isdigit() else f"{number:.4g}"


def asked_for(run: Run) -> dict[str, str]:
    """Returns a run's overrides by their keys."""
    return {key_of(override): value_of(override) for override in run.overrides}


def group_choice(run: Run, group: str) -> str:
    """Returns what a run chose of a config group, as its command line or else its recorded class says."""
    if (asked := asked_for(run).get(group)) is not None:
        return spell_choice(asked)
    target = run.params.get(f"{group}._target_")
    return spell_choice(target.rpartition(".")[2] if target else run.params.get(group))


def spell_choice(value: object) -> str:
    """Returns a group's choice: `null` and nothing at all are `none`."""
    return "none" if value in (None, "", "null", "None") else str(value)


def _columns(runs: Sequence[Run], counted: Sequence[str], seed_key: str) -> dict[str, Callable[[Run], str]]:
    """Returns how to read each hyperparameter that varies: what was asked for first, then what does not follow."""
    columns: dict[str, Callable[[Run], str]] = {}
    for key in dict.fromkeys(key for run in runs for key in asked_for(run)):
        if key == seed_key or SEED.search(key) or _named_elsewhere(runs, key):
            continue
        read = _choice(runs, key) if _is_group(runs, key) else _param(key)
        if _varies(runs, read):
            columns[key] = read
    asked = list(columns.values())
    for key in counted:
        group = key.removesuffix("._target_")
        read = _class_of(group)
        if group not in columns and any(f"{group}._target_" in run.params for run in runs):
            columns |= {} if _follows(runs, asked, read) else {group: read}
    for key in counted:
        decided = [*asked, *(columns[group] for group in (key, key.partition(".")[0]) if group in columns)]
        if key not in columns and not _follows(runs, decided, _param(key)):
            columns[key] = _param(key)
    return columns


def _is_group(runs: Sequence[Run], key: str) -> bool:
    below = f"{key}."
    return "." not in key and (
        not any(key in run.params for run in runs) or any(name.startswith(below) for run in runs for name in run.params)
    )


def _choice(runs: Sequence[Run], group: str) -> Callable[[Run], str]:
    if all(group in asked_for(run) for run in runs):
        return lambda run: spell_choice(asked_for(run)[group])
    # A default that was not asked for is known by its class alone; so all are compared by it.
    if any(f"{group}._target_" in run.params for run in runs):
        return _class_of(group)
    return lambda run: asked_for(run).get(group, MISSING)


def _class_of(group: str) -> Callable[[Run], str]:
    return lambda run: spell_choice(run.params.get(f"{group}._target_", "").rpartition(".")[2])


def _param(key: str) -> Callable[[Run], str]:
    return lambda run: spelled(run, key)


def _varies(runs: Sequence[Run], read: Callable[[Run], str]) -> bool:
    # An option that is null changes nothing: a run of before there was such an option is like it.
    return len({"null" if (value := read(run)) == MISSING else value for run in runs}) > 1


def _elsewhere(runs: Sequence[Run], key: str) -> bool:
    if names_the_data(runs, key):
        return False
    values = [run.params[key] for run in runs if key in run.params]
    return _named_elsewhere(runs, key) or all(NOT_VALUES.fullmatch(value) for value in values)


def _named_elsewhere(runs: Sequence[Run], key: str) -> bool:
    if ELSEWHERE.search(key) or not PLACE.search(key) or names_the_data(runs, key):
        return bool(ELSEWHERE.search(key))
    values = {spell(run.params[key]) for run in runs if key in run.params} - {"null"}
    return not values or any(as_number(value) is None and value not in ("true", "false") for value in values)


def _follows(runs: Sequence[Run], reads: Sequence[Callable[[Run], str]], read: Callable[[Run], str]) -> bool:
    """Whether an option's value is decided by those of others (without others: whether it is the same everywhere)."""
    decided: dict[tuple[str, ...], str] = {}
    return all(decided.setdefault(tuple(r(run) for r in reads), read(run)) == read(run) for run in runs)
