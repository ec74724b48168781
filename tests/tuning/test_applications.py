"""The sweeper under any Hydra application, from the shell: workers, interruptions, the stock plugin's syntax."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import optuna
import psutil
import pytest
from omegaconf import OmegaConf
from optuna.trial import TrialState
from sqlalchemy.exc import SQLAlchemyError

from cifar_tuning.targets import STUDY_SWEEPER, TRUST_VARIABLE
from cifar_tuning.tuning.claims import RETRIES, Claims
from cifar_tuning.tuning.finding import find_study
from cifar_tuning.tuning.place import OWNER

APP = Path(__file__).with_name("sphere.py")


def arguments(folder: Path, sweeper: str) -> list[str]:
    """What makes a study of the application, in a folder's sweep/."""
    given = ["-m", f"hydra/sweeper={sweeper}", f"hydra.sweep.dir={folder}/sweep", "hydra.sweeper.study_name=sphere"]
    return (
        [*given, "hydra.sweeper.plots=false"] if sweeper == "study" else given
    )  # plots are tested elsewhere, and slow


@pytest.fixture
def run(command, tmp_path, monkeypatch):
    """Runs the application to its end in this process and returns what it says."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(APP.parent))
    return lambda *options, sweeper="study": command(*arguments(tmp_path, sweeper), *options, program=str(APP)).text


@pytest.fixture
def start(tmp_path):
    """Starts the application as a shell would; the study's folder is tmp_path/sweep."""
    processes = []
    path = os.pathsep.join(filter(None, [str(APP.parent), os.environ.get("PYTHONPATH")]))

    def run(*options: str, app: Path = APP) -> subprocess.Popen:
        # A child started in the background inherits "ignore Ctrl-C" from its shell; a terminal's does not.
        process = subprocess.Popen(
            [sys.executable, str(app), *arguments(tmp_path, "study"), *options],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            cwd=tmp_path,
            env=os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": path},
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
        )
        processes.append(process)
        return process

    yield run
    for process in processes:
        if process.poll() is None:
            process.kill()
        process.wait()


@pytest.fixture
def trials(tmp_path):
    def read() -> list[optuna.trial.FrozenTrial]:
        file = tmp_path / "sweep" / "optuna.db"
        if not file.exists():  # to open it would make it
            raise FileNotFoundError(file)
        url = f"sqlite:///{file}"
        return optuna.load_study(study_name="sphere", storage=url).get_trials()

    return read


def finish(process: subprocess.Popen, timeout: float = 120) -> str:
    out, _ = process.communicate(timeout=timeout)
    return out


def wait_for(process: subprocess.Popen, condition: Callable[[], bool], seconds: float = 120) -> None:
    """Waits for what a running command does; fails with what it said if it ends before, or does not do it."""
    end, problem = time.time() + seconds, None
    while process.poll() is None and time.time() < end:
        try:
            if condition():
                return
        except (KeyError, FileNotFoundError, SQLAlchemyError) as error:  # the study is just being made
            problem = error
        time.sleep(0.05)
    process.kill()
    pytest.fail(f"it did not happen (exit code {process.returncode}, {problem!r}):\n{finish(process)}")


def owners(trials) -> set[int]:
    return {json.loads(trial.system_attrs[OWNER])["pid"] for trial in trials if OWNER in trial.system_attrs}


SPACE = ["x=interval(-5.0,5.0)"]


def test_two_workers_share_the_trials(start, trials, tmp_path):
    out = finish(start(*SPACE, "meet=2", "hydra.sweeper.workers=2", "hydra.sweeper.n_trials=6"))
    done = trials()
    assert [t.state for t in done] == [TrialState.COMPLETE] * 6, out
    assert len({t.params["x"] for t in done}) == 6
    assert len(owners(done)) == 2
    assert "6 of 6 trials finished" in out
    assert OmegaConf.load(tmp_path / "sweep" / "optimization_results.yaml").best_value == min(t.value for t in done)


@pytest.mark.slow
def test_ctrl_c_stops_the_workers_and_the_same_command_goes_on(start, trials):
    command = [*SPACE, "wait=0.7", "hydra.sweeper.workers=2", "hydra.sweeper.n_trials=6"]
    process = start(*command)
    wait_for(process, lambda: any(t.state.is_finished() for t in trials()))
    workers = [child.pid for child in psutil.Process(process.pid).children()]
    assert len(workers) == 2
    process.send_signal(signal.SIGINT)
    assert "Stopping the workers" in finish(process)
    assert process.returncode != 0
    assert not any(psutil.pid_exists(pid) for pid in workers)
    stopped = trials()
    assert TrialState.RUNNING not in {t.state for t in stopped}
    assert TrialState.FAIL not in {t.state for t in stopped}
    finish(start(*command))
    done = trials()
    assert [t.state for t in done] == [TrialState.COMPLETE] * 6
    for before in stopped:
        assert before.params.items() <= done[before.number].params.items()
        if before.state.is_finished():
            assert before.datetime_complete == done[before.number].datetime_complete


