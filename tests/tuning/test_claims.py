"""Taking trials, seen from inside: what an interruption at a bad moment leaves."""

import json
import signal
import time
from threading import Thread

import optuna
import pytest
from optuna.trial import TrialState
from sqlalchemy import Connection
from sqlalchemy.exc import IllegalStateChangeError

from cifar_tuning.tuning import summary
from cifar_tuning.tuning.claims import RETRIES, TAKING, Claims, is_foreign
from cifar_tuning.tuning.endings import Endings, stopped_by
from cifar_tuning.tuning.place import AGAIN, OWNER
from cifar_tuning.tuning.storage import open_storage


@pytest.fixture
def program(tmp_path):
    """The study as another program has it, which knows Optuna alone."""
    return optuna.load_study(study_name="s", storage=f"sqlite:///{tmp_path}/optuna.db")


def test_a_study_that_has_enough_gives_what_waits_and_draws_no_other(endings):
    claims = Claims(endings, 4, 3, enough=lambda: "it has reached its target")
    endings.study.enqueue_trial({"x": 1})
    assert [trial.number for trial in claims.take(2, lambda trial: True)] == [0]
    assert claims.take(1, lambda trial: True) is None


@pytest.mark.parametrize("moment", ["suggest", "ask"])
@pytest.mark.parametrize("kind", [SystemExit, KeyboardInterrupt])
def test_a_trial_that_is_half_taken_is_given_back(claims, monkeypatch, moment, kind):
    """Ctrl-C and SIGTERM reach a worker also while it takes its next trials."""
    taken = []

    def interrupt(trial):
        taken.append(trial.number)
        if len(taken) == 2:
            raise kind
        return True

    if moment == "ask":
        monkeypatch.setattr(claims.storage, "record_heartbeat", lambda trial_id: (_ for _ in ()).throw(kind))
    with pytest.raises(kind):
        claims.take(3, interrupt)
    states = [trial.state for trial in claims.study.get_trials()]
    assert states == [TrialState.WAITING] * (2 if moment == "suggest" else 1)
    monkeypatch.undo()
    assert [trial.number for trial in claims.take(4, lambda trial: True)] == [0, 1, 2, 3]


@pytest.mark.usefixtures("ctrl_c")
def test_a_signal_waits_for_the_end_of_a_statement(claims, monkeypatch):
    """What it raises in the middle of one leaves SQLAlchemy's session in a state that nothing can use."""
    (trial,) = claims.take(1, lambda trial: True)
    begun, pressed = Connection._execute_context, []

    def interrupted(*arguments, **options):
        if not pressed:
            pressed.append(True)
            signal.raise_signal(signal.SIGINT)
        return begun(*arguments, **options)

    monkeypatch.setattr(Connection, "_execute_context", interrupted)
    with pytest.raises(KeyboardInterrupt):
        trial.set_user_attr("said", "all of it")
    assert claims.study.get_trials()[0].user_attrs == {"said": "all of it"}


def test_a_session_that_a_second_ctrl_c_broke_is_left_alone(claims, monkeypatch):
    (trial,) = claims.take(1, lambda trial: True)
    broken = claims.storage.scoped_session()
    monkeypatch.setattr(broken, "close", lambda: (_ for _ in ()).throw(IllegalStateChangeError("broken")))
    claims.storage.fresh_session()
    assert claims.storage.scoped_session() is not broken
    claims.release(trial.number)
    assert claims.study.get_trials()[0].state == TrialState.WAITING


@pytest.mark.usefixtures("ctrl_c")
def test_a_signal_while_a_trial_changes_hands(claims, monkeypatch):
    """One that another process gave back is still that one's for a moment after it was taken."""
    (given_back,) = claims.take(1, lambda trial: True)
    claims.release(given_back.number)
    other = Claims(claims.endings, 4, 3)
    ask = other.study.ask

    def interrupted():
        trial = ask()
        signal.raise_signal(signal.SIGINT)
        return trial

    monkeypatch.setattr(other.study, "ask", interrupted)
    with pytest.raises(KeyboardInterrupt):
        other.take(1, lambda trial: True)
    assert [trial.state for trial in claims.study.get_trials()] == [TrialState.WAITING]


