"""Worker processes of a study: each repeats the command and takes one trial after the other."""

import logging
import os
import signal
import subprocess
import sys
import threading
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import optuna
from optuna.trial import FrozenTrial

from cifar_tuning.errors import UserError
from cifar_tuning.files import write_text
from cifar_tuning.gpus import VISIBLE, free_gpu_memory
from cifar_tuning.overrides import key_of
from cifar_tuning.processes import WORKER_VARIABLE, host, stop
from cifar_tuning.text import counted, without_password
from cifar_tuning.tuning.budget import finished, limit
from cifar_tuning.tuning.claims import owner_of
from cifar_tuning.tuning.options import BEGIN_VARIABLE, StudyOptions
from cifar_tuning.tuning.storage import STORAGE_ERRORS
from cifar_tuning.tuning.worker_count import COUNT_VARIABLE, device_of, gpus_of, threads_each

log = logging.getLogger(__name__)

# Environment variable of a worker: the file for an error that the user can mend, which its log would bury.
ERROR_VARIABLE = "CIFAR_TUNING_WORKER_ERROR"
POLL = 0.2
# Seconds that a worker whose supervisor is gone gets to close its run.
GRACE = 10
# Seconds after which a worker is asked to stop again; a job closes its run in less.
ASK_AGAIN = 30
# Seconds that the next worker waits for the first epoch of the last one, to know the memory it needs.
PATIENCE = 300
# Workers in a row that may die before they have taken a trial; the next would die too.
HOPELESS = 3
THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")


@dataclass
class _Worker:
    process: subprocess.Popen[bytes]
    log: Path
    error: Path


