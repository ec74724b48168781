import json
from concurrent.futures import ThreadPoolExecutor

import psutil
import pytest

from cifar_tuning.training import measurement_cache


def test_what_several_measure_at_once_is_all_kept():
    with ThreadPoolExecutor(8) as several:
        list(several.map(lambda i: measurement_cache.remember("stacks", f"model {i}", {"1": i}), range(40)))
    assert measurement_cache.recall("stacks") == {f"model {i}": {"1": i} for i in range(40)}


def test_a_measurement_is_remembered_while_another_goes_on(monkeypatch):
    monkeypatch.setattr(measurement_cache, "PATIENCE", 0.1)
    with measurement_cache.one_at_a_time("precision"):
        measurement_cache.remember("precision", "model", "bf16")
    assert measurement_cache.recall("precision") == {"model": "bf16"}


@pytest.mark.parametrize("content", ["", "{", "[1]"])
def test_a_damaged_file_is_measured_anew(content):
    measurement_cache.remember("precision", "model", "bf16")
    measurement_cache.cache_file("precision").write_text(content)
    assert measurement_cache.recall("precision") == {}
    measurement_cache.remember("precision", "other", "fp32")
    assert measurement_cache.recall("precision") == {"other": "fp32"}


# As it is; in tests nobody is (see `_own_cache`).
IN_THE_WAY = measurement_cache.Neighbours.in_the_way


@pytest.fixture
def used(monkeypatch):
    """Has the machine's cores and this process be busy as a test says, in seconds."""
    clock = {"busy": 0.0, "own": 0.0, "seconds": 0.0}
    monkeypatch.setattr(measurement_cache.Neighbours, "in_the_way", IN_THE_WAY)
    monkeypatch.setattr(measurement_cache.Neighbours, "_times", staticmethod(lambda: tuple(clock.values())))
    monkeypatch.setattr(measurement_cache.Neighbours, "_cores", staticmethod(lambda: [None] * 4))
    monkeypatch.setattr(measurement_cache.torch, "get_num_threads", lambda: 2)
    return clock


@pytest.mark.parametrize(
    ("busy", "own", "seconds", "expected"),
    [
        (2.0, 2.0, 1.0, False),  # nobody else
        (4.0, 2.0, 1.0, False),  # two more, on the other two cores
        (3.6, 1.2, 1.0, True),
        (0.08, 0.0, 0.02, False),  # too short to tell
    ],
)
def test_who_is_in_the_way(used, busy, own, seconds, expected):
    beside = measurement_cache.Neighbours()
    used |= {"busy": busy, "own": own, "seconds": seconds}
    assert beside.in_the_way() is expected


def test_what_was_measured_beside_others_is_this_processs_alone(used):
    beside = measurement_cache.Neighbours()
    used |= {"busy": 4.0, "own": 1.0, "seconds": 1.0}
    measurement_cache.remember("precision", "model", "fp32", beside)
    assert measurement_cache.recall("precision") == {"model": "fp32"}
    assert not measurement_cache.cache_file("precision").exists()
    used |= {"busy": 5.0, "own": 2.0, "seconds": 2.0}
    measurement_cache.remember("precision", "another model", "fp32", measurement_cache.Neighbours())
    assert json.loads(measurement_cache.cache_file("precision").read_text()) == {"another model": "fp32"}
    quiet = measurement_cache.Neighbours()
    used |= {"busy": 6.0, "own": 3.0, "seconds": 3.0}
    measurement_cache.remember("precision", "model", "bf16", quiet)
    assert measurement_cache.recall("precision") == {"another model": "fp32", "model": "bf16"}
    assert json.loads(measurement_cache.cache_file("precision").read_text()) == measurement_cache.recall("precision")


@pytest.mark.parametrize(
    ("mine", "elsewhere", "expected"),
    [
        ({0, 1}, [2, 3], False),  # others are busy on the cores that this process does not have
        ({0, 1}, [0, 1], True),
        ({0, 1, 2, 3}, [2, 3], False),
        ({0, 1, 2, 3}, [1, 2, 3], True),
        ({6, 7}, [1, 2, 3], True),  # a container shows four cores, and their numbers on the machine
    ],
)
def test_only_the_cores_that_it_may_run_on_count(monkeypatch, mine, elsewhere, expected):
    clock = iter((0.0, 1.0))
    now = {"seconds": 0.0}
    fields = psutil.cpu_times()  # each system has its own
    none = fields._replace(**dict.fromkeys(fields._fields, 0.0))

    def times(percpu):
        busy = [now["seconds"] if core in elsewhere else 0.0 for core in range(4)]
        return [none._replace(user=each) for each in busy]

    monkeypatch.setattr(measurement_cache.Neighbours, "in_the_way", IN_THE_WAY)
    monkeypatch.setattr(psutil, "cpu_times", times)
    monkeypatch.setattr(measurement_cache.os, "sched_getaffinity", lambda process: mine, raising=False)
    monkeypatch.setattr(measurement_cache.torch, "get_num_threads", lambda: 2)
    monkeypatch.setattr(measurement_cache.time, "process_time", lambda: 0.0)
    monkeypatch.setattr(measurement_cache.time, "monotonic", lambda: next(clock))
    beside = measurement_cache.Neighbours()
    now["seconds"] = 1.0
    assert beside.in_the_way() is expected


def test_all_jobs_of_a_sweep_go_by_its_first_measurement(used, tmp_path):
    """Or two workers of a study, or the command that goes on with it, would compute in different precisions."""

    def measure(precision, others):
        beside = measurement_cache.Neighbours()
        used["busy"], used["seconds"] = used["busy"] + others, used["seconds"] + 1.0
        measurement_cache.remember("precision", "model", precision, beside)

    with measurement_cache.of_sweep(tmp_path / "sweep"):
        measure("bf16", others=4.0)
    measurement_cache._provisional.clear()  # another process
    measure("fp32", others=0.0)
    with measurement_cache.of_sweep(tmp_path / "sweep"):
        assert measurement_cache.recall("precision") == {"model": "bf16"}
    with measurement_cache.of_sweep(tmp_path / "another"):
        assert measurement_cache.recall("precision") == {"model": "fp32"}
    assert measurement_cache.recall("precision") == {"model": "fp32"}
