"""Pictures of a whole study: Optuna's own plots as PNG files and as one interactive page that needs no network."""

import html
import logging
import math
import warnings
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cifar_tuning.files import written
from cifar_tuning.ranking import can_win
from cifar_tuning.reporting.drawing import LOCK
from cifar_tuning.reporting.importances import Importances, complete_trials, find_importances, varied
from cifar_tuning.reporting.metric_names import in_words
from cifar_tuning.reporting.study_axes import (
    mark_chance,
    plain,
    tidy_front,
    tidy_history,
    tidy_intermediate,
    tidy_lines,
    tidy_slice,
    tidy_timeline,
)

if TYPE_CHECKING:
    import optuna
    from matplotlib.axes import Axes

log = logging.getLogger(__name__)

PAGE = """<!DOCTYPE html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<title>{name}</title>
<style>
body {{ font-family: system-ui, sans-serif; margin: 2rem auto; max-width: 1200px; padding: 0 1rem; }}
nav a {{ margin-right: 1rem; }} section {{ overflow-x: auto; }}
</style>
<script>{library}</script></head>
<body><h1>{name}</h1><p>{counts}</p><nav>{links}</nav>
{sections}
</body></html>
"""


@dataclass(frozen=True)
class _Plot:
    """One of Optuna's plots; its function has the same name for plotly and for matplotlib.

    `shares` of importance have a line where chance ends.
    """

    name: str
    heading: str
    function: str
    inches: tuple[float, float] = (9, 4.5)
    options: dict[str, Any] = field(default_factory=dict)
    shares: bool = False
    tidy: "Callable[[Sequence[Axes], optuna.Study], None] | None" = None


def write_plots(
    study: "optuna.Study",
    folder: Path,
    target_name: str = "validation accuracy",
    importances: Importances | None = None,
    objectives: Sequence[str] = (),
) -> list[Path]:
    """Writes a study's plots as PNG files and all of them, interactive, as `study.html`; leaves out what says nothing.

    Args:
        study: finished, running or empty.
        folder: where to; it is created.
        target_name: what the objective is called, unless the study has metric names.
        importances: the study's, if they are known; else they are found.
        objectives: what several objectives are called, unless the study has metric names.

    Returns:
        The files written, `study.html` last; none if the study has nothing to show.
    """
    folder.mkdir(parents=True, exist_ok=True)
    files = []
    sections = []
    importances = importances or find_importances(study)
    chance = None if importances is None else importances.chance
    with LOCK, _own_pyplot():  # Optuna draws with pyplot, whose figures belong to the whole process
        study = _named(study, objectives)
        for plot in _sensible(study, target_name, chance):
            try:
                section, picture = _interactive(plot, study, chance), _picture(plot, study, chance)
            except Exception as error:
                # Optuna refuses some studies and trips over others; a missing picture is no reason to lose the rest.
                expected = isinstance(error, (ValueError, RuntimeError))
                log.log(logging.DEBUG if expected else logging.WARNING, "no plot of the %s: %r", plot.heading, error)
                continue
            files.append(_write(folder / f"{plot.name}.png", picture))
            sections.append((plot, section))
    if sections:
        files.append(_write(folder / "study.html", _page(study, sections).encode()))
    return files


def best_values(study: "optuna.Study") -> list[tuple[int, float, int]]:
    """Returns how the best value grew, one entry per complete trial, in the order in which they ended.

    Trials without a finite value or against a constraint don't count, and several objectives have no best value.

    Returns:
        The trial's number, the best value until then, the time in milliseconds since the epoch.
    """
    from optuna.study import StudyDirection

    if len(study.directions) > 1:
        return []
    better = max if study.direction == StudyDirection.MAXIMIZE else min
    ended = [(t.datetime_complete, t) for t in complete_trials(study) if t.datetime_complete is not None]
    entries: list[tuple[int, float, int]] = []
    for time, trial in sorted(ended, key=lambda pair: (pair[0], pair[1].number)):
        value = trial.values[0]
        if not can_win(trial.values, trial.constraints.values()):
            continue
        best = better(entries[-1][1], value) if entries else value
        entries.append((trial.number, best, round(time.timestamp() * 1000)))
    return entries


def _named(study: "optuna.Study", objectives: Sequence[str]) -> "optuna.Study":
    """Returns a study whose several objectives have words for names in all plots: a copy, as not all take names."""
    import optuna

    names = [in_words(name) for name in study.metric_names or objectives]
    if len(study.directions) < 2 or len(names) != len(study.directions) or names == study.metric_names:
        return study
    copy = optuna.create_study(
        storage=optuna.storages.InMemoryStorage(), study_name=study.study_name, directions=study.directions
    )
    copy.add_trials(study.get_trials(deepcopy=False))
    copy.set_metric_names(names)
    return copy


