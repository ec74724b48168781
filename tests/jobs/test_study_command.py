"""A study as its user sees it: the command, the folder, the storage, MLflow."""

import errno
import json
import logging
import shutil
from pathlib import Path
from types import SimpleNamespace

import optuna
import pytest
from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from omegaconf import OmegaConf
from optuna.exceptions import StorageInternalError
from optuna.trial import TrialState

from cifar_tuning import PROJECT_ROOT
from cifar_tuning.processes import host
from cifar_tuning.reporting.summary import read_results
from cifar_tuning.tracking.reading import read_sweep
from cifar_tuning.training.checkpoint import Taken
from cifar_tuning.tuning.claims import RETRIES
from cifar_tuning.tuning.place import OWNER
from cifar_tuning.tuning.storage import open_storage
from cifar_tuning.tuning.study import FIXED
from cifar_tuning.tuning.trial import TrialReporter
from tests.conftest import STUDY
from tests.jobs.spaces import MOMENTUM, SEVERAL

pytestmark = pytest.mark.usefixtures("trusted")

PLOTS = "hydra.sweeper.plots=true"
# Prunes whatever is not the best so far, from the second trial on.
STRICT = [
    "hydra/sweeper/pruner=percentile",
    "hydra.sweeper.pruner.percentile=1",
    "hydra.sweeper.pruner.n_startup_trials=1",
    "hydra.sweeper.pruner.n_warmup_steps=0",
]
# A learning rate that learns and one that can't, in turn.
MIXED = [
    "trainer.epochs=4",
    "optimizer.lr=tag(log,interval(1e-6,0.1))",
    "hydra.sweeper.enqueue=[{optimizer.lr:0.05},{optimizer.lr:1e-6},{optimizer.lr:0.05},{optimizer.lr:1.1e-6}]",
]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "sweep"


@pytest.fixture
def study(folder):
    """Reads the study again, as another process would."""

    def load(name: str = "simplenn") -> optuna.Study:
        return optuna.load_study(study_name=name, storage=open_storage(f"sqlite:///{folder}/optuna.db"))

    return load


def by_number(runs: list) -> dict:
    """The jobs among them."""
    jobs = [run for run in runs if "cifar_tuning.job_num" in run.data.tags]
    return {int(run.data.tags["cifar_tuning.job_num"]): run for run in jobs}


def parents(runs: list) -> list:
    return [run for run in runs if "cifar_tuning.job_num" not in run.data.tags]


def composed_again(tmp_path: Path, *overrides: str):
    """The configuration of the winner's overlay, which the study left, and of the overrides."""
    experiments = tmp_path / "conf" / "experiment"
    experiments.mkdir(parents=True, exist_ok=True)
    shutil.copy(tmp_path / "sweep" / "best.yaml", experiments / "winner.yaml")
    GlobalHydra.instance().clear()
    with initialize_config_dir(str(PROJECT_ROOT / "conf")):
        own = ["experiment=winner", "trainer.device=cpu", f"hydra.searchpath=[file://{tmp_path}/conf]"]
        return compose("config", [*own, *overrides])


