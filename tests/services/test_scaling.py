"""A study beyond one process: Optuna in a real PostgreSQL, runs on a real MLflow server, jobs by Ray and submitit."""

import json
import os
import pwd
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
import uuid
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path

import optuna
import pytest
from mlflow import MlflowClient
from mlflow.entities import Run
from optuna.trial import FrozenTrial, TrialState

from cifar_tuning import PROJECT_ROOT
from cifar_tuning.tracking import facts
from cifar_tuning.tuning.place import OWNER
from cifar_tuning.tuning.storage import open_storage

pytestmark = pytest.mark.services

HOST, USER, PASSWORD = "127.0.0.1", "tuner", "not a secret"
STUDY = [
    "study=simplenn",
    "data=synthetic",
    "trainer.device=cpu",
    "trainer.precision=fp32",
    "schedule.decay_epochs=range(1,3)",
    "hydra.sweeper.workers=1",
]
# Two configurations that learn, then one that can't: compared with the first it is hopeless.
HOPELESS = "[{optimizer.lr: 0.05}, {optimizer.lr: 0.04}, {optimizer.lr: 1e-7}]"
PRUNES = [
    "hydra/sweeper/pruner=percentile",
    "hydra.sweeper.pruner.n_startup_trials=1",
    "hydra.sweeper.pruner.n_warmup_steps=0",
    "optimizer.lr=tag(log,interval(0.00000001,0.3))",
    f"hydra.sweeper.enqueue={HOPELESS}",
]


class Database:
    """A running PostgreSQL server."""

    def __init__(self, port: int) -> None:
        self.port = port

    def url(self, name: str) -> str:
        """Makes a new, empty database and returns its URL."""
        import psycopg2

        # A database can't be made inside a transaction, which psycopg2's own `with` would begin.
        with closing(psycopg2.connect(self._url("postgres"))) as connection:
            connection.autocommit = True
            with connection.cursor() as cursor:
                cursor.execute(f'CREATE DATABASE "{name}"')
        return self._url(name).replace("postgresql:", "postgresql+psycopg2:")

    def _url(self, name: str) -> str:
        return f"postgresql://{USER}:{PASSWORD.replace(' ', '%20')}@{HOST}:{self.port}/{name}"


@pytest.fixture(scope="module")
def postgresql() -> Iterator[Database]:
    """The distribution's PostgreSQL, with a database cluster of its own, until the module's last test."""
    pytest.importorskip("psycopg2", reason="the Python package psycopg2-binary is not installed")
    if (programs := _postgresql_programs()) is None:
        pytest.skip("PostgreSQL is not installed (Debian: apt-get install postgresql)")
    # It refuses to run as root, and another user can't enter root's temporary folders, pytest's among them.
    user = _ordinary_user()
    if os.geteuid() == 0 and user is None:
        pytest.skip("PostgreSQL refuses to run as root, and there is no user postgres or nobody to run it as")
    run_as = {} if user is None else {"user": user.pw_uid, "group": user.pw_gid, "extra_groups": []}
    folder = Path(tempfile.mkdtemp(prefix="cifar_tuning_postgresql_"))
    try:
        (folder / "password").write_text(PASSWORD + "\n")
        for path in (folder, folder / "password"):
            if user is not None:
                os.chown(path, user.pw_uid, user.pw_gid)
        data, port, log = folder / "data", free_port(), folder / "log"
        initialise = [str(programs / "initdb"), "-D", str(data), "-U", USER, "-A", "scram-sha-256", "--no-sync"]
        initialise += [f"--pwfile={folder / 'password'}", "-E", "UTF8", "--no-locale"]
        done = subprocess.run(initialise, cwd=folder, capture_output=True, text=True, check=False, **run_as)
        assert done.returncode == 0, done.stderr[-3000:]
        # Data that live for minutes need no fsync; and the default folder of the socket file is another user's.
        settings = ["-c", "fsync=off", "-c", "unix_socket_directories=", "-c", f"listen_addresses={HOST}"]
        serve = [str(programs / "postgres"), "-D", str(data), "-p", str(port), *settings]
        with started(serve, log, stop=signal.SIGINT, cwd=folder, **run_as) as server:
            _wait(server, log, lambda: _accepts_connections(programs, port))
            yield Database(port)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="module")