@pytest.mark.slow
def test_a_terminated_command_stops_its_workers_in_order(start, trials, tmp_path):
    app = tmp_path / "terminable.py"  # as train.py is
    app.write_text(
        "import runpy, signal, sys\n"
        "signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))\n"
        f"runpy.run_path({str(APP)!r}, run_name='__main__')\n"
    )
    process = start(*SPACE, "wait=0.7", "hydra.sweeper.workers=2", "hydra.sweeper.n_trials=50", app=app)
    wait_for(process, lambda: any(t.state.is_finished() for t in trials()))
    workers = [child.pid for child in psutil.Process(process.pid).children()]
    process.send_signal(signal.SIGTERM)
    out = finish(process)
    assert "Stopping the workers" in out
    assert "the same command goes on with the study" in out
    assert process.returncode == 128 + signal.SIGTERM, out
    assert not any(psutil.pid_exists(pid) for pid in workers)
    stopped = trials()
    assert len(stopped) < 20, out
    assert TrialState.RUNNING not in {t.state for t in stopped}
    assert (tmp_path / "sweep" / "optimization_results.yaml").is_file()


def test_a_signal_between_taking_a_trial_and_training_it_leaves_none_behind(run, trials, monkeypatch):
    take = Claims.take

    def interrupted(claims, *arguments):
        taken = take(claims, *arguments)
        if taken[0].number == 2:
            raise KeyboardInterrupt
        return taken

    with monkeypatch.context() as patch:
        patch.setattr(Claims, "take", interrupted)
        run(*SPACE, "hydra.sweeper.n_trials=4")
    assert [t.state for t in trials()] == [TrialState.COMPLETE, TrialState.COMPLETE, TrialState.WAITING]
    run(*SPACE, "hydra.sweeper.n_trials=4")
    done = trials()
    assert [t.state for t in done] == [TrialState.COMPLETE] * 4
    assert RETRIES not in done[2].system_attrs  # it did not die


@pytest.mark.slow
def test_a_worker_that_dies_is_replaced(start, trials):
    process = start(*SPACE, "wait=0.7", "hydra.sweeper.workers=2", "hydra.sweeper.n_trials=14")
    wait_for(process, lambda: sum(t.state == TrialState.RUNNING and bool(t.params) for t in trials()) == 2)
    victim = max(owners(trials()))
    os.kill(victim, signal.SIGKILL)
    out = finish(process)
    assert process.returncode == 0, out
    assert "died" in out
    done = trials()
    assert [t.state for t in done] == [TrialState.COMPLETE] * 14
    assert len(owners(done) - {victim}) >= 2


@pytest.mark.slow
def test_workers_end_when_their_supervisor_is_killed(start, trials):
    process = start(*SPACE, "wait=0.5", "hydra.sweeper.workers=2", "hydra.sweeper.n_trials=50")
    wait_for(process, lambda: any(t.state.is_finished() for t in trials()))
    workers = [psutil.Process(child.pid) for child in psutil.Process(process.pid).children()]
    process.kill()
    _, alive = psutil.wait_procs(workers, timeout=60)
    assert not alive
    assert TrialState.RUNNING not in {t.state for t in trials()}


@pytest.mark.slow
def test_a_second_terminal_joins(start, trials):
    command = [*SPACE, "meet=2", "hydra.sweeper.n_trials=10"]
    both = [start(*command), start(*command)]
    outs = [finish(process) for process in both]
    assert [process.returncode for process in both] == [0, 0], outs
    done = trials()
    assert [(t.number, t.state) for t in done] == [(n, TrialState.COMPLETE) for n in range(10)]
    assert owners(done) == {process.pid for process in both}
    assert len({t.params["x"] for t in done}) == 10


