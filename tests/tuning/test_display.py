"""What a person sees while a study runs."""

import itertools
import math
import threading
import time
from datetime import datetime, timedelta
from io import StringIO
from typing import Any

import optuna
import pytest
from optuna.distributions import CategoricalDistribution
from optuna.trial import FrozenTrial, TrialState
from rich.console import Console

from cifar_tuning.reporting.study import best_values
from cifar_tuning.tracking.sweeps import winner
from cifar_tuning.tuning import display, progress
from cifar_tuning.tuning.display import Monitor
from cifar_tuning.tuning.progress import StudyProgress, Watched
from tests.conftest import wait_for

RUNNING, WAITING = TrialState.RUNNING, TrialState.WAITING
COMPLETE, PRUNED, FAIL = TrialState.COMPLETE, TrialState.PRUNED, TrialState.FAIL
NAN, INF = math.nan, math.inf
DAY = datetime(2024, 5, 1)


def make(number: int, state: TrialState = RUNNING, values=None, steps=(), params=None, ended=None, attrs=None):
    """A trial; `steps` are intermediate values from epoch 1 on, or a dictionary; `ended` is a second of the day."""
    params = params or {}
    trial = optuna.trial.create_trial(
        state=state,
        values=values if state == COMPLETE else None,
        params=params,
        distributions={name: CategoricalDistribution([value]) for name, value in params.items()},
        user_attrs=attrs,
        intermediate_values=steps if isinstance(steps, dict) else dict(enumerate(steps, 1)),
    )
    trial.number = number
    if state.is_finished():
        trial.datetime_complete = DAY + timedelta(seconds=number if ended is None else ended)
    return trial


def watched(**facts: Any) -> Watched:
    return Watched(**{"name": "study", "n_trials": 40, "maximize": True, "epochs": 15, **facts})


def screen(terminal: bool = True, **options: Any) -> Console:
    options = {"file": StringIO(), "width": 120, "_environ": {"TERM": "xterm"}, **options}
    return Console(force_terminal=terminal, color_system=None, **options)


def shown(console: Console) -> str:
    assert isinstance(console.file, StringIO)
    return console.file.getvalue()


def picture(trials: list[FrozenTrial], now: float = 60.0, *, closing: bool = False, **facts: Any) -> list[str]:
    console = screen()
    console.print(display.render(trials, watched(**facts), now, closing=closing))
    return [text.rstrip() for text in shown(console).splitlines()]


def monitor(trials: Any, console: Console, interval: float = 3600.0) -> Monitor:
    """One whose thread never gets to poll: the test does."""
    return Monitor(trials, watched(), console=console, interval=interval)


@pytest.mark.parametrize(
    ("values", "width", "drawn"),
    [
        ([], 5, ""),
        ([0, 1, 2, 3, 4, 5, 6, 7], 8, "▁▂▃▄▅▆▇█"),
        ([7, 0], 8, "█▁"),
        ([0.3, 0.3], 8, "▄▄"),
        ([0.0, NAN, None, INF, 1.0], 8, "▁···█"),
        ([NAN, -INF], 8, "··"),
        ([-1.7e308, 1.7e308], 8, "▄▄"),
        ([0, 5e-324], 8, "▁█"),
        (list(range(100)), 4, "▁▃▆█"),
        ([*[0.0] * 99, 1.0], 4, "▁▁▁█"),  # the last value is always there
    ],
)
def test_a_sparkline_spans_the_finite_values_and_ends_with_the_last(values, width, drawn):
    assert progress.sparkline(values, width) == drawn


@pytest.mark.parametrize(
    ("remaining", "ended", "elapsed", "limit", "seconds"),
    [
        (30, 10, 100.0, None, 300.0),
        (30, 0, 100.0, None, None),
        (30, 0, 100.0, 50.0, None),
        (30, 10, 100.0, 50.0, 50.0),
        (30, 10, 100.0, 500.0, 300.0),
        (30, 10, 100.0, -5.0, 0.0),
        (30, 10, 0.0, None, None),
        (30, 10, -3.0, None, None),  # the clock was set back
        (0, 0, 100.0, None, 0.0),
        (-2, 5, 100.0, None, 0.0),
    ],
)
def test_the_time_left_follows_the_rate_of_ended_trials_up_to_the_limit(remaining, ended, elapsed, limit, seconds):
    assert progress.time_left(remaining, ended, elapsed, limit) == seconds


