import errno
import io
import logging
import os
import pwd
import subprocess
import sys

import pytest

from cifar_tuning.errors import ConfigError, UserError
from cifar_tuning.jobs import process
from cifar_tuning.jobs.prepare import prepare
from cifar_tuning.jobs.process import _once_on_a_full_disk, check_machine, print_whatever_comes, trusted_targets
from cifar_tuning.targets import TRUST_VARIABLE


@pytest.mark.parametrize(
    ("name", "content", "expected"),
    [
        ("my_models.py", "", "my_models.*"),
        ("my_package/__init__.py", "", "my_package.*"),
        ("os.py", "", None),  # a file must not open the way to a module of Python's own
        ("not-a-module.py", "", None),
    ],
)
def test_the_users_own_modules_are_trusted(tmp_path, monkeypatch, name, content, expected):
    before = set(trusted_targets())
    (tmp_path / name).parent.mkdir(exist_ok=True)
    (tmp_path / name).write_text(content)
    monkeypatch.chdir(tmp_path)
    added = set(trusted_targets()) - before
    assert added == ({expected} if expected else set())


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EIO])
def test_a_log_on_a_full_disk_says_so_once(monkeypatch, capsys, tmp_path, code):
    handle = _once_on_a_full_disk(logging.Handler.handleError)
    monkeypatch.setattr(logging.Handler, "handleError", handle)
    handler = logging.FileHandler(tmp_path / "train.log")
    monkeypatch.setattr(handler.stream, "write", lambda text: (_ for _ in ()).throw(OSError(code, "no more")))
    for line in "ab":
        handler.handle(logging.LogRecord("x", logging.INFO, "", 0, line, None, None))
    said = capsys.readouterr().err
    if code == errno.ENOSPC:
        full = f"[Errno {code}] no more. Make room; until then logs lack lines."
        assert said == f"{tmp_path}/train.log can't be written: {full}\n"
    else:
        assert said.count("Traceback") == 2


def test_installed_packages_are_trusted_by_name(monkeypatch):
    assert "timm.*" not in trusted_targets()
    monkeypatch.setenv(TRUST_VARIABLE, " timm.*, my.package.make ,")
    assert {"timm.*", "my.package.make"} <= set(trusted_targets())


def test_what_is_not_trusted_is_not_called(tiny):
    outcome = tiny("~model", "+model={_target_:scipy.special.expit,x:1}")
    assert outcome.code != 0
    assert "scipy.special.expit" in outcome.err
    assert TRUST_VARIABLE in outcome.err
    assert "Traceback" not in outcome.err


@pytest.mark.parametrize(
    ("mode", "target", "said"),
    [
        *(
            (mode, "scipy.special.expit", "configurations may not call scipy.special.expit; if you trust the package")
            for mode in ([], ["-m"])
        ),
        ([], "hydra.experimental.callbacks.Missing", "configurations may not call"),
        ([], "cifar_tuning.models.Missing", "can't be imported: "),
        (["-m"], "hydra.experimental.callbacks.LogJobReturnCallback", None),
    ],
)
def test_a_callback_that_may_not_be_called(tiny, mode, target, said):
    outcome = tiny(*mode, "trainer.epochs=1", f"+hydra.callbacks.mine._target_={target}")
    if said is None:
        assert outcome.code == 0, outcome.err
        return
    assert outcome.code == 1
    assert f"hydra.callbacks.mine._target_={target}: {said}" in outcome.err
    assert "Traceback" not in outcome.err


COMMAND = """'-c','open("ran", "w")'"""
HOSTILE = {
    "a command of ours": ["~model", f"+model={{_target_:cifar_tuning.lab.__main__._run,arguments:[{COMMAND}]}}"],
    "where images come from": [
        "~data",
        "+data={_target_:cifar_tuning.data.CIFAR10,root:nowhere,sources:"
        "[{_target_:cifar_tuning.data.sources.NpmPackage,command:[touch,ran]}]}",
    ],
    "a file that is written": ["~model", "+model={_target_:cifar_tuning.files.write_text,path:ran,text:x}"],
    "through what a module imports": ["~model", "+model={_target_:cifar_tuning.models.layers.torch.hub.load}"],
    "an import": ["~model", "+model={_target_:antigravity.fly}"],
    "a plugin's command": [
        "~model",
        "+model={_target_:hydra_plugins.hydra_ray_launcher._launcher_util._run_command,args:[touch,ran]}",
    ],
    "weights from anywhere": [
        "~model",
        "+model={_target_:torchvision.models.WeightsEnum.get_state_dict,weights_only:false,model_dir:ran,"
        "self:{_target_:torchvision.models.Weights,url:'file:///weights',transforms:null,meta:{}}}",
    ],
    "a sampler's pickle": [
        "~model",
        "+model={_target_:optuna.samplers.CmaEsSampler._restore_optimizer,completed_trials:[],"
        "self:{_target_:optuna.samplers.CmaEsSampler}}",
    ],
    "the benchmarks": ["~model", "+model={_target_:benchmarks.machine.commit}"],
    "a folder": ["~model", "+model={_target_:os.mkdir,path:ran}"],
}