def test_a_study_prunes_sums_up_and_is_continued(tiny, study, folder, tracked):
    command = [*STUDY, *tracked.overrides, *STRICT, *MIXED]
    outcome = tiny(*command, PLOTS, "hydra.sweeper.n_trials=4")
    assert outcome.code == 0, outcome.text

    trials = study().get_trials()
    assert [t.number for t in trials] == [0, 1, 2, 3]
    assert trials[0].params["optimizer.lr"] == 0.05
    states = [t.state for t in trials]
    assert states[0] == TrialState.COMPLETE
    assert TrialState.PRUNED in states
    assert set(states) <= {TrialState.COMPLETE, TrialState.PRUNED}

    jobs, (parent,) = by_number(tracked()), parents(tracked())
    assert sorted(jobs) == [0, 1, 2, 3]
    for trial in trials:
        run = jobs[trial.number]
        pruned = trial.state == TrialState.PRUNED
        assert (run.info.status, run.data.tags["state"]) == (
            ("KILLED", "pruned") if pruned else ("FINISHED", "complete")
        )
        assert (folder / str(trial.number) / "last.pt").is_file()
        left = json.loads((folder / str(trial.number) / "result.json").read_text())
        assert left["epochs"] == max(trial.intermediate_values)
        assert pruned == (left["epochs"] < 4)
    assert parent.info.status == "FINISHED"
    assert parent.data.metrics["best_value"] == pytest.approx(study().best_value)
    assert parent.data.params["hydra.sweeper.n_trials"] == "4"

    results = OmegaConf.load(folder / "optimization_results.yaml")
    assert results.name == "optuna"
    assert results.best_value == pytest.approx(study().best_value)
    assert results.best_trial == study().best_trial.number
    assert (folder / "plots" / "study.html").is_file()
    assert "saved by pruning" in outcome.out

    again = tiny(*command, "hydra.sweeper.n_trials=4")
    assert "all 4 trials finished" in again.out
    assert len(study().get_trials()) == 4
    before = {file: file.stat().st_mtime_ns for file in folder.glob("[0-3]/result.json")}
    assert tiny(*command, "hydra.sweeper.n_trials=5").code == 0
    assert len(study().get_trials()) == 5
    assert before == {file: file.stat().st_mtime_ns for file in folder.glob("[0-3]/result.json")}
    assert len(parents(tracked())) == 1


@pytest.mark.slow
def test_files_are_written_and_plots_drawn_by_whichever_command_ends(tiny, folder):
    command = [*STUDY, "trainer.epochs=1", "hydra.sweeper.n_trials=1"]
    first = tiny(*command)
    assert not (folder / "plots").exists()
    assert "plots" not in first.out.partition("Where to look next")[2]
    assert "tried first: the defaults, without schedule.decay_epochs=10, which is outside its range" in first.out
    for file in ("best.yaml", "optimization_results.yaml"):
        (folder / file).unlink()
    again = tiny(*command, PLOTS)
    assert "tried first" not in again.out
    assert f"{folder / 'plots'}  # Optuna's plots" in again.out
    assert (folder / "best.yaml").is_file()
    assert (folder / "optimization_results.yaml").is_file()
    drawn = (folder / "plots" / "study.html").stat().st_mtime_ns
    tiny(*command, PLOTS)
    assert (folder / "plots" / "study.html").stat().st_mtime_ns == drawn


@pytest.mark.slow
def test_the_overlay_of_the_winner_is_its_configuration_and_can_be_changed(tiny, tmp_path, folder, study):
    options = ["hydra.sweeper.n_trials=2", "trainer.epochs=1", "optimizer=adam", "regularizer=l1", "resume=null"]
    assert tiny(*STUDY, *options).code == 0
    best = study().best_trial
    trained = OmegaConf.load(folder / str(best.number) / ".hydra" / "config.yaml")
    overlay = OmegaConf.load(folder / "best.yaml")
    assert overlay.trainer.epochs == 1
    assert "device" not in overlay.trainer  # another machine may have another
    assert "data" not in overlay
    again = composed_again(tmp_path)
    other = composed_again(tmp_path, "optimizer=sgd", "regularizer=none", "schedule=cosine")
    for part in ("model", "optimizer", "schedule", "regularizer", "augmentation", "trainer", "data"):
        assert again[part] == trained[part], part
    assert other.optimizer._target_ == "torch.optim.SGD"
    assert "betas" not in other.optimizer
    assert other.regularizer._target_ == "cifar_tuning.training.Regularizer"
    assert "T_max" in other.schedule


