"""Predictions as a CSV file in Kaggle's form."""

import csv
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from tqdm import tqdm

from cifar_tuning.errors import UserError
from cifar_tuning.files import written


@torch.inference_mode()
def predict(model: nn.Module, batches: Any) -> Tensor:
    """Returns the most likely class of every image, int64 N on the CPU, with a progress bar.

    Args:
        model: on the batches' device, in evaluation mode.
        batches: pairs of images N×C×H×W and labels, in order; has `count` and a length.
    """
    predicted = []
    with tqdm(total=batches.count, unit=" images", desc="predicting", disable=None) as bar:  # on a terminal only
        for images, labels in batches:
            predicted.append(model(images).argmax(1))
            bar.update(len(labels))
    return torch.cat(predicted).cpu()


def write_csv(file: Path, predicted: Tensor, ids: Iterable[int | str], names: Sequence[str] | None = None) -> None:
    """Writes `id,label`, one image a line, all or nothing.

    Args:
        file: where to.
        predicted: classes, int64 N.
        ids: of the images, N or more.
        names: of the classes, to write instead of their numbers.

    Raises:
        UserError: the file can't be written.
    """
    try:
        with written(file) as partial, partial.open("w", newline="", encoding="utf-8") as stream:
            writer = csv.writer(stream, lineterminator="\n")
            writer.writerow(["id", "label"])
            for own, label in zip(ids, predicted.tolist(), strict=False):
                writer.writerow([own, names[label] if names is not None else label])
    except OSError as error:
        raise UserError(f"output={file} can't be written: {error}") from error
