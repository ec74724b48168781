"""How long it takes until something happens: a short job and the help against the imports alone, and their memory."""

import subprocess
import sys
import tempfile
from pathlib import Path

from benchmarks import measure
from cifar_tuning import PROJECT_ROOT
from cifar_tuning.errors import UserError

IMPORTS, JOB, WITH_MODEL, HELP, LOADED = "imports", "job", "job_with_model", "help", "usual"
SHORT_JOB = "trainer.epochs=1 data.train_limit=1280 tracking=mlflow"
# What a run on all images does at its end, and one on a few of them only on demand.
MODEL_TOO = "tracking.log_model=true"
# A process begins with the peak memory of the one that starts it, which has to be a small one.
STARTER = """
import os, sys, time
start = time.perf_counter()
nowhere = os.open(os.devnull, os.O_WRONLY)
pid = os.posix_spawn(sys.argv[1], sys.argv[1:], os.environ, file_actions=[(os.POSIX_SPAWN_DUP2, nowhere, 1)])
_, status, usage = os.wait4(pid, 0)
print(time.perf_counter() - start, usage.ru_maxrss)
sys.exit(os.waitstatus_to_exitcode(status))
"""
SCRIPT = """
import torch
from benchmarks import usual
from benchmarks.ours import make_parts
data = make_parts("data.train_limit=1280").data
model = usual.MODELS["simplenn"]()
device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
model = model.to(device)
usual.epoch(model, usual.optimizer(model), usual.loader(data, data.load().train), device)
"""


def run(repeats: int) -> Path:
    """Times the commands in turn, each in a process of its own; returns the JSON file."""
    times: dict[str, list[float]] = {name: [] for name in (IMPORTS, JOB, WITH_MODEL, HELP, LOADED)}
    memory: dict[str, float] = {}
    with tempfile.TemporaryDirectory() as folder:
        train = [sys.executable, str(PROJECT_ROOT / "train.py")]
        store = f"sqlite:///{folder}/mlflow.db"
        for number in range(repeats + 1):
            job = [*train, *SHORT_JOB.split(), f"tracking.uri={store}"]
            commands = {
                IMPORTS: [sys.executable, "-c", "import torch, mlflow"],
                JOB: [*job, f"hydra.run.dir={folder}/{number}"],
                WITH_MODEL: [*job, f"hydra.run.dir={folder}/{number}_model", MODEL_TOO],
                HELP: [*train, "--help"],
                LOADED: [sys.executable, "-c", SCRIPT],
            }
            for name, command in commands.items():
                seconds, megabytes = _measured(command)
                if number:  # the first fills caches: the environment is warm then
                    times[name].append(seconds)
                    memory[name] = max(memory.get(name, 0.0), megabytes)
    middle = {name: round(sorted(values)[len(values) // 2], 3) for name, values in times.items()}
    over = sorted(job - bare for job, bare in zip(times[JOB], times[IMPORTS], strict=True))[repeats // 2]
    print(
        f"start     imports {middle[IMPORTS]:.2f} s, a job of ten batches {middle[JOB]:.2f} s: {over:.2f} s more "
        f"(goal 1.0), with its model in MLflow {middle[WITH_MODEL]:.2f} s; "
        f"--help {middle[HELP]:.2f} s; peak memory {memory[JOB]:,.0f} MB, the usual pipeline's "
        f"process {memory[LOADED]:,.0f} MB"
    )
    content = {"repeats": repeats, "seconds": times, "median": middle, "over_imports": round(over, 3)}
    return measure.write("start", content | {"peak_mb": {name: round(value) for name, value in memory.items()}})


def _measured(command: list[str]) -> tuple[float, float]:
    """Runs a command; returns its seconds and its own process's peak of resident memory in MB.

    Raises:
        UserError: it failed; with its last words.
    """
    start = [sys.executable, "-I", "-S", "-c", STARTER, *command]
    done = subprocess.run(start, cwd=PROJECT_ROOT, capture_output=True, text=True, errors="replace", check=False)
    if done.returncode:
        raise UserError(f"{' '.join(command)} failed:\n{done.stderr[-2000:]}")
    seconds, kilobytes = done.stdout.split()
    return float(seconds), int(kilobytes) / 1024