@pytest.mark.slow
def test_repeats_and_the_retrained_winner(tiny, folder, study, tracked):
    options = ["hydra.sweeper.n_trials=2", "hydra.sweeper.repeats=2", "hydra.sweeper.retrain_best=2"]
    options += ["tracking.log_model=auto"]
    outcome = tiny(*STUDY, *tracked.overrides, *options, "trainer.epochs=1", "seed=3")
    assert outcome.code == 0, outcome.text
    for trial in study().get_trials():
        left = [json.loads((folder / f"{trial.number}/seed_{s}/result.json").read_text())["value"] for s in (3, 4)]
        assert trial.value == pytest.approx(sum(left) / 2)
    retrained = json.loads((folder / "retrained.json").read_text())
    assert sorted(retrained["runs"]) == ["5", "6"]  # seeds that took no part in the search
    assert all(0 <= run["test"] <= 1 for run in retrained["runs"].values())
    assert "retrained with 2 other seeds: validation accuracy" in outcome.out
    assert "test accuracy" in outcome.out
    assert f"predict.py run={folder}/best_{study().best_trial.number}/seed_5" in outcome.out
    assert f"python report.py sweep={folder} {tracked.overrides[1]}  # all of it" in outcome.out
    summed_up = [(r["job"], r["seeds"], r["value"]) for r in read_results(folder)]
    ranked = sorted(study().get_trials(), key=lambda trial: -trial.value)
    assert summed_up == [(str(t.number), 2, pytest.approx(t.value)) for t in ranked]
    runs, client = tracked(), tracked.client()
    names = {r.info.run_id: r.info.run_name for r in runs}
    parents = [names.get(r.data.tags.get("mlflow.parentRunId")) for r in runs]
    assert parents.count("trial 0") == parents.count("trial 1") == 2
    assert parents.count("simplenn") == 4  # two trials, two retrained
    assert {r.info.status for r in runs} == {"FINISHED"}
    (sweep,) = (r for r in runs if r.info.run_name == "simplenn")
    assert sweep.data.metrics["jobs/complete"] == 2
    best = client.get_run(sweep.data.tags["best.run_id"])
    assert best.info.run_name == f"trial {study().best_trial.number}"
    assert best.outputs.model_outputs, "the winner's model is not there"
    assert float(best.data.params["optimizer.lr"]) == study().best_trial.params["optimizer.lr"]
    assert "seed" not in best.data.params
    assert "optimizer.lr=" in sweep.data.tags["best.overrides"]
    assert "seed=" not in sweep.data.tags["best.overrides"]


@pytest.mark.slow
def test_a_trial_that_is_hopeless_after_a_whole_seed_gets_no_other(tiny, study, folder, tracked):
    options = ["hydra.sweeper.n_trials=4", "hydra.sweeper.repeats=2", "trainer.epochs=1"]
    mixed = [option for option in MIXED if not option.startswith("trainer.epochs")]
    outcome = tiny(*STUDY, *tracked.overrides, *STRICT, *mixed, *options)
    assert outcome.code == 0, outcome.text
    states = {trial.number: trial.state for trial in study().get_trials()}
    assert states[0] == TrialState.COMPLETE
    assert states[1] == TrialState.PRUNED
    assert [(folder / f"{number}/seed_1").is_dir() for number in (0, 1)] == [True, False]
    left = json.loads((folder / "1/seed_0/result.json").read_text())
    assert (left["state"], left["epochs"]) == ("complete", 1)
    runs = {run.info.run_name: run for run in tracked()}
    assert (runs["trial 1"].info.status, runs["trial 1"].data.tags["state"]) == ("KILLED", "pruned")
    assert runs["trial 0"].info.status == "FINISHED"
    # Its one seed came to its end, and is no configuration of the report all the same.
    sweep = read_sweep(str(folder), tracked.overrides[1].partition("=")[2])
    assert {run.state for run in sweep.runs if "/1/seed_" in str(run.folder)} == {"pruned"}
    assert {run.state for run in sweep.runs if "/0/seed_" in str(run.folder)} == {"complete"}


