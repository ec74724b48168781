"""The progress of a study on the terminal: a live table, or a line per trial where there is no terminal."""

import logging
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace

from optuna.trial import FrozenTrial
from rich.console import Console, ConsoleOptions, Group, RenderableType, RenderResult
from rich.live import Live
from rich.table import Table
from rich.text import Text

from cifar_tuning.tuning.progress import (
    StudyProgress,
    Watched,
    duration,
    epoch_text,
    epochs_of,
    epochs_trained,
    line,
    parameters,
    short_keys,
    sparkline,
    state_word,
    value_text,
)

MAX_RUNNING, MAX_ENDED, BAR, CURVE = 8, 5, 30, 20
PATIENCE = 10.0  # seconds that the end of a study waits for a storage that doesn't answer
COLOURS = {"complete": "green", "pruned": "yellow", "failed": "red", "diverged": "magenta"}

log = logging.getLogger(__name__)


def render(trials: Sequence[FrozenTrial], watched: Watched, now: float, *, closing: bool = False) -> RenderableType:
    """The whole picture; `closing` says how long it took in place of how long it will take."""
    progress = StudyProgress(trials, watched, now)
    names = short_keys(name for trial in trials for name in trial.params)
    speed = "?" if progress.epochs_per_minute is None else f"{progress.epochs_per_minute:.1f}"
    span = f"took {duration(progress.elapsed)}" if closing else f"time left {duration(progress.left)}"
    best = "best: none yet"
    if progress.several_objectives:
        best = f"{len(progress.ended)} trials ended, several objectives"
    elif progress.best is not None:
        best = f"best {value_text(progress.best)}, trial {progress.best.number}  {parameters(progress.best, names)}"
    title = Text.assemble((watched.name, "bold"), f"  {speed} epochs/min, {span}")
    parts: list[RenderableType] = [title, _Bar(progress, watched.n_trials), Text(best)]
    if progress.running:
        # The latest: what an earlier crash left "running" for ever has low numbers.
        rows = [_cells(trial, watched.epochs, names) for trial in progress.running[-MAX_RUNNING:]]
        parts.append(_table(["running", "epoch", "value", "curve", "parameters"], rows))
    if (more := len(progress.running) - MAX_RUNNING) > 0:
        parts.append(Text(f"and {more} more running", "dim"))
    if progress.ended:
        rows = [[*_cells(trial, watched.epochs, names)[:3], state_word(trial)] for trial in progress.ended[-MAX_ENDED:]]
        parts.append(_table(["ended", "epoch", "value", "state"], rows))
    return Group(*parts)


@dataclass
class _Bar:
    """How the trials ended, as a bar that leaves the line room for their numbers."""

    progress: StudyProgress
    n_trials: int

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        counts = self.progress.counts
        words = (f"{counts[w]} {w}" for w in [*COLOURS, "waiting"] if w != "diverged" or counts[w])
        said = f" {self.progress.out_of}: {', '.join(words)}"
        width = max(0, min(BAR, options.max_width - len(said)))
        text, total, seen = Text(no_wrap=True), max(self.n_trials, len(self.progress.ended), 1), 0
        for word, colour in COLOURS.items():
            before, seen = seen, seen + counts[word]
            # Differences of rounded sums, so that the parts always add up to the whole.
            text.append("━" * (seen * width // total - before * width // total), colour)
        yield text.append("─" * (width - len(text)), "dim").append(said)


def _cells(trial: FrozenTrial, epochs: int | None, names: Mapping[str, str]) -> list[str]:
    curve = sparkline([value for _, value in sorted(trial.intermediate_values.items())], CURVE)
    epoch = epoch_text(trial.last_step, epochs_of(trial, epochs))
    return [str(trial.number), epoch, value_text(trial), curve, parameters(trial, names)]


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
        watched: what is known of the study; the first poll adds what is there already.
        interval: seconds between two polls.
        console: where to show it; standard output unless given.
    """

    def __init__(
        self,
        trials: Callable[[], list[FrozenTrial]],
        watched: Watched,
        *,
        interval: float = 1.0,
        console: Console | None = None,
    ) -> None:
        self._trials, self._watched, self._interval = trials, watched, interval
        self._console = Console() if console is None else console
        # A dumb terminal can't move its cursor, and only Unicode has the blocks of a curve.
        able = not self._console.is_dumb_terminal and self._console.encoding.startswith("utf")
        terminal = self._console.is_terminal and able
        self._live = Live("", console=self._console, auto_refresh=False) if terminal else None
        self._shown: set[int] | None = None  # trials whose end is no news; None until the first poll that succeeds
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
        if self._shown is None:
            self._shown = {trial.number for trial in trials if trial.state.is_finished()}
            there, epochs = frozenset(self._shown), epochs_trained(trials)
            self._watched = replace(self._watched, start=now, ended_before=there, epochs_before=epochs)
        if self._live is not None:
            picture = render(trials, self._watched, now, closing=self._stop.is_set())
            self._live.update(picture, refresh=True)
        else:
            progress = StudyProgress(trials, self._watched, now)
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
