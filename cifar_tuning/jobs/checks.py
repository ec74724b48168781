"""Finds every mistake in a configuration before any compute is spent."""

import inspect
import logging
from collections.abc import Mapping
from typing import Any

from hydra.errors import HydraException, InstantiationException
from hydra.utils import get_object, instantiate
from omegaconf import OmegaConf

from cifar_tuning.compose import having
from cifar_tuning.numeric import is_whole
from cifar_tuning.option_rules import BELOW_ONE, FLAG, UP_TO_ONE, Rule, number
from cifar_tuning.overrides import parse_overrides
from cifar_tuning.ranking import SMALLER_IS_BETTER
from cifar_tuning.targets import refused
from cifar_tuning.text import on_one_line
from cifar_tuning.training.events import PUBLIC_NAMES
from cifar_tuning.tuning.place import objectives_of
from cifar_tuning.user_code import missing_name, user_frame

# What a job has beside its groups, and an example of each.
SINGLE = {"seed": "0", "resume": "null", "objective": "val/acc_best"}
# Says how a report presents the sweep; nothing that a job does depends on it.
OF_THE_SWEEP = ("published",)
MAY_BE_NONE = ("augmentation", "regularizer", "tracking")
# Options of a group that its class may not have.
OF_GROUP = {"schedule": ("interval",)}
# Argument that training gives to a group's part, by PyTorch's name for it.
WORKS_ON = {"optimizer": "params", "schedule": "optimizer"}
GROUPS = ("data", "augmentation", "model", "optimizer", "schedule", "regularizer", "trainer", "tracking")


# What a study can optimise.
FIGURES = (*PUBLIC_NAMES.values(), "epoch_seconds", "images_per_second", "model/macs", "model/parameters")

NOT_NEGATIVE = number(lambda v: v >= 0, "a number, 0 or above")
# PyTorch's optimizers and schedulers check little of this themselves (lr=0 and decay_epochs=0 pass), and late.
RULES = {
    "objective": Rule(
        lambda v: v != [] and all(n in FIGURES for n in (v if isinstance(v, list) else [v])),
        f"one of {', '.join(FIGURES)}, or a list",
    ),
    "seed": Rule(lambda v: is_whole(v, 0, 2**32 - 1), "a whole number from 0 to 4294967295"),
    "optimizer.lr": number(lambda v: v > 0, "a number above 0, such as 0.01"),
    "optimizer.momentum": BELOW_ONE,
    "optimizer.nesterov": FLAG,
    "optimizer.weight_decay": NOT_NEGATIVE,
    "optimizer.eps": number(lambda v: v > 0, "a number above 0"),
    "optimizer.alpha": BELOW_ONE,
    "optimizer.betas": Rule(
        lambda v: isinstance(v, list) and len(v) == 2 and all(map(BELOW_ONE.holds, v)),
        "two numbers from 0 up to, not including, 1, such as [0.9,0.999]",
    ),
    "schedule.decay_epochs": Rule(
        lambda v: v is None or is_whole(v, 1), "a whole number of epochs, 1 or above, or null"
    ),
    "schedule.decay": number(lambda v: 0 < v <= 1, "a number above 0 and at most 1, such as 0.1"),
    "schedule.pct_start": number(lambda v: 0 < v < 1, "a number between 0 and 1, such as 0.3"),
    "schedule.warmup_ratio": BELOW_ONE,
    "schedule.patience": Rule(lambda v: is_whole(v, 0), "a whole number of epochs, 0 or above"),
    "schedule.factor": UP_TO_ONE,
    "schedule.min_lr": Rule(
        lambda v: all(NOT_NEGATIVE.holds(one) for one in (v if isinstance(v, list) else [v])),
        f"{NOT_NEGATIVE.expected}, or a list of them",
    ),
    "schedule.eta_min": NOT_NEGATIVE,
    "schedule.max_lr": number(lambda v: v > 0, "a number above 0"),
}