@pytest.mark.slow
def test_mlflow_and_the_report_name_the_studys_winner(tiny, study, tracked, reporting, folder):
    """Not the highest accuracy, which is nothing that this study looks for."""
    options = ["objective=val/loss", "hydra.sweeper.direction=minimize", "hydra/sweeper/pruner=none"]
    outcome = tiny(*STUDY, *tracked.overrides, *options, "trainer.epochs=1", "hydra.sweeper.n_trials=4")
    assert outcome.code == 0, outcome.text
    (parent,) = parents(tracked())
    assert parent.data.tags["best.job_num"] == str(study().best_trial.number)
    assert parent.data.params["hydra.sweeper.sampler.multivariate"] == "true"  # as it is used, not the stock plugin's
    client = tracked.client()
    history = client.get_metric_history(parent.info.run_id, "best_value")
    assert [point.step for point in history] == [0, 1, 2, 3]
    falling = [point.value for point in history]
    assert falling == sorted(falling, reverse=True)
    ends = sorted(trial.datetime_complete.timestamp() * 1000 for trial in study().get_trials())
    assert [point.timestamp for point in history] == pytest.approx(ends, abs=1)
    outcome = reporting(f"sweep={folder}", tracked.overrides[1], "keep=false")
    assert outcome.code == 0, outcome.text
    text = (folder / "report/report.md").read_text()
    assert "judged by `val/loss` (less is better)" in text
    best = text.partition("## The best configuration\n")[2]
    assert f"`val/loss` {study().best_value:.4f} (n = 1)" in best.partition("##")[0]
    assert f"optimizer.lr={study().best_trial.params['optimizer.lr']} " in best.partition("##")[0]


@pytest.mark.slow
def test_several_objectives_have_no_best_run(tiny, tracked, study, folder, reporting):
    outcome = tiny(*STUDY, *tracked.overrides, *SEVERAL, "trainer.epochs=1", "hydra.sweeper.n_trials=2")
    assert outcome.code == 0, outcome.text
    (parent,) = parents(tracked())
    assert "best.run_id" not in parent.data.tags
    head = next(line for line in outcome.out.splitlines() if line.startswith("┃"))
    assert [cell.strip() for cell in head.split("┃")[1:4]] == ["trial", "val/acc_best", "model/macs"]
    trials, jobs = study().get_trials(), by_number(tracked())
    assert [trial.user_attrs["mlflow_run_id"] for trial in trials] == [jobs[number].info.run_id for number in (0, 1)]
    assert [trial.user_attrs["folder"] for trial in trials] == [str(folder / "0"), str(folder / "1")]
    outcome = reporting(f"sweep={folder}", tracked.overrides[1])
    assert outcome.code == 0, outcome.text
    assert "The Pareto front" in (folder / "report/report.md").read_text()
    assert "The best configuration once more" not in outcome.out


@pytest.mark.slow
@pytest.mark.parametrize("launcher", ["basic", "fused"])
def test_a_full_disk_fails_no_trial(tiny, study, monkeypatch, launcher):
    command = [*STUDY, f"hydra/launcher={launcher}", "hydra.sweeper.n_trials=2", "hydra.sweeper.n_jobs=1"]
    write = Taken.write

    def full(taken, *paths):
        if taken._progress.epoch == 1 and paths[0].parent.name == "1":
            raise OSError(errno.ENOSPC, "No space left on device")
        write(taken, *paths)

    with monkeypatch.context() as patch:
        patch.setattr(Taken, "write", full)
        outcome = tiny(*command)
    assert outcome.code == 1
    assert "error: [Errno 28] No space left on device. Make room; the same command goes on, in" in outcome.err
    assert "Traceback" not in outcome.text
    assert [trial.state for trial in study().get_trials()] == [TrialState.COMPLETE, TrialState.WAITING]
    again = tiny(*command)
    assert again.code == 0, again.text
    assert "resuming after epoch 0 of 2" in again.text
    assert [trial.state for trial in study().get_trials()] == [TrialState.COMPLETE] * 2


@pytest.mark.slow
def test_a_trial_that_can_not_be_composed_fails_alone_in_its_batch(tiny, study, folder):
    """Joblib, Ray and submitit compose all jobs of a batch before the first begins."""
    options = ["hydra.sweeper.custom_search_space=tests.jobs.spaces.careless", "trainer.epochs=1"]
    options += [
        "hydra/launcher=joblib",
        "hydra.launcher.n_jobs=1",
        "hydra.sweeper.n_jobs=4",
        "hydra.sweeper.n_trials=4",
    ]
    options += ["hydra/sweeper/sampler=random", "hydra.sweeper.sampler.seed=1", "hydra.sweeper.max_failure_rate=1"]
    outcome = tiny(*STUDY, *options, "hydra.sweeper.enqueue=[]")
    assert outcome.code == 0, outcome.text
    ends = {("optimizer.momentun" in trial.params, trial.state) for trial in study().get_trials()}
    assert ends == {(False, TrialState.COMPLETE), (True, TrialState.FAIL)}