@pytest.mark.parametrize(
    ("step", "epochs", "text"),
    [
        (None, 15, "-"),
        (None, None, "-"),
        (0, 15, "0/15"),
        (3, 15, "3/15"),
        (15, 15, "15/15"),
        (16, 15, "1/15 (repeat 2)"),
        (30, 15, "15/15 (repeat 2)"),
        (31, 15, "1/15 (repeat 3)"),
        (31, None, "31"),
        (3, 0, "3"),
    ],
)
def test_an_epoch_never_exceeds_the_epochs(step, epochs, text):
    assert progress.epoch_text(step, epochs) == text


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, "-"),
        (0.721, "0.7210"),
        (0, "0.0000"),
        (-2.5, "-2.5000"),
        (0.00012345, "0.0001234"),
        (123456.0, "1.235e+05"),
        (NAN, "nan"),
        (INF, "inf"),
        (-INF, "-inf"),
    ],
)
def test_a_metric_is_readable_at_any_scale(value, text):
    assert progress.number(value) == text


@pytest.mark.parametrize(
    ("seconds", "text"), [(None, "?"), (0.0, "0 s"), (45.2, "45 s"), (720.0, "12 min"), (9000.0, "2.5 h")]
)
def test_a_duration_is_as_precise_as_an_estimate(seconds, text):
    assert progress.duration(seconds) == text


@pytest.mark.parametrize(
    ("params", "text"),
    [
        ({}, ""),
        ({"lr": 0.0123456, "batch": 16384}, "lr=0.01235 batch=16384"),
        ({"optimizer": "sgd", "nesterov": True, "decay": None}, "optimizer=sgd nesterov=True decay=None"),
        ({"layers": "[64,\n  128]"}, "layers=[64, 128]"),
        ({"a.lr": 1, "b.lr": 2, "b.c.d": 3}, "a.lr=1 b.lr=2 d=3"),
    ],
)
def test_parameters_fit_in_one_line(params, text):
    assert progress.parameters(make(0, params=params), progress.short_keys(params)) == text


@pytest.mark.parametrize("maximize", [True, False])
@pytest.mark.parametrize("values", [[0.2, 0.8, 0.8], [0.2, 0.1, 0.8], [0.2]])
@pytest.mark.parametrize("violations", [(), (-1.0, 1.0, 0.0)])
def test_the_best_trial_is_optunas(maximize, values, violations):
    study = optuna.create_study(direction="maximize" if maximize else "minimize")
    for trial in [make(0, PRUNED, steps=[0.9]), make(0, FAIL), make(0, RUNNING, steps=[0.1])]:
        study.add_trial(trial)
    for value, violation in itertools.zip_longest(values, violations[: len(values)]):
        trial = make(0, COMPLETE, [value])
        trial.system_attrs = {} if violation is None else {"constraints": [violation]}
        study.add_trial(trial)
    found = progress.best_trial(reversed(study.get_trials()), maximize)
    assert found is not None
    assert found.number == study.best_trial.number


@pytest.mark.parametrize("maximize", [True, False])
@pytest.mark.parametrize(
    ("values", "ends", "found"),
    [
        ([0.5, -INF, 0.4], (1, 2, 3), {True: 0, False: 2}),
        ([0.5, INF, 0.6], (1, 2, 3), {True: 2, False: 0}),
        ([0.5, 0.5, 0.5], (3, 1, 2), {True: 1, False: 1}),  # two at a time: the first that reached it
        ([INF, -INF], (1, 2), {True: None, False: None}),
    ],
)
def test_a_study_has_one_winner(maximize, values, ends, found):
    """The one that it shows and keeps is the one that its file names to `predict.py` and to MLflow."""
    study = optuna.create_study(direction="maximize" if maximize else "minimize")
    study.add_trials(make(0, COMPLETE, [value], ended=end) for value, end in zip(values, ends, strict=True))
    best = progress.best_trial(study.get_trials(), maximize)
    assert (None if best is None else best.number) == winner(best_values(study)) == found[maximize]


def test_what_has_no_value_or_violates_a_constraint_is_not_the_best():
    odd, violating = make(0, COMPLETE, [0.5]), make(1, COMPLETE, [0.5])
    odd.values = [NAN]
    violating.system_attrs = {"constraints": [1.0]}
    assert progress.best_trial([odd, violating, make(2, PRUNED, steps=[0.1])], maximize=True) is None