def test_a_study_of_another_application_waits_for_no_torch():
    """It takes two seconds to import, in each worker; nor for what only reports and tracked jobs need."""
    heavy = "torch", "mlflow", "matplotlib", "sklearn", "pandas"
    code = f"import sys, cifar_tuning.tuning.engine; print([name for name in {heavy} if name in sys.modules])"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert out.strip() == "[]"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("options", "count", "check"),
    [
        (["x=range(-5.5,5.5,step=0.5)", "y=choice(-5,0,5)"], 5, lambda p: p["x"] * 2 % 1 == 0 and p["y"] in (-5, 0, 5)),
        (["x=tag(log,interval(0.1,10))"], 4, lambda p: 0.1 <= p["x"] <= 10),
        (["x=1,2", "y=1,2,3", "hydra/sweeper/sampler=grid"], 6, lambda p: True),
        (["x=interval(-5,5)", "hydra/sweeper/sampler=random"], 4, lambda p: True),
        (["x=interval(-5.0,5.0)", "hydra/sweeper/sampler=qmc"], 4, lambda p: True),
        (["x=interval(-5.0,5.0)", "hydra/sweeper/sampler=nsgaii"], 4, lambda p: True),
        ([*SPACE, "y=interval(-5.0,5.0)", "hydra/sweeper/sampler=nsgaiii"], 4, lambda p: True),
        ([*SPACE, "y=interval(-5.0,5.0)", "hydra/sweeper/sampler=cmaes"], 4, lambda p: True),
        ([*SPACE, "hydra/sweeper/sampler=gp", "hydra.sweeper.sampler.n_startup_trials=2"], 4, lambda p: True),
        (["hydra.sweeper.custom_search_space=sphere.space"], 6, lambda p: ("y" in p) == (p["x"] > 0)),
    ],
    ids=["range", "log", "grid", "random", "qmc", "nsgaii", "nsgaiii", "cmaes", "gp", "custom"],
)
def test_search_spaces_of_the_stock_plugin(run, trials, options, count, check):
    out = run(*options, f"hydra.sweeper.n_trials={count}")
    done = trials()
    assert [t.state for t in done] == [TrialState.COMPLETE] * count, out
    assert all(check(t.params) for t in done), [t.params for t in done]
    if "grid" in options[-1]:
        assert len({tuple(t.params.items()) for t in done}) == count


def test_a_trial_without_a_number_fails_and_the_study_goes_on(run, trials, tmp_path):
    why = {
        "error": "RuntimeError: no such luck",
        "incomparable": "The job returned nan",
        "words": "The job returned 'words'",
        "exit": "the job exited with code 3",
        "farewell": "the job exited: no such luck",
    }
    space = [f"returns=value,{','.join(why)}", "hydra/sweeper/sampler=grid", "hydra.sweeper.n_trials=6"]
    out = run(*space, "hydra.sweeper.max_failure_rate=1")
    ended = {t.params["returns"]: t for t in trials()}
    assert ended.pop("value").state == TrialState.COMPLETE, out
    assert ended.keys() == why.keys()
    for returns, trial in ended.items():
        assert trial.state == TrialState.FAIL
        assert (tmp_path / "sweep" / str(trial.number) / "traceback.txt").read_text().strip()
        assert out.count(f"trial {trial.number} failed: {why[returns]}") >= 2  # when it did, and in the end


@pytest.mark.slow
def test_a_job_that_exits_costs_its_trial_and_no_worker(start, trials):
    given = ["returns=value,exit", "hydra/sweeper/sampler=grid", "hydra.sweeper.n_trials=2", "hydra.sweeper.workers=2"]
    process = start(*given, "hydra/launcher=joblib")
    out = finish(process)
    assert process.returncode == 0, out
    assert sorted(t.state.name for t in trials()) == ["COMPLETE", "FAIL"], out
    assert "died" not in out


BRUTE_FORCE = "hydra/sweeper/sampler=brute_force"


@pytest.mark.parametrize(
    ("space", "points"),
    [
        (["x=1,2", "y=range(0,3)"], [{"x": x, "y": y} for x in (1, 2) for y in (0, 1, 2)]),
        (
            ["hydra.sweeper.custom_search_space=sphere.tree"],
            [{"x": 0.0}, {"x": 1.0, "y": 0}, {"x": 1.0, "y": 1}, {"x": 1.0, "y": 2}, {"x": 2.0}],
        ),
        (
            ["x=0,1", "y=range(0,2)", 'hydra.sweeper.conditions={y:"x=1"}'],
            [{"x": 0}, {"x": 1, "y": 0}, {"x": 1, "y": 1}],
        ),
    ],
    ids=["declared", "custom", "conditional"],
)
def test_brute_force_tries_every_point_once(run, trials, space, points):
    out = run(*space, BRUTE_FORCE, "hydra.sweeper.n_trials=20")
    assert sorted((t.params for t in trials()), key=str) == sorted(points, key=str), out
    out = run(*space, BRUTE_FORCE, "hydra.sweeper.n_trials=40")
    assert len(trials()) == len(points)
    assert "every point of the search space is tried" in out