@pytest.mark.slow
def test_no_pruner_at_all(tiny, study):
    outcome = tiny(*STUDY, *MIXED, "hydra.sweeper.pruner=null", "hydra.sweeper.n_trials=2")
    assert outcome.code == 0, outcome.text
    assert "objectives" not in outcome.out
    ended = [trial.state for trial in study().get_trials() if trial.state.is_finished()]
    assert ended == [TrialState.COMPLETE] * 2


@pytest.mark.slow
def test_sampling_parameters_one_by_one(tiny, study):
    """TPE's `group`, which a function's space turns on, is a part of sampling them jointly."""
    options = [*MOMENTUM, "hydra.sweeper.sampler.multivariate=false", "hydra.sweeper.max_failure_rate=1"]
    outcome = tiny(*STUDY, *options, "trainer.epochs=1", "hydra.sweeper.n_trials=1")
    assert outcome.code == 0, outcome.text
    assert len(study().get_trials()) == 1


@pytest.mark.slow
def test_a_storage_that_is_away_when_a_job_ends_is_told_later(tiny, study, monkeypatch):
    monkeypatch.setattr("cifar_tuning.tuning.storage.WAITS", (0.0, 0.0))
    ended, calls = TrialReporter.ended, []

    def away(self, *how):
        write = self.storage.set_trial_system_attr

        def fails_at_first(*what):
            calls.append(what)
            if len(calls) < 3:
                raise StorageInternalError("the server is restarting")
            return write(*what)

        self.storage = SimpleNamespace(set_trial_system_attr=fails_at_first)
        ended(self, *how)

    monkeypatch.setattr(TrialReporter, "ended", away)
    assert tiny(*STUDY, "trainer.epochs=1", "hydra.sweeper.n_trials=1").code == 0
    assert len(calls) == 3
    assert study().get_trials()[0].state == TrialState.COMPLETE


@pytest.mark.slow
def test_too_many_failures_stop_a_study(tiny, study):
    space = [*MOMENTUM, "hydra.sweeper.n_trials=6"]
    space += ["hydra.sweeper.enqueue=[{optimizer.momentum:1.5},{optimizer.momentum:1.6}]"]
    outcome = tiny(*STUDY, *space, "hydra.sweeper.max_failure_rate=0.3")
    assert outcome.code == 1
    assert "2 of 6 trials failed" in outcome.err
    assert "Traceback" not in outcome.err
    assert len(study().get_trials()) == 2


@pytest.mark.slow
def test_several_objectives_are_not_pruned(tiny, study, folder):
    outcome = tiny(*STUDY, *SEVERAL, *STRICT, PLOTS, "model.separable=true,false", "hydra.sweeper.n_trials=4")
    assert outcome.code == 0, outcome.text
    assert "there is no pruning" in outcome.out
    trials = study().get_trials()
    assert {t.state for t in trials} == {TrialState.COMPLETE}
    assert {len(t.values) for t in trials} == {2}
    assert study().metric_names == ["val/acc_best", "model/macs"]
    front = OmegaConf.load(folder / "optimization_results.yaml").solutions
    assert len(front) == len(study().best_trials)
    assert (folder / "plots" / "pareto_front.png").is_file()
    shown = outcome.out.partition("The configurations of the Pareto front once more:")[2]
    assert [f"  # trial {t.number}\n" in shown for t in trials] == [t in study().best_trials for t in trials]
    assert "Where to look next:" in shown


