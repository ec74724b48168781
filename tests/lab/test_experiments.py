import pytest
from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import OmegaConf

from cifar_tuning import PROJECT_ROOT
from cifar_tuning.lab.experiments import EXPERIMENTS, configuration_of, load_experiment, options_of, spell
from cifar_tuning.lab.texts import SECTIONS


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ("1e-4", "0.0001"),
        (1e-4, "0.0001"),
        ("0.0", "0"),
        (45000, "45000"),
        (None, "null"),
        (False, "false"),
        ("false", "false"),
        ("False", "false"),
        ("lab3/decay_0.1_50", "lab3/decay_0.1_50"),
    ],
)
def test_a_value_has_one_spelling(value, text):
    assert spell(value) == text


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_every_overlay_can_be_read_and_has_a_section(name):
    experiment = load_experiment(name)
    assert len(experiment.runs) == len(experiment.configurations) * len(experiment.seeds) > 0
    assert name in [section.experiment for section in SECTIONS]
    # Each published value belongs to a row.
    values = [experiment.published_value(configuration) for configuration in experiment.configurations]
    assert {value for _, value in experiment.published} <= set(values)


def test_a_job_is_known_by_what_was_swept_and_by_what_the_user_added():
    experiment = load_experiment("lab2_bn_lr")
    overrides = ["seed=3", "optimizer.lr=0.10", "model.batch_norm=True", "experiment=lab2_bn_lr", "tracking=none"]
    assert configuration_of(overrides, experiment) == "model.batch_norm=true optimizer.lr=0.1"
    assert configuration_of(overrides, experiment) in experiment.configurations
    longer = configuration_of(
        [*overrides, "trainer.epochs=200", "data.val_size=1000"], experiment, ["data.val_size=1000"]
    )
    assert options_of(longer)[-1] == ("trainer.epochs", "200")


def test_published_values_stand_beside_the_learning_rate_that_they_fit():
    """The report's table of strengths says 0.1, but its row of 1e-4 is the run that its table of rates has at 0.01."""
    strengths, rates = load_experiment("lab2_l2"), load_experiment("lab2_lr")
    at = {
        rate: strengths.published_value(f"optimizer.lr={rate} regularizer.strength=0.0001") for rate in ("0.01", "0.1")
    }
    assert at == {"0.01": 0.74, "0.1": None}
    assert rates.published_value("optimizer.lr=0.01") == 0.74
    assert rates.published_value("optimizer.lr=0.1") == 0.7012


@pytest.mark.parametrize("name", ["lab3_resnet20", "lab3_untried"])
def test_the_long_version_has_its_own_folder(name):
    """In the short one's it would be trained over finished runs: a job's folder is its number."""
    text = (PROJECT_ROOT / "conf" / "experiment" / f"{name}.yaml").read_text()
    (long,) = [line for line in text.splitlines() if "trainer.epochs=200" in line]
    assert long.endswith(f"hydra.sweep.dir=multirun/{name}_200")


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_jobs_are_numbered_as_the_sweeper_numbers_them(name):
    params = OmegaConf.load(PROJECT_ROOT / "conf" / "experiment" / f"{name}.yaml").hydra.sweeper.params
    overrides = OverridesParser.create().parse_overrides([f"{key}={value}" for key, value in params.items()])
    (jobs,) = BasicSweeper.split_arguments(overrides, None)
    experiment = load_experiment(name)
    seeds = [int(next(o for o in job if o.startswith("seed=")).removeprefix("seed=")) for job in jobs]
    assert [(configuration_of(job, experiment), seed) for job, seed in zip(jobs, seeds, strict=True)] == experiment.runs


def test_a_part_of_a_grid_as_overrides():
    grid = load_experiment("claim_augmentation")
    part = [("data.train_limit=45000 augmentation=trivial_augment", seed) for seed in (0, 1, 2)]
    assert grid.restricted_to(part) == ["data.train_limit=45000", "augmentation=trivial_augment"]
    assert grid.restricted_to(grid.runs) == []
    corner = grid.restricted_to([("data.train_limit=1000 augmentation=none", 2)])
    assert grid.changed(corner).runs == [("data.train_limit=1000 augmentation=none", 2)]


def test_what_the_command_line_gives_otherwise_changes_the_grid():
    grid = load_experiment("claim_augmentation").changed(["seed=0,1", "data.train_limit=200,2000", "trainer.epochs=2"])
    assert len(grid.runs) == 2 * 2 * 3
    assert grid.configurations[0] == "data.train_limit=200 augmentation=none"