@pytest.mark.parametrize(
    ("trial", "text"),
    [
        (make(7, PRUNED, steps=[0.1, 0.2, 0.4512]), "trial 7 pruned after epoch 3 at 0.4512"),
        (make(7, PRUNED), "trial 7 pruned"),
        (make(7, PRUNED, steps=[0.1, NAN]), "trial 7 pruned after epoch 2 at nan"),
        (make(7, COMPLETE, [0.6], steps=[0.1]), "trial 7 complete after epoch 1 at 0.6000"),
        (make(7, COMPLETE, [0.6], steps={5: 0.1, 19: 0.2}), "trial 7 complete after epoch 4 (repeat 2) at 0.6000"),
        (make(7, PRUNED, steps={16: 0.1}, params={"trainer.epochs": 20}), "trial 7 pruned after epoch 16 at 0.1000"),
        (make(7, FAIL, steps=[0.1]), "trial 7 failed"),
        (make(7, FAIL, attrs={"state": "odd"}), "trial 7 failed"),
        (make(7, FAIL, attrs={"error": "ValueError: no\nTraceback"}), "trial 7 failed: ValueError: no"),
        (make(7, FAIL, attrs={"error": "x" * 200}), f"trial 7 failed: {'x' * 99}…"),
    ],
)
def test_a_line_says_how_a_trial_ended(trial, text):
    trials = [make(4, COMPLETE, [0.721]), trial]
    so_far = StudyProgress(trials, watched(n_trials=8), now=120.0)
    assert progress.line(trial, so_far) == f"{text}  (best 0.7210, trial 4)  2/8 ended, about 6 min left"


@pytest.mark.parametrize("state", [FAIL, PRUNED, COMPLETE])
def test_a_diverged_trial_is_called_so_whatever_state_optuna_has_for_it(state):
    trial = make(3, state, [0.1], steps=[0.1], attrs={"state": "diverged"})
    assert progress.line(trial, StudyProgress([trial], watched(), 60.0)).startswith(
        "trial 3 diverged after epoch 1 at 0.1000"
    )
    lines = picture([trial])
    assert "0 complete, 0 pruned, 0 failed, 1 diverged, 0 waiting" in lines[1]
    assert lines[-1].split() == ["3", "1/15", "0.1000", "diverged"]


def test_the_last_line_of_a_study_has_no_time_left():
    trials = [make(0, FAIL), make(1, FAIL)]
    assert progress.line(trials[1], StudyProgress(trials, watched(n_trials=2), 60.0)) == "trial 1 failed  2/2 ended"
    assert progress.line(trials[1], StudyProgress(trials, watched(n_trials=1), 60.0)) == "trial 1 failed  2 ended"


def test_the_picture_shows_progress_best_speed_and_both_sections():
    trials = [
        make(0, COMPLETE, [0.7], steps=[0.1] * 15, params={"lr": 0.0123456}),
        make(1, PRUNED, steps=[0.1, 0.2]),
        make(2, FAIL),
        make(3, RUNNING, steps={0: 0.1, 1: 0.2, 2: 0.45}, params={"layers": "[red]"}),
        make(4, RUNNING),
        make(5, WAITING),
    ]
    facts = {"start": 0.0, "ended_before": frozenset({0}), "epochs_before": 15, "n_trials": 9}
    assert picture(trials, now=120.0, **facts) == [
        "study  2.0 epochs/min, time left 6 min",  # 4 of the 19 epochs are new, the value before training is none
        f"{'━' * 10}{'─' * 20} 3/9 ended: 1 complete, 1 pruned, 1 failed, 1 waiting",
        "best 0.7000, trial 0  lr=0.01235",
        "running  epoch  value   curve  parameters",
        "3        2/15   0.4500  ▁▃█    layers=[red]",
        "4        -      -",
        "ended  epoch  value   state",
        "0      15/15  0.7000  complete",
        "1      2/15   0.2000  pruned",
        "2      -      -       failed",
    ]


def test_an_empty_study_has_a_picture():
    assert picture([], epochs=None) == [
        "study  ? epochs/min, time left ?",
        "─" * 30 + " 0/40 ended: 0 complete, 0 pruned, 0 failed, 0 waiting",
        "best: none yet",
    ]


def test_the_final_picture_says_how_long_it_took():
    assert picture([make(0, FAIL)], now=125.0, closing=True)[0] == "study  ? epochs/min, took 2 min"