@pytest.mark.slow
def test_a_list_of_one_objective_is_the_one(tiny, study):
    """It is pruned too."""
    one = ["objective=[val/acc_best]", "hydra.sweeper.direction=[maximize]", "hydra.sweeper.n_trials=4"]
    outcome = tiny(*STUDY, *STRICT, *MIXED, *one)
    assert outcome.code == 0, outcome.text
    assert study().best_trial.value is not None
    assert TrialState.PRUNED in {trial.state for trial in study().get_trials()}
    assert TrialState.FAIL not in {trial.state for trial in study().get_trials()}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("options", "states"),
    [
        (["hydra.sweeper.max_retry=1"], {TrialState.COMPLETE}),
        (["hydra.sweeper.max_retry=0"], {TrialState.COMPLETE, TrialState.FAIL}),
    ],
)
def test_a_trial_whose_process_died_is_taken_up(tiny, study, folder, options, states, caplog):
    command = [*STUDY, "trainer.epochs=3", *options]
    assert tiny(*command, "hydra.sweeper.n_trials=1").code == 0
    began = study()
    trial = began.ask({"optimizer.lr": optuna.distributions.FloatDistribution(1e-3, 0.3, log=True)})
    owner = {"host": host(), "pid": 2**22 + 1, "started": "0.0", "id": "gone"}
    began._storage.set_trial_system_attr(trial._trial_id, OWNER, json.dumps(owner))
    with caplog.at_level(logging.WARNING):
        assert tiny(*command, "hydra.sweeper.n_trials=3").code == 0
    ended = study().get_trials()
    assert len(ended) == 3
    assert {t.state for t in ended} == states
    assert ended[1].params["optimizer.lr"] == trial.params["optimizer.lr"]
    if TrialState.FAIL not in states:
        assert ended[1].system_attrs[RETRIES] == 1


@pytest.mark.slow
def test_an_epoch_that_was_kept_but_not_reported_is_reported_by_the_next_process(tiny, study, monkeypatch):
    """A process may die between an epoch's checkpoint and its report."""
    command = [*STUDY, "trainer.epochs=3", "hydra.sweeper.n_trials=1"]
    report = TrialReporter.on_epoch

    def dies(self, metrics):
        if metrics.epoch == 2:
            raise KeyboardInterrupt
        return report(self, metrics)

    monkeypatch.setattr(TrialReporter, "on_epoch", dies)
    assert tiny(*command).code == 130
    assert sorted(study().get_trials()[0].intermediate_values) == [0, 1]
    monkeypatch.undo()
    assert tiny(*command).code == 0
    (trial,) = study().get_trials()
    assert sorted(trial.intermediate_values) == [0, 1, 2, 3]


@pytest.mark.slow
def test_it_prunes_in_other_processes(tiny, study):
    parallel = ["hydra/launcher=joblib", "hydra.launcher.n_jobs=2"]
    outcome = tiny(*STUDY, *STRICT, *MIXED, *parallel, "hydra.sweeper.n_trials=4")
    assert outcome.code == 0, outcome.text
    states = [t.state for t in study().get_trials()]
    assert len(states) == 4
    assert TrialState.PRUNED in states
    assert TrialState.FAIL not in states


@pytest.mark.slow
def test_an_option_of_hydras_may_refer_to_what_only_a_job_has(tiny, recwarn):
    command = ["-m", "hydra/sweeper=study", "hydra.sweeper.workers=1", "hydra.sweeper.plots=false"]
    command += ["optimizer.lr=0.1,0.01", "hydra.sweeper.n_trials=1", "trainer.epochs=1"]
    outcome = tiny(*command, "+hydra.job.env_set.NUMBER=${hydra.job.num}")
    assert outcome.code == 0, outcome.text
    assert [str(one.message) for one in recwarn if "on_multirun_start" in str(one.message)] == []


