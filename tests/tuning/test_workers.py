"""How many worker processes a study starts where it is left to the machine, and how they are looked after."""

import json
import subprocess
import sys
import time
from types import SimpleNamespace

import psutil
import pytest
import torch
from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import OmegaConf
from optuna.exceptions import StorageInternalError
from optuna.trial import TrialState, create_trial

from cifar_tuning import processes
from cifar_tuning.errors import UserError
from cifar_tuning.gpus import VISIBLE
from cifar_tuning.tuning import worker_count, workers
from cifar_tuning.tuning.place import OWNER
from cifar_tuning.tuning.workers import Workers

FUSED = {"_target_": "cifar_tuning.fused.launcher.FusedLauncher", "stack": None}
BASIC = {"_target_": "hydra._internal.core_plugins.basic_launcher.BasicLauncher"}

JOBLIB = {"_target_": "hydra_plugins.hydra_joblib_launcher.joblib_launcher.JoblibLauncher", "n_jobs": 2}


def options(given=None, device="cpu", launcher=BASIC, n_jobs=2, n_trials=20):
    config = OmegaConf.create({"trainer": {"device": device}, "hydra": {"launcher": launcher}})
    return SimpleNamespace(sweeper=SimpleNamespace(workers=given, n_jobs=n_jobs), config=config, n_trials=n_trials)


@pytest.mark.parametrize(
    ("asked", "gpu", "count"),  # its free memory; or how many there are
    [
        ({}, None, 4),
        ({"given": 3}, None, 3),
        ({"n_trials": 12}, None, 2),
        ({"n_trials": 2}, None, 1),
        ({"device": "auto"}, None, 4),
        ({"device": "auto"}, 80000, 1),
        ({"device": "auto"}, "MIG", 1),
        ({"device": "cuda:0"}, 80000, 1),
        ({"device": "cpu"}, 80000, 4),
        ({"device": "auto"}, ["0", "1", "2"], 3),
        ({"device": "cuda"}, ["0", "1", "2"], 3),
        ({"device": "cuda:1"}, ["0", "1", "2"], 1),
        ({"device": "cpu"}, ["0", "1", "2"], 4),
        ({"device": "auto", "n_trials": 12}, ["0", "1", "2"], 2),
        ({"device": "auto", "launcher": FUSED, "n_jobs": 8}, ["0", "1", "2"], 2),
        ({"device": "auto", "launcher": JOBLIB}, ["0", "1", "2"], 1),
        ({"launcher": JOBLIB, "n_jobs": 8}, None, 1),
        ({"launcher": FUSED, "n_jobs": 8}, None, 2),
        ({"launcher": FUSED, "n_jobs": 3}, None, 1),
        ({"launcher": {**FUSED, "stack": 2}, "n_jobs": 8}, None, 4),
        ({"launcher": {**FUSED, "stack": 8}, "n_jobs": 8}, None, 1),
    ],
)
def test_as_many_as_pay(monkeypatch, asked, gpu, count):
    monkeypatch.setattr(worker_count, "cores", lambda: 4)
    monkeypatch.setattr(worker_count, "script", lambda: ["python", "train.py"])
    monkeypatch.setattr(worker_count, "version", lambda package: "2.13.0")
    several = gpu if isinstance(gpu, list) else []
    monkeypatch.setattr(worker_count, "visible_gpus", lambda: several)
    monkeypatch.setattr(worker_count, "free_gpu_memory", lambda device: gpu if gpu != "MIG" else None)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: gpu is not None)
    assert worker_count.workers_of(options(**asked)) == count


def test_not_more_than_memory_has_room_for(monkeypatch):
    monkeypatch.setattr(worker_count, "cores", lambda: 64)
    monkeypatch.setattr(worker_count, "script", lambda: ["python", "train.py"])
    monkeypatch.setattr(worker_count, "free_memory", lambda: 5 * 2**30)
    assert worker_count.workers_of(options()) == 2


