"""A batch of trials from the launcher's answers to the study, without anything that trains."""

import math
from types import SimpleNamespace

import optuna
import pytest
from hydra.core.utils import JobReturn, JobStatus
from hydra.errors import HydraException
from omegaconf import OmegaConf
from optuna.trial import TrialState

from cifar_tuning.errors import DiskError, UserError
from cifar_tuning.tuning.claims import RETRIES, Claims
from cifar_tuning.tuning.endings import Endings
from cifar_tuning.tuning.engine import Engine, room
from cifar_tuning.tuning.place import LostTrial
from cifar_tuning.tuning.space import SearchSpace
from cifar_tuning.tuning.storage import open_storage
from cifar_tuning.tuning.stream import Stream
from cifar_tuning.tuning.trial import Outcome, outcome_key

COMPLETE, PRUNED, FAIL, RUNNING, WAITING = (
    getattr(TrialState, name) for name in ("COMPLETE", "PRUNED", "FAIL", "RUNNING", "WAITING")
)


class Launcher:
    """Answers each job as it is told to, by its trial's number and its seed."""

    def __init__(self, answers):
        self.answers, self.launched = answers, []

    def launch(self, overrides, initial_job_idx):
        self.launched.append([(initial_job_idx + i, self.seed(one)) for i, one in enumerate(overrides)])
        return [self.returned(*job) for job in self.launched[-1]]

    @staticmethod
    def seed(overrides):
        return next((int(one.partition("=")[2]) for one in overrides if one.startswith("seed=")), None)

    def returned(self, number, seed):
        value = self.answers.get((number, seed), 0.5)
        failed = isinstance(value, BaseException)
        return JobReturn(status=JobStatus.FAILED if failed else JobStatus.COMPLETED, _return_value=value)


@pytest.fixture(scope="module")
def storage(tmp_path_factory):
    return open_storage(f"sqlite:///{tmp_path_factory.mktemp('study')}/optuna.db")


@pytest.fixture
def make(storage, tmp_path):
    def make(count, repeats=1, answers=(), n_trials=10, max_failure_rate=0.2):
        study = optuna.create_study(storage=storage, direction="maximize")
        engine = Engine.__new__(Engine)
        engine.study, engine.storage, engine.repeats, engine.flow = study, storage, repeats, None
        engine.options = SimpleNamespace(
            space=SearchSpace.parse({}, ["x=range(1,9)", "y=1"]),
            config=OmegaConf.create({"seed": 7}),
            sweeper=SimpleNamespace(max_failure_rate=max_failure_rate),
            place=SimpleNamespace(folder=tmp_path),
            same_command="the same command",
            n_trials=n_trials,
            begin=0.0,
        )
        engine.endings = Endings(study, storage, tmp_path, repeats, 1)
        engine.claims = Claims(engine.endings, n_trials, 3)
        engine.launcher = Launcher(dict(answers))
        trials = engine.claims.take(count, lambda trial: bool(trial.suggest_int("x", 1, 8)))
        return engine, trials

    return make


def states(engine):
    return [trial.state for trial in engine.study.get_trials()]


def leave(engine, number, *ended):
    for repeat, outcome in enumerate(ended):
        trial_id = engine.storage.trial_id(engine.study, number)
        engine.storage.set_trial_system_attr(trial_id, outcome_key(repeat), vars(outcome))


def test_seed_by_seed_those_that_go_on(make):
    """One is pruned behind its first seed, one fails, one is another process's, and one was begun before."""
    answers = {
        (0, 7): 0.4,
        (0, 8): 0.6,
        (1, 7): optuna.TrialPruned(),
        (2, 7): ValueError("no memory"),
        (3, 7): LostTrial("taken up by another process"),
        (4, 8): 0.9,
    }
    engine, trials = make(5, repeats=2, answers=answers)
    leave(engine, 4, Outcome("complete", 0.1))
    engine._train_batch(trials)
    assert engine.launcher.launched == [[(0, 7), (1, 7), (2, 7), (3, 7)], [(0, 8)], [(4, 8)]]
    assert states(engine) == [COMPLETE, PRUNED, FAIL, RUNNING, COMPLETE]
    assert [trial.value for trial in engine.study.get_trials()] == [0.5, None, None, None, 0.5]
    assert engine.study.get_trials()[2].user_attrs["error"] == "ValueError: no memory"


def test_a_full_disk_gives_its_trial_back_and_is_no_cause_of_itself(make):
    """Whoever looked for the last cause of one that is would never come to an end."""
    engine, _ = make(0, answers={(0, None): DiskError("full")})
    engine.deadline, engine.batch = math.inf, 1
    engine.suggest = lambda trial: bool(trial.suggest_int("x", 1, 8))
    with pytest.raises(DiskError) as full:
        engine.run()
    assert full.value.__cause__ is None
    assert states(engine) == [WAITING]