def find_problems(config: dict[str, Any]) -> list[str]:
    """Returns a line for each mistake in a resolved configuration; empty if none was found.

    Args:
        config: plain nested dictionaries, one entry a config group.
    """
    if lacking := lacking_parts(config):
        return lacking
    problems = []
    for key, rule in RULES.items():
        group, _, option = key.rpartition(".")
        options = config[group] if group else config
        if option in options and not rule.holds(value := options[option]):
            problems.append(f"{key}={value}: must be {rule.expected}{_as_text(value, rule)}")
    for group in GROUPS:
        problems += _check_group(group, config[group])
    return problems + _check_together(config)


def _as_text(value: Any, rule: Rule) -> str:
    """Returns what to do about a text that would be right without its quotes."""
    try:
        right = isinstance(value, str) and rule.holds(parse_overrides([f"value={value}"])[0].value())
    except HydraException:
        return ""
    if not right:
        return ""
    return (
        "; it is given as text: leave its quotes away, or, where it is a variable of the environment, write "
        "${oc.decode:${oc.env:NAME}}"
    )


def lacking_parts(config: dict[str, Any]) -> list[str]:
    """Returns a line for each part that a job can't be without, deleted (`~optimizer`) with nothing in its place."""
    problems = []
    for group in GROUPS:
        if not isinstance(config.get(group), dict):
            none = f"{group}=none, " if group in MAY_BE_NONE else ""
            problems.append(f"{group}: is missing; choose {none}one in conf/{group}/, or give +{group}={{_target_: …}}")
    return problems + [f"{key}: is missing; it may be {value}" for key, value in SINGLE.items() if key not in config]


def _check_group(group: str, options: dict[str, Any]) -> list[str]:
    """Asks the class that the group's `_target_` names, if it has a `check`."""
    name = options.get("_target_")
    if not isinstance(name, str):
        return [f"{group}: has no _target_, so it builds nothing; choose one of the files in conf/{group}/"]
    try:
        target = find_target(name)
    except Exception as error:
        if (reason := refused(error)) is not None:
            return [f"{group}: {reason}"]
        return [f"{group}._target_={name}: can't be imported: {why_not_found(name, error)}"]
    try:
        takes = _named_parameters(target)
    except (TypeError, ValueError):  # it is written in C and doesn't say
        return []
    ours = {key for key in OF_GROUP.get(group, ()) if key not in takes}
    given = {key: value for key, value in options.items() if not key.startswith("_") and key not in ours}
    checks = hasattr(target, "check")
    if unknown := [key for key in given if key not in takes and (checks or _names_all(target))]:
        first = WORKS_ON.get(group) if options.get("_partial_") else None
        has = ", ".join(key for key in takes if key != first) or "none"
        return [f"{group}.{key}: is no option of {name}; it has {has}{having(group, key)}" for key in unknown]
    if not checks:
        return []
    lacking = [key for key, default in takes.items() if default is inspect.Parameter.empty and key not in given]
    if lacking and not options.get("_partial_"):
        return [f"{group}.{key}: is missing; {name} has no default for it" for key in lacking]
    return problems_with(target, given)


def problems_with(target: Any, given: Mapping[str, Any]) -> list[str]:
    """Returns what the `check` of a class or function says of options; those not given have its defaults.

    Args:
        target: the class, or a function that builds something.
        given: options of its constructor.
    """
    of_class = inspect.isclass(target)
    known: dict[str, Any] = {} if of_class else _named_parameters(target)
    # A subclass may have the check of a class with more options.
    for kind in reversed(inspect.getmro(target)) if of_class else ():
        if "__init__" in vars(kind) and kind is not object:
            known |= _named_parameters(kind)
    known = {key: value for key, value in known.items() if value is not inspect.Parameter.empty}
    takes = inspect.signature(target.check).parameters
    everything = any(parameter.kind is parameter.VAR_KEYWORD for parameter in takes.values())
    options = {key: value for key, value in (known | dict(given)).items() if everything or key in takes}
    return list(target.check(**options))


def why_not_found(name: str, error: BaseException) -> str:
    """Returns why a `_target_` can't be imported, in a line, given what its import raised."""
    return missing_name(name) or on_one_line(str(error)) + user_frame(error)


