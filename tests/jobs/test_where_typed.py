"""What a command says means the same in its jobs, wherever they are, and what it hides stays hidden."""

import json
import os
import shutil
import sqlite3
from pathlib import Path

import pytest
from hydra.core.hydra_config import HydraConfig
from omegaconf import OmegaConf

from cifar_tuning.compose import as_job
from cifar_tuning.errors import UserError
from cifar_tuning.jobs.prepare import job_config, where_typed
from cifar_tuning.jobs.run import run
from cifar_tuning.tuning.place import sweep_folder
from tests.conftest import TINY

URI = "tracking.uri"


@pytest.mark.parametrize(
    ("key", "value", "meant"),
    [
        ("data.root", "data", "{}/data"),
        ("data.root", "/data", "/data"),
        ("data.root", "~/data", "~/data"),
        ("data.root", "${nope}", None),
        ("resume", "outputs/x", "{}/outputs/x"),
        (URI, "sqlite:///rel.db", "sqlite:///{}/rel.db"),
        (URI, "sqlite+pysqlite:///a/rel.db?timeout=3", "sqlite+pysqlite:///{}/a/rel.db?timeout=3"),
        (URI, "sqlite:////abs.db", "sqlite:////abs.db"),
        (URI, "http://host:5000", "http://host:5000"),
        (URI, "file:mlruns", "file:mlruns"),
    ],
)
def test_paths_are_below_where_the_command_was_typed(configure, tmp_path, monkeypatch, key, value, meant):
    cfg = configure("data=cifar10", "tracking=mlflow", f"{key}='{value}'")
    assert where_typed(cfg, Path.cwd()) is cfg
    monkeypatch.chdir(tmp_path)
    before = OmegaConf.to_container(cfg)
    found = where_typed(cfg, Path("/typed"))
    expected = value if meant is None else str(Path(meant).expanduser()) if meant[0] == "~" else meant.format("/typed")
    assert OmegaConf.to_container(cfg) == before
    group, _, option = key.partition(".")
    shown = OmegaConf.to_container(found)[group]
    assert (shown[option] if option else shown) == expected


@pytest.mark.parametrize(
    ("typed", "folder"), [("multirun/x", "/a/b/multirun/x"), ("../multirun/x", "/a/multirun/x"), ("/x/./y", "/x/y")]
)
def test_a_sweeps_folder_has_one_name(typed, folder):
    hydra = OmegaConf.create({"runtime": {"cwd": "/a/b"}, "sweep": {"dir": typed}})
    assert sweep_folder(hydra) == Path(folder)


def test_a_configuration_without_a_command(configure, monkeypatch):
    monkeypatch.setattr(HydraConfig.instance(), "cfg", None)
    with pytest.raises(UserError, match=r"python train\.py"):
        run(configure())


@pytest.mark.slow
@pytest.mark.parametrize("launcher", ["basic", "fused"])
def test_jobs_that_change_their_folder_find_the_store_their_parent_and_the_run_they_go_on_with(
    command, tmp_path, pristine_database, monkeypatch, launcher
):
    shutil.copy(pristine_database, tmp_path / "rel.db")
    monkeypatch.chdir(tmp_path)
    assert command(*TINY, "trainer.epochs=1", "hydra.run.dir=first").code == 0
    options = [f"hydra/launcher={launcher}", "hydra.job.chdir=true", "hydra.sweep.dir=sweep", "resume=first"]
    store = ["tracking=mlflow", "tracking.uri=sqlite:///rel.db", "tracking.log_model=false"]
    outcome = command(*TINY, "-m", "trainer.epochs=2,3", *options, *store)
    assert outcome.code == 0, outcome.err
    assert list(tmp_path.rglob("rel.db")) == [tmp_path / "rel.db"]
    with sqlite3.connect(tmp_path / "rel.db") as db:
        tags = {key: [] for key in ("mlflow.parentRunId", "mlflow.runName")}
        for key, value in db.execute("select key, value from tags"):
            tags.setdefault(key, []).append(value)
        assert db.execute("select count(*) from runs").fetchone() == (3,)
    assert [tags["mlflow.parentRunId"].count(parent) for parent in {*tags["mlflow.parentRunId"]}] == [2]
    assert {"0: trainer.epochs=2", "1: trainer.epochs=3"} < {*tags["mlflow.runName"]}