@pytest.mark.parametrize("n_trials", [0, 1, 3, 7, 40])
def test_the_bar_keeps_its_width_and_is_full_at_the_end(n_trials):
    trials = [make(0, COMPLETE, [0.1]), make(1, PRUNED), make(2, FAIL)]
    bar = picture(trials, n_trials=n_trials)[1].split()[0]
    assert len(bar) == 30
    assert bar.count("━") == 30 * 3 // max(3, n_trials)


def test_the_numbers_of_trials_stay_on_one_line():
    console = screen(width=80)
    states = [COMPLETE] * 120 + [PRUNED] * 20 + [FAIL] * 10 + [WAITING] * 15
    trials = [make(number, state, [0.5]) for number, state in enumerate(states)]
    console.print(display.render(trials, watched(n_trials=300), 60.0))
    bar = shown(console).splitlines()[1]
    assert bar.endswith("150/300 ended: 120 complete, 20 pruned, 10 failed, 15 waiting")
    assert bar.startswith("━━━━━━━━")
    assert len(bar) <= 80


def test_eight_running_and_five_ended_trials_are_shown_whatever_their_order():
    ended = [make(number, FAIL, ended=100 - number) for number in range(9)]
    running = [make(number) for number in range(20, 31)]
    lines = picture(list(reversed(ended + running)))
    assert [text.split()[0] for text in lines[4:12]] == [str(number) for number in range(23, 31)]
    assert lines[12] == "and 3 more running"
    assert [text.split()[0] for text in lines[14:]] == ["4", "3", "2", "1", "0"]  # in the order in which they ended


@pytest.mark.parametrize("separator", [".", " "])
def test_many_parameters_take_one_line_and_no_room_from_the_rest(separator):
    params = {f"a.long{separator}name{i}": 0.123456 for i in range(20)}
    console, name = screen(width=80), "name" if separator == "." else "long name"
    trials = [make(12, steps=[0.1 * epoch for epoch in range(10)], params=params), make(13, params=params)]
    console.print(display.render(trials, watched(), 60.0))
    header, first, second = (text.rstrip() for text in shown(console).splitlines()[-3:])
    assert header == "running  epoch  value   curve       parameters"
    assert first.startswith(f"12       10/15  0.9000  ▁▁▂▃▄▅▆▇██  {name}0=0.1235 {name}1=")
    assert second.startswith("13       -      -")
    assert first.endswith("…")
    assert second.endswith("…")


def test_several_objectives_have_no_best_trial():
    trials = [make(0, COMPLETE, [0.7, 1.5e6]), make(1, COMPLETE, [0.6, 2e3]), make(2, FAIL), make(3)]
    lines = picture(trials)
    assert lines[2] == "3 trials ended, several objectives"
    assert "best" not in " ".join(lines)
    assert lines[-3].split() == ["0", "-", "0.7000,", "1.5e+06", "complete"]
    text = progress.line(trials[0], StudyProgress(trials, watched(), 60.0))
    assert text == "trial 0 complete at 0.7000, 1.5e+06  3/40 ended, about 12 min left"


def test_nothing_is_left_beyond_the_deadline():
    trials = [make(0, FAIL)]
    assert StudyProgress(trials, watched(deadline=100.0), 60.0).left == 40.0
    assert StudyProgress([], watched(deadline=100.0), 60.0).left is None


@pytest.mark.parametrize("terminal", [True, False])
def test_values_that_are_missing_or_no_numbers_are_shown(terminal, caplog):
    caplog.set_level("DEBUG", display.__name__)
    odd = make(1, COMPLETE, [0.5])
    odd.values = None
    worse = make(2, COMPLETE, [0.5])
    worse.values = [None]  # type: ignore[list-item]
    trials = [odd, worse, make(3, PRUNED, steps=[NAN, INF]), make(4, steps={5: None}), make(5, steps=[-INF])]
    trials[0].datetime_complete = None
    console = screen(terminal)
    answers = [[], trials]
    with monitor(lambda: answers.pop(0) if len(answers) > 1 else answers[0], console):
        pass
    assert "inf" in shown(console)
    assert not caplog.records  # nothing was swallowed


def test_on_no_terminal_each_trial_that_ends_is_printed_once():
    console = screen(False, width=20)
    trials = [make(0, COMPLETE, [0.7]), make(1)]
    with monitor(lambda: trials, console) as watched:
        watched.refresh()
        assert shown(console) == ""
        trials[1] = make(1, PRUNED, steps=[0.1, 0.2])
        trials.append(make(2))
        watched.refresh()
        watched.refresh()
        trials[2] = make(2, FAIL)
    first, second = shown(console).splitlines()
    assert first.startswith("trial 1 pruned after epoch 2 at 0.2000  (best 0.7000, trial 0)  2/40 ended, about ")
    assert second.startswith("trial 2 failed  (best 0.7000, trial 0)  3/40 ended, about ")