def _sensible(study: "optuna.Study", target_name: str, chance: float | None) -> list[_Plot]:
    trials = study.get_trials(deepcopy=False)
    complete = complete_trials(study)
    named = {"target_name": study.metric_names[0] if study.metric_names else in_words(target_name)}
    plots = []
    if complete and len(study.directions) > 1:
        plots.append(_Plot("pareto_front", "Pareto front", "plot_pareto_front", (7, 5), tidy=tidy_front))
    elif complete:
        plots.append(_Plot("history", "History", "plot_optimization_history", options=named, tidy=tidy_history))
    # Optuna draws no others: a trial that was interrupted waits, with the values that it had.
    drawn = [trial for trial in trials if trial.state.name in ("COMPLETE", "PRUNED", "RUNNING")]
    if any(math.isfinite(value) for trial in drawn for value in trial.intermediate_values.values()):
        plots.append(
            _Plot("intermediate_values", "Intermediate values", "plot_intermediate_values", tidy=tidy_intermediate)
        )
    if len({tuple(trial.values) for trial in complete}) > 1:
        plots += _about_parameters(study, varied(study), named, chance)
    if any(trial.datetime_start for trial in trials):
        size = (9.0, min(9.0, 3 + 0.06 * len(trials)))
        plots.append(_Plot("timeline", "Timeline", "plot_timeline", size, tidy=tidy_timeline))
    return plots


def _about_parameters(
    study: "optuna.Study", varied: list[str], named: dict[str, Any], chance: float | None
) -> list[_Plot]:
    if not varied:
        return []
    options = {**named, "params": varied}
    inches = (max(9, 1.9 * (len(varied) + len(study.directions))), 5)
    lines = _Plot(
        "parallel_coordinates", "Parallel coordinates", "plot_parallel_coordinate", inches, options, tidy=tidy_lines
    )
    if len(study.directions) > 1:
        # Optuna refuses slices. Its importances take each objective for a loss, and its picture of them puts the
        # last objective's order of parameters beside every objective's bars.
        return [lines]
    # The default evaluator, PED-ANOVA, draws no random numbers and so needs no seed.
    bars = (9, max(2.5, 1.2 + 0.45 * len(varied)))
    dots = (max(6, len(varied) * max(3.2, 0.15 * max(map(len, varied)))), 4.5)  # names side by side
    shares = _Plot("importances", "Importances", "plot_param_importances", bars, options, shares=True)
    return [
        *([] if chance is None else [shares]),
        _Plot("slice", "Values by parameter", "plot_slice", dots, options, tidy=tidy_slice),
        lines,
    ]


@contextmanager
def _own_pyplot() -> Iterator[None]:
    """Draws without a display and without experimental warnings; what pyplot was set to comes back."""
    import matplotlib
    from matplotlib import pyplot
    from optuna.exceptions import ExperimentalWarning

    before = matplotlib.get_backend(auto_select=False)
    pyplot.switch_backend("agg")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ExperimentalWarning)
            warnings.simplefilter("ignore", UserWarning)  # Optuna's on small studies, matplotlib's on narrow axes
            yield
    finally:
        with suppress(ImportError):  # a display that is asked for but not there was no use before either
            if before:
                pyplot.switch_backend(before)


def _interactive(plot: _Plot, study: "optuna.Study", chance: float | None) -> str:
    from optuna import visualization

    figure = getattr(visualization, plot.function)(study, **plot.options)
    figure.update_layout(title=None, margin={"t": 40}, height=620 if plot.name == "pareto_front" else 480)
    if plot.tidy is tidy_history:
        figure.update_traces(line_shape="hv")  # the best value rises in steps
    if plot.shares and chance is not None:
        figure.add_vline(x=chance, line_dash="dot", annotation_text="chance")
        figure.update_xaxes(range=(0, 1.15 * max(chance, *figure.data[0].x)))  # which no line widens
    config = {"responsive": True, "displaylogo": False}
    return str(figure.to_html(full_html=False, include_plotlyjs=False, div_id=plot.name, config=config))


def _picture(plot: _Plot, study: "optuna.Study", chance: float | None) -> bytes:
    import matplotlib
    import numpy
    from matplotlib import pyplot
    from optuna.visualization import matplotlib as drawings

    others = pyplot.get_fignums()
    try:
        # Optuna sets a style for good; it ends with this context.
        with matplotlib.rc_context():
            drawn: list[Axes] = list(numpy.ravel(getattr(drawings, plot.function)(study, **plot.options)))
            figure = pyplot.gcf()
            figure.set_size_inches(plot.inches)
            figure.suptitle("")  # the kind of plot, which the name of the file says
            drawn[0].set_title("")
            drawn[0].set_title("", loc="left")
            if plot.shares and chance is not None:
                mark_chance(drawn[0], chance)
            for axes in figure.axes:
                plain(axes)
            if plot.tidy is not None:
                plot.tidy(drawn, study)
            stream = BytesIO()
            figure.savefig(stream, dpi=110, format="png", bbox_inches="tight", pad_inches=0.2)
            return stream.getvalue()
    finally:
        for number in set(pyplot.get_fignums()) - set(others):
            pyplot.close(number)


def _page(study: "optuna.Study", sections: list[tuple[_Plot, str]]) -> str:
    from plotly.offline import get_plotlyjs

    states = Counter(trial.state.name.lower() for trial in study.get_trials(deepcopy=False))
    return PAGE.format(
        name=html.escape(study.study_name),
        library=get_plotlyjs(),
        counts=f"{states.total()} trials: " + ", ".join(f"{count} {state}" for state, count in states.most_common()),
        links="".join(f'<a href="#{plot.name}-section">{plot.heading}</a>' for plot, _ in sections),
        sections="\n".join(
            f'<section id="{plot.name}-section"><h2>{plot.heading}</h2>{section}</section>'
            for plot, section in sections
        ),
    )


def _write(file: Path, content: bytes) -> Path:
    with written(file) as partial:
        partial.write_bytes(content)
    return file