class Workers:
    """Starts a study's workers, replaces those that die, and stops them.

    Args:
        command: that each repeats.
        options: of the sweep.
        study: opened.
        count: how many to start.
    """

    def __init__(self, command: list[str], options: StudyOptions, study: optuna.Study, count: int) -> None:
        # The folder as it is here: a worker would put its own time into one that has the time in its name.
        rest = [argument for argument in command if key_of(argument) != "hydra.sweep.dir"]
        quoted = str(options.place.folder).replace("'", "\\'")
        self.command = [*rest, f"hydra.sweep.dir='{quoted}'"]
        self.options, self.study, self.count = options, study, count
        self.folder = options.place.folder / "workers"
        self.running: dict[int, _Worker] = {}
        self.deaths = 0
        self.away = False
        self.device = device_of(options)
        self.gpus = gpus_of(self.device)
        # Of each GPU that workers take turns on: that of the first worker, of the second, and so on.
        self.free = [self._free_memory(place) for place in range(max(1, len(self.gpus)))]

    def run(self) -> None:
        """Waits until the workers have nothing left to do.

        Raises:
            UserError: a worker stopped because of one, they die one after the other, or the storage is gone.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        print(f"Workers' logs: {self.folder}/{os.getpid()}-*.log", flush=True)
        if self.gpus:
            print(f"{counted(self.count, 'worker')} on {counted(len(self.gpus), 'GPU')}", flush=True)
        try:
            left = limit(self.study, self.options) - len(finished(self.study))
            for index in range(min(self.count, max(1, left))):
                if not self._room_for_another(index):
                    break
                self._start(index)
            while self.running:
                time.sleep(POLL)
                for index in list(self.running):
                    self._look_after(index)
        except BaseException:  # Ctrl-C, SIGTERM (a SystemExit), or an error of this process; not of their trials
            self._stop_cleanly()
            raise
        finally:
            for worker in self.running.values():
                worker.process.kill()
                worker.process.wait()
            self.running.clear()

    def _start(self, index: int) -> None:
        threads = str(threads_each(self.count))
        environment = os.environ | {WORKER_VARIABLE: str(os.getpid()), BEGIN_VARIABLE: str(self.options.begin)}
        environment |= dict.fromkeys(THREADS, threads) | {COUNT_VARIABLE: str(self.count)}
        if self.gpus:
            environment[VISIBLE] = self.gpus[index % len(self.gpus)]
        path = self.folder / f"{os.getpid()}-{index}.log"
        error = path.with_suffix(".error")
        error.unlink(missing_ok=True)
        environment[ERROR_VARIABLE] = str(error)
        with path.open("ab") as file:
            # A session of its own: Ctrl-C in the terminal reaches the supervisor alone, which stops them in order.
            process = subprocess.Popen(
                self.command,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        self.running[index] = _Worker(process, path, error)

    def _look_after(self, index: int) -> None:
        worker = self.running[index]
        code = worker.process.poll()
        if code is None:
            return
        try:
            trained = code == 0 or bool(self._trials_of(worker))
        except STORAGE_ERRORS as error:
            self._wait_for_storage(error)
            return
        self.away = False
        del self.running[index]
        if code == 0:
            return
        if worker.error.is_file():  # it said what is wrong; another one would say the same
            raise UserError(worker.error.read_text(encoding="utf-8"))
        # What dies in a trial is its trial's business (`max_retry`); what dies before any will do so again.
        self.deaths = 0 if trained else self.deaths + 1
        if self.deaths >= HOPELESS:
            tail = "\n".join(worker.log.read_text(errors="replace").splitlines()[-40:])
            said = f"the last said ({worker.log}):\n{tail}"
            raise UserError(f"{self.deaths} workers died one after the other; {said}")
        log.warning("Worker %d died (exit code %d, see %s); another takes its place.", index, code, worker.log)
        self._start(index)

    def _wait_for_storage(self, error: Exception) -> None:
        """Leaves a dead worker's place empty while the storage is away: the others train on.

        Raises:
            UserError: there are no others.
        """
        if not self.away:
            log.warning("A worker died and the study's storage does not answer; waiting for it (%s).", error)
        self.away = True
        if all(worker.process.poll() is not None for worker in self.running.values()):
            raise UserError(
                f"hydra.sweeper.storage={without_password(self.options.place.storage)}: does not answer any more, and "
                "all workers have ended. The same command goes on with the study."
            ) from error

    def _stop_cleanly(self) -> None:
        """Asks the workers to stop and waits, asking again whoever did not hear; a second Ctrl-C ends the wait."""
        if self.running:
            print("Stopping the workers; Ctrl-C once more stops them at once.", file=sys.stderr)
        waiting = [worker.process for worker in self.running.values()]
        while waiting:
            for process in waiting:
                process.send_signal(signal.SIGTERM)  # does nothing where it has ended
            patience = time.monotonic() + ASK_AGAIN
            while waiting and time.monotonic() < patience:
                time.sleep(POLL)
                waiting = [process for process in waiting if process.poll() is None]
        self.running.clear()

    def _room_for_another(self, index: int) -> bool:
        """Whether a GPU has room for the next worker: one that has none yet, or as much as the last trial there takes.

        Waits for that trial's first epoch.
        """
        place = index % len(self.free)
        before, last = self.free[place], index - len(self.free)
        if before is None or last < 0:
            return True
        patience = time.time() + PATIENCE
        while last in self.running and not self._has_trained(self.running[last]):
            if time.time() > patience:
                break
            time.sleep(POLL)
            for other in list(self.running):
                self._look_after(other)
        after = self.free[place] = self._free_memory(place)
        used = max(0, before - (after if after is not None else before))
        if after is not None and after < used:
            workers = counted(index, "worker")
            log.warning("A trial takes %d MiB of GPU memory and %d MiB are free: %s.", used, after, workers)
            return False
        return True

    def _free_memory(self, place: int) -> int | None:
        if self.device == "cpu":
            return None
        return free_gpu_memory(f"cuda:{place}" if self.gpus else self.device)

    def _trials_of(self, worker: _Worker) -> list[FrozenTrial]:
        trials = self.study.get_trials(deepcopy=False)
        owners = ((trial, owner_of(trial)) for trial in trials)
        return [
            trial for trial, owner in owners if (owner.get("pid"), owner.get("host")) == (worker.process.pid, host())
        ]

    def _has_trained(self, worker: _Worker) -> bool:
        """Whether a worker has come so far that its model and gradients are in memory."""
        return any(t.state.is_finished() or (t.last_step or 0) > 0 for t in self._trials_of(worker))


def report(error: UserError) -> None:
    """Tells this worker's supervisor, if it has one, of an error that every other worker would meet too."""
    if file := os.environ.get(ERROR_VARIABLE):
        with suppress(OSError):  # that the disk is full may be the error
            write_text(Path(file), str(error))


def die_with_parent() -> None:
    """Ends this worker, cleanly, when its supervisor is killed."""
    parent = int(os.environ[WORKER_VARIABLE])
    signal.signal(signal.SIGTERM, stop)

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(1)
        # More than once: Python drops an exception that a signal raises inside a destructor.
        for _ in range(3):
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(GRACE)
        os._exit(128 + signal.SIGTERM)

    threading.Thread(target=watch, daemon=True).start()
