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
    """Returns how likely each class of every image is (softmax), float32 N×classes on the CPU.

    A progress bar shows how many are done.

    Args:
        model: on the batches' device, in evaluation mode.
        batches: pairs of images N×C×H×W and labels, in order; has `count` and a length.
    """
    probabilities = []
    with tqdm(total=batches.count, unit=" images", desc="predicting", disable=None) as bar:  # on a terminal only
        for images, labels in batches:
            probabilities.append(model(images).float().softmax(1))
            bar.update(len(labels))
    return torch.cat(probabilities).cpu()


def write_csv(
    file: Path,
    predicted: Tensor,
    ids: Iterable[int | str],
    names: Sequence[str] | None = None,
    probabilities: Tensor | None = None,
) -> None:
    """Writes `id,label`, or `id,label,probability`, one image a line, all or nothing.

    Args:
        file: where to.
        predicted: classes, int64 N.
        ids: of the images, N or more.
        names: of the classes, to write instead of their numbers.
        probabilities: of the predicted classes, float N.

    Raises:
        UserError: the file can't be written.
    """
    header, columns = ["id", "label"], [predicted.tolist()]
    if names is not None:
        columns = [[names[label] for label in columns[0]]]
    if probabilities is not None:
        header.append("probability")
        columns.append([f"{one:.4f}" for one in probabilities.tolist()])
    try:
        with (
            written(file) as partial,
            partial.open("w", newline="", encoding="utf-8", errors="surrogateescape") as stream,
        ):
            writer = csv.writer(stream, lineterminator="\n")
            writer.writerow(header)
            writer.writerows(zip(ids, *columns, strict=False))
    except OSError as error:
        raise UserError(f"output={file} can't be written: {error}") from error
