"""What the study sweeper costs and saves."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from benchmarks.studies import OURS, STOCK, whole
from benchmarks.tables.cells import HOLDS, MISSED, Figures, against, beginning, verdict, where
from cifar_tuning.reporting.statistics import compare

# Points of accuracy that pruning may cost.
GOAL = -0.5


def overhead(content: Figures) -> list[str]:
    """The time that a trial costs by itself."""
    holds = verdict(content["ms_per_trial"] < 150)
    return [
        f"{where(content, 'overhead')} {content['trials']} trials of a millisecond, each with a run in MLflow, "
        f"{content['workers']} workers on one SQLite file. {content['complete']} complete, all {content['different']} "
        f"different, **{content['ms_per_trial']:.0f} ms a trial** (goal 150: {holds}).",
    ]


def waiting(content: Figures) -> list[str]:
    """Trials of different lengths: workers against batches."""
    seconds, ratio = content["seconds"], content["ratio"]
    return [
        *beginning(content, "waiting", "", *(f"order {i}" for i in range(len(seconds["stock"])))),
        f"| stock plugin, joblib, two jobs at a time | {' | '.join(f'{s:.1f} s' for s in seconds['stock'])} |",
        f"| two workers | {' | '.join(f'{s:.1f} s' for s in seconds['study'])} |",
        "",
        f"{content['trials']} trials in {ratio:.2f} of the time (goal 0.75: {verdict(ratio <= 0.75)}).",
    ]


def pruning(content: Figures) -> list[str]:
    """Epochs and accuracy, with pruning and without."""
    images = content["train_limit"] or "all 45,000"
    lengths = f"{content['trials']} trials of up to {content['epochs']} epochs"
    figures = ("epochs, stock", "epochs, study", "fewer", "best, stock", "best, study", "difference, points")
    settings = f", {lengths}, {images} training images"
    rows = beginning(content, "pruning", "sampler seed", *figures, settings=settings)
    for one in whole(content["rounds"]):
        stock, ours = one[STOCK], one[OURS]
        rows.append(
            f"| {one['seed']} | {stock['epochs']} | {ours['epochs']} | {stock['epochs'] / ours['epochs']:.2f}x | "
            f"{stock['best']:.4f} | {ours['best']:.4f} | {100 * (ours['best'] - stock['best']):+.2f} |"
        )
    if summary := content["summary"]:
        gained, holds = points_gained(content["rounds"])
        rows.append(f"| mean | | | {against(summary['times_fewer_epochs'], 2)} | | | {gained} (goal −0.5: {holds}) |")
    return rows


def points_gained(rounds: Sequence[Mapping[str, Any]]) -> tuple[str, str]:
    """Returns what pruning does to the best accuracy, with its interval, and whether that is above the goal.

    Args:
        rounds: studies of one sampler seed, pruned and not; those that lack one of them do not count.
    """
    ours, stock = ({one["seed"]: one[name]["best"] for one in whole(rounds)} for name in (OURS, STOCK))
    found = compare(ours, stock)
    points, half = 100 * found.difference, 100 * (found.half_width or math.inf)
    interval = f" ± {half:.2f}, 95 %" if math.isfinite(half) else ""
    holds = HOLDS if points - half >= GOAL else "in the mean, not beyond chance" if points >= GOAL else MISSED
    return f"{points:+.2f}{interval}", holds


def simulated(content: Figures) -> list[str]:
    """Pruners on simulated studies."""
    columns = ("trials at a time", "pruner", "epochs, fewer", "best, points from the stock plugin's")
    rows = beginning(content, "simulated", *columns, settings=f": {content['studies']} studies with each pruner")
    for at_a_time, pruners in ((1, content["pruners"]), (content["at_a_time"], content["pruners_side_by_side"])):
        for name, one in pruners.items():
            points = f"{one['points']:+.2f} ± {one['standard_error']:.2f}"
            rows.append(f"| {at_a_time} | {name} | {one['times_fewer_epochs']:.2f}x | {points} |")
    return rows