def mlflow_server(postgresql: Database, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """An MLflow server that keeps its runs in PostgreSQL; gives its address."""
    folder, port = tmp_path_factory.mktemp("mlflow"), free_port()
    command = [sys.executable, "-m", "mlflow", "server", "--backend-store-uri", postgresql.url("mlflow")]
    command += ["--artifacts-destination", str(folder / "artifacts"), "--workers", "1"]
    command += ["--host", HOST, "--port", str(port)]
    environment = os.environ | {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false", "MLFLOW_DISABLE_TELEMETRY": "true"}
    address, log = f"http://{HOST}:{port}", folder / "log"
    with started(command, log, stop=signal.SIGTERM, cwd=folder, env=environment) as server:
        _wait(server, log, lambda: _is_healthy(address))
        yield address


@contextmanager
def started(command: list[str], log: Path, stop: signal.Signals, **options: object) -> Iterator[subprocess.Popen]:
    """Runs a server; at the end stops it and whatever it started."""
    with log.open("w") as output:
        # A session of its own, so that the group holds the server and its workers alone.
        server = subprocess.Popen(command, stdout=output, stderr=output, start_new_session=True, **options)
    try:
        yield server
    finally:
        for number, patience in ((stop, 10), (signal.SIGKILL, 10)):
            with suppress(ProcessLookupError):
                server.send_signal(number) if number == stop else os.killpg(server.pid, number)
            with suppress(subprocess.TimeoutExpired):
                server.wait(timeout=patience)


def _wait(server: subprocess.Popen, log: Path, ready) -> None:
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline and server.poll() is None:
        if ready():
            return
        time.sleep(0.2)
    raise AssertionError(f"the server did not come up:\n{log.read_text()[-3000:]}")


def _is_healthy(address: str) -> bool:
    try:
        with urllib.request.urlopen(f"{address}/health", timeout=5):
            return True
    except OSError:
        return False


def _accepts_connections(programs: Path, port: int) -> bool:
    ask = [str(programs / "pg_isready"), "-q", "-h", HOST, "-p", str(port)]
    return subprocess.run(ask, check=False).returncode == 0


def _postgresql_programs() -> Path | None:
    """Where initdb and postgres are: Debian keeps each version's outside of PATH."""
    versions = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"), key=lambda file: float(file.parts[4]))
    found = str(versions[-1]) if versions else shutil.which("initdb")
    return Path(found).resolve().parent if found else None


def _ordinary_user() -> pwd.struct_passwd | None:
    for name in ("postgres", "nobody") if os.geteuid() == 0 else ():
        with suppress(KeyError):
            return pwd.getpwnam(name)
    return None


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        return int(probe.getsockname()[1])


class Sweep:
    """One study in PostgreSQL and on the MLflow server: starts its commands and reads what they left."""

    def __init__(self, storage: str, tracking: str, folder: Path) -> None:
        self.storage, self.tracking, self.folder = storage, tracking, folder
        self.name = f"study-{uuid.uuid4().hex[:6]}"

    def start(self, folder: str, *overrides: str) -> subprocess.Popen:
        """Types the command, from a sweep folder of its own."""
        (self.folder / folder).mkdir(parents=True)
        command = [sys.executable, str(PROJECT_ROOT / "train.py"), "-m", *STUDY]
        command += [f"hydra.sweeper.storage='{self.storage}'", f"hydra.sweeper.study_name={self.name}"]
        command += [f"hydra.sweep.dir={self.folder / folder / 'sweep'}", f"tracking.uri={self.tracking}"]
        command += [f"tracking.experiment={self.name}", *overrides]
        with (self.folder / folder / "log").open("w") as log:
            return subprocess.Popen(command, cwd=self.folder / folder, env=environment(), stdout=log, stderr=log)

    def log(self, folder: str) -> str:
        """What a command printed."""
        return (self.folder / folder / "log").read_text()

    def run(self, folder: str, *overrides: str) -> None:
        """Types the command and waits for its success."""
        process = self.start(folder, *overrides)
        try:
            assert process.wait(timeout=240) == 0, self.log(folder)[-5000:]
        finally:
            process.kill()

    def trials(self) -> list[FrozenTrial]:
        """The study's trials, as Optuna has them."""
        return optuna.load_study(study_name=self.name, storage=open_storage(self.storage)).get_trials()

    def runs(self) -> tuple[Run, dict[int, Run]]:
        """The one parent run and its children by their job's number; no other run may be there."""
        client = MlflowClient(self.tracking)
        experiment = client.get_experiment_by_name(self.name)
        assert experiment is not None
        runs = client.search_runs([experiment.experiment_id])
        (parent,) = (run for run in runs if facts.PARENT not in run.data.tags)
        children = [run for run in runs if run is not parent]
        assert {run.data.tags[facts.PARENT] for run in children} == {parent.info.run_id}
        numbered = {int(run.data.tags[facts.JOB_NUM]): run for run in children}
        assert len(numbered) == len(children)
        return parent, numbered

    def check(self, count: int, workers: int = 1) -> tuple[list[FrozenTrial], dict[int, Run]]:
        """Optuna and MLflow tell the same story, of `count` trials that all ended well."""
        trials = self.trials()
        assert [trial.number for trial in trials if trial.state.is_finished()] == list(range(count))
        assert TrialState.RUNNING not in {trial.state for trial in trials}
        parent, runs = self.runs()
        assert (parent.info.status, parent.data.tags["state"]) == ("FINISHED", "complete")
        assert sorted(runs) == list(range(count))
        client = MlflowClient(self.tracking)
        for number, run in runs.items():
            told = (run.info.status, run.data.tags["state"])
            pruned = trials[number].state == TrialState.PRUNED
            assert told == (("KILLED", "pruned") if pruned else ("FINISHED", "complete"))
            curve = {m.step: m.value for m in client.get_metric_history(run.info.run_id, "val/acc")}
            assert curve == pytest.approx(trials[number].intermediate_values)
        return trials[:count], runs


def environment() -> dict[str, str]:
    """A command's environment: one thread each, no Ray cluster but its own, whose workers other tests leave no time."""
    kept = {name: value for name, value in os.environ.items() if name != "RAY_ADDRESS"}
    return kept | {"OMP_NUM_THREADS": "1", "RAY_USAGE_STATS_ENABLED": "0", "RAY_worker_niceness": "0"}


@pytest.fixture
def sweep(postgresql: Database, mlflow_server: str, tmp_path: Path) -> Sweep:
    """A study of its own, in an Optuna database of its own."""
    return Sweep(postgresql.url(f"optuna-{uuid.uuid4().hex[:6]}"), mlflow_server, tmp_path)


@pytest.mark.timeout(300)
def test_two_machines_share_a_study(sweep: Sweep) -> None:
    """Two commands that begin at once, with nothing in common but the servers."""
    machines = ("one", "other")
    processes = [sweep.start(name, "trainer.epochs=4", "hydra.sweeper.n_trials=6") for name in machines]
    try:
        for name, process in zip(machines, processes, strict=True):
            assert process.wait(timeout=240) == 0, sweep.log(name)[-5000:]
    finally:
        for process in processes:
            process.kill()
    trials, runs = sweep.check(6)
    owners = {trial.number: json.loads(trial.system_attrs[OWNER])["pid"] for trial in trials}
    assert set(owners.values()) == {process.pid for process in processes}
    for number, run in runs.items():
        machine = machines[[process.pid for process in processes].index(owners[number])]
        assert run.data.tags[facts.FOLDER] == str(sweep.folder / machine / "sweep" / str(number))
    # The default configuration is tried once, not once by each.
    assert len({tuple(sorted(trial.params.items())) for trial in trials}) == 6


# What the callback and the sweeper do first, at a moment that the test decides.
BEGIN = """
import sys, time
from pathlib import Path
from cifar_tuning.tracking.store import locate, open_store
from cifar_tuning.tracking.sweeps import open_parent
from cifar_tuning.tuning.storage import open_storage

storage, tracking, folder = sys.argv[1:]
runs = open_store(locate(tracking, Path(folder)), "Default")
Path(folder, "ready").touch()
while not Path(folder).with_name("go").exists():
    time.sleep(0.001)
open_storage(storage)
Path(folder, "opened").touch()
while not Path(folder).with_name("go on").exists():
    time.sleep(0.001)
params = {f"parameter.{number}": "1" for number in range(90)}
print(open_parent(runs, "study", Path(folder), params, Path(folder), key=storage))
"""


@pytest.mark.timeout(120)
def test_commands_that_begin_at_the_same_moment(sweep: Sweep, tmp_path: Path) -> None:
    """Both find an empty database and no parent run; one must give way, and neither may fail."""
    folders = [tmp_path / name for name in ("one", "other")]
    processes = []
    for folder in folders:
        folder.mkdir()
        command = [sys.executable, "-c", BEGIN, sweep.storage, sweep.tracking, str(folder)]
        pipe = subprocess.PIPE
        processes.append(subprocess.Popen(command, env=environment(), stdout=pipe, stderr=pipe, text=True))
    try:
        for reached, signal_file in (("ready", "go"), ("opened", "go on")):
            while not all((folder / reached).exists() for folder in folders):
                dead = [process.communicate()[1] for process in processes if process.poll() is not None]
                assert not dead, dead[0][-2000:]
                time.sleep(0.05)
            (tmp_path / signal_file).touch()
        said = [process.communicate(timeout=60) for process in processes]
    finally:
        for process in processes:
            process.kill()
    assert [process.returncode for process in processes] == [0, 0], said
    first, second = (output.split()[-1] for output, _ in said)
    assert first == second


@pytest.mark.timeout(300)
def test_ray_trains_two_at_a_time_and_prunes(sweep: Sweep) -> None:
    pytest.importorskip("hydra_plugins.hydra_ray_launcher", reason="hydra-ray-launcher is not installed")
    sweep.run(
        "ray",
        "hydra/launcher=ray",
        "hydra.launcher.ray.init.address=local",  # null would join a cluster that somebody left on this machine
        "+hydra.launcher.ray.init.num_cpus=2",
        "+hydra.launcher.ray.init.include_dashboard=false",
        "hydra.sweeper.n_jobs=2",
        "hydra.sweeper.n_trials=3",
        "trainer.epochs=2",
        *PRUNES,
    )
    trials, runs = sweep.check(3)
    assert [trial.state for trial in trials] == [TrialState.COMPLETE] * 2 + [TrialState.PRUNED]
    pids = {run.data.tags[facts.PID] for run in runs.values()}
    assert len(pids) > 1


@pytest.mark.timeout(300)
def test_submitit_trains_and_prunes(sweep: Sweep) -> None:
    pytest.importorskip("hydra_plugins.hydra_submitit_launcher", reason="hydra-submitit-launcher is not installed")
    sweep.run(
        "submitit",
        "hydra/launcher=submitit_local",
        "hydra.sweeper.n_jobs=2",
        "hydra.sweeper.n_trials=3",
        "trainer.epochs=2",
        *PRUNES,
    )
    trials, _ = sweep.check(3)
    assert [trial.state for trial in trials] == [TrialState.COMPLETE] * 2 + [TrialState.PRUNED]


@pytest.mark.timeout(60)
def test_a_storage_that_is_down(tmp_path: Path, pristine_database: Path) -> None:
    store = tmp_path / "mlflow.db"
    store.write_bytes(pristine_database.read_bytes())
    storage = f"postgresql+psycopg2://{USER}:hidden@{HOST}:9/x"
    command = [sys.executable, str(PROJECT_ROOT / "train.py"), "-m", *STUDY, f"hydra.sweeper.storage={storage}"]
    command += [f"hydra.sweep.dir={tmp_path / 'sweep'}", f"tracking.uri=sqlite:///{store}"]
    done = subprocess.run(
        command, cwd=tmp_path, env=environment(), capture_output=True, text=True, check=False, timeout=30
    )
    said = done.stdout + done.stderr
    assert done.returncode != 0
    assert "error:" in done.stderr
    for shown in ("hydra.sweeper.storage", f"{HOST}:9/x"):
        assert shown in said
    for kept_back in ("Traceback", "hidden"):
        assert kept_back not in said
    assert len(said.splitlines()) < 25
    client = MlflowClient(f"sqlite:///{store}")
    assert not client.search_runs([experiment.experiment_id for experiment in client.search_experiments()])