@pytest.mark.slow
def test_another_study_is_not_continued(tiny, folder, study):
    assert tiny(*STUDY, "trainer.epochs=1", "hydra.sweeper.n_trials=2").code == 0
    refused = {
        "was begun with maximize": ["hydra.sweeper.direction=minimize"],
        "has 2 finished trials already": ["hydra.sweeper.n_trials=1"],
        "optimizer.lr: interval 0.001 to 0.3, log before, choice(0.1, 0.2) now": ["optimizer.lr=0.1,0.2"],
        "model.dropout: 0.0 before, 0.5 now": ["model.dropout=0.5"],
        f"or begin anew without the folder {folder}": ["model.dropout=0.5"],
        "belongs to the study simplenn": ["hydra.sweeper.study_name=other"],
    }
    for message, options in refused.items():
        outcome = tiny(*STUDY, "trainer.epochs=1", "hydra.sweeper.n_trials=3", *options)
        assert outcome.code == 1, message
        assert message in outcome.err
    unlike = ["hydra.sweeper.allow_changed_space=true", "optimizer.lr=0.1,0.2", "hydra.sweeper.n_trials=3"]
    outcome = tiny(*STUDY, "trainer.epochs=1", *unlike)
    assert outcome.code == 1
    assert "Optuna can't mix" in outcome.err
    assert "optimizer.lr: interval 0.001 to 0.3, log before, choice(0.1, 0.2) now" in outcome.err
    assert len(study().get_trials()) == 2
    accepted = ["hydra.sweeper.allow_changed_space=true", "model.dropout=0.5", "hydra.sweeper.n_trials=3"]
    assert tiny(*STUDY, "trainer.epochs=1", *accepted).code == 0
    assert len(study().get_trials()) == 3


@pytest.mark.slow
def test_a_study_goes_on_where_an_option_has_come_since(tiny, study):
    """With a newer version of the project, whose default is what the older one did."""
    command = [*STUDY, "trainer.epochs=1"]
    assert tiny(*command, "hydra.sweeper.n_trials=1").code == 0
    known = study().user_attrs[FIXED]
    study().set_user_attr(FIXED, {key: value for key, value in known.items() if key != "trainer.ema_decay"})
    outcome = tiny(*command, "hydra.sweeper.n_trials=2", "trainer.ema_decay=0.9")
    assert outcome.code == 1
    assert "trainer.ema_decay: (absent) before, 0.9 now" in outcome.err
    outcome = tiny(*command, "hydra.sweeper.n_trials=2")
    assert outcome.code == 0, outcome.err
    assert len(study().get_trials()) == 2


def test_a_password_is_not_shown():
    from cifar_tuning.tracking.callback import _params

    config = OmegaConf.create(
        {
            "hydra": {
                "overrides": {"task": ["hydra.sweeper.storage=postgresql://me:secret@db/optuna"]},
                "runtime": {"choices": {}},
                "sweeper": {"storage": "postgresql://me:secret@db/optuna", "params": {"a": "1,2"}},
            }
        }
    )
    params = _params(config, OmegaConf.to_container(config.hydra.sweeper))
    assert "secret" not in str(params)
    assert params["hydra.sweeper.storage"] == "postgresql://me:***@db/optuna"


@pytest.mark.slow
@pytest.mark.parametrize(
    "deleted",
    [
        ["~optimizer", "+optimizer={_target_: torch.optim.SGD, _partial_: true, lr: 0.05}"],
        ["~optimizer.momentum", "~optimizer.nesterov"],
        ["~model", "+model={_target_: cifar_tuning.models.ResNet, depth: 8}"],
    ],
    ids=["a group in another's place", "keys", "a model of one's own"],
)
def test_the_winners_overlay_means_the_winner_where_something_was_deleted(tiny, tmp_path, deleted):
    options = ["-m", "hydra/sweeper=study", "hydra.sweeper.n_trials=1", "hydra.sweeper.plots=false"]
    outcome = tiny(*options, "hydra.sweeper.workers=1", "trainer.epochs=1", "trainer.label_smoothing=0,0.1", *deleted)
    assert outcome.code == 0, outcome.err
    again = composed_again(tmp_path)
    trained = OmegaConf.load(tmp_path / "sweep" / "0" / ".hydra" / "config.yaml")
    for part in ("model", "optimizer", "schedule", "regularizer", "augmentation", "trainer", "data"):
        assert again[part] == trained[part], part