@pytest.mark.parametrize("own", [True, False])
def test_an_interrupted_take_leaves_what_is_in_training(claims, own):
    """Here, where under the fused launcher a process takes trials while it trains others, or in another process."""
    training = claims if own else Claims(claims.endings, 4, 3)
    (trial,) = training.take(1, lambda trial: True)

    def interrupt(trial):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        claims.take(2, interrupt)
    assert [trial.state for trial in claims.study.get_trials()] == [TrialState.RUNNING, TrialState.WAITING]
    assert training.is_mine(claims.study.get_trials()[trial.number])


def test_a_trial_that_waits_is_taken_though_all_are_there(claims):
    """Unless it is beyond the limit, as those of a command with more trials are."""
    taken = claims.take(4, lambda trial: True)
    assert claims.take(1, lambda trial: True) is None
    for trial in taken[2:]:
        claims.release(trial.number)
    claims.n_trials = 3
    assert [trial.number for trial in claims.take(4, lambda trial: True)] == [2]
    again = [trial.system_attrs.get(AGAIN, False) for trial in claims.study.get_trials()]
    assert again == [False, False, True, False]  # of those alone there may be a checkpoint


def test_a_point_that_is_in_training_is_not_taken_again(claims, endings):
    """By a batch, or by another process; brute force would draw any point anew."""
    claims.study.sampler = optuna.samplers.BruteForceSampler()
    claims.n_trials = 20

    def suggest(trial) -> bool:
        return bool(trial.suggest_int("x", 1, 3))

    taken = claims.take(5, suggest)
    assert sorted(trial.params["x"] for trial in taken) == [1, 2, 3]
    assert claims.take(1, suggest) is None
    claims.release(taken[0].number)  # interrupted: it is still to be trained
    (again,) = claims.take(5, suggest)
    assert again.number == taken[0].number
    for trial in taken:
        endings.tell(trial.number, "complete", 1.0)
    assert claims.take(1, suggest) is None


@pytest.mark.parametrize("longest", [27, "auto"])
def test_a_sampler_sees_the_trials_of_the_same_bracket(claims, longest):
    """As under Optuna alone, although the pruner is asked in the jobs' processes only."""
    study, seen = claims.study, {}

    class Onlooker(optuna.samplers.RandomSampler):
        def infer_relative_search_space(self, study, trial):
            seen[trial.number] = [t.number for t in study.get_trials()]
            return {}

    study.add_trial(optuna.trial.create_trial(value=0.0, intermediate_values={26: 0.0}))
    study.sampler, study.pruner, claims.n_trials = Onlooker(), optuna.pruners.HyperbandPruner(max_resource=longest), 12
    for _ in range(11):
        claims.take(1, lambda trial: bool(trial.suggest_int("x", 1, 9)))
    alone = optuna.pruners.HyperbandPruner(max_resource=27)
    alone.prune(study, study.trials[-1])
    brackets = [alone._get_bracket_id(study, trial) for trial in study.trials]
    assert len(set(brackets)) > 1
    assert seen == {n: [other for other in range(n + 1) if brackets[other] == brackets[n]] for n in range(1, 12)}


def test_own_trials_that_are_silent_are_not_dead(claims, monkeypatch):
    """The machine has slept: the heartbeats are old, the process lives."""
    (training,) = claims.take(1, lambda trial: True)
    monkeypatch.setattr(claims.storage, "_get_stale_trial_ids", lambda study_id: [training._trial_id])
    assert [trial.number for trial in claims.take(2, lambda trial: True)] == [1, 2]
    assert RETRIES not in claims.study.get_trials()[0].system_attrs


@pytest.mark.slow
@pytest.mark.parametrize(
    ("settles", "state"), [(True, TrialState.COMPLETE), (False, TrialState.WAITING)], ids=["outcome_left", "none_left"]
)
def test_a_dead_process_may_have_left_its_trials_outcome(claims, settles, state):
    """What was trained to its end is not trained again, nor does it count as a death."""

    def settle(number):
        if settles:
            claims.study.tell(number, 0.9)
        return settles

    claims.endings.settle = settle
    (trial,) = claims.take(1, lambda trial: True)
    owner = {**claims.process, "pid": 2**22 + 1}
    claims.storage.set_trial_system_attr(trial._trial_id, OWNER, json.dumps(owner))
    (after,) = claims.take_up_dead()
    assert after.state == state
    assert after.system_attrs.get(RETRIES, 0) == (0 if settles else 1)


