"""How many trials a command may come to, and what is to be tried first."""

import re
from datetime import datetime
from types import SimpleNamespace

import optuna
import pytest
from optuna.trial import TrialState, create_trial

from cifar_tuning.tuning.budget import enough, failed_before, limit, to_enqueue
from cifar_tuning.tuning.space import SearchSpace

BEGIN = datetime(2026, 1, 1).timestamp()
FAIL, COMPLETE, WAITING, PRUNED = TrialState.FAIL, TrialState.COMPLETE, TrialState.WAITING, TrialState.PRUNED


def trial(state, x, seconds=None, fixed=False, value=0.5):
    """A trial that ended so many seconds after the command began."""
    ended = None if seconds is None else datetime.fromtimestamp(BEGIN + seconds)
    given = {"x": optuna.distributions.CategoricalDistribution([1, 2, 3])}
    made = create_trial(
        state=state,
        params={} if fixed else {"x": x},
        distributions={} if fixed else given,
        value=value if state == COMPLETE else None,
        system_attrs={"fixed_params": {"x": x}} if fixed else {},
    )
    made.datetime_complete = ended
    return made


def options(enqueue=(), exhaustive=False, override="x=choice(1,2,3)", conditions=None):
    return SimpleNamespace(
        n_trials=3,
        begin=BEGIN,
        space=SearchSpace.parse({}, override.split(), conditions=conditions),
        exhaustive=exhaustive,
        enqueued=lambda: [{"x": x} for x in enqueue],
    )


def study(*trials):
    made = optuna.create_study()
    made.add_trials(list(trials))
    return made


@pytest.mark.parametrize(
    ("trials", "numbers"),
    [
        ([], []),
        ([trial(FAIL, 1, -1), trial(FAIL, 2, 0), trial(FAIL, 3, 1)], [0]),
        ([trial(COMPLETE, 1, -1), trial(WAITING, 2), trial(FAIL, 3, -1)], [2]),
    ],
)
def test_what_failed_before_the_command_is_made_up_for(trials, numbers):
    made = study(*trials)
    assert [t.number for t in failed_before(made.get_trials(), BEGIN)] == numbers
    assert limit(made, options()) == 3 + len(numbers)


@pytest.mark.parametrize(
    ("trials", "asked", "expected"),
    [
        ([], {"enqueue": [2, 1, 2]}, [2, 1]),
        # Trained, queued, or failed by this command: not again. Failed before it: once more.
        ([trial(COMPLETE, 2, -1)], {"enqueue": [2, 1]}, [1]),
        ([trial(WAITING, 2, fixed=True)], {"enqueue": [2, 1]}, [1]),
        ([trial(FAIL, 2, 1)], {"enqueue": [2]}, []),
        ([trial(FAIL, 2, -1)], {"enqueue": [2]}, [2]),
        ([trial(FAIL, 2, -1), trial(COMPLETE, 2, -1)], {"enqueue": [2]}, []),
        # A sampler takes a point that failed for tried only where it goes through all of them.
        ([trial(FAIL, 2, -1), trial(FAIL, 3, -1)], {}, []),
        ([trial(FAIL, 2, -1), trial(FAIL, 3, -1), trial(FAIL, 2, -1)], {"exhaustive": True}, [2, 3]),
        ([trial(FAIL, 2, -1)], {"exhaustive": True, "enqueue": [1, 2]}, [1, 2]),
        ([trial(FAIL, 2, -1), trial(COMPLETE, 2, -1)], {"exhaustive": True}, []),
        # The space has become another one.
        ([trial(FAIL, 2, -1), trial(FAIL, 3, -1)], {"exhaustive": True, "override": "x=choice(1,3)"}, [3]),
        ([trial(FAIL, 2, -1)], {"exhaustive": True, "override": "y=choice(1,2)"}, []),
        # It has conditions, and a point need not have every key.
        (
            [trial(FAIL, 2, -1), trial(FAIL, 3, -1)],
            {"exhaustive": True, "override": "x=choice(1,3) y=choice(1,2)", "conditions": {"y": "x=1"}},
            [3],
        ),
    ],
)
def test_what_is_to_be_tried_first(trials, asked, expected):
    assert [params["x"] for params in to_enqueue(study(*trials), options(**asked))] == expected


@pytest.mark.parametrize(
    ("target", "patience", "direction", "said"),
    [
        (None, None, "maximize", None),
        (None, 2, "maximize", "trial 0 is still the best after 2 others"),  # the last that ended is the first number
        (None, 3, "maximize", None),
        (None, 1, "minimize", None),
        (0.7, None, "maximize", r"trial 0 has reached hydra\.sweeper\.target=0\.7"),
        (0.71, None, "maximize", None),
        (0.4, None, "minimize", "trial 3 has reached"),
    ],
)
def test_a_study_that_has_what_was_asked_for_draws_no_further_trial(target, patience, direction, said):
    made = optuna.create_study(direction=direction)
    made.add_trials([trial(COMPLETE, 1, 5, value=0.7), trial(COMPLETE, 2, 1), trial(FAIL, 3, 8)])
    made.add_trials([trial(COMPLETE, 1, 9, value=0.4), trial(PRUNED, 2, 7), trial(WAITING, 3)])
    found = enough(made, SimpleNamespace(target=target, patience=patience))
    assert re.match(said, found or "") if said else found is None


def test_without_a_complete_trial_there_is_no_patience():
    assert enough(study(trial(PRUNED, 1, 1), trial(FAIL, 2, 2)), SimpleNamespace(target=1.0, patience=1)) is None