@pytest.mark.slow
def test_brute_force_with_several_workers(start, trials):
    space = ["hydra.sweeper.custom_search_space=sphere.tree", "hydra.sweeper.workers=3", "wait=0.3"]
    process = start(*space, BRUTE_FORCE, "hydra.sweeper.n_trials=20")
    out = finish(process)
    assert process.returncode == 0, out
    assert len(trials()) == 5


@pytest.mark.parametrize(
    ("space", "message"),
    [
        ([*SPACE, "y=1,2"], "there is no end of them in x (interval -5.0 to 5.0)"),
        (["hydra.sweeper.custom_search_space=sphere.space"], "there is no end of them in x (interval -5.0 to 5.0)"),
        (["hydra.sweeper.custom_search_space=sphere.nothing"], "custom_search_space=sphere.nothing suggests nothing"),
        (
            ["hydra.sweeper.custom_search_space=sphere.tree", "hydra/sweeper/sampler=grid"],
            "does not know x, y, suggested",
        ),
        (
            [*SPACE, "hydra/sweeper/sampler=grid"],
            "GridSampler tries every point, and there is no end of them in x (interval -5.0 to 5.0)",
        ),
        ([], "the search space is empty: no key has a range"),
    ],
)
def test_what_has_no_end_or_no_beginning_is_refused(run, tmp_path, space, message):
    assert message in run(BRUTE_FORCE, *space)
    assert not (tmp_path / "sweep" / "optuna.db").exists()


@pytest.mark.parametrize(("sampler", "fails"), [("grid", "1 2"), ("brute_force", "1 2"), ("random", "1 2 3")])
def test_the_same_command_makes_up_for_failed_trials(run, trials, monkeypatch, sampler, fails):
    """The failed points of a grid are tried again, and what was to be tried first; a sampler draws others."""
    given = ["x=choice(1,2,3)", "hydra.sweeper.n_trials=3", "hydra.sweeper.max_failure_rate=1"]
    given += [f"hydra/sweeper/sampler={sampler}"]
    given += [] if sampler == "grid" else ["hydra.sweeper.enqueue=[{x: 2}]"]
    monkeypatch.setenv("SPHERE_FAILS", fails)
    out, failed = run(*given), len(fails.split())
    before = [trial for trial in trials() if trial.state == TrialState.FAIL]
    assert (len(before), len(trials())) == (failed, 3), out
    assert f"the same command trains {failed} more in place of those that failed" in out
    monkeypatch.delenv("SPHERE_FAILS")
    out = run(*given)
    complete = [trial for trial in trials() if trial.state == TrialState.COMPLETE]
    assert (len(complete), len(trials())) == (3, 3 + failed), out
    assert trials()[3].params == before[0].params
    assert f"{failed} failed before and don't count" in out
    assert sampler == "random" or sorted(trial.params["x"] for trial in complete) == [1, 2, 3]
    assert ("every point" if sampler == "brute_force" else "all 3 trials finished") in run(*given)
    assert len(trials()) == 3 + failed


def test_several_objectives(run, trials, tmp_path):
    out = run(*SPACE, "returns=two", "hydra.sweeper.direction=[minimize,minimize]", "hydra.sweeper.n_trials=4")
    assert [len(t.values) for t in trials()] == [2] * 4, out
    assert OmegaConf.load(tmp_path / "sweep" / "optimization_results.yaml").solutions


def test_the_stock_plugin_stands_beside(run, tmp_path):
    run(*SPACE, "hydra.sweeper.n_trials=2", "hydra.sweeper.n_jobs=1", sweeper="optuna")
    assert OmegaConf.load(tmp_path / "sweep" / "optimization_results.yaml").name == "optuna"


@pytest.mark.slow
def test_a_timeout_starts_no_further_trial(start, trials):
    out = finish(start(*SPACE, "wait=1", "hydra.sweeper.timeout=5", "hydra.sweeper.n_trials=50"))
    done = trials()
    assert 1 <= len(done) < 12, out
    assert {t.state for t in done} == {TrialState.COMPLETE}
    assert "stopped by hydra.sweeper.timeout=5; the same command goes on" in out


