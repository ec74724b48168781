"""What a person sees while a study runs."""

import threading
import time
from io import StringIO
from typing import Any

import optuna
import pytest
from optuna.trial import FrozenTrial
from rich.console import Console

from cifar_tuning.tuning import display, progress
from cifar_tuning.tuning.display import Monitor
from cifar_tuning.tuning.progress import StudyProgress
from tests.conftest import wait_for
from tests.tuning.watching import COMPLETE, FAIL, INF, NAN, PRUNED, RUNNING, WAITING, make, watched


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


@pytest.mark.parametrize("state", [FAIL, PRUNED, COMPLETE])
def test_a_diverged_trial_is_called_so_whatever_state_optuna_has_for_it(state):
    trial = make(3, state, [0.1], steps=[0.1], attrs={"state": "diverged"})
    assert progress.line(trial, StudyProgress([trial], watched(), 60.0)).startswith(
        "trial 3 diverged after epoch 1 at 0.1000"
    )
    lines = picture([trial])
    assert "0 complete, 0 pruned, 0 failed, 1 diverged, 0 waiting" in lines[1]
    assert lines[-1].split() == ["3", "1/15", "0.1000", "diverged"]


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
