"""Predictions as a CSV file in Kaggle's form."""

import csv
from collections.abc import Iterable, Sequence
from pathlib import Path

from torch import Tensor

from cifar_tuning.errors import UserError
from cifar_tuning.files import written


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
