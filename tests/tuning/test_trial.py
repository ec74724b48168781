"""What a job tells of its trial while it trains: the curve, its end, signs of life."""

import math
import threading
import time
from contextlib import suppress

import optuna
import pytest
from optuna.exceptions import StorageInternalError

from cifar_tuning import processes
from cifar_tuning.training.events import EpochMetrics
from cifar_tuning.tuning.place import LostTrial
from cifar_tuning.tuning.trial import TrialReporter, on_job_end, outcomes
from tests.conftest import wait_for


def figures(epoch, accuracy=0.3, loss=2.0):
    return EpochMetrics(epoch, 2.0, 0.3, loss, accuracy, accuracy, 0.1, 100.0, 1.0)


# Several objectives have no curve to report.
@pytest.mark.parametrize(
    ("how", "objectives"), [("release", ["val/acc"]), ("again", ["val/acc"]), ("release", ["val/acc", "model/macs"])]
)
def test_a_job_whose_trial_was_given_back_stops(claims, how, objectives):
    (trial,) = claims.take(1, lambda trial: True)
    reporter = TrialReporter(trial, epochs=3, objectives=objectives)
    assert not reporter.on_epoch(figures(1))
    getattr(claims, how)(trial.number)
    with pytest.raises(LostTrial):
        reporter.on_epoch(figures(1))


@pytest.mark.parametrize(
    ("repeat", "options", "curve"),
    [
        (0, {}, {0: 0.0, 1: 0.1, 2: 0.2, 3: 0.3}),
        (0, {"objectives": ("val/loss",)}, {0: 2.0, 1: 2.0, 2: 2.0, 3: 2.0}),
        # The look before training is the first seed's alone: that of the second would be the first's last epoch.
        (1, {}, {4: 0.1, 5: 0.2, 6: 0.3}),
        (2, {}, {7: 0.1, 8: 0.2, 9: 0.3}),
        (0, {"objectives": ("val/acc", "val/loss")}, {}),
        (0, {"objectives": ("model/macs",)}, {}),
    ],
)
def test_the_curve_of_a_trial_goes_on_from_seed_to_seed(claims, repeat, options, curve):
    (trial,) = claims.take(1, lambda trial: True)
    reporter = TrialReporter(trial, 3, repeat, **options)
    for epoch in range(4):
        assert not reporter.on_epoch(figures(epoch, epoch / 10))
    # Who goes on from a checkpoint does not report twice, and a loss that is none is no value.
    again = TrialReporter(trial, 3, repeat, **options)
    assert not again.on_epoch(figures(3, 0.9, math.inf))
    assert not again.on_epoch(figures(4, math.nan, math.nan))
    assert claims.study.get_trials()[0].intermediate_values == curve


@pytest.mark.parametrize(("last", "ends"), [(True, "complete"), (False, "pruned")])
def test_behind_a_hopeless_seed_there_is_no_other(claims, last, ends):
    claims.study.pruner = optuna.pruners.ThresholdPruner(lower=0.2)
    (trial,) = claims.take(1, lambda trial: True)
    reporter = TrialReporter(trial, 3, last=last)
    assert not reporter.on_epoch(figures(0, 0.1))  # nothing was learnt yet
    assert not reporter.on_epoch(figures(1, 0.3))
    assert reporter.of_trial("complete") == "complete"
    assert reporter.on_epoch(figures(2, 0.1))
    assert reporter.of_trial("complete") == ends
    reporter.ended("complete", 0.3, 2, 3)
    (left,) = outcomes(claims.study.get_trials()[0], 1)
    assert (left.state, left.value, left.epochs, left.of) == (ends, 0.3, 2, 3)


def test_a_signal_whose_exception_was_lost_ends_the_job_with_its_epoch(claims, monkeypatch):
    """Python drops an exception that a signal raises while a destructor runs."""
    monkeypatch.setattr(processes, "_stop", threading.Event())
    (trial,) = claims.take(1, lambda trial: True)
    reporter = TrialReporter(trial, epochs=3)
    with suppress(SystemExit):
        processes.stop(15, None)
    with pytest.raises(SystemExit, match="143"):
        reporter.on_epoch(figures(1))


@pytest.mark.parametrize("away", [1, 1000])
def test_heartbeats_outlive_a_database_that_is_away_and_say_so_once(claims, monkeypatch, caplog, away):
    (trial,) = claims.take(1, lambda trial: True)
    beats = []

    def record(trial_id):
        beats.append(trial_id)
        if len(beats) <= away:
            raise StorageInternalError("no answer")

    monkeypatch.setattr(claims.storage, "heartbeat_interval", 0.01)
    monkeypatch.setattr(claims.storage, "record_heartbeat", record)
    with claims.heartbeats.of([trial]):
        wait_for(lambda: len(beats) > 2)
    count = len(beats)
    time.sleep(0.05)
    assert len(beats) == count
    assert caplog.text.count("Trial 0 can't give a sign of life: no answer") == 1


def test_a_storage_that_is_away_when_a_job_has_ended_costs_the_job_nothing(claims, caplog):
    (trial,) = claims.take(1, lambda trial: True)

    def away(number):
        raise StorageInternalError("no answer")

    with on_job_end(away):
        TrialReporter(trial, epochs=3).ended("complete", 0.7, 3, 3)
    assert "will hear later" in caplog.text
    assert [outcome.value for outcome in outcomes(claims.study.get_trials()[0], 1)] == [0.7]


def test_all_trials_of_a_process_have_one_thread_for_their_signs_of_life(claims, monkeypatch):
    trials, beats = claims.take(3, lambda trial: True), []
    monkeypatch.setattr(claims.storage, "heartbeat_interval", 0.01)
    monkeypatch.setattr(claims.storage, "record_heartbeat", beats.append)
    before = threading.active_count()
    with claims.heartbeats.of(trials[:1]), claims.heartbeats.of(trials[1:]):
        assert threading.active_count() == before + 1
        wait_for(lambda: len(set(beats)) == 3)
    assert threading.active_count() == before
