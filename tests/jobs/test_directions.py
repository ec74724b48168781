"""What a sweeper looks for: the best, unless the command line says otherwise."""

import re

import pytest
from omegaconf import OmegaConf

from cifar_tuning.jobs.checks import direction_problems, objective_problems
from tests.conftest import STUDY

OPTUNA = ["-m", "hydra/sweeper=optuna", "optimizer.lr=tag(log,interval(0.01,0.1))"]
# As a user's own overlay may have it, not the command line.
OVERLAY = "# @package _global_\ndefaults:\n  - override /hydra/sweeper: {sweeper}\nhydra:\n  sweeper:\n    {options}\n"


@pytest.mark.parametrize("study", [None, "simplenn", "resnet20", "resnet20_fast"])
@pytest.mark.parametrize("sweeper", ["optuna", "study"])
def test_accuracy_is_maximised_whichever_the_sweeper(study, sweeper):
    from hydra import compose, initialize_config_dir

    from cifar_tuning import PROJECT_ROOT

    with initialize_config_dir(str(PROJECT_ROOT / "conf")):
        overrides = [*([] if study is None else [f"study={study}"]), f"hydra/sweeper={sweeper}"]
        sweep = compose("config", overrides, return_hydra_config=True).hydra.sweeper
    assert sweep.direction == "maximize"
    assert sweep._target_.endswith({"optuna": ".OptunaSweeper", "study": ".StudySweeper"}[sweeper])
    assert sweep.sampler._target_ == "optuna.samplers.TPESampler"
    prunes = sweeper == "study" and study != "resnet20_fast"
    assert (sweep.get("pruner") is not None) == prunes


@pytest.mark.parametrize(
    ("names", "direction", "said"),
    [
        (["val/acc"], "maximize", []),
        (["val/loss"], "minimize", []),
        (
            ["val/loss"],
            "maximize",
            ["val/loss: is better when smaller, but hydra.sweeper.direction is maximize; add X"],
        ),
        (["epoch_seconds"], "maximize", ["epoch_seconds: is better when smaller, "]),
        (["images_per_second"], "minimize", ["images_per_second: is better when larger, "]),
        (
            ["val/acc", "val/loss"],
            ["maximize", "maximize"],
            ["val/loss: .*add 'hydra.sweeper.direction=.maximize,minim"],
        ),
        (["val/acc", "val/loss"], ["minimize", "maximize"], ["val/acc: is better when larger", "val/loss: "]),
        (["val/acc", "val/loss"], ["maximize", "minimize"], []),
        # Their number is another mistake, and of what is no figure of ours nothing is known.
        (["val/acc", "val/loss"], ["minimize"], []),
        (["regret"], "maximize", []),
        (["val/acc"], "up", []),
    ],
)
def test_which_way_each_objective_goes(names, direction, said):
    several = isinstance(direction, list)
    found = direction_problems(names, OmegaConf.create(direction) if several else direction)
    patterns = [f"objective={one}".replace("add X", "add hydra.sweeper.direction=minimize$") for one in said]
    assert [bool(re.match(*both)) for both in zip(patterns, found, strict=True)] == [True] * len(said)


@pytest.mark.parametrize(
    ("objective", "val_size", "lacking"),
    [
        ("val/acc_best", 0, "for val/acc_best; "),
        (["train/acc", "val/loss"], 0, "for val/loss; "),
        ("train/acc", 0, None),
        ("val/acc_best", 5000, None),
        ("val/acc_best", None, None),
    ],
)
def test_an_objective_of_validation_needs_images_for_it(objective, val_size, lacking):
    data = {} if val_size is None else {"val_size": val_size}
    found = objective_problems({"objective": objective, "data": data})
    assert len(found) == (lacking is not None)
    assert all(lacking in line for line in found)


SMALLER, LARGER = "is better when smaller", "is better when larger"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("search", "message"),
    [
        ([*STUDY, "objective=val/loss"], f"objective=val/loss: {SMALLER}"),
        ([*OPTUNA, "objective=train/loss"], f"objective=train/loss: {SMALLER}"),
        (["-m", "study=upside_down"], f"objective=val/acc_best: {LARGER}"),
        (["-m", "study=two"], "add 'hydra.sweeper.direction=[maximize,minimize]'"),
    ],
)
def test_the_wrong_way_is_refused_before_the_first_job(mistakes, tmp_path, search, message):
    folder = tmp_path / "conf" / "study"
    folder.mkdir(parents=True)
    space = "params: {optimizer.lr: 'interval(0.01, 0.1)'}"
    minimised = OVERLAY.format(sweeper="study", options=f"direction: minimize\n    {space}")
    (folder / "upside_down.yaml").write_text(minimised)
    both = OVERLAY.format(sweeper="study", options=f"direction: [maximize, maximize]\n    {space}")
    (folder / "two.yaml").write_text(f"{both}objective: [val/acc, val/loss]\n")
    assert message in mistakes(*search, f"hydra.searchpath=[studies://{tmp_path},{tmp_path}/conf]")


@pytest.mark.slow
@pytest.mark.parametrize(
    "search",
    [
        [*STUDY, "hydra.sweeper.direction=minimize"],
        [*STUDY, "objective=val/loss", "hydra.sweeper.direction=maximize"],
        [*OPTUNA, "hydra.sweeper.direction=minimize"],
    ],
)
def test_who_asks_for_the_wrong_way_gets_it(mistakes, search):
    assert mistakes(*search).startswith("0 problems ")
