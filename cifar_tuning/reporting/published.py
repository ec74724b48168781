"""Results of others, as a sweep's overlay carries them, matched to our configurations."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from cifar_tuning.reporting.selection import Run
from cifar_tuning.reporting.varying import as_number, group_choice, spell


def published_value(
    rows: Sequence[Mapping[str, Any]], run: Run, names: Sequence[str], values: Sequence[str], metric: str
) -> float | None:
    """Returns what others published for a configuration; None where they did not.

    Args:
        rows: options and metrics, such as {optimizer.lr: 0.1, val/acc_best: 0.7012}. Options that a row does not name
            may be anything.
        run: one of the configuration's.
        names: the hyperparameters that vary.
        values: the configuration's, in their order.
        metric: the one that is reported.
    """
    fitting = [row for row in rows if _fits(row, run, dict(zip(names, values, strict=True)))]
    # The row that says most about the configuration: one without conditions is about any.
    for row in sorted(fitting, key=len, reverse=True):
        value = as_number(str(row.get(metric)))
        if value is not None and math.isfinite(value):
            return value
    return None


def unmatched(rows: Sequence[Mapping[str, Any]], runs: Sequence[tuple[Run, dict[str, str]]]) -> list[str]:
    """Returns the rows that fit none of the runs, in words.

    Args:
        rows: as in `published_value`.
        runs: a run of each configuration, with its varying options.
    """
    lost = [row for row in rows if not any(_fits(row, run, options) for run, options in runs)]
    return [", ".join(f"{key}={value}" for key, value in row.items()) for row in lost]


def _fits(row: Mapping[str, Any], run: Run, options: Mapping[str, str]) -> bool:
    return all(
        _same(value, _value(run, key, options))
        for key, value in row.items()
        if key not in run.metrics and "/" not in key
    )


def _value(run: Run, key: str, options: Mapping[str, str]) -> str:
    if key in options:
        return options[key]
    if "." not in key and key not in run.params:
        return group_choice(run, key)
    return spell(run.params.get(key))


def _same(ours: object, theirs: str) -> bool:
    a, b = spell(ours), spell(theirs)
    x, y = as_number(a), as_number(b)
    if x is not None and y is not None:
        return math.isclose(x, y, rel_tol=1e-6)
    # The choice crop_flip builds the class CropFlip.
    return a == b or _plain(a) == _plain(b)


def _plain(text: str) -> str:
    return text.lower().replace("_", "").replace("none", "null")
