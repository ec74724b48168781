"""What keeps a run from being gone on with, asked of configurations alone."""

import re

import pytest
from omegaconf import OmegaConf

from cifar_tuning.jobs.result import JobResult
from cifar_tuning.jobs.resuming import differences, with_defaults
from cifar_tuning.training.checkpoint import Checkpoint
from cifar_tuning.training.events import EpochMetrics, Progress

KEEP = "a resumed run must keep it"
ONE_CYCLE = ["~schedule", "+schedule={_target_: torch.optim.lr_scheduler.OneCycleLR, _partial_: true, max_lr: 0.1}"]
LINEAR = ["~model", "+model={_target_: torch.nn.Linear, in_features: 3, out_features: 3}"]


@pytest.fixture
def ask(configure, tmp_path):
    """Asks whether a job of some options can go on with a run of others that finished two epochs of two."""

    def content(options):
        return OmegaConf.to_container(configure("trainer.epochs=2", *options), resolve=True)

    def ask(run, job, state="complete", epochs=2, best=2):
        history = [EpochMetrics(epoch, 1, 1, 1, 1, 1, 0.1, 1, 1) for epoch in range(epochs + 1)]
        checkpoint = Checkpoint({}, {}, {}, {}, Progress(history, 0.5, best), content(run))
        if state:
            JobResult(state, 0.5, 2, epochs, 1.0, [], None).write(tmp_path)
        return differences(content(["trainer.epochs=3", *job]), checkpoint, "RUN", tmp_path)

    return ask


@pytest.mark.parametrize(
    ("run", "job", "said"),
    [
        ([], [], []),
        ([], ["optimizer.lr=0.5"], [f"optimizer.lr=0.5: RUN was trained with 0.01; {KEEP}"]),
        ([], ["seed=1", "data.batch_size=32"], ["data.batch_size=32: RUN was trained with 64", "seed=1: RUN .* 0; "]),
        ([], ["optimizer=adam"], [f"optimizer=adam: RUN was trained with optimizer=sgd; {KEEP}$"]),
        (
            ["augmentation=crop_flip", "augmentation.cutout=8"],
            [],
            ["augmentation=none: RUN was trained with augmentation=crop_flip augmentation.cutout=8; "],
        ),
        # After a group that is another, one that differs in its options.
        (
            [],
            ["model=resnet20", "schedule=onecycle", "seed=2"],
            ["model=resnet20: ", "schedule=onecycle: ", "seed=2: "],
        ),
        # What no file of a group has is told option by option.
        (
            [],
            LINEAR,
            [
                r"model\._target_=torch.nn.Linear: RUN was trained with cifar_tuning.models.SimpleNN; ",
                r"model\.\w+=\(absent\): ",
                r"model\.\w+=3: RUN was trained with \(absent\)",
            ],
        ),
        ([], ["trainer.mixup=0.4"], ["trainer.mixup=0.4: RUN was trained with 0.0"]),
        ([], ["trainer.ema_decay=0.9"], ["trainer.ema_decay=0.9: "]),
        ([], ["trainer.max_grad_norm=1.0"], ["trainer.max_grad_norm=1.0: RUN was trained with null"]),
        ([], ["trainer.label_smoothing=0.1"], ["trainer.label_smoothing=0.1: "]),
        ([], ["trainer.class_weights=balanced"], ["trainer.class_weights=balanced: RUN was trained with null"]),
        (["trainer.patience=1"], ["trainer.patience=2"], []),
        (
            ["schedule=cosine"],
            ["schedule=cosine"],
            [f"schedule.T_max=3: RUN was trained with 2; {KEEP}. It follows .*; with schedule.T_max=2 .* up again"],
        ),
        (["schedule=cosine"], ["schedule=cosine", "schedule.T_max=2"], []),
        (["schedule=onecycle"], ["schedule=onecycle"], [f"schedule.epochs=3: .*{KEEP}. It is the run's whole length"]),
        (
            ["schedule=warmup_cosine"],
            ["schedule=warmup_cosine"],
            [f"schedule.epochs=3: .*{KEEP}. It is the run's whole length"],
        ),
        # What was typed is no word about the length.
        (["schedule=cosine"], ["schedule=cosine", "schedule.T_max=7"], [f"schedule.T_max=7: .*; {KEEP}$"]),
        (ONE_CYCLE, ONE_CYCLE, [f"trainer.epochs=3: RUN was trained with 2; {KEEP}. Its schedule, or .* train anew"]),
        (["trainer.initial_scale=0.5"], ["trainer.initial_scale=0.5"], ["trainer.epochs=3: RUN was trained with 2"]),
        # Where the run is kept, and how it is watched, is no part of it.
        ([], ["tracking=mlflow", "trainer.device=auto", "trainer.precision=auto"], []),
    ],
)
def test_what_a_resumed_run_must_keep(ask, run, job, said):
    found = ask(run, job)
    patterns = {pattern: [line for line in found if re.match(pattern, line, re.MULTILINE)] for pattern in said}
    assert all(patterns.values()), found
    assert {line for lines in patterns.values() for line in lines} == set(found)


@pytest.mark.parametrize(
    ("epochs", "state", "refused"),
    [
        (3, "complete", False),
        (2, "complete", True),
        (2, "diverged", True),
        (1, "complete", True),
        (1, "killed", True),
        # Stopped between its last epoch and its end: that is still to come.
        (2, "killed", False),
        (2, None, False),
    ],
)
def test_epochs_that_are_done(ask, epochs, state, refused):
    line = f"trainer.epochs={epochs}: RUN has finished 2 epochs already; ask for more to go on from there"
    assert ask([], [f"trainer.epochs={epochs}"], state) == ([line] if refused else [])


@pytest.mark.parametrize(
    ("patience", "best", "state", "refused"),
    [
        (2, 0, "complete", True),
        (1, 0, "complete", True),
        (1, 0, "killed", True),
        # Only its end is still to come.
        (2, 0, "killed", False),
        (3, 0, "complete", False),
        ("null", 0, "complete", False),
        # It had all the epochs that were asked for.
        (2, 1, "complete", False),
    ],
)
def test_patience_that_is_at_its_end(ask, patience, best, state, refused):
    line = (
        f"trainer.patience={patience}: RUN is complete: it has finished 2 epochs, with no better validation accuracy "
        f"since epoch {best}; a larger number, or null, goes on from there"
    )
    assert ask(["trainer.patience=2"], [f"trainer.patience={patience}"], state, best=best) == (
        [line] if refused else []
    )


@pytest.mark.usefixtures("configure")
def test_an_option_that_came_later_has_its_default():
    old, target = {"_target_": "cifar_tuning.data.CropFlip", "padding": 4}, {"_target_": "cifar_tuning.data.CropFlip"}
    assert with_defaults({"augmentation": old, "seed": 0}, {"augmentation": target}) == {
        "augmentation": {**old, "flip": 0.5, "cutout": 0},
        "seed": 0,
    }
    for other in ({"_target_": "cifar_tuning.data.NoAugmentation"}, None):
        assert with_defaults({"augmentation": old}, {"augmentation": other}) == {"augmentation": old}
    adam = {"_target_": "torch.optim.Adam"}
    assert with_defaults({"optimizer": adam}, {"optimizer": adam})["optimizer"]["betas"] == [0.9, 0.999]
    missing = {"_target_": "nowhere.Missing"}
    assert with_defaults({"model": missing}, {"model": missing}) == {"model": missing}