@pytest.mark.parametrize("overrides", HOSTILE.values(), ids=HOSTILE)
def test_a_configuration_from_the_web_runs_nothing(configure, tmp_path, monkeypatch, overrides):
    monkeypatch.chdir(tmp_path)
    sys.modules.pop("antigravity", None)
    with pytest.raises(ConfigError, match="configurations may not call"):
        prepare(configure(*(override.replace("ran", str(tmp_path / "ran")) for override in overrides)))
    assert not (tmp_path / "ran").exists()
    assert "antigravity" not in sys.modules


USES = {
    "runs": """
from cifar_tuning.tracking import MLflowTracker, RunContext
user = MLflowTracker(uri=uri)
user.start(RunContext(name="run", config={}, overrides=[], folder=file.parent, seed=0))
user.finish("complete")
""",
    "trials": """
import optuna
from cifar_tuning.tuning.storage import open_storage
user = optuna.create_study(storage=open_storage(uri))
user.optimize(lambda trial: trial.suggest_float("x", 0, 1), n_trials=1)
""",
}


@pytest.mark.slow
@pytest.mark.parametrize("use", USES)
def test_a_command_takes_nothing_apart_at_its_end_but_closes_its_database(tmp_path, use):
    """A SQLite file whose last connection was not closed leaves what was written last beside it."""
    file = tmp_path / "store.db"
    script = f"""
import atexit, gc
from pathlib import Path
atexit.register(lambda: print(gc.get_freeze_count()))  # comes last
from cifar_tuning.jobs.process import collect_garbage, start
start()
while_importing = gc.get_threshold()[0]
gc.collect()
assert 10_000 < gc.get_threshold()[0] < while_importing and gc.get_freeze_count() > 10_000
gc.set_threshold(700)  # a user's own
collect_garbage()
assert gc.get_threshold()[0] == 700
file = Path("{file}")
uri = f"sqlite:///{{file}}"
{USES[use]}
cycle = [user]
cycle.append(cycle)
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert int(done.stdout) > 100_000
    assert file.is_file()
    assert not list(tmp_path.glob("*-wal"))


@pytest.mark.parametrize(
    ("encoding", "errors"), [("ascii", "surrogateescape"), ("cp1252", "strict"), ("utf-8", "strict")]
)
def test_a_terminal_without_a_character_shows_another(monkeypatch, encoding, errors):
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(io.BytesIO(), encoding=encoding, errors=errors))
    monkeypatch.setattr(sys, "stderr", None)  # closed, as in `2>&-`
    print_whatever_comes()
    print("0.7 ± 0.1 σ", flush=True)
    print("nowhere", file=sys.stderr)
    assert sys.stdout.buffer.getvalue() == "0.7 ± 0.1 σ\n".encode(encoding, errors="replace")
    sys.stderr.close()


@pytest.mark.parametrize("unbuffered", [False, True])
def test_what_nobody_reads_any_more_goes_nowhere(monkeypatch, unbuffered):
    """As in `python train.py --cfg all | head`."""
    reading, writing = os.pipe()
    os.close(reading)
    raw = io.FileIO(writing, "w")
    stream = io.TextIOWrapper(raw if unbuffered else io.BufferedWriter(raw), "utf-8", write_through=unbuffered)
    monkeypatch.setattr(sys, "stdout", stream)
    monkeypatch.setattr(sys, "__stdout__", stream)
    print_whatever_comes()
    for _ in range(2):
        print("0.7 ± 0.1", flush=True)
    assert sys.stdout.fileno() == writing
    assert sys.stdout.write_through == unbuffered
    stream.close()


def test_windows_is_sent_to_wsl(monkeypatch):
    monkeypatch.setattr(sys, "platform", "win32")
    with pytest.raises(UserError, match="WSL 2"):
        check_machine()


def test_a_user_without_a_home_directory_is_told(monkeypatch):
    """Of a container whose user id has no entry in /etc/passwd."""
    check_machine()
    monkeypatch.delenv("HOME")
    monkeypatch.setattr(pwd, "getpwuid", lambda number: {}[number])
    with pytest.raises(UserError, match="set HOME"):
        check_machine()


@pytest.mark.parametrize(
    ("cores", "given", "expected"), [(2, None, "2"), (8, None, None), (2, "1", "1")], ids=["quota", "none", "asked"]
)
def test_threads_are_no_more_than_a_containers_cores(monkeypatch, cores, given, expected):
    monkeypatch.setenv("OMP_NUM_THREADS", given or "")
    if given is None:
        monkeypatch.delenv("OMP_NUM_THREADS")
    monkeypatch.setattr(process, "cores", lambda: cores)
    monkeypatch.setattr(process, "visible_cores", lambda: 8)
    process.share_cores()
    assert os.environ.get("OMP_NUM_THREADS") == expected