def test_a_trial_that_its_own_search_space_prunes_is_no_failure(run, trials):
    space = ["hydra.sweeper.custom_search_space=sphere.upper_half", "hydra/sweeper/sampler=random"]
    out = run(*space, "hydra.sweeper.max_failure_rate=0", "hydra.sweeper.n_trials=8")
    states = {(t.params["x"] < 0, t.state) for t in trials()}
    assert states == {(True, TrialState.PRUNED), (False, TrialState.COMPLETE)}, out
    assert "0 failed" in out


@pytest.mark.parametrize("direction", ["[]", "up", "[minimize,up]"])
def test_a_direction_that_is_none_is_refused(run, direction):
    out = run(*SPACE, f"hydra.sweeper.direction={direction}")
    assert "must be minimize or maximize, or a list of them" in out
    assert "Traceback" not in out


def test_a_folder_may_have_any_name(run, tmp_path):
    name = "{a} 50% what? ä&c=d a%20b#c"
    given = [*SPACE, f"hydra.sweep.dir='{tmp_path}/{name}'", "hydra.sweeper.n_trials=2"]
    assert "2 of 2 trials finished" in run(*given)
    assert "all 2 trials finished" in run(*given)
    assert {file.name for file in tmp_path.iterdir()} <= {name, "sphere.log"}
    assert (tmp_path / name / "optuna.db").is_file()
    assert len(find_study(tmp_path / name, {}).trials) == 2
    params = {"hydra.sweeper._target_": STUDY_SWEEPER, "hydra.sweeper.study_name": "sphere"}
    (tmp_path / name / "study.yaml").unlink()
    assert len(find_study(tmp_path / name, params).trials) == 2


def test_a_sampler_takes_a_function_that_the_user_trusts(run, trials, tmp_path, monkeypatch):
    """By either way of naming it; a study goes on with the other."""
    named = "{_target_:hydra.utils.get_method,path:sphere.limits}", "{_target_:sphere.limits,_partial_:true}"
    given, other = (
        [*SPACE, f"hydra.sweeper.sampler.constraints_func={one}", "hydra.sweeper.n_trials=2"] for one in named
    )
    advice = "may not call sphere.limits; if you trust the package, export CIFAR_TUNING_TRUST='sphere.*'"
    assert all(advice in run(*one) for one in (given, other))
    monkeypatch.setenv(TRUST_VARIABLE, "sphere.*")
    out = run(*given, "hydra.sweeper.plots=true", "hydra.sweeper.enqueue=[{x: 1.0},{x: 2.0}]")
    assert "None is the best: all complete trials violate constraints." in out
    assert out.count(" violated ") == 2
    assert "Traceback" not in out
    assert "going on" not in run(*given)
    assert len(trials()) == 2
    run(*other[:-1], "hydra.sweeper.n_trials=3", "hydra.sweeper.enqueue=[{x: -1.0}]")
    assert OmegaConf.load(tmp_path / "sweep" / "optimization_results.yaml").best_params == {"x": -1.0}


@pytest.mark.usefixtures("run")
def test_a_winner_that_could_not_be_retrained_is_an_error_behind_the_study(command, tmp_path):
    retrain = ["hydra.sweeper.retrain_best=2", 'hydra.sweeper.retrain_overrides=["returns=error"]', "+seed=0"]
    out = command(*arguments(tmp_path, "study"), *SPACE, *retrain, "hydra.sweeper.n_trials=1", program=str(APP))
    assert out.code == 1
    assert "1 of 1 trial finished" in out.out
    assert "error: hydra.sweeper.retrain_best: the winner could not be retrained:" in out.err
    assert "seed 1: RuntimeError: no such luck" in out.err
    assert (tmp_path / "sweep" / "optimization_results.yaml").is_file()


def test_infinite_values_are_said_once_to_be_in_no_plot(run):
    given = ["returns=value,inf,-inf", "hydra/sweeper/sampler=grid", "hydra.sweeper.plots=true"]
    out = run(*given)
    assert "2 trials with an infinite value: in none of the plots." in out
    assert "omitted" not in out
    (best,) = {line.partition("(best ")[2].partition(",")[0] for line in out.splitlines() if "3/3 ended" in line}
    assert best == "1.0000"


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ([], "hydra/sweeper/pruner: Either lower or upper must be specified"),
        (["hydra.sweeper.pruner.upper=100"], "2 of 2 trials finished"),
    ],
)
def test_the_threshold_pruner_needs_a_threshold(run, given, said):
    assert said in run(*SPACE, "hydra/sweeper/pruner=threshold", *given, "hydra.sweeper.n_trials=2")
