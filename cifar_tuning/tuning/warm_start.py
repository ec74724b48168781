"""A study that begins with what an older one found: its trials, as far as they fit, for the sampler to learn from."""

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import optuna
from optuna.trial import FrozenTrial, TrialState, create_trial

from cifar_tuning.errors import ConfigError, UserError
from cifar_tuning.job_folders import study_in
from cifar_tuning.overrides import meant_by, same_value
from cifar_tuning.processes import is_worker
from cifar_tuning.text import counted
from cifar_tuning.tuning.conditions import present
from cifar_tuning.tuning.dry_run import NeedsTrialError, dry_run
from cifar_tuning.tuning.finding import find_study
from cifar_tuning.tuning.options import StudyOptions
from cifar_tuning.tuning.place import OVERRIDES, SAME_AS, TRAINED_BY
from cifar_tuning.tuning.space import changes

log = logging.getLogger(__name__)

OPTION = "hydra.sweeper.warm_start"
# Keys that are fixed otherwise, which are shown.
SHOWN = 5


def warm_start_problems(options: StudyOptions) -> list[str]:
    """Returns why a new study can't begin with the older one's trials."""
    if options.sweeper.warm_start is None:
        return []
    if options.grid:
        return [f"{OPTION}: GridSampler knows no trials of another study; hydra/sweeper/sampler=brute_force does"]
    try:
        older = _older(options)
        directions = [direction.name.lower() for direction in older.directions]
        if directions != options.directions:
            asked = ",".join(options.directions)
            return [f"{OPTION}: the study {older.study_name} has the direction {','.join(directions)}, not {asked}"]
        found = older_trials(options)
    except UserError as error:
        return [str(error)]
    if not found:
        return [f"{OPTION}: no trial of the study {older.study_name} fits this search space and configuration"]
    if len(found) >= options.n_trials:
        count = f"hydra.sweeper.n_trials={options.n_trials}"
        return [f"{count}: {len(found)} of them are those of the study {older.study_name}; ask for more"]
    return []


def older_trials(options: StudyOptions) -> list[FrozenTrial]:
    """Returns the older study's trials that this one may have had, as trials of its own.

    Raises:
        UserError: there is no such study, or it can't be read.
    """
    if options.sweeper.warm_start is None:
        return []
    older = _older(options)
    fixed = older.user_attrs.get("configuration", {})
    fitted = (_fitted(trial, older.study_name, fixed, options) for trial in _trained(older))
    return [trial for trial in fitted if trial is not None]


def begin(study: optuna.Study, options: StudyOptions) -> None:
    """Adds the older study's trials to one that has none of its own yet."""
    if options.sweeper.warm_start is None:
        return
    trials = study.get_trials(deepcopy=False)
    known = {trial.user_attrs.get(TRAINED_BY) for trial in trials}
    if None in known:
        if not is_worker() and len(known) == 1:
            log.warning("%s: of no effect, as the study %s has trials already", OPTION, study.study_name)
        return
    older = older_trials(options)
    # An earlier command may have been killed among them.
    if missing := [trial for trial in older if trial.user_attrs[TRAINED_BY] not in known]:
        study.add_trials(missing)
        _say(options, older)


def _say(options: StudyOptions, trials: list[FrozenTrial]) -> None:
    """Says what a study begins with, and what was otherwise when that was trained: its values may not compare."""
    older = _older(options)
    print(f"begins with {len(trials)} of {counted(len(_trained(older)), 'trial')} of the study {older.study_name}")
    searched = {name for trial in [*trials, *older.get_trials(deepcopy=False)] for name in trial.params}
    before, now = older.user_attrs.get("configuration", {}), options.fixed()
    both = (before.keys() & now.keys()) - searched
    if different := changes({key: before[key] for key in both}, {key: now[key] for key in both}):
        more = f" and {len(different) - SHOWN} more" if len(different) > SHOWN else ""
        log.warning("Those were trained with another configuration: %s%s", "; ".join(different[:SHOWN]), more)


def _older(options: StudyOptions) -> optuna.Study:
    given = str(options.sweeper.warm_start)
    folders = (Path(given).expanduser(), options.place.folder.parent / given)
    folder = next((one for one in folders if study_in(one) is not None), None)
    if folder is None:
        raise UserError(f"{OPTION}={given}: is no study's folder; give one, such as multirun/tune")
    study = find_study(folder, {})
    assert study is not None
    return study


def _trained(study: optuna.Study) -> list[FrozenTrial]:
    """Returns the trials that may be taken over: complete and pruned, none that was skipped as a duplicate."""
    ended = study.get_trials(deepcopy=False, states=(TrialState.COMPLETE, TrialState.PRUNED))
    return [trial for trial in ended if SAME_AS not in trial.user_attrs]


def _fitted(trial: FrozenTrial, study: str, fixed: Mapping[str, str], options: StudyOptions) -> FrozenTrial | None:
    """Returns a trial as this study would have drawn it; None if it could not have.

    What the older study had fixed and this one searches has the value that it had. What that searched and this one has
    fixed must have had this one's value.
    """
    space, config = options.space, options.config
    had: dict[str, Any] = {name: meant_by(f"_={value}") for name, value in fixed.items()} | trial.params
    try:
        drawn = dry_run(space, config, had)
    except NeedsTrialError as error:
        raise UserError(f"{OPTION}: {space.custom} can't be asked before the first trial ({error})") from error
    except ConfigError:
        return None
    if drawn.pruned or drawn.refused or not drawn.params.keys() <= had.keys():
        return None
    for name in trial.params.keys() - drawn.params.keys() - space.distributions.keys():
        if not same_value(trial.params[name], space.fixed.get(name, present(config, name))):
            return None
    return create_trial(
        state=trial.state,
        values=trial.values,
        params=drawn.params,
        distributions=drawn.distributions,
        user_attrs={TRAINED_BY: f"{study}/{trial.number}", **trial.user_attrs},
        system_attrs={OVERRIDES: space.overrides(drawn.params)},
        intermediate_values=trial.intermediate_values,
        constraints=dict(trial.constraints),
    )