@pytest.mark.parametrize(
    ("other", "silent", "state"),
    [
        ({}, True, TrialState.RUNNING),  # the machine has slept, and that worker lives
        ({"host": "elsewhere"}, True, TrialState.WAITING),
        ({"host": "elsewhere"}, False, TrialState.RUNNING),
        ({"pid": 2**22 + 1}, False, TrialState.WAITING),
    ],
    ids=["here_silent", "elsewhere_silent", "elsewhere", "here_dead"],
)
def test_whose_process_is_gone(claims, monkeypatch, other, silent, state):
    (trial,) = claims.take(1, lambda trial: True)
    owner = {**claims.process, "id": "another", **other}
    claims.storage.set_trial_system_attr(trial._trial_id, OWNER, json.dumps(owner))
    monkeypatch.setattr(claims.storage, "_get_stale_trial_ids", lambda study_id: [trial._trial_id] if silent else [])
    (after,) = claims.take_up_dead()
    assert after.state == state


def test_a_trial_of_another_program_is_left_alone(claims, program, monkeypatch):
    """It asked Optuna for it, as whoever has the study's address may; it may even give signs of life."""
    theirs = program.ask()
    monkeypatch.setattr(claims.storage, "_get_stale_trial_ids", lambda study_id: [theirs._trial_id])
    assert [trial.number for trial in claims.take(4, lambda trial: True)] == [1, 2, 3]
    assert claims.take(1, lambda trial: True) is None
    assert [is_foreign(trial) for trial in claims.study.get_trials()] == [True, False, False, False]
    assert summary.foreign(claims.study) == ["another program asked Optuna for trial 0, which is left to it"]
    program.tell(theirs, 0.5)
    assert summary.foreign(claims.study) == []


def test_another_program_may_train_what_we_gave_back(claims, program):
    (ours,) = claims.take(1, lambda trial: True)
    claims.release(ours.number)
    attributes = claims.study.get_trials()[0].system_attrs
    long_ago = json.loads(attributes[OWNER]) | {"at": attributes[TAKING] - 100, "pid": 2**22 + 1}
    claims.storage.set_trial_system_attr(ours._trial_id, OWNER, json.dumps(long_ago))
    claims.storage.set_trial_system_attr(ours._trial_id, TAKING, attributes[TAKING] - 100)
    assert program.ask().number == ours.number
    assert [trial.number for trial in claims.take(1, lambda trial: True)] == [1]
    assert is_foreign(claims.study.get_trials()[0])


@pytest.mark.parametrize("queued", [False, True])
def test_another_program_that_asks_at_the_same_moment(claims, program, monkeypatch, queued):
    if queued:
        claims.study.enqueue_trial({"x": 1})
    ask = claims.study.ask

    def second():
        program.ask()
        monkeypatch.undo()
        return ask()

    monkeypatch.setattr(claims.study, "ask", second)
    assert [trial.number for trial in claims.take(3, lambda trial: True)] == [1, 2, 3]
    claims.take_up_dead()
    assert [is_foreign(trial) for trial in claims.study.get_trials()] == [True, False, False, False]


@pytest.mark.parametrize("queued", [False, True])
def test_who_is_killed_while_taking_a_trial_leaves_it_to_the_next(claims, monkeypatch, queued):
    if queued:
        claims.study.enqueue_trial({"x": 1})
    ask = claims.study.ask

    def killed():
        ask()
        raise SystemExit

    with monkeypatch.context() as patch:
        patch.setattr(claims.study, "ask", killed)
        patch.setattr(claims, "_give_back_half_taken", lambda training: None)
        with pytest.raises(SystemExit):
            claims.take(1, lambda trial: True)
    assert [trial.state for trial in claims.study.get_trials()] == [TrialState.RUNNING]
    assert [trial.number for trial in claims.take(2, lambda trial: True)] == [0, 1]


