"""A study whose process is killed again and again loses nothing and does nothing twice."""

import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import optuna
import pytest
from mlflow import MlflowClient
from optuna.trial import TrialState

from cifar_tuning import PROJECT_ROOT
from cifar_tuning.tuning.storage import open_storage

TRIALS, KILLS, EPOCHS = 6, 6, 8


def epochs_done(folder: Path) -> int:
    return sum(len(file.read_text().splitlines()) for file in folder.glob("*/metrics.jsonl"))


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_a_study_that_is_killed_again_and_again(tmp_path: Path, pristine_database: Path) -> None:
    store = tmp_path / "mlflow.db"
    store.write_bytes(pristine_database.read_bytes())
    folder = tmp_path / "study"
    command = [
        sys.executable,
        str(PROJECT_ROOT / "train.py"),
        *("-m", "study=simplenn", "data=synthetic", "trainer.device=cpu", "trainer.precision=fp32"),
        f"trainer.epochs={EPOCHS}",
        f"tracking.uri=sqlite:///{store}",
        f"hydra.sweep.dir={folder}",
        f"hydra.sweeper.n_trials={TRIALS}",
        "hydra.sweeper.max_retry=null",
        "hydra.sweeper.workers=1",  # what is killed is what trains
    ]
    seen: set[tuple] = set()
    moments = random.Random(0)
    for _ in range(KILLS):
        before = epochs_done(folder)
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
        # Mostly while it trains, sometimes while it starts.
        if moments.random() < 0.85:
            while epochs_done(folder) <= before and process.poll() is None:
                time.sleep(0.05)
        time.sleep(moments.uniform(0, 0.6))
        assert process.poll() is None, process.stderr.read().decode()[-2000:]
        process.send_signal(signal.SIGKILL)
        process.wait()
        seen |= {tuple(sorted(t.params.items())) for t in trials(folder) if len(t.params) == 4}
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)

    ended = trials(folder)
    assert [t.number for t in ended] == list(range(TRIALS))
    assert {t.state for t in ended} <= {TrialState.COMPLETE, TrialState.PRUNED}
    assert seen <= {tuple(sorted(t.params.items())) for t in ended}

    client = MlflowClient(f"sqlite:///{store}")
    (experiment,) = [e.experiment_id for e in client.search_experiments() if e.name == "cifar10"]
    runs = client.search_runs([experiment], "tags.`cifar_tuning.job_num` LIKE '%'")
    assert sorted(int(run.data.tags["cifar_tuning.job_num"]) for run in runs) == list(range(TRIALS))
    for run in runs:
        trial = ended[int(run.data.tags["cifar_tuning.job_num"])]
        # Which learning rates are drawn depends on the moments of the kills; some of them diverge.
        state = "pruned" if trial.state == TrialState.PRUNED else trial.user_attrs.get("state", "complete")
        assert (run.info.status, run.data.tags["state"]) == ("KILLED" if state == "pruned" else "FINISHED", state)
        curve = {m.step: m.value for m in client.get_metric_history(run.info.run_id, "val/acc")}
        assert sorted(curve) == list(range(len(curve)))
        assert len(curve) == EPOCHS + 1 or state in ("pruned", "diverged")
        assert curve == pytest.approx(trial.intermediate_values)
    (parent,) = client.search_runs([experiment], "tags.`cifar_tuning.sweep_dir` LIKE '%'")
    assert parent.info.status == "FINISHED"


def trials(folder: Path) -> list[optuna.trial.FrozenTrial]:
    if not (folder / "optuna.db").exists():
        return []
    storage = open_storage(f"sqlite:///{folder}/optuna.db")
    try:
        return optuna.load_study(study_name="simplenn", storage=storage).get_trials()
    except KeyError:
        return []