@pytest.mark.parametrize(
    ("main", "typed", "repeated"),
    [
        (None, "train.py", ["train.py"]),
        (("package.__main__", "package/__main__.py"), "package/__main__.py", ["-m", "package"]),
        (("package.train", "train.py"), "train.py", ["-m", "package.train"]),
        (("cProfile", "cProfile.py"), "train.py", ["train.py"]),
        (("pytest.__main__", "pytest.py"), "pytest.py", None),
        (None, "pytest", None),
        (None, "ipykernel_launcher", None),
    ],
)
def test_a_worker_repeats_what_was_typed(monkeypatch, tmp_path, main, typed, repeated):
    monkeypatch.chdir(tmp_path)
    for name in ("train.py", "package/__main__.py", "cProfile.py", "pytest.py", "pytest"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    flags = subprocess._args_from_interpreter_flags()
    spec = main and SimpleNamespace(name=main[0], origin=str(tmp_path / main[1]))
    monkeypatch.setitem(sys.modules, "__main__", SimpleNamespace(__spec__=spec))
    monkeypatch.setattr(sys, "argv", [typed, "-m", "a=1"])
    assert worker_count.script() == (repeated and [sys.executable, *flags, *repeated, "-m", "a=1"])


def test_a_pytorch_without_cuda_has_no_gpu(monkeypatch):
    monkeypatch.setattr(worker_count, "cores", lambda: 4)
    monkeypatch.setattr(worker_count, "script", lambda: ["python", "train.py"])
    monkeypatch.setattr(worker_count, "version", lambda package: "2.13.0+cpu")
    monkeypatch.setattr(worker_count, "free_gpu_memory", lambda device: 80000)
    monkeypatch.setattr(worker_count, "visible_gpus", lambda: ["0", "1"])
    assert worker_count.workers_of(options(device="auto")) == 4
    assert worker_count.gpus_of("auto") == []


@pytest.mark.parametrize(
    ("limits", "cores", "memory"),
    [
        ({}, 8, 100),
        ({"cpu.max": "max 100000", "memory.max": "max", "memory.current": "7"}, 8, 100),
        ({"cpu.max": "250000 100000", "memory.max": "50", "memory.current": "30"}, 2, 20),
        ({"cpu.max": "50000 100000", "memory.max": "500", "memory.current": "30"}, 1, 100),
        # Files that were read are forgotten when room is needed.
        ({"memory.max": "50", "memory.current": "50", "memory.stat": "anon 9\ninactive_file 40"}, 8, 40),
        ({"batch/cpu.max": "max 100000", "batch/job/cpu.max": "300000 100000", "batch/memory.max": "60"}, 3, 100),
        ({"batch/memory.max": "60", "batch/memory.current": "20", "batch/job/memory.max": "max"}, 8, 40),
        ({"other/cpu.max": "100000 100000"}, 8, 100),
        # The first version.
        ({"cpu,cpuacct/old/cpu.cfs_quota_us": "-1", "memory/memory.limit_in_bytes": "9223372036854771712"}, 8, 100),
        ({"cpu,cpuacct/old/cpu.cfs_quota_us": "200000", "cpu,cpuacct/old/cpu.cfs_period_us": "100000"}, 2, 100),
        ({"memory/old/memory.limit_in_bytes": "50", "memory/old/memory.usage_in_bytes": "30"}, 8, 20),
        (
            {  # in a container, which sees its own group as the root
                "memory/memory.limit_in_bytes": "50",
                "memory/memory.usage_in_bytes": "30",
                "memory/memory.stat": "inactive_file 1\ntotal_inactive_file 5",
            },
            8,
            25,
        ),
    ],
)
def test_a_containers_limits_count(monkeypatch, tmp_path, limits, cores, memory):
    root = tmp_path / "cgroup"
    for name, text in limits.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(f"{text}\n")
    (tmp_path / "own").write_text("5:cpu,cpuacct:/old\n4:memory:/old\n1:name=systemd:/\n0::/batch/job\n")
    monkeypatch.setattr(processes, "CGROUP", root)
    monkeypatch.setattr(processes, "OWN_CGROUP", tmp_path / "own")
    monkeypatch.setattr(processes.os, "sched_getaffinity", lambda process: set(range(8)), raising=False)
    monkeypatch.setattr(psutil, "virtual_memory", lambda: SimpleNamespace(available=100))
    assert (processes.cores(), processes.free_memory()) == (cores, memory)


def test_one_where_the_command_can_not_be_repeated(monkeypatch):
    monkeypatch.setattr(worker_count, "script", lambda: None)
    assert worker_count.workers_of(options()) == 1


def test_a_worker_knows_how_many_there_are(monkeypatch):
    monkeypatch.setenv(processes.WORKER_VARIABLE, "1")
    monkeypatch.setenv(worker_count.COUNT_VARIABLE, "5")
    assert worker_count.workers_of(options()) == 5


class Away:
    """A study whose storage does not answer for so many seconds from the first time that it is asked."""

    def __init__(self, seconds: float) -> None:
        self.seconds, self.asked = seconds, None

    def get_trials(self, deepcopy: bool = True) -> list:
        self.asked = self.asked or time.monotonic()
        if time.monotonic() < self.asked + self.seconds:
            raise StorageInternalError("the server is restarting")
        return []


def some_workers(tmp_path, study, program, count, device="cpu") -> Workers:
    place = SimpleNamespace(folder=tmp_path / "it's", storage="postgresql://me:secret@server/optuna")
    config = OmegaConf.create({"trainer": {"device": device}})
    options = SimpleNamespace(place=place, config=config, n_trials=10, begin=0.0)
    them = Workers([sys.executable, "-c", program], options, study, count)
    them.folder.mkdir(parents=True)
    for index in range(count):
        them._start(index)
    return them


# The first of two workers dies, the second and whoever takes the first one's place train for a while.
FIRST_DIES = """
import pathlib, sys, time
try:
    (pathlib.Path(sys.argv[1].partition("=")[2].strip("'").replace("\\\\", "")) / "died").touch(exist_ok=False)
except FileExistsError:
    time.sleep(1.5)
else:
    sys.exit(1)
"""


@pytest.mark.slow
def test_workers_train_on_while_the_storage_is_away(tmp_path, caplog):
    them = some_workers(tmp_path, Away(0.5), FIRST_DIES, 2)
    while them.running:
        for index in list(them.running):
            them._look_after(index)
    assert caplog.text.count("waiting for it") == 1
    assert caplog.text.count("another takes its place") == 1


TELLS = """
import os, pathlib
pathlib.Path(os.environ['CIFAR_TUNING_WORKER_ERROR']).write_text('too many trials failed: ±', encoding='utf-8')
"""


@pytest.mark.parametrize(
    ("program", "said"),
    [
        (TELLS, "too many trials failed: ±"),
        ("print('error: a job of mine has a word for it')", "3 workers died one after the other"),
    ],
)
@pytest.mark.usefixtures("old_locale")
def test_a_worker_says_what_is_wrong_in_a_file_of_its_own(tmp_path, program, said):
    """What jobs print is no word of the worker's: another one takes its place, as often as it may."""
    them = some_workers(tmp_path, Away(0), f"{program}\nraise SystemExit(1)", 1)
    with pytest.raises(UserError, match=said) as refused:  # noqa: PT012
        while them.running:
            them.running[0].process.wait()
            them._look_after(0)
    assert ("job of mine" in str(refused.value)) == (program != TELLS)


def test_without_workers_and_storage_the_command_ends(tmp_path):
    them = some_workers(tmp_path, Away(60), "raise SystemExit(1)", 1)
    them.running[0].process.wait()
    with pytest.raises(UserError, match="does not answer any more") as refused:
        them._look_after(0)
    assert "secret" not in str(refused.value)


def test_a_folders_apostrophe_reaches_the_worker(tmp_path):
    """The folder is an override, in the quotes of Hydra's grammar."""
    them = some_workers(tmp_path, Away(0), "", 0)
    (override,) = OverridesParser.create().parse_overrides(them.command[-1:])
    assert override.value() == str(tmp_path / "it's")


class Trials:
    """A study with so many complete trials, and some that a process trains."""

    def __init__(self, complete=0, training=()):
        self.complete, self.training = complete, training

    def get_trials(self, deepcopy: bool = True) -> list:
        trials = [create_trial(state=TrialState.COMPLETE, value=0.5) for _ in range(self.complete)]
        for pid, machine, step in self.training:
            owner = json.dumps({"pid": pid, "host": machine, "at": time.time()})
            trial = create_trial(state=TrialState.RUNNING, system_attrs={OWNER: owner})
            trial.intermediate_values = {} if step is None else {step: 0.1}
            trials.append(trial)
        return trials


@pytest.mark.parametrize(("complete", "started"), [(0, 3), (8, 2), (9, 1), (10, 1), (12, 1)])
def test_no_more_workers_than_trials_are_left(tmp_path, monkeypatch, complete, started):
    monkeypatch.setattr(workers, "POLL", 0.01)
    them = some_workers(tmp_path, Trials(complete), "", 0)
    them.count = 3
    them.run()
    assert len(list(them.folder.glob("*.log"))) == started
    assert them.running == {}


@pytest.mark.parametrize(
    ("before", "after", "room"),
    [(None, 0, True), (1000, 499, False), (1000, 500, True), (1000, 1200, True), (1000, None, True)],
)
def test_another_worker_where_its_memory_is_there_once_more(tmp_path, monkeypatch, caplog, before, after, room):
    monkeypatch.setattr(workers, "free_gpu_memory", lambda device: before)
    them = some_workers(tmp_path, Trials(), "", 0, "cuda:0")
    monkeypatch.setattr(workers, "free_gpu_memory", lambda device: after)
    assert them._room_for_another(0)
    assert them._room_for_another(1) == room
    assert them.free == [None if before is None else after]
    expected = "A trial takes 501 MiB of GPU memory and 499 MiB are free: 1 worker."
    assert caplog.messages == ([] if room else [expected])


@pytest.mark.parametrize(
    ("device", "seen"),
    [("auto", ["GPU-4", "GPU-5", "GPU-4"]), ("cuda", ["GPU-4", "GPU-5", "GPU-4"]), ("cuda:1", ["as it was"] * 3)],
)
def test_workers_take_turns_on_the_gpus(tmp_path, monkeypatch, capsys, device, seen):
    monkeypatch.setenv(VISIBLE, "as it was")
    monkeypatch.setattr(worker_count, "version", lambda package: "2.13.0")
    monkeypatch.setattr(worker_count, "visible_gpus", lambda: ["GPU-4", "GPU-5"])
    monkeypatch.setattr(workers, "free_gpu_memory", lambda device: None)
    monkeypatch.setattr(workers, "POLL", 0.01)
    them = some_workers(tmp_path, Trials(), f"import os; print(os.environ['{VISIBLE}'])", 0, device)
    them.count = 3
    them.run()
    assert [file.read_text().strip() for file in sorted(them.folder.glob("*.log"))] == seen
    assert ("3 workers on 2 GPUs" in capsys.readouterr().out) == (device != "cuda:1")


def test_a_second_worker_needs_room_on_its_own_gpu(tmp_path, monkeypatch):
    """Of two GPUs the first is nearly full behind its first worker; the third worker would be there, the fourth not."""
    memory = {"cuda:0": 1000, "cuda:1": 1000}
    monkeypatch.setattr(worker_count, "version", lambda package: "2.13.0")
    monkeypatch.setattr(worker_count, "visible_gpus", lambda: ["GPU-4", "GPU-5"])
    monkeypatch.setattr(workers, "free_gpu_memory", lambda device: memory[device])
    them = some_workers(tmp_path, Trials(), "", 0, "auto")
    memory |= {"cuda:0": 100, "cuda:1": 600}
    assert [them._room_for_another(index) for index in range(4)] == [True, True, False, True]


@pytest.mark.parametrize(
    ("of", "machine", "step", "trained"),
    [(0, None, 1, True), (0, None, 0, False), (0, None, None, False), (1, None, 1, False), (0, "elsewhere", 1, False)],
)
def test_a_worker_has_trained_when_its_trial_has_an_epoch(tmp_path, of, machine, step, trained):
    them = some_workers(tmp_path, Trials(), "", 0)
    worker = SimpleNamespace(process=SimpleNamespace(pid=77))
    them.study = Trials(2, [(77 + of, machine or processes.host(), step)])
    assert them._has_trained(worker) == trained


def test_a_worker_that_comes_to_nothing_is_not_waited_for(tmp_path, monkeypatch):
    monkeypatch.setattr(workers, "free_gpu_memory", lambda device: 900)
    monkeypatch.setattr(workers, "PATIENCE", -1)
    them = some_workers(tmp_path, Trials(), "", 0, "cuda:0")
    them.running = {0: SimpleNamespace(process=SimpleNamespace(pid=77))}
    assert them._room_for_another(1)
