"""A study's progress in figures and words, read from its trials alone, whichever processes train them."""

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from optuna.trial import FrozenTrial, TrialState

from cifar_tuning.ranking import can_win
from cifar_tuning.text import first_line

BLOCKS = "▁▂▃▄▅▆▇█"
REASON = 100  # characters of why a trial failed, on its line
WORDS = {TrialState.COMPLETE: "complete", TrialState.PRUNED: "pruned", TrialState.FAIL: "failed"}


@dataclass(frozen=True)
class Watched:
    """What is known of a study before it runs, and what was already there when watching began, at `start`.

    Attributes:
        n_trials: how many trials will have ended when it is done, earlier ones included.
        maximize: whether greater values are better (means nothing with several objectives).
        epochs: that a trial trains for at most, where known.
        deadline: when the study stops at the latest, in seconds since 1970.
    """

    name: str
    n_trials: int
    maximize: bool
    epochs: int | None = None
    deadline: float | None = None
    start: float = 0.0
    ended_before: frozenset[int] = frozenset()
    epochs_before: int = 0


class StudyProgress:
    """Where a study stands now; `ended` is in the order in which the trials ended.

    Args:
        trials: of the study, all of them.
        watched: what was known of it, and there already, when watching began.
        now: in seconds since 1970.
    """

    def __init__(self, trials: Sequence[FrozenTrial], watched: Watched, now: float) -> None:
        ended = [trial for trial in trials if trial.state.is_finished()]
        self.ended = by_end(ended)
        self.running = sorted((t for t in trials if t.state == TrialState.RUNNING), key=lambda t: t.number)
        self.counts = Counter(state_word(trial) for trial in ended)
        self.counts["waiting"] = sum(trial.state == TrialState.WAITING for trial in trials)
        self.several_objectives = any(len(trial.values or ()) > 1 for trial in ended)
        self.best = None if self.several_objectives else best_trial(ended, watched.maximize)
        self.out_of = (
            f"{len(ended)}/{watched.n_trials} ended" if len(ended) <= watched.n_trials else f"{len(ended)} ended"
        )

        self.epochs = watched.epochs
        self.elapsed = max(0.0, now - watched.start)
        trained = epochs_trained(trials) - watched.epochs_before
        self.epochs_per_minute = 60 * trained / self.elapsed if trained > 0 and self.elapsed > 0 else None
        recent = sum(trial.number not in watched.ended_before for trial in ended)
        limit = None if watched.deadline is None else watched.deadline - now
        self.left = time_left(watched.n_trials - len(ended), recent, self.elapsed, limit)


def by_end(ended: Iterable[FrozenTrial]) -> list[FrozenTrial]:
    """Trials in the order in which they ended."""
    return sorted(ended, key=lambda trial: (trial.datetime_complete or datetime.min, trial.number))


def epochs_trained(trials: Iterable[FrozenTrial]) -> int:
    """The number of epochs reported; the value before training (step 0) took none."""
    return sum(len(trial.intermediate_values) - (0 in trial.intermediate_values) for trial in trials)


def best_trial(trials: Iterable[FrozenTrial], maximize: bool) -> FrozenTrial | None:
    """The complete trial with the best value of those that `can_win`; of equals the one that ended first."""
    sign = -1 if maximize else 1
    complete = (trial for trial in trials if trial.state == TrialState.COMPLETE and eligible(trial))
    return min(
        complete, key=lambda t: (sign * t.values[0], t.datetime_complete or datetime.max, t.number), default=None
    )


def eligible(trial: FrozenTrial) -> bool:
    """Whether a complete trial can be the best, by the constraints that it or the sampler has set too."""
    return can_win(trial.values, trial.constraints.values())


def time_left(remaining: int, ended: int, elapsed: float, limit: float | None = None) -> float | None:
    """Estimates the seconds until the last trial ends; None while nothing is known.

    Args:
        remaining: trials still to end.
        ended: trials that ended in the `elapsed` seconds since watching began.
        elapsed: see there.
        limit: seconds until the study is stopped anyway.
    """
    if remaining <= 0:
        return 0.0
    if ended <= 0 or elapsed <= 0:
        return None
    estimate = remaining * elapsed / ended
    return estimate if limit is None else max(0.0, min(estimate, limit))