@pytest.mark.parametrize(
    "console",
    [
        screen(_environ={"TERM": "dumb"}),
        Console(file=type("Ascii", (StringIO,), {"encoding": "ascii"})(), force_terminal=True, width=120),
    ],
    ids=["dumb", "ascii"],
)
def test_a_terminal_that_cannot_show_the_table_gets_lines(console):
    trials: list[FrozenTrial] = []
    with monitor(lambda: trials, console):
        trials.append(make(0, FAIL))
    assert shown(console).startswith("trial 0 failed  1/40 ended")
    assert shown(console).isascii()


@pytest.mark.parametrize("terminal", [True, False])
def test_a_poll_that_fails_keeps_the_last_picture_and_the_next_one_goes_on(terminal):
    console = screen(terminal)
    trials = [make(0, steps=[0.25])]
    busy = True

    def read() -> list[FrozenTrial]:
        if busy:
            raise RuntimeError("database is locked")
        return trials

    with monitor(read, console) as watched:
        busy = False
        watched.refresh()
        trials = [make(0, COMPLETE, [0.75])]
        watched.refresh()
        before = shown(console)
        assert "0.7500" in before
        busy = True
        watched.refresh()
        assert shown(console) == before
    assert ("0.7500" in shown(console)[len(before) :]) is terminal  # the last picture stays on the screen


def test_a_study_that_raises_is_not_hidden_and_the_terminal_is_given_back():
    console = screen()
    with pytest.raises(KeyboardInterrupt), monitor(lambda: [], console):
        raise KeyboardInterrupt
    assert shown(console).rstrip("\n").endswith("\x1b[?25h")  # the cursor is visible again


def test_a_storage_that_hangs_at_the_end_does_not_hold_the_study(monkeypatch):
    monkeypatch.setattr(display, "PATIENCE", 0.05)
    calls, answers = [], threading.Event()

    def read() -> list[FrozenTrial]:
        calls.append(1)
        if len(calls) > 1:
            answers.wait(60)
        return [make(0, steps=[0.25])]

    began = time.monotonic()
    with monitor(read, screen(), interval=0.01):
        wait_for(lambda: len(calls) > 1)
    assert time.monotonic() - began < 50
    assert len(calls) == 2
    answers.set()


def test_a_poll_of_500_trials_is_cheap():
    steps = [0.01 * epoch for epoch in range(30)]
    params = {f"optimizer.p{i}": 0.123456 for i in range(6)}
    states = [COMPLETE, PRUNED, FAIL, RUNNING]
    trials = [make(number, states[number % 4], [0.5], steps, params) for number in range(500)]
    times = []
    with monitor(lambda: trials, screen()) as watched:
        for _ in range(10):
            start = time.thread_time()
            watched.refresh()
            times.append(time.thread_time() - start)
    assert min(times) < 0.02


@pytest.mark.parametrize("terminal", [True, False])
def test_the_thread_watches_a_real_study(terminal):
    study = optuna.create_study(direction="maximize", storage=optuna.storages.InMemoryStorage())
    study.add_trial(make(0, COMPLETE, [0.11]))
    console = screen(terminal)

    def objective(trial: optuna.Trial) -> float:
        rate = trial.suggest_float("lr", 0.1, 0.2)
        trial.report(0.1, 0)
        trial.report(0.5, 1)
        if terminal:
            wait_for(lambda: f"1/15   0.5000  ▁█     lr={rate:.4g}" in shown(console))
        if trial.number == 1:
            raise optuna.TrialPruned
        return 0.75

    with Monitor(study.get_trials, watched(name="real", n_trials=3), interval=0.01, console=console):
        study.optimize(objective, n_trials=2)
        if not terminal:
            wait_for(lambda: "trial 2 complete" in shown(console))
    final = shown(console)
    if terminal:
        assert "best 0.7500, trial 2  lr=" in final[final.rindex("real  ") :]
        assert "3/3 ended: 2 complete, 1 pruned, 0 failed, 0 waiting" in final
    else:
        first, second = final.splitlines()
        assert first.startswith("trial 1 pruned after epoch 1 at 0.5000  (best ")
        assert second == "trial 2 complete after epoch 1 at 0.7500  (best 0.7500, trial 2)  3/3 ended"