def _names_all(target: Any) -> bool:
    """Whether a class or function takes no options but those that its signature names."""
    return all(one.kind is not one.VAR_KEYWORD for one in inspect.signature(target).parameters.values())


def _named_parameters(target: Any) -> dict[str, Any]:
    """Returns what a class can be given by name, with its defaults."""
    return {
        name: parameter.default
        for name, parameter in inspect.signature(target).parameters.items()
        if parameter.kind in (parameter.POSITIONAL_OR_KEYWORD, parameter.KEYWORD_ONLY)
    }


def _check_together(config: dict[str, Any]) -> list[str]:
    problems = []
    optimizer, regularizer = config["optimizer"], config["regularizer"]
    kind = str(regularizer.get("_target_", "")).rpartition(".")[2]
    decays = kind == "L2" or (kind == "ElasticNet" and regularizer.get("l1_ratio", 0.5) != 1)
    if optimizer.get("weight_decay") and decays:
        problems.append(
            f"optimizer.weight_decay={optimizer['weight_decay']}: "
            f"regularizer={'l2' if kind == 'L2' else 'elastic_net'} decays weights too; "
            "use regularizer.strength, or regularizer=none"
        )
    if optimizer.get("nesterov") is True and optimizer.get("momentum") == 0:
        problems.append("optimizer.nesterov=true: needs a momentum above 0")
    if (patience := config["trainer"].get("patience")) is not None and config["data"].get("val_size") == 0:
        problems.append(
            f"trainer.patience={patience}: data.val_size=0 leaves no validation accuracy to watch; "
            "use trainer.patience=null, or validation images, such as data.val_size=5000"
        )
    return problems


def objective_problems(config: dict[str, Any]) -> list[str]:
    """Returns why a sweeper that chooses by the objective can't use a job's: there is no validation to take it from."""
    names = objectives_of(config)
    lacking = [name for name in names if name.startswith("val/")]
    if not lacking or config["data"].get("val_size") != 0:
        return []
    return [
        f"objective={','.join(names)}: data.val_size=0 leaves no image for {', '.join(lacking)}; search with "
        "validation images, such as data.val_size=5000 (hydra.sweeper.retrain_overrides='[\"data.val_size=0\"]' trains "
        "the winner on all then), or choose an objective that needs none, such as train/acc"
    ]


def direction_problems(names: list[str], direction: Any) -> list[str]:
    """Returns a line for each objective whose worst a sweeper would look for.

    Args:
        names: of the figures.
        direction: `minimize` or `maximize`, or a list of one for each.
    """
    several = OmegaConf.is_list(direction)
    given = [getattr(each, "name", each) for each in (direction if several else [direction])]
    if len(names) != len(given):
        return []
    right = ["minimize" if name in SMALLER_IS_BETTER else "maximize" for name in names]
    advice = f"hydra.sweeper.direction={right[0]}"
    if several:
        advice = f"'hydra.sweeper.direction=[{','.join(right)}]'"
    return [
        f"objective={name}: is better when {'smaller' if best == 'minimize' else 'larger'}, but "
        f"hydra.sweeper.direction is {asked}; add {advice}"
        for name, asked, best in zip(names, given, right, strict=True)
        if name in FIGURES and asked in ("minimize", "maximize") and asked != best
    ]


def find_target(name: str) -> Any:
    """Imports what a `_target_` names; torchvision, also a user's module that uses it, beside a CPU torch too.

    Raises:
        InstantiationException: configurations may not call it (`targets.refused`); nothing was imported.
        Exception: whatever the import raises.
    """
    hydras = logging.getLogger("hydra.utils")
    hydras.disabled = True  # it would print what is tried again here, or reported with the other mistakes
    try:
        return _found(name)
    except InstantiationException as error:
        if refused(error) is not None:
            raise
        try:
            get_object(name)  # says why, which Hydra's other error hides
        except Exception as reason:
            if "torchvision::nms" not in str(reason):
                raise
            import cifar_tuning.torchvision_compat  # noqa: F401
        return _found(name)
    finally:
        hydras.disabled = False


def _found(name: str) -> Any:
    # Partly, it is looked up as for a call, and not called.
    return instantiate({"_target_": name, "_partial_": True}).func
