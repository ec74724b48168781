"""Examples of what a study's trials will be, composed before the first: the ends of its ranges, and each choice."""

import logging
from collections.abc import Iterator
from typing import Any
from weakref import WeakKeyDictionary

import optuna
from hydra.core.config_loader import ConfigLoader
from hydra.core.global_hydra import GlobalHydra
from hydra.errors import HydraException
from omegaconf import DictConfig
from optuna.trial import TrialState

from cifar_tuning.compose import sweep_loader, way_out
from cifar_tuning.errors import ConfigError
from cifar_tuning.overrides import unresolved, written
from cifar_tuning.text import first_line, in_lines, in_short
from cifar_tuning.tuning.dry_run import NeedsTrialError, dry_run
from cifar_tuning.tuning.options import StudyOptions
from cifar_tuning.tuning.place import OVERRIDES
from cifar_tuning.tuning.space import SearchSpace, ends

log = logging.getLogger(__name__)

# Whose examples were all composed, for each loader: a large space takes a second, and a user's function may be slow.
_composed: WeakKeyDictionary[ConfigLoader, list[tuple[SearchSpace, list[str]]]] = WeakKeyDictionary()


def examples(options: StudyOptions) -> Iterator[tuple[dict[str, Any], DictConfig]]:
    """Yields points of a study's search space, each with the configuration of its job.

    A function of the user's is asked anew at each end of a declared range and for each declared choice, as what it
    suggests may follow from them.

    Raises:
        ConfigError: one can't be composed whatever else is chosen, as a swept key does not exist, or the user's
            function raised.
    """
    loader = sweep_loader(GlobalHydra.instance().config_loader())
    points = [(given, params) for given in ends(options.space) if (params := _asked(options, given)) is not None]
    if not points and (params := _asked(options, {})) is not None:  # the present one is wanted, mostly
        points = [({}, params)]
    for given, params in points:
        overrides = options.space.overrides(params)
        try:
            composed = loader.load_sweep_config(options.config, overrides)
        except Exception as error:
            if _goes_with_another(options, loader, given):
                log.warning("%s can't be composed: %s; such trials fail", " ".join(overrides), first_line(error))
                continue
            kind = "" if isinstance(error, HydraException) else f"{', '.join(overrides)}: {type(error).__name__}: "
            raise ConfigError([kind + in_lines(error) + way_out(error, options.config)]) from error
        yield params, composed
    _composed.setdefault(loader, []).append(_key(options))


def _goes_with_another(options: StudyOptions, loader: ConfigLoader, given: dict[str, Any]) -> bool:
    """Whether values that can't be composed with the present configuration can be with another choice beside them.

    An application's groups may be chosen by two keys together (`- fit: ${kind}_${size}`), without a file for each pair.
    """
    for other in ends(options.space):
        if not other or other.keys() & given.keys():
            continue
        try:
            if (params := _asked(options, given | other)) is not None:
                loader.load_sweep_config(options.config, options.space.overrides(params))
                return True
        except Exception:  # the first one's is shown
            continue
    return False


def _asked(options: StudyOptions, given: dict[str, Any]) -> dict[str, Any] | None:
    """Returns the point of the space with these values; None where the function does not want it, or can't be tried.

    Raises:
        ConfigError: the function raised.
    """
    try:
        trial = dry_run(options.space, options.config, given)
    except NeedsTrialError:
        return None
    return None if trial.pruned else trial.params


def try_out(options: StudyOptions) -> None:
    """Composes all examples, unless this command has composed them before, as the checks of `train.py` do.

    Raises:
        ConfigError: one can't be composed.
    """
    loader = sweep_loader(GlobalHydra.instance().config_loader())
    if _key(options) not in _composed.get(loader, []):
        for _ in examples(options):
            pass


def _key(options: StudyOptions) -> tuple[SearchSpace, list[str]]:
    """Returns what decides a study's examples, under one loader."""
    overrides = options.config.hydra.overrides
    return options.space, [*unresolved(overrides.task), *unresolved(overrides.hydra)]


def uncomposable(options: StudyOptions, study: optuna.Study) -> str | None:
    """Describes a complete trial of another program that is no job here, so that nobody could train it if it won.

    One of each set of parameters is composed.
    """
    complete = [trial for trial in study.get_trials(deepcopy=False) if trial.state == TrialState.COMPLETE]
    others = {tuple(trial.params): trial for trial in complete if trial.params and OVERRIDES not in trial.system_attrs}
    loader = sweep_loader(GlobalHydra.instance().config_loader())
    for trial in others.values():
        try:
            loader.load_sweep_config(options.config, options.space.overrides(trial.params))
        except Exception as error:
            shown = " ".join(f"{name}={in_short(written(value))}" for name, value in trial.params.items())
            return f"trial {trial.number} ({shown}): {first_line(error)}"
    return None