@pytest.mark.parametrize("skip", [True, False])
def test_what_is_drawn_again_is_trained_again_unless_it_is_to_be_skipped(make, skip):
    engine, _ = make(0)
    engine.batch, engine.options.sweeper.skip_duplicates = 1, skip
    engine.options.space = SearchSpace.parse({}, ["x=range(1,2)"])
    assert len(engine.claims.take(1, engine.suggest)) == 1
    engine.endings.tell(0, "complete", 0.5)
    assert [trial.number for trial in engine.claims.take(1, engine.suggest)] == ([] if skip else [1])
    assert states(engine) == [COMPLETE, COMPLETE if skip else RUNNING]


def test_what_a_job_is_called_with(make):
    engine, (trial,) = make(1)
    x = trial.params["x"]
    assert engine.overrides(trial, 0) == ["y=1", f"x={x}"]
    engine.repeats = 3
    assert engine.overrides(trial, 2)[:4] == ["y=1", f"x={x}", "seed=9", "hydra.sweep.subdir=0/seed_9"]


def test_a_launcher_that_starts_nothing_costs_no_trial(make, tmp_path):
    engine, trials = make(2)
    with pytest.raises(UserError, match=r"hydra/launcher could not start a job: OSError: no\nNo trial is lost"):
        engine._after_launcher_error(trials, OSError("no"))
    assert states(engine) == [WAITING, WAITING]
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("left", ["folder", "outcome"])
def test_a_launcher_that_breaks_off_loses_what_was_begun_and_not_ended(make, tmp_path, left):
    engine, trials = make(2)
    if left == "folder":
        (tmp_path / "1").mkdir()
    else:
        leave(engine, 1, Outcome("complete", 0.7))
    engine._after_launcher_error(trials, OSError("broken pipe"))
    assert states(engine) == [WAITING, WAITING if left == "folder" else COMPLETE]
    deaths = [trial.system_attrs.get(RETRIES, 0) for trial in engine.study.get_trials()]
    assert deaths == [1, 1 if left == "folder" else 0]


def test_what_can_not_be_composed_fails(make):
    engine, trials = make(2)
    engine.claims.release(trials[1].number)  # another process may have it by now
    engine._after_launcher_error(trials, HydraException("no such option"))
    assert states(engine) == [FAIL, WAITING]


def test_who_is_stopped_gives_back_what_has_not_ended(make):
    engine, _ = make(3)
    leave(engine, 1, Outcome("complete", 0.7))
    engine.endings.tell(2, "pruned", None)
    engine._give_back()
    assert states(engine) == [WAITING, COMPLETE, PRUNED]


@pytest.mark.parametrize(
    ("rate", "failed", "too_many"), [(0.0, 0, False), (0.0, 1, True), (0.2, 2, False), (0.2, 3, True), (1.0, 3, False)]
)
def test_how_many_may_fail(make, rate, failed, too_many):
    engine, trials = make(3, max_failure_rate=rate)
    for trial in trials[:failed]:
        engine.endings.fail(trial.number, f"reason {trial.number}")
    found = engine._failed()
    assert (found is not None) == too_many
    if too_many:
        with pytest.raises(UserError, match=f"{failed} of 10 trials failed(.|\n)*- trial 0: reason 0\n"):
            engine._stop_if_too_many_failed()
    engine.options.begin = 2**33  # of an earlier command: those are made up for
    assert engine._failed() is None


def test_the_end_of_a_job_does_not_cost_a_look_at_all_trials():
    """Of a stream of thousands each end would cost more than the last."""
    looked_at = []

    class Numbered:
        def __init__(self, number):
            self._number = number

        @property
        def number(self):
            looked_at.append(self._number)
            return self._number

    endings = SimpleNamespace(
        left=lambda number: [], outcome=lambda *job: Outcome("complete", 0.5), settle=lambda number: True
    )
    claims = SimpleNamespace(heartbeats=SimpleNamespace(begin=lambda trials: None, end=lambda trials: None))
    engine = SimpleNamespace(endings=endings, claims=claims, repeats=1, overrides=lambda trial, repeat: [])
    stream = Stream(engine, [Numbered(number) for number in range(50)], lambda: False)

    def train(room, more, ended):
        for number, _ in more(room):
            ended(number, JobReturn(status=JobStatus.COMPLETED, _return_value=0.5))

    stream.run(train, 50)
    assert stream.failure is None
    assert len(looked_at) == 50


@pytest.mark.parametrize(
    ("given", "trials"),
    [((8, 20, 1, None), 8), ((8, 20, 3, None), 3), ((8, 20, 3, 4), 4), ((1000, 5, 2, None), 3), ((8, 0, 1, None), 1)],
)
def test_how_many_trials_a_process_has_at_a_time(given, trials):
    assert room(*given) == trials
