import signal
import threading

import pytest

from cifar_tuning.processes import undisturbed


def press_ctrl_c(done: list[str], word: str) -> None:
    signal.raise_signal(signal.SIGINT)
    done.append(word)


def once(done: list[str]) -> None:
    with undisturbed():
        press_ctrl_c(done, "all of it")
    done.append("nothing more")


def twice(done: list[str]) -> None:
    with undisturbed():
        press_ctrl_c(done, "once")
        press_ctrl_c(done, "twice")


def nested(done: list[str]) -> None:
    with undisturbed():
        with undisturbed():
            press_ctrl_c(done, "inner")
        done.append("outer")


def in_error(done: list[str]) -> None:
    with undisturbed():
        press_ctrl_c(done, "so far")
        raise ValueError


@pytest.mark.parametrize(
    ("work", "expected"),
    [(once, ["all of it"]), (twice, ["once"]), (nested, ["inner", "outer"]), (in_error, ["so far"])],
)
def test_a_signal_waits_for_the_end_of_the_block(work, expected):
    done: list[str] = []
    with pytest.raises(KeyboardInterrupt):
        work(done)
    assert done == expected
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_other_threads_hear_no_signals_anyway():
    before, seen = signal.getsignal(signal.SIGINT), []

    def work() -> None:
        with undisturbed():
            seen.append(signal.getsignal(signal.SIGINT))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert seen == [before]
