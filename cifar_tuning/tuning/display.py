"""What a person sees while a study runs, read from its trials alone, whichever processes train them."""

import logging
import math
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime

from optuna.trial import FrozenTrial, TrialState
from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.table import Table
from rich.text import Text

from cifar_tuning.text import first_line

MAX_RUNNING, MAX_ENDED, BAR, CURVE, REASON = 8, 5, 30, 20, 100
PATIENCE = 10.0  # seconds that the end of a study waits for a storage that doesn't answer
BLOCKS = "▁▂▃▄▅▆▇█"
COLOURS = {"complete": "green", "pruned": "yellow", "failed": "red", "diverged": "magenta"}
WORDS = {TrialState.COMPLETE: "complete", TrialState.PRUNED: "pruned", TrialState.FAIL: "failed"}

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Plan:
    """What is known of a study before it runs, and what was already there when watching began, at `start`."""

    name: str
    n_trials: int
    maximize: bool
    epochs: int | None = None
    deadline: float | None = None
    start: float = 0.0
    ended_before: frozenset[int] = frozenset()
    epochs_before: int = 0


class Progress:
    """Where a study stands now; `ended` is in the order in which the trials ended."""

    def __init__(self, trials: Sequence[FrozenTrial], plan: Plan, now: float) -> None:
        ended = [trial for trial in trials if trial.state.is_finished()]
        self.ended = sorted(ended, key=lambda trial: (trial.datetime_complete or datetime.min, trial.number))
        self.running = sorted((t for t in trials if t.state == TrialState.RUNNING), key=lambda t: t.number)
        self.counts = Counter(state_word(trial) for trial in ended)
        self.counts["waiting"] = sum(trial.state == TrialState.WAITING for trial in trials)
        self.several_objectives = any(len(trial.values or ()) > 1 for trial in ended)
        self.best = None if self.several_objectives else best_trial(ended, plan.maximize)
        self.out_of = f"{len(ended)}/{plan.n_trials} ended" if len(ended) <= plan.n_trials else f"{len(ended)} ended"

        self.elapsed = max(0.0, now - plan.start)
        trained = epochs_trained(trials) - plan.epochs_before
        self.epochs_per_minute = 60 * trained / self.elapsed if trained > 0 and self.elapsed > 0 else None
        recent = sum(trial.number not in plan.ended_before for trial in ended)
        limit = None if plan.deadline is None else plan.deadline - now
        self.left = time_left(plan.n_trials - len(ended), recent, self.elapsed, limit)


def epochs_trained(trials: Iterable[FrozenTrial]) -> int:
    """The number of epochs reported; the value before training (step 0) took none."""
    return sum(len(trial.intermediate_values) - (0 in trial.intermediate_values) for trial in trials)


def best_trial(trials: Iterable[FrozenTrial], maximize: bool) -> FrozenTrial | None:
    """The complete trial with the best finite value; the earliest of equals."""
    sign = -1 if maximize else 1
    complete = (trial for trial in trials if trial.state == TrialState.COMPLETE)
    scored = [(sign * value, trial.number, trial) for trial in complete for value in finite(trial.values or ())]
    return min(scored, key=lambda entry: entry[:2])[2] if scored else None


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


def epoch_text(step: int | None, epochs: int | None) -> str:
    """The epoch out of all epochs; steps go on counting where a trial is trained several times."""
    if step is None or not epochs:
        return "-" if step is None else str(step)
    repeat, epoch = divmod(step - 1, epochs)
    return f"{epoch + 1}/{epochs} (repeat {repeat + 1})" if step > epochs else f"{step}/{epochs}"


def parameters(trial: FrozenTrial) -> str:
    """All parameters in one line, floats to four significant digits."""
    short = {name: f"{v:.4g}" if isinstance(v, float) else " ".join(str(v).split()) for name, v in trial.params.items()}
    return " ".join(f"{name}={text}" for name, text in short.items())


def duration(seconds: float | None) -> str:
    """A time span to a precision that suits an estimate."""
    if seconds is None or seconds < 60:
        return "?" if seconds is None else f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 90 * 60 else f"{seconds / 3600:.1f} h"


def reason(trial: FrozenTrial, width: int) -> str:
    """The first line of why a trial failed, in at most `width` characters; empty where nobody said."""
    first = first_line(str(trial.user_attrs.get("error", "")))
    return first if len(first) <= width else first[: width - 1] + "…"


def line(trial: FrozenTrial, progress: Progress) -> str:
    """One line about a trial that ended."""
    text = f"trial {trial.number} {state_word(trial)}"
    step, value, best = trial.last_step, value_text(trial), progress.best
    if state_word(trial) == "failed":
        text += f": {why}" if (why := reason(trial, REASON)) else ""
    else:
        text += ("" if step is None else f" after epoch {step}") + ("" if value == "-" else f" at {value}")
    if best is not None:
        text += f"  (best {value_text(best)}, trial {best.number})"
    return f"{text}  {progress.out_of}" + ("" if progress.left == 0 else f", about {duration(progress.left)} left")


