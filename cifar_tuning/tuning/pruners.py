"""Optuna's percentile and median pruners, with an end: which of the last trials is better is seen early or not at all.

Late in a training its schedule decides how curves compare: where the learning rate is divided in epoch 10, an accuracy
leaps up in epoch 11, and whoever waits for epoch 12 with it is below the median until then. And a trial that is looked
at often is below the median at some time, by chance.

And with a beginning for trials that run side by side: where eight begin at once, all of them would be complete before
the first could be compared with complete ones.
"""

from types import SimpleNamespace
from typing import Any, cast

import optuna
from optuna.study import Study
from optuna.trial import FrozenTrial, TrialState, create_trial

from cifar_tuning.numeric import is_whole


class PercentilePruner(optuna.pruners.PercentilePruner):
    """Prunes a trial whose best value so far is not among the given share of the complete trials' values at that step.

    Args:
        percentile: the share that goes on, 0 to 100.
        n_startup_trials, n_warmup_steps, interval_steps, n_min_trials: as Optuna's.
        n_last_steps: no trial is pruned behind this step; None: up to its end, as Optuna does.
        n_seed_steps: of one seed of a trial that has several: it may be pruned behind each, whatever else is said.
            None: there is one seed.
        count_incomplete: while fewer than n_startup_trials are complete, whether a trial is compared with running and
            pruned ones too, as soon as more than n_startup_trials others have reached its step. Trials one after the
            other are pruned as without it.

    Raises:
        ValueError: an option is out of range, or no trial would ever be pruned.
    """

    def __init__(
        self,
        percentile: float,
        n_startup_trials: int = 5,
        n_warmup_steps: int = 0,
        interval_steps: int = 1,
        *,
        n_min_trials: int = 1,
        n_last_steps: int | None = None,
        n_seed_steps: int | None = None,
        count_incomplete: bool = False,
    ) -> None:
        if not isinstance(count_incomplete, bool):
            raise ValueError(f"count_incomplete must be true or false, but got {count_incomplete}.")
        for name, value in (("n_last_steps", n_last_steps), ("n_seed_steps", n_seed_steps)):
            if value is not None and not is_whole(value, 1):
                raise ValueError(f"{name} must be a whole number, 1 or above, or null, but got {value}.")
        if n_last_steps is not None and n_last_steps < n_warmup_steps:
            raise ValueError(
                f"n_last_steps={n_last_steps} is before n_warmup_steps={n_warmup_steps}: no trial would be pruned. "
                "Give both, or n_last_steps=null."
            )
        super().__init__(percentile, n_startup_trials, n_warmup_steps, interval_steps, n_min_trials=n_min_trials)
        self._n_last_steps, self._n_seed_steps = n_last_steps, n_seed_steps
        self._count_incomplete = count_incomplete
        self._behind_a_seed = optuna.pruners.PercentilePruner(percentile, n_startup_trials, n_min_trials=n_min_trials)

    def prune(self, study: Study, trial: FrozenTrial) -> bool:
        """Whether the trial is hopeless, by what it has reported last."""
        step = trial.last_step
        if step is None:
            return False
        if self._n_seed_steps is not None and step % self._n_seed_steps == 0:
            return self._behind_a_seed.prune(study, trial)
        if self._n_last_steps is not None and step > self._n_last_steps:
            return False
        if self._count_incomplete and not self._started(study):
            counted = (TrialState.COMPLETE, TrialState.RUNNING, TrialState.PRUNED)
            trials = study.get_trials(deepcopy=False, states=counted)
            others = [one for one in trials if one.number != trial.number and step in one.intermediate_values]
            if len(others) <= self._n_startup_trials:
                return False
            # Optuna's rule with these for complete trials: it asks a study for nothing else.
            study = cast(Study, SimpleNamespace(direction=study.direction, get_trials=lambda **_: others))
        return super().prune(study, trial)

    def _started(self, study: Study) -> bool:
        complete = study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
        return len(complete) >= max(self._n_startup_trials, 1)


class MedianPruner(PercentilePruner):
    """Prunes a trial whose best value so far is below the median of the complete trials' values at that step.

    Args:
        n_startup_trials, n_warmup_steps, interval_steps, n_min_trials: as Optuna's.
        n_last_steps, n_seed_steps, count_incomplete: as `PercentilePruner`'s.
    """

    def __init__(
        self, n_startup_trials: int = 5, n_warmup_steps: int = 0, interval_steps: int = 1, **options: Any
    ) -> None:
        super().__init__(50.0, n_startup_trials, n_warmup_steps, interval_steps, **options)


def learn_brackets(study: Study) -> None:
    """Has Hyperband learn its brackets, so that the sampler sees, as under Optuna alone, those of the trial's own.

    It learns them when it is first asked about a trial; in a process that draws trials and trains none that is never.
    """
    if isinstance(study.pruner, optuna.pruners.HyperbandPruner):
        study.pruner.prune(study, create_trial(state=TrialState.RUNNING))
