"""Search spaces of a user's, some with mistakes; what makes a study look for two things."""

SEVERAL = ["objective=[val/acc_best,model/macs]", "hydra.sweeper.direction=[maximize,minimize]"]


MOMENTUM = ["hydra.sweeper.custom_search_space=tests.jobs.spaces.momentum"]


def momentum(config, trial) -> None:
    trial.suggest_categorical("optimizer.momentum", [0.5, 0.6, 1.5, 1.6])


def careless(config, trial) -> None:
    """With much dropout it suggests what no optimizer has; no choice leads there, so that only a trial shows it."""
    if trial.suggest_float("model.dropout", 0, 0.8) > 0.4:
        trial.suggest_float("optimizer.momentun", 0.5, 0.9)


def branching(config, trial) -> None:
    """Only one of its branches has the mistake."""
    if trial.suggest_categorical("augmentation", ["crop_flip", "none"]) == "none":
        trial.suggest_int("trainer.epoch", 1, 2)


def misspelt(config, trial) -> None:
    trial.suggest_int("schedule.decay_epochs", 1, config.trainer.epoch)