def render(trials: Sequence[FrozenTrial], plan: Plan, now: float, *, closing: bool = False) -> RenderableType:
    """The whole picture; `closing` says how long it took in place of how long it will take."""
    progress = Progress(trials, plan, now)
    speed = "?" if progress.epochs_per_minute is None else f"{progress.epochs_per_minute:.1f}"
    span = f"took {duration(progress.elapsed)}" if closing else f"time left {duration(progress.left)}"
    best = "best: none yet"
    if progress.several_objectives:
        best = f"{len(progress.ended)} trials ended, several objectives"
    elif progress.best is not None:
        best = f"best {value_text(progress.best)}, trial {progress.best.number}  {parameters(progress.best)}"
    title = Text.assemble((plan.name, "bold"), f"  {speed} epochs/min, {span}")
    parts: list[RenderableType] = [title, _bar(progress, plan.n_trials), Text(best)]
    if progress.running:
        # The latest: what an earlier crash left "running" for ever has low numbers.
        rows = [_cells(trial, plan.epochs) for trial in progress.running[-MAX_RUNNING:]]
        parts.append(_table(["running", "epoch", "value", "curve", "parameters"], rows))
    if (more := len(progress.running) - MAX_RUNNING) > 0:
        parts.append(Text(f"and {more} more running", "dim"))
    if progress.ended:
        rows = [[*_cells(trial, plan.epochs)[:3], state_word(trial)] for trial in progress.ended[-MAX_ENDED:]]
        parts.append(_table(["ended", "epoch", "value", "state"], rows))
    return Group(*parts)


def _bar(progress: Progress, n_trials: int) -> Text:
    text, total, seen = Text(), max(n_trials, len(progress.ended), 1), 0
    for word, colour in COLOURS.items():
        before, seen = seen, seen + progress.counts[word]
        # Differences of rounded sums, so that the parts always add up to the whole.
        text.append("━" * (seen * BAR // total - before * BAR // total), colour)
    text.append("─" * (BAR - len(text)), "dim")
    counts = (f"{progress.counts[w]} {w}" for w in [*COLOURS, "waiting"] if w != "diverged" or progress.counts[w])
    return text.append(f" {progress.out_of}: {', '.join(counts)}")


def _cells(trial: FrozenTrial, epochs: int | None) -> list[str]:
    curve = sparkline([value for _, value in sorted(trial.intermediate_values.items())], CURVE)
    return [str(trial.number), epoch_text(trial.last_step, epochs), value_text(trial), curve, parameters(trial)]


def _table(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> Table:
    table = Table(box=None, pad_edge=False, header_style="dim")
    for column in columns:
        # One row is one line of the terminal, or the picture would outgrow it. Parameters make room for the rest:
        # Rich narrows columns that may wrap first, and their cells below don't wrap either.
        table.add_column(column, no_wrap=column != "parameters")
    for row in rows:  # as Text, because "[64, 128]" is no markup
        table.add_row(*(Text(cell, COLOURS.get(cell, ""), no_wrap=True, overflow="ellipsis") for cell in row))
    return table


class Monitor:
    """One live table on a terminal; plain lines, one per trial that ended, where there is none.

    Args:
        trials: reads the study's trials; when it raises, the last picture stays until the next time.
        name: of the study.
        n_trials: how many trials will have ended when the study is done, earlier ones included.
        maximize: whether greater values are better (means nothing with several objectives).
        epochs: that a trial trains for at most, where known.
        interval: seconds between two polls.
        console: where to show it; standard output unless given.
        deadline: when the study stops at the latest, in seconds since 1970.
    """

    def __init__(
        self,
        trials: Callable[[], list[FrozenTrial]],
        *,
        name: str,
        n_trials: int,
        maximize: bool,
        epochs: int | None = None,
        interval: float = 1.0,
        console: Console | None = None,
        deadline: float | None = None,
    ) -> None:
        self._known = (name, n_trials, maximize, epochs, deadline)
        self._plan: Plan | None = None  # until the first poll that succeeds
        self._trials, self._interval = trials, interval
        self._console = Console() if console is None else console
        # A dumb terminal can't move its cursor, and only Unicode has the blocks of a curve.
        able = not self._console.is_dumb_terminal and self._console.encoding.startswith("utf")
        terminal = self._console.is_terminal and able
        self._live = Live("", console=self._console, auto_refresh=False) if terminal else None
        self._shown: set[int] = set()
        self._lock, self._stop = threading.Lock(), threading.Event()
        self._thread = threading.Thread(target=self._poll, name="study monitor", daemon=True)

    def __enter__(self) -> "Monitor":
        try:
            if self._live is not None:
                self._live.start()
            self.refresh()  # before any trial can end, so that none is taken for an old one
            self._thread.start()
        except BaseException:
            self._close()
            raise
        return self

    def __exit__(self, *exception: object) -> None:
        try:
            self._stop.set()
            self._thread.join(PATIENCE)
            if not self._thread.is_alive():  # otherwise the storage hangs, and would hang here too
                self.refresh()
        finally:
            self._close()

    def refresh(self) -> None:
        """Polls once and shows what is new; never raises, because watching must not end a study."""
        with self._lock:
            try:
                trials = self._trials()
                if self._thread is threading.current_thread() and self._stop.is_set():
                    return  # answered too late: the last refresh is another thread's
                self._show(trials, time.time())
            except Exception:
                log.debug("The study's progress can't be shown now", exc_info=True)

    def _show(self, trials: list[FrozenTrial], now: float) -> None:
        if self._plan is None:
            self._shown = {trial.number for trial in trials if trial.state.is_finished()}
            self._plan = Plan(*self._known, now, frozenset(self._shown), epochs_trained(trials))
        if self._live is not None:
            picture = render(trials, self._plan, now, closing=self._stop.is_set())
            self._live.update(picture, refresh=True)
        else:
            progress = Progress(trials, self._plan, now)
            for trial in progress.ended:
                if trial.number not in self._shown:
                    self._shown.add(trial.number)
                    self._console.print(Text(line(trial, progress)), soft_wrap=True)  # a log has no width

    def _poll(self) -> None:
        while not self._stop.wait(self._interval):
            self.refresh()

    def _close(self) -> None:
        if self._live is not None:
            with suppress(Exception):  # a terminal that went away, for one
                self._live.stop()