@pytest.mark.parametrize("mode", [[], ["-m"]])
@pytest.mark.parametrize("override", ["optimizer.lr=${oc.env:NOPE}", "trainer.epochs=${nope}"])
def test_what_refers_to_nothing_is_said_without_a_traceback(tiny, mode, override):
    outcome = tiny(*mode, override)
    assert outcome.code == 1
    assert "1 problem in the configuration; nothing was run." in outcome.err
    assert "Traceback" not in outcome.err


def test_a_password_stays_where_it_was_hidden(tiny, tmp_path, pristine_database, monkeypatch):
    shutil.copy(pristine_database, tmp_path / "m.db")
    monkeypatch.setenv("HIDDEN", "TOPSECRET")
    monkeypatch.setenv("STORE", f"sqlite:///{tmp_path}/m.db")
    hidden = ["+note='${oc.env:HIDDEN}'", "tracking.uri='${oc.env:STORE}'", "tracking=mlflow"]
    outcome = tiny("-m", "seed=0,1", "trainer.epochs=1", "tracking.log_model=false", *hidden)
    assert outcome.code == 0, outcome.err
    assert "TOPSECRET" not in outcome.text
    result = (tmp_path / "sweep/0/result.json").read_text()
    assert "TOPSECRET" not in result
    assert "+note='${oc.env:HIDDEN}'" in json.loads(result)["overrides"]


@pytest.mark.parametrize(
    ("uri", "kept"),
    [
        ("postgresql://me:secret@host/db", "postgresql://me:***@host/db"),
        ("sqlite:////m.db", "sqlite:////m.db"),
        (None, None),
    ],
)
def test_the_stores_password_is_in_no_checkpoint(configure, uri, kept):
    cfg = configure("tracking=mlflow", f"tracking.uri={'null' if uri is None else uri}")
    assert job_config(cfg)["tracking"]["uri"] == kept
    assert cfg.tracking.uri == uri


@pytest.mark.parametrize(
    ("root", "kept"),
    [("mine", "{}/mine"), ("missing", "missing"), ("s3://a/b", "s3://a/b"), ("~nobody-there/x", "~nobody-there/x")],
)
def test_a_folder_of_images_is_kept_by_its_whole_path(configure, tmp_path, monkeypatch, root, kept):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine").mkdir()
    config = job_config(configure("data=cifar10", f"data.root='{root}'"))
    assert config["data"]["root"] == kept.format(tmp_path)


@pytest.mark.parametrize(("weights", "meant"), [("w.pt", "{}/w.pt"), ("DEFAULT", "DEFAULT"), ("null", None)])
def test_a_file_of_weights_is_where_the_command_was_typed(configure, tmp_path, weights, meant):
    (tmp_path / "w.pt").touch()
    cfg = configure("model=torchvision", f"model.weights={weights}")
    assert where_typed(cfg, tmp_path).model.weights == (meant and meant.format(tmp_path))


@pytest.mark.parametrize("before", [None, "outside"])
def test_a_jobs_environment_is_there_for_its_values(monkeypatch, before):
    if before is None:
        monkeypatch.delenv("FOO", raising=False)
    else:
        monkeypatch.setenv("FOO", before)
    job = {"num": 3, "env_set": {"FOO": "bar ${hydra:job.num}"}}
    config = OmegaConf.create({"hydra": {"job": job}, "note": "${oc.env:FOO}"})
    with as_job(config):
        assert config.note == "bar 3"
    assert os.environ.get("FOO") == before


@pytest.mark.parametrize("mode", [[], ["-m"]])
def test_a_value_from_the_jobs_environment(tiny, mode):
    outcome = tiny(*mode, "trainer.epochs=1", "+hydra.job.env_set.FOO=bar", "+note=${oc.env:FOO}")
    assert outcome.code == 0, outcome.err
