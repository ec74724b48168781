"""Pictures of a whole study: Optuna's own plots as PNG files and as one interactive page that needs no network."""

import html
import logging
import warnings
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

from cifar_tuning.files import write_text
from cifar_tuning.ranking import can_win
from cifar_tuning.reporting.drawing import LOCK, STYLE, quiet, save_figure
from cifar_tuning.reporting.importances import Importances, complete_trials, find_importances
from cifar_tuning.reporting.metric_names import in_words
from cifar_tuning.reporting.optuna_plots import Plot, sensible
from cifar_tuning.reporting.study_axes import mark_chance, plain

if TYPE_CHECKING:
    import optuna
    from matplotlib.axes import Axes

log = logging.getLogger(__name__)

DPI = STYLE["figure.dpi"]
PAGE = """<!DOCTYPE html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<title>{name}</title>
<style>
body {{ font-family: system-ui, sans-serif; margin: 2rem auto; max-width: 1200px; padding: 0 1rem; }}
nav a {{ margin-right: 1rem; }} section {{ overflow-x: auto; }}
</style>
<script>{library}</script></head>
<body><main><h1>{name}</h1><p>{counts}</p><nav>{links}</nav>
{sections}
</main></body></html>
"""


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
        for plot in sensible(study, target_name, chance):
            try:
                section = _interactive(plot, study, chance)
                files.append(_draw(plot, study, chance, folder / f"{plot.name}.png"))
            except OSError:  # no fault of the study
                raise
            except Exception as error:
                # Optuna refuses some studies and trips over others; a missing picture is no reason to lose the rest.
                expected = isinstance(error, (ValueError, RuntimeError))
                log.log(logging.DEBUG if expected else logging.WARNING, "no plot of the %s: %r", plot.heading, error)
                continue
            sections.append((plot, section))
    if sections:
        files.append(write_text(folder / "study.html", _page(study, sections)))
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


@contextmanager
def _own_pyplot() -> Iterator[None]:
    """Draws without a display and without experimental warnings; what pyplot was set to comes back."""
    import matplotlib
    from matplotlib import pyplot
    from optuna.exceptions import ExperimentalWarning

    before = matplotlib.get_backend(auto_select=False)
    pyplot.switch_backend("agg")
    try:
        # Which has advice for whoever wrote the plot.
        with quiet("matplotlib.category"), warnings.catch_warnings():
            warnings.simplefilter("ignore", ExperimentalWarning)
            warnings.simplefilter("ignore", UserWarning)  # Optuna's on small studies, matplotlib's on narrow axes
            yield
    finally:
        with suppress(ImportError):  # a display that is asked for but not there was no use before either
            if before:
                pyplot.switch_backend(before)


def _interactive(plot: Plot, study: "optuna.Study", chance: float | None) -> str:
    from optuna import visualization

    figure = getattr(visualization, plot.function)(study, **plot.options)
    figure.update_layout(title=None, margin={"t": 40}, height=620 if plot.name == "pareto_front" else 480)
    if plot.name == "history":
        figure.update_traces(line_shape="hv")  # the best value rises in steps
    if plot.shares and chance is not None:
        figure.add_vline(x=chance, line_dash="dot", annotation_text="chance")
        figure.update_xaxes(range=(0, 1.15 * max(chance, *figure.data[0].x)))  # which no line widens
    config = {"responsive": True, "displaylogo": False}
    return str(figure.to_html(full_html=False, include_plotlyjs=False, div_id=plot.name, config=config))


def _draw(plot: Plot, study: "optuna.Study", chance: float | None, file: Path) -> Path:
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
            return save_figure(figure, file, dpi=DPI, bbox_inches="tight", pad_inches=0.2)
    finally:
        for number in set(pyplot.get_fignums()) - set(others):
            pyplot.close(number)


def _page(study: "optuna.Study", sections: list[tuple[Plot, str]]) -> str:
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
