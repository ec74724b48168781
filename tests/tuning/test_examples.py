"""What a study's trials will be is composed before the first of them."""

from contextlib import nullcontext

import optuna
import pytest
from hydra import compose
from hydra.errors import ConfigCompositionException
from optuna.distributions import CategoricalDistribution
from optuna.trial import create_trial

from cifar_tuning.compose import SweepLoader
from cifar_tuning.databases import sqlite_url
from cifar_tuning.errors import ConfigError
from cifar_tuning.tuning.dry_run import DryRunTrial, dry_run
from cifar_tuning.tuning.examples import examples, try_out
from cifar_tuning.tuning.options import StudyOptions
from cifar_tuning.tuning.space import SearchSpace
from cifar_tuning.tuning.study import open_study


def optimizers_own(config, trial) -> None:
    """Only one of the declared optimizers has a momentum."""
    if trial.params["optimizer"] == "sgd":
        trial.suggest_float("optimizer.momentum", 0.0, 0.9)


@pytest.fixture
def space(configure, tmp_path):
    """A study's options with a search space from the command line."""

    def make(*overrides: str) -> StudyOptions:
        own = [one for one in overrides if one.startswith("hydra.")]
        given = [f"hydra.sweep.dir={tmp_path}/sweep", "hydra/sweeper=study", "hydra.sweeper.workers=1", *own]
        swept = [one for one in overrides if one not in own]
        return StudyOptions.parse(compose("config", given, return_hydra_config=True), swept)

    return make


def test_a_study_of_another_program_is_refused_if_its_trials_are_no_jobs_here(space, tmp_path):
    (tmp_path / "sweep").mkdir()
    storage = sqlite_url(tmp_path / "sweep" / "optuna.db")
    study = optuna.create_study(study_name="other", storage=storage, direction="maximize")
    named = [{"optimizer.lr": 0.1}, {"lr": 0.1, "activation": "relu"}]
    for params in named:
        choices = {name: CategoricalDistribution([value]) for name, value in params.items()}
        study.add_trial(create_trial(value=0.5, params=params, distributions=choices))
    given = "model.dropout=0,0.1", "hydra.sweeper.study_name=other"
    with pytest.raises(ConfigError, match=r"trial 1 \(lr=0.1 activation=relu\): Could not override 'lr'"):
        open_study(space(*given))


def test_a_function_is_asked_anew_for_each_declared_choice(space, monkeypatch):
    def suggest(self: SearchSpace, trial: DryRunTrial, config) -> None:
        for name, distribution in self.distributions.items():
            trial._suggest(name, distribution)
        optimizers_own(config, trial)

    monkeypatch.setattr(SearchSpace, "suggest", suggest)
    found = {
        (params["optimizer"], composed.optimizer.get("momentum"))
        for params, composed in examples(space("optimizer=sgd,adam"))
    }
    assert found == {("sgd", 0.9), ("adam", None)}


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("optimizer.lrr=0.1,0.2", "Could not override 'optimizer.lrr'"),
        ("optimizer=sgd,adma", "Could not find 'optimizer/adma'"),
    ],
)
def test_what_no_application_can_compose_is_refused_before_anything_is_written(space, tmp_path, override, message):
    with pytest.raises(ConfigError, match=message):
        open_study(space(override))
    assert not (tmp_path / "sweep").exists()


def test_a_command_composes_its_examples_once(space, monkeypatch):
    asked = []
    monkeypatch.setattr("cifar_tuning.tuning.examples.dry_run", lambda *given: asked.append(given) or dry_run(*given))
    for override in ("optimizer=sgd,adam", "optimizer=sgd,adam", "optimizer=sgd,adamw"):
        options = space(override)
        for _ in examples(options) if not asked else ():
            pass
        try_out(options)
    assert [given.get("optimizer") for _, _, given in asked] == [None, "sgd", "adam", None, "sgd", "adamw"]


def test_a_mistake_of_a_function_is_shown_with_the_end_of_the_range_that_it_was_asked_at(space, monkeypatch):
    def suggest(self: SearchSpace, trial: DryRunTrial, config) -> None:
        trial._suggest("optimizer.lr", self.distributions["optimizer.lr"])
        trial.suggest_float("optimizer.momentum", trial.params["optimizer.lr"], 0.9)

    monkeypatch.setattr(SearchSpace, "suggest", suggest)
    with pytest.raises(ConfigError, match=r"ValueError: .*\(with optimizer.lr=1.0\)"):
        list(examples(space("optimizer.lr=interval(0.1,1.0)")))


def test_where_the_ends_of_the_ranges_are_no_trials_the_present_configuration_is_looked_at(space, monkeypatch):
    def suggest(self: SearchSpace, trial: DryRunTrial, config) -> None:
        rate = trial._suggest("optimizer.lr", self.distributions["optimizer.lr"])
        if rate != config.optimizer.lr:
            raise optuna.TrialPruned

    monkeypatch.setattr(SearchSpace, "suggest", suggest)
    options = space("optimizer.lr=interval(0.001,1.0)", "model.dropout=0.5")
    assert [composed.model.dropout for _, composed in examples(options)] == [0.5]


@pytest.mark.parametrize(
    ("combination", "refused"), [({"optimizer=adam", "model=simplenn"}, False), ({"optimizer=adam"}, True)]
)
def test_a_choice_that_goes_with_some_of_the_others_is_not_refused(space, monkeypatch, caplog, combination, refused):
    composing = SweepLoader.load_sweep_config

    def load(self, config, overrides):
        if combination <= set(overrides):
            raise ConfigCompositionException("no such file")
        return composing(self, config, overrides)

    monkeypatch.setattr(SweepLoader, "load_sweep_config", load)
    options = space("optimizer=sgd,adam", "model=simplenn,resnet20", "model.activation=relu,swish")
    with pytest.raises(ConfigError, match="no such file") if refused else nullcontext():
        found = {params["optimizer"] for params, _ in examples(options)}
        assert found == {"sgd"}
        assert "optimizer=adam model=simplenn model.activation=relu can't be composed: no such file" in caplog.text
