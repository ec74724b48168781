"""What a report is about: the metric, the runs that have it, and notes about those left out."""

import json
import math
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Protocol, TypeVar

from cifar_tuning.errors import UserError
from cifar_tuning.ranking import BEST_ACCURACY, ENDED
from cifar_tuning.reporting.metric_names import of_training, of_validation

# Patterns of foreign metrics' names, the likeliest first: on validation images, and on others.
OF_VALIDATION = [re.compile(pattern, re.IGNORECASE) for pattern in (r"acc.*best|best.*acc", r"acc", r"loss", r"")]
OF_OTHERS = [re.compile(pattern, re.IGNORECASE) for pattern in (r"test.*acc|acc.*test", r"acc", r"test")]
# States of runs without a whole training; their figures are reported only if no run has ended.
UNFINISHED = ("running", "killed", "pruned")
# Runs were left out by their results: among the others, what decided those varies less than among all.
PRUNING = " Pruning leaves out the worse ones, so what made them worse matters more than can be told from the others."
# Most names, and most job numbers, in a sentence.
SHOWN, SHOWN_NUMBERS = 5, 20


class Run(Protocol):
    """One run as plain data; whoever reads a store has such records."""

    @property
    def run_id(self) -> str:
        """Its id."""

    @property
    def name(self) -> str:
        """Its name."""

    @property
    def job(self) -> str | None:
        """Its number in the sweep, which a study's trial has, too; None where it has none."""

    @property
    def state(self) -> str:
        """complete, diverged, pruned, failed, killed or running."""

    @property
    def params(self) -> Mapping[str, str]:
        """Its parameters, as text."""

    @property
    def overrides(self) -> Sequence[str]:
        """What was asked for on its command line; empty where there was none."""

    @property
    def config_flags(self) -> Sequence[str]:
        """Where that had its configuration looked for: flags of the command, empty where it was the usual place."""

    @property
    def metrics(self) -> Mapping[str, float]:
        """The last value of each metric."""

    @property
    def seconds(self) -> float | None:
        """How long it took."""

    @property
    def began(self) -> float | None:
        """When it began, in seconds since 1970."""


AnyRun = TypeVar("AnyRun", bound=Run)


def choose_metric(runs: Sequence[Run], asked: str | None, objectives: Sequence[str] = ()) -> tuple[str, list[str]]:
    """Returns the metric to report, and a sentence where it is not the one that is expected.

    Args:
        runs: of the sweep.
        asked: the user's choice; None leaves it to the objectives, and without any to the names.
        objectives: what the runs were optimised for; of several our usual metric, or else the first.

    Raises:
        UserError: no run has it, or none has any, or all failed.
    """
    if runs and all(run.state == "failed" for run in runs):
        which = "Its only run" if len(runs) == 1 else f"All {len(runs)} runs"
        raise UserError(
            f"{which} failed, so there is nothing to report: {_names(runs)}. "
            "The reason is in traceback.txt among a run's files in MLflow, and in its folder."
        )
    counts = Counter(name for run in runs for name, value in run.metrics.items() if math.isfinite(value))
    aims = sorted(objectives, key=lambda name: name != BEST_ACCURACY) or [BEST_ACCURACY]
    wanted = asked or next((name for name in aims if counts[name]), aims[0])
    if counts[wanted]:
        several = f"`{wanted}` is reported, of the objectives {', '.join(f'`{name}`' for name in objectives)}"
        return wanted, [f"{several}; `metric=…` chooses another."] if asked is None and len(aims) > 1 else []
    if not counts:
        raise UserError(
            f"None of the {len(runs)} runs has a metric ({_states(runs)}), so there is nothing to report. "
            "Look into their logs, or wait until the first epoch is over."
        )
    if asked is not None:
        raise UserError(
            f"metric={asked}: none of the {len(runs)} runs has it; they have {', '.join(sorted(counts))}. Choose one."
        )
    common = [name for name, _ in counts.most_common()]
    validated = [name for name in common if of_validation(name)]
    held_out = [name for name in common if not of_training(name)]
    searches = ((validated, OF_VALIDATION), (held_out, OF_OTHERS), (common, OF_OTHERS))
    likely = (name for names, patterns in searches for p in patterns for name in names if p.search(name))
    name = next(likely, common[0])
    others = ", ".join(f"`{other}`" for other in sorted(counts) if other != name)
    choice = f"; `metric=…` chooses another: {others}" if others else ""
    return name, [f"No run has `{wanted}`, so the last value of `{name}` is reported{choice}."]


def objectives_of(runs: Sequence[Run]) -> list[str]:
    """Returns what runs were optimised for, as their parameter `objective` says; nothing where they do not agree."""
    texts = {run.params.get("objective") for run in runs if run.metrics}
    text = texts.pop() if len(texts) == 1 else None
    if text is None or not text.startswith("["):
        return [] if text in (None, "", "null") else [str(text)]
    try:
        return [str(name) for name in json.loads(text)]
    except ValueError:  # somebody else's parameter of this name
        return []


def choose_runs(runs: Sequence[AnyRun], metric: str) -> tuple[list[AnyRun], list[AnyRun], list[str]]:
    """Returns the runs that count, those that began and are lost, and a sentence for every kind that does not count.

    A pruned run's best accuracy is that of an unfinished training, so it does not count, unless no run has ended. A run
    that has ended without the metric, as one whose loss became NaN, is as lost as one that failed.

    Raises:
        UserError: no run that did not fail has the metric.
    """
    having = [run for run in runs if run.state != "failed" and math.isfinite(run.metrics.get(metric, math.nan))]
    ended = [run for run in having if run.state in ENDED]
    notes = []
    if not ended:
        notes.append(f"No run has ended yet ({_states(runs)}): these are the figures so far, of unequal trainings.")
    chosen = ended or having
    counted = {run.run_id for run in chosen}
    for state in (*UNFINISHED, "failed"):
        left = [run for run in runs if run.state == state and run.run_id not in counted]
        if left and (ended or state == "failed"):
            notes.append(
                f"{_runs(left)} left out, being {state}: {_names(left)}.{PRUNING if state == 'pruned' else ''}"
            )
    lacking = [run for run in runs if run.state in ENDED and run.run_id not in counted]
    if lacking:
        notes.append(f"{_runs(lacking)} left out, having no `{metric}`: {_names(lacking)}.")
    if not chosen:
        raise UserError(f"No run that did not fail has {metric} ({_states(runs)}), so there is nothing to report.")
    lost = [run for run in runs if run.run_id not in counted and run.state != "running"]
    return chosen, lost if ended else [], notes


def _runs(runs: Sequence[Run]) -> str:
    return "1 run is" if len(runs) == 1 else f"{len(runs)} runs are"


def _names(runs: Sequence[Run]) -> str:
    """Returns the runs' numbers, if all have one: the names of a study's jobs are all their overrides."""
    numbers = list(dict.fromkeys(run.job for run in runs if run.job is not None))
    if numbers and all(run.job is not None for run in runs):
        more = f" and {len(numbers) - SHOWN_NUMBERS} more" if len(numbers) > SHOWN_NUMBERS else ""
        return f"job{'s' if len(numbers) > 1 else ''} {', '.join(numbers[:SHOWN_NUMBERS])}{more}"
    names = [f"`{run.name}`" for run in runs[:SHOWN]]
    return ", ".join(names) + (f" and {len(runs) - SHOWN} more" if len(runs) > SHOWN else "")


def _states(runs: Sequence[Run]) -> str:
    return ", ".join(f"{count} {state}" for state, count in Counter(run.state for run in runs).most_common())
