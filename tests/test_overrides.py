"""Overrides as text."""

import pytest
from omegaconf import OmegaConf

from cifar_tuning import overrides


@pytest.mark.parametrize(
    ("override", "key", "value"),
    [
        ("optimizer.lr=0.1", "optimizer.lr", "0.1"),
        ("+model.width=8", "model.width", "8"),
        ("++data.root=a=b", "data.root", "a=b"),
        ("~augmentation.flip", "augmentation.flip", ""),
        ("optimizer=adam", "optimizer", "adam"),
    ],
)
def test_key_and_value(override, key, value):
    assert (overrides.key_of(override), overrides.value_of(override)) == (key, value)


@pytest.mark.parametrize(
    ("override", "value"),
    [
        (r"tracking.uri=sqlite\:////m.db", "sqlite:////m.db"),
        ('tracking.uri="sqlite:////a b/m.db"', "sqlite:////a b/m.db"),
        ("tracking.uri='${oc.env:STORE}'", "sqlite:////m.db"),
        ("tracking.uri=${oc.env:NOPE}", None),
        ("tracking.uri=null", None),
        ("tracking.uri=", ""),
        ("seed=0,1", None),
        ("a=[", None),
    ],
)
def test_what_an_override_means(override, value, monkeypatch):
    monkeypatch.setenv("STORE", "sqlite:////m.db")
    assert overrides.meant_by(override) == value


def test_a_deletion_is_typed_without_a_value():
    assert overrides.to_be_typed(["~optimizer=null", "resume=null"]) == ["~optimizer", "resume=null"]


@pytest.mark.parametrize(
    ("typed", "meant"),
    [
        ("seed='${hydra.job.num}'", "seed=3"),
        ('seed="${hydra.job.num}"', "seed=3"),
        ("seed=${hydra.job.num}", "seed=3"),
        (r"seed=$\{hydra.job.num\}", "seed=3"),
        (r"data.root=/some\ where/$\{hydra.job.num\}", "data.root=/some where/3"),
        (r"data.root=/some\ where", r"data.root=/some\ where"),
        ("data.root='/some where/${hydra.job.num}'", "data.root='/some where/3'"),
        ("model.name='3'", "model.name='3'"),
        ("seed='${hydra.job.none}'", "seed='${hydra.job.none}'"),
        ("optimizer.lr='${oc.env:NOPE}'", "optimizer.lr='${oc.env:NOPE}'"),
        ("trainer.epochs=${nope}", "trainer.epochs=${nope}"),
        ("data.root=${oc.env:SECRET}/${hydra.job.num}", "data.root=${oc.env:SECRET}/3"),
        (r"data.root=$\{oc.env\:SECRET\}", r"data.root=$\{oc.env\:SECRET\}"),
        ("tracking.uri=http://me:hidden@host", "tracking.uri=http://me:***@host"),
    ],
)
def test_what_refers_to_the_job_has_its_value_in_it(typed, meant, monkeypatch):
    monkeypatch.setenv("SECRET", "hidden")
    config = OmegaConf.create({"hydra": {"job": {"num": 3}, "overrides": {"task": [typed]}}})
    assert overrides.task_overrides(config.hydra) == [typed]
    assert overrides.job_overrides(config.hydra) == [meant]


@pytest.mark.parametrize(
    ("override", "meant"),
    [
        ("seed='${hydra:job.num}'", "seed=3"),
        (r"seed=$\{hydra\:job.num\}", "seed=3"),
        ("seed=${hydra:job.num}", "seed=3"),
        ("data.root=x/${hydra:job.num}", "data.root=x/3"),
        ("optimizer.lr=0.1", "optimizer.lr=0.1"),
        ("data.root=${oc.env:HOME}", "data.root=${oc.env:HOME}"),
    ],
)
def test_what_refers_to_the_number_of_a_job(override, meant):
    assert overrides.of_job(override, 3) == meant


def test_hydras_own_options_without_signs_and_values():
    config = OmegaConf.create({"overrides": {"hydra": ["hydra.sweeper.n_trials=3", "+hydra.sweeper.params.a=1,2"]}})
    assert overrides.given_options(config) == {"hydra.sweeper.n_trials", "hydra.sweeper.params.a"}


def test_parsed_as_hydra_does():
    plain, swept = overrides.parse_overrides(["a.b=1", "c=1,2"])
    assert (plain.value(), swept.is_sweep_override()) == (1, True)


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("", []),
        ("a=1,b=2", ["a=1", "b=2"]),
        ("a=[1,2],b={x:1,y:(2,3)}", ["a=[1,2]", "b={x:1,y:(2,3)}"]),
        ("a='x,y',b=\"p,q\"", ["a='x,y'", 'b="p,q"']),
    ],
)
def test_a_list_as_hydra_writes_it(text, parts):
    assert overrides.split_list(text) == parts


@pytest.mark.parametrize(
    ("given", "signs", "lost"),
    [
        ("model=resnet20 model={dropout:0.1},{dropout:0.2}", True, "model=resnet20"),
        ("model={dropout:0.1} seed=0,1 model=resnet20", True, "model={dropout:0.1}"),
        ("model=resnet20 +model={width:8}", True, None),
        ("model=resnet20 +model={width:8}", False, "model=resnet20"),
        ("~model +model={_target_:a.B}", False, None),
        ("+a={x:1,y:{z:2}} +a={x:3,y:{z:2},w:4}", True, None),
        ("+a={y:{z:2}} +a={x:3,y:{w:2}}", True, "+a={y:{z:2}}"),
        ("model=resnet20 model=simplenn seed=range(3)", True, None),
    ],
)
def test_a_sweep_loses_what_a_single_run_merges(given, signs, lost):
    lines = overrides.lost_in_sweeps(overrides.parse_overrides(given.split()), signs)
    assert [line.partition("would replace ")[2].partition(",")[0] for line in lines] == ([lost] if lost else [])
