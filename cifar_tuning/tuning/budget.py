"""How many trials a study is to have when a command ends: those that failed before it began are made up for.

It may have enough of them sooner: see `enough`.

What counts is when the command began, which all of its workers know; two commands may differ in it, as they may in
`n_trials`: each takes trials up to its own limit, and numbers go on as they did.
"""

from typing import Any

import optuna
from optuna.samplers import BruteForceSampler
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState

from cifar_tuning.tuning.options import StudyOptions
from cifar_tuning.tuning.place import TRAINED_BY
from cifar_tuning.tuning.progress import best_trial, by_end


def finished(study: optuna.Study) -> list[FrozenTrial]:
    """Returns the trials that ended."""
    return [trial for trial in study.get_trials(deepcopy=False) if trial.state.is_finished()]


def failed_before(trials: list[FrozenTrial], begin: float) -> list[FrozenTrial]:
    """Returns the trials that failed before a moment, in seconds since the epoch."""
    return [
        trial
        for trial in trials
        if trial.state == TrialState.FAIL
        and trial.datetime_complete is not None
        and trial.datetime_complete.timestamp() < begin
    ]


def forgiven(study: optuna.Study, options: StudyOptions) -> list[FrozenTrial]:
    """Returns the trials that failed before the command began, which no longer count."""
    return failed_before(study.get_trials(deepcopy=False), options.begin)


def limit(study: optuna.Study, options: StudyOptions) -> int:
    """Returns how many trials the study may come to by this command, those that failed before it included."""
    return options.n_trials + len(forgiven(study, options))


def to_enqueue(study: optuna.Study, options: StudyOptions) -> list[dict[str, Any]]:
    """Returns the configurations to be tried next: the first ones, and the points of a grid that failed before.

    The sampler takes a point that failed for tried, and would draw another one in its place.
    """
    wanted, before = options.enqueued(), forgiven(study, options)
    if options.exhaustive:
        grid, branching = options.space.grid(), options.space.branching
        points = [t.params for t in before if (t.params if branching else t.params.keys() == grid.keys())]
        wanted += [point for point in points if all(point[name] in grid[name] for name in point.keys() & grid.keys())]
    gone = {trial.number for trial in before}
    others = [trial for trial in study.get_trials(deepcopy=False) if trial.number not in gone]
    known = [params for t in others for params in (t.params, t.system_attrs.get("fixed_params"))]
    return [params for i, params in enumerate(wanted) if params not in known and params not in wanted[:i]]


def enough(study: optuna.Study, sweeper: Any) -> str | None:
    """Returns in words why no further trial is to be drawn; None if one is.

    Args:
        study: with one objective, where the sweeper has a `target` or a `patience`.
        sweeper: its options.
    """
    target, patience = sweeper.target, sweeper.patience
    if target is None and patience is None:
        return None
    maximize, ended = study.directions[0] == StudyDirection.MAXIMIZE, by_end(finished(study))
    if (best := best_trial(ended, maximize)) is None:
        return None
    if target is not None and (best.values[0] >= target if maximize else best.values[0] <= target):
        return f"trial {best.number} has reached hydra.sweeper.target={target}"
    others = [trial for trial in ended[ended.index(best) + 1 :] if trial.state != TrialState.FAIL]
    since = [trial for trial in others if TRAINED_BY not in trial.user_attrs]  # an older study's were no search here
    if patience is not None and len(since) >= patience:
        return f"trial {best.number} is still the best after {len(since)} others (hydra.sweeper.patience={patience})"
    return None


def exhausted(study: optuna.Study) -> bool:
    """Whether every point of the search space is tried or in training, where the sampler has an end of its own.

    A grid's is known beforehand.
    """
    if not isinstance(study.sampler, BruteForceSampler):
        return False
    drawn = [t for t in study.get_trials(deepcopy=False) if t.params and t.state != TrialState.WAITING]
    if not drawn:
        return False
    try:
        # The only way to ask: it draws nothing and writes nothing.
        study.sampler.after_trial(study, drawn[-1], TrialState.FAIL, None)
    except RuntimeError as refusal:
        if not stops_study(refusal):
            raise
        return True
    except ValueError:  # the space has changed, which the sampler will say when it draws
        return False
    return False


def stops_study(error: RuntimeError) -> bool:
    """Whether a sampler wants to stop a study that has no further points, which is only allowed inside `optimize`."""
    return "`Study.stop` is supposed to be invoked" in str(error)
