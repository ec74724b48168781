"""A job's data as batches on its device."""

from typing import Any

import torch

from cifar_tuning.data.batches import EvalBatches, TrainBatches
from cifar_tuning.jobs.parts import Parts
from cifar_tuning.training.resizing import sides

# Without gradients nothing is kept, so batches can be larger than in training; more gains nothing on a CPU. Of so many
# pixels; 500 images of 224×224 would take gigabytes.
EVAL_BATCH, EVAL_PIXELS = 500, 32 * 32

_splits: dict[str, Any] = {}


def evaluated_at_once(shape: tuple[int, ...], trained_at_once: int) -> int:
    """Returns how many images a model is evaluated on at once.

    Args:
        shape: of the images, N×H×W×C.
        trained_at_once: a batch in training; as many fit into the memory also when nothing is learnt.
    """
    fitting = EVAL_BATCH * EVAL_PIXELS // (shape[1] * shape[2])
    return min(max(fitting, trained_at_once), EVAL_BATCH)


def _load(data: Any, device: torch.device, key: str | None) -> Any:
    """Loads the data; jobs of one process that train on a GPU share one copy there, for which they must share this."""
    if device.type == "cpu" or key is None:
        return data.load()
    if key not in _splits:
        _splits.clear()
        _splits[key] = data.load()
    return _splits[key]


def make_batches(
    parts: Parts, seed: int, device: torch.device, same_data: str | None = None
) -> tuple[TrainBatches, EvalBatches | None]:
    """Loads the data, onto the device, as training and validation batches; None where no image validates.

    Args:
        parts: of the job.
        seed: of the run.
        device: where they are made.
        same_data: jobs of one process that say the same here have the same data.
    """
    data = parts.data
    splits = _load(data, device, same_data)
    common: dict[str, Any] = {"mean": data.mean, "std": data.std, "device": device}
    trainer = parts.trainer
    whole = (int(splits.train.stored.shape[1]), int(splits.train.stored.shape[2]))
    side = sides(whole, trainer.epochs, trainer.initial_scale, trainer.delay_fraction, trainer.finetune_fraction)
    train = TrainBatches(
        splits.train.stored,
        splits.train.labels,
        rows=splits.train.rows,
        batch_size=data.batch_size,
        augmentation=parts.augmentation,
        seed=seed,
        mixup=trainer.mixup,
        classes=len(data.classes),
        side=None if side(1) == whole else side,  # the first epoch has the smallest
        **common,
    )
    if not len(splits.val):
        return train, None
    at_once = evaluated_at_once(splits.val.images.shape, data.batch_size)
    return train, EvalBatches(splits.val.images, splits.val.labels, batch_size=at_once, **common)