@pytest.mark.parametrize(
    ("most", "retries", "state", "error"),
    [(3, 3, TrialState.FAIL, "its process died 4 times"), (None, 31, TrialState.WAITING, None)],
)
def test_who_dies_too_often_fails_with_the_reason(claims, most, retries, state, error):
    (trial,) = claims.take(1, lambda trial: True)
    claims.storage.set_trial_system_attr(trial._trial_id, RETRIES, 3 if most else 30)
    claims.max_retry = most
    claims.again(trial.number)
    (after,) = claims.study.get_trials()
    assert (after.state, after.system_attrs[RETRIES], after.user_attrs.get("error")) == (state, retries, error)


def test_an_earlier_job_notices_that_its_trial_was_taken_again(claims):
    """A launcher lost it, and it trains on: the same process may take the trial once more."""
    (first,) = claims.take(1, lambda trial: True)
    before = claims.study.get_trials()[0].system_attrs[OWNER]
    claims.again(first.number)
    (second,) = claims.take(1, lambda trial: True)
    assert second.number == first.number
    assert claims.study.get_trials()[0].system_attrs[OWNER] != before
    assert claims.is_mine(claims.study.get_trials()[0])


def test_one_database_in_two_folders_has_one_lock(claims, tmp_path):
    """A trial that is just being drawn belongs to nobody yet; who comes from another folder must not take it up."""
    study = optuna.load_study(study_name="s", storage=open_storage(f"sqlite:///{tmp_path}/optuna.db"))
    folder = tmp_path / "elsewhere"
    folder.mkdir()
    other = Claims(Endings(study, claims.storage, folder, repeats=1, objectives=1), 4, 3)
    taken = []
    thread = Thread(target=lambda: taken.append(other.take(1, lambda trial: True)))

    def slowly(trial):
        thread.start()
        time.sleep(0.3)
        return True

    (mine,) = claims.take(1, slowly)
    thread.join()
    ((others,),) = taken
    assert (mine.number, others.number) == (0, 1)
    assert [trial.state for trial in study.get_trials()] == [TrialState.RUNNING] * 2


@pytest.mark.parametrize("state", ["complete", "diverged", "pruned", "failed"])
def test_a_trial_that_another_process_ended_stays_as_it_ended(claims, endings, state, caplog):
    (trial,) = claims.take(1, lambda trial: True)
    claims.study.tell(trial.number, 0.9)
    endings.tell(trial.number, state, 0.1, error="a reason" if state == "failed" else None)
    (ended,) = claims.study.get_trials()
    assert (ended.state, ended.value, ended.user_attrs) == (TrialState.COMPLETE, 0.9, {})
    assert "was ended by another process" in caplog.text


@pytest.mark.parametrize("kind", [ValueError, TypeError, RuntimeError])
def test_a_mistake_of_the_users_in_what_follows_a_trial_is_shown_and_costs_no_trial(
    claims, endings, kind, caplog, tmp_path
):
    def limits(trial):
        raise kind("my limit needs an attribute")

    with pytest.warns(FutureWarning):
        claims.study.sampler = optuna.samplers.TPESampler(constraints_func=limits)
    (trial,) = claims.take(1, lambda trial: True)
    endings.tell(trial.number, "complete", 0.5)
    assert [(t.state, t.value) for t in claims.study.get_trials()] == [(TrialState.COMPLETE, 0.5)]
    assert f"TPESampler could not learn from it: {kind.__name__}: my limit needs an attribute" in caplog.text
    assert "in limits" in caplog.text  # the traceback
    assert "in limits" in (tmp_path / "0/traceback.txt").read_text()


@pytest.mark.parametrize(("base", "stopped"), [("RandomSampler", True), ("GridSampler", False)])
def test_a_sampler_may_stop_the_study(claims, endings, base, stopped):
    """As Optuna's own samplers do, from whose points those are told apart that are to be tried again."""

    class Impatient(getattr(optuna.samplers, base)):
        def after_trial(self, study, trial, state, values):
            study.stop()

    claims.study.sampler = Impatient(*([{"x": [1, 2]}] if base == "GridSampler" else []))
    (trial,) = claims.take(1, lambda trial: bool(trial.suggest_int("x", 1, 2)))
    endings.tell(trial.number, "complete", 0.5)
    assert (endings.stopped, claims.study.trials[0].state) == (stopped, TrialState.COMPLETE)
    # Whoever sums up the study may be another process.
    assert stopped_by(claims.study, claims.storage, 0.0) == ("Impatient" if stopped else None)
    assert stopped_by(claims.study, claims.storage, time.time()) is None
