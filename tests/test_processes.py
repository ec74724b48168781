import signal
import sys
import threading

import pytest

from cifar_tuning.processes import deferred_signals


def press_ctrl_c(done: list[str], word: str) -> None:
    signal.raise_signal(signal.SIGINT)
    done.append(word)


def be_terminated(done: list[str], word: str) -> None:
    signal.raise_signal(signal.SIGTERM)
    done.append(word)


def once(done: list[str]) -> None:
    with deferred_signals():
        press_ctrl_c(done, "all of it")
    done.append("nothing more")


def twice(done: list[str]) -> None:
    with deferred_signals():
        press_ctrl_c(done, "once")
        press_ctrl_c(done, "twice")


def twice_within(done: list[str]) -> None:
    with deferred_signals():
        with deferred_signals():
            press_ctrl_c(done, "once")
            press_ctrl_c(done, "twice")
        done.append("outer")


def after_another(done: list[str]) -> None:
    with deferred_signals():
        done.append("the first block")
    once(done)


def nested(done: list[str]) -> None:
    with deferred_signals():
        with deferred_signals():
            press_ctrl_c(done, "inner")
        done.append("outer")


def in_error(done: list[str]) -> None:
    with deferred_signals():
        press_ctrl_c(done, "so far")
        raise ValueError


@pytest.mark.parametrize(
    ("work", "expected"),
    [
        (once, ["all of it"]),
        (twice, ["once"]),
        (twice_within, ["once"]),
        (nested, ["inner", "outer"]),
        (in_error, ["so far"]),
        (after_another, ["the first block", "all of it"]),
    ],
)
@pytest.mark.usefixtures("ctrl_c")
def test_a_signal_waits_for_the_end_of_the_block(work, expected):
    done: list[str] = []
    with pytest.raises(KeyboardInterrupt):
        work(done)
    assert done == expected
    with pytest.raises(KeyboardInterrupt):  # and outside of blocks it comes at once
        press_ctrl_c(done, "never")
    assert done == expected


def test_a_scheduler_terminates_twice_and_means_once(terminable):
    """The whole group gets its signal, and a supervisor passes it on."""
    done: list[str] = []

    def work() -> None:
        with deferred_signals():
            be_terminated(done, "once")
            be_terminated(done, "twice")

    with pytest.raises(SystemExit) as stopped:
        work()
    assert stopped.value.code == 128 + signal.SIGTERM
    assert done == ["once", "twice"]


@pytest.fixture
def terminable():
    before = signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))
    yield
    signal.signal(signal.SIGTERM, before)


def test_other_threads_hear_no_signals_anyway():
    before, seen = signal.getsignal(signal.SIGINT), []

    def work() -> None:
        with deferred_signals():
            seen.append(signal.getsignal(signal.SIGINT))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert seen == [before]