def state_word(trial: FrozenTrial) -> str:
    """How a trial ended; Optuna has no state of its own for one that diverged."""
    return "diverged" if trial.user_attrs.get("state") == "diverged" else WORDS.get(trial.state, "running")


def finite(values: Iterable[float | None]) -> list[float]:
    """The values that are numbers."""
    return [value for value in values if value is not None and math.isfinite(value)]


def sparkline(values: Sequence[float | None], width: int) -> str:
    """Draws a curve in at most `width` characters, ending with the last value; a dot is no finite number."""
    if len(values) > width:
        values = [values[(i + 1) * len(values) // width - 1] for i in range(width)]
    low, high = min(finite(values), default=0.0), max(finite(values), default=0.0)

    def block(value: float | None) -> str:
        if value is None or not math.isfinite(value):
            return "·"
        return BLOCKS[min(7, int(8 * ((value - low) / (high - low))))] if 0 < high - low < math.inf else BLOCKS[3]

    return "".join(map(block, values))


def number(value: float | None) -> str:
    """A metric to four decimals, or to four significant digits where those would not do."""
    if value is None:
        return "-"
    return f"{value:.4f}" if value == 0 or 1e-3 <= abs(value) < 1e4 else f"{value:.4g}"


def value_text(trial: FrozenTrial) -> str:
    """The final value or values, or else the last one reported."""
    return ", ".join(map(number, trial.values or [trial.intermediate_values.get(trial.last_step or 0)]))


def epochs_of(trial: FrozenTrial, usual: int | None) -> int | None:
    """The epochs that a trial has each time it is trained: its own, where the study chooses them."""
    own = trial.params.get("trainer.epochs")
    return own if isinstance(own, int) else usual


def epoch_text(step: int | None, epochs: int | None, out_of: bool = True) -> str:
    """The epoch, out of all epochs if asked for; steps go on counting where a trial is trained several times."""
    if step is None or not epochs:
        return "-" if step is None else str(step)
    repeat, epoch = divmod(step - 1, epochs)
    text = f"{epoch + 1 if step > epochs else step}" + (f"/{epochs}" if out_of else "")
    return f"{text} (repeat {repeat + 1})" if step > epochs else text


def short_keys(names: Iterable[str]) -> dict[str, str]:
    """The last part of each key, where no other one has the same: `lr` for `optimizer.lr`."""
    keys = dict.fromkeys(names)
    count = Counter(key.rpartition(".")[2] for key in keys)
    return {key: last if count[last := key.rpartition(".")[2]] == 1 else key for key in keys}


def parameters(trial: FrozenTrial, names: Mapping[str, str]) -> str:
    """All parameters in one line, floats to four significant digits, under the names given for them."""
    short = {name: f"{v:.4g}" if isinstance(v, float) else " ".join(str(v).split()) for name, v in trial.params.items()}
    return " ".join(f"{names[name]}={text}" for name, text in short.items())


def duration(seconds: float | None) -> str:
    """A time span to a precision that suits an estimate."""
    if seconds is None or seconds < 60:
        return "?" if seconds is None else f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 90 * 60 else f"{seconds / 3600:.1f} h"


def reason(trial: FrozenTrial, width: int) -> str:
    """The first line of why a trial failed, in at most `width` characters; empty where nobody said."""
    first = first_line(str(trial.user_attrs.get("error", "")))
    return first if len(first) <= width else first[: width - 1] + "…"


def line(trial: FrozenTrial, progress: StudyProgress) -> str:
    """One line about a trial that ended."""
    text = f"trial {trial.number} {state_word(trial)}"
    epoch = epoch_text(trial.last_step, epochs_of(trial, progress.epochs), out_of=False)
    value, best = value_text(trial), progress.best
    if state_word(trial) == "failed":
        text += f": {why}" if (why := reason(trial, REASON)) else ""
    else:
        text += ("" if epoch == "-" else f" after epoch {epoch}") + ("" if value == "-" else f" at {value}")
    if best is not None:
        text += f"  (best {value_text(best)}, trial {best.number})"
    return f"{text}  {progress.out_of}" + ("" if progress.left == 0 else f", about {duration(progress.left)} left")
