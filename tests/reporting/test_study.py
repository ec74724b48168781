"""Plots of studies of every kind: what is drawn, what is left out, and that the page needs nothing but itself."""

import datetime
import functools
import math
import re
import threading
import warnings
from collections.abc import Callable
from pathlib import Path

import matplotlib
import optuna
import pytest
from matplotlib import pyplot
from matplotlib.colors import to_hex
from matplotlib.figure import Figure
from optuna.trial import TrialState, create_trial
from PIL import Image
from plotly.offline import get_plotlyjs

from cifar_tuning.reporting import optuna_plots
from cifar_tuning.reporting import study as reporting
from cifar_tuning.reporting.drawing import COLOURS
from cifar_tuning.reporting.study import best_values, write_plots
from cifar_tuning.reporting.study_axes import PRUNED, few_ticks, mark_chance
from tests.reporting.studies import STUDIES, made, pruned, two


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], tuple[optuna.Study, list[Path]]]:
    """A study of a kind and its plots, drawn once for all tests because drawing takes seconds."""

    @functools.cache
    def write(kind: str) -> tuple[optuna.Study, list[Path]]:
        study = STUDIES[kind][0]()
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            return study, _write(study, tmp_path_factory.mktemp("plots") / "new" / "folder")

    return write


@pytest.mark.slow
@pytest.mark.parametrize("kind", STUDIES)
def test_what_a_study_can_show_is_drawn_and_nothing_else(kind: str, written: Callable, caplog) -> None:
    expected = STUDIES[kind][1]
    _, files = written(kind)
    assert not [entry for entry in caplog.records if entry.name == reporting.__name__ and entry.levelname != "DEBUG"]
    assert {file.name for file in files} == {f"{name}.png" for name in expected} | (
        {"study.html"} if expected else set()
    )
    for file in files:
        if file.suffix == ".png":
            _assert_drawn(file)
    if expected:
        assert sorted(files[0].parent.iterdir()) == sorted(files)  # nothing half-written stays
        _assert_complete(files[-1], expected)


def _assert_drawn(file: Path) -> None:
    with Image.open(file) as picture:
        assert 400 < picture.width < 2000
        assert 200 < picture.height < 1200
        grey = picture.convert("L")
        counts = grey.histogram()
        assert max(counts) < 0.99 * sum(counts), f"{file.name} is blank"
        # Where ink touches the border, a label is cut.
        right, bottom = grey.width - 1, grey.height - 1
        edges = [(0, 0, 1, bottom), (right, 0, right + 1, bottom), (0, 0, right, 1), (0, bottom, right, bottom + 1)]
        assert all(grey.crop(edge).getextrema() == (255, 255) for edge in edges), f"{file.name} is cut"


def _assert_complete(page: Path, expected: set[str]) -> None:
    text = page.read_text(encoding="utf-8")
    library = get_plotlyjs()
    assert text.count(library) == 1
    rest = text.replace(library, "")
    assert set(re.findall(r'<div id="(\w+)" class="plotly-graph-div"', rest)) == expected
    assert set(re.findall(r'Plotly\.newPlot\(\s*"(\w+)"', rest)) == expected
    assert set(re.findall(r'href="#(\w+)-section"', rest)) == expected
    assert not re.findall(r'(?:src|href)="(?!#)', rest), "the page asks for something outside itself"
    assert rest.count("<script") == rest.count("</script>"), "text of the study ends a script"


@pytest.fixture
def page(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[[str], str]:
    """The page of a study of a kind, written without the pictures beside it."""
    monkeypatch.setattr(reporting, "_draw", lambda plot, study, chance, file: file)
    return lambda kind: _write(STUDIES[kind][0](), tmp_path / kind)[-1].read_text(encoding="utf-8")


def _write(study: optuna.Study, folder: Path) -> list[Path]:
    return write_plots(study, folder, "top-1", objectives=["val/acc_best", "model/macs", "seconds"])


def test_the_page_shows_names_as_text(page: Callable[[str], str]) -> None:
    text = page("conditional").replace(get_plotlyjs(), "")
    assert "<h1>&lt;b&gt;a &amp; b&lt;/b&gt;</h1>" in text
    assert "<b>a" not in text
    assert '"top-1"' in text
    assert "14 trials: 11 complete, 3 fail" in text


def test_the_objectives_have_their_names(page: Callable[[str], str]) -> None:
    two, three = page("two objectives"), page("three objectives")
    assert all(f'"{name}"' in two for name in ("validation loss", "the seconds"))
    assert all(f'"{name}"' in three for name in ("validation accuracy", "multiply-adds", "seconds"))
    assert "Objective 0" not in three


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[[optuna.Study], dict[str, list]]:
    """The axes of each plot of a study, once they are put right."""
    seen: dict[str, list] = {}

    def watch(name: str) -> Callable:
        tidy = getattr(optuna_plots, name)
        return lambda axes, study: (tidy(axes, study), seen.setdefault(name.removeprefix("tidy_"), list(axes)))

    for name in ("tidy_history", "tidy_slice", "tidy_lines", "tidy_timeline"):
        monkeypatch.setattr(optuna_plots, name, watch(name))
    monkeypatch.setattr(reporting, "_interactive", lambda *args: "")
    return lambda study: (write_plots(study, tmp_path), seen)[1]


def test_what_optuna_s_pictures_leave_to_guess(drawn: Callable) -> None:
    def objective(trial: optuna.Trial) -> float:
        kind, whole = trial.suggest_categorical("kind", ["sgd", "adamw"]), trial.suggest_int("whole", 1, 3)
        trial.report(0.3, 0)
        if trial.number == 1:
            raise optuna.TrialPruned
        return whole + (kind == "sgd") / 10

    study = optuna.create_study()
    for kind, whole in (("sgd", 1), ("sgd", 2), ("adamw", 2)):
        study.enqueue_trial({"kind": kind, "whole": whole})
    study.optimize(objective, 3)
    axes = drawn(study)
    pruned = axes["history"][0].collections[-1]
    assert pruned.get_offsets().tolist() == [[1.0, 0.3]]
    kinds, wholes = axes["slice"]
    assert [label.get_text() for label in kinds.get_xticklabels()] == ["sgd", "adamw"]
    colours = wholes.figure.axes[-1]
    ticks = (*wholes.get_xticks(), *colours.get_yticks(), *axes["lines"][0].figure.axes[-1].get_yticks())
    assert all(tick == round(tick) for tick in ticks)
    assert axes["timeline"][0].get_xlabel() == "time"
    bars = axes["timeline"][0].patches
    assert all(bar.get_edgecolor() == bar.get_facecolor() for bar in bars)
    assert [to_hex(bar.get_facecolor()) for bar in bars] == [c.lower() for c in (COLOURS[0], PRUNED, COLOURS[0])]
    shades = axes["lines"][0].collections[0].get_cmap()
    assert sum(shades(0.0)) < sum(shades(1.0))  # the smallest value is the best, and the darkest


def test_the_end_of_chance_is_seen() -> None:
    axes = Figure().subplots()
    axes.barh(["lr"], [0.7])
    mark_chance(axes, 0.9)
    assert axes.get_xlim()[1] > 0.9


@pytest.mark.parametrize(("low", "high", "most"), [(0.02, 0.05, 4), (0.01, 0.09, 3), (1e-3, 0.2, 5), (1e-6, 1e-2, 5)])
def test_logarithmic_ticks_do_not_run_into_each_other(low: float, high: float, most: int) -> None:
    axes = Figure().subplots()
    axes.set(xscale="log", xlim=(low, high))
    few_ticks(axes.xaxis)
    axes.figure.draw_without_rendering()
    ticks = [tick for tick in axes.get_xticks() if low <= tick <= high]
    assert 2 <= len(ticks) <= most
    assert not any(label.get_text() for label in axes.get_xticklabels(minor=True))


def test_a_trial_that_waits_again_has_no_curve(drawn: Callable, tmp_path: Path) -> None:
    """Optuna warns of a study whose only values are those of interrupted trials."""
    study = optuna.create_study()
    study.add_trial(create_trial(state=TrialState.WAITING, intermediate_values={0: 0.5}))
    drawn(study)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(("trials", "legend", "colours"), [(24, False, 8 + 1), (4, True, 4)])
def test_many_trials_get_a_scale_instead_of_a_legend(
    trials: int, legend: bool, colours: int, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """The complete trials have a colour each, and the others grey."""
    seen = []
    tidy = optuna_plots.tidy_intermediate
    monkeypatch.setattr(optuna_plots, "_about_parameters", lambda *args: [])
    monkeypatch.setattr(reporting, "_interactive", lambda *args: "")
    monkeypatch.setattr(
        optuna_plots, "tidy_intermediate", lambda drawn, study: (tidy(drawn, study), seen.append(drawn[0]))
    )
    write_plots(made(pruned, trials, direction="maximize"), tmp_path)
    assert (seen[0].get_legend() is not None) == legend
    assert len({line.get_color() for line in seen[0].lines}) == colours
    if not legend:
        complete = [line for line in seen[0].lines if line.get_color() != "0.55"]
        best = max(complete, key=lambda line: line.get_ydata()[-1])
        assert best.get_color() == min((line.get_color() for line in complete), key=sum)


@pytest.mark.slow
def test_pictures_are_the_same_every_time(written: Callable, tmp_path: Path) -> None:
    study, first = written("pruned")
    again = write_plots(study, tmp_path, target_name="top-1")
    assert [file.read_bytes() for file in first] == [file.read_bytes() for file in again]


def test_pyplot_stays_as_it_was(tmp_path: Path) -> None:
    backend = matplotlib.get_backend()
    matplotlib.rcdefaults()  # or what another test left would hide what this one leaves
    pyplot.switch_backend("svg")
    theirs = pyplot.figure()
    settings, shown, filters = matplotlib.rcParams.copy(), pyplot.get_fignums(), warnings.filters[:]
    try:
        thread = threading.Thread(target=write_plots, args=(STUDIES["one"][0](), tmp_path))
        thread.start()
        thread.join()
        assert (tmp_path / "study.html").exists()
        assert matplotlib.rcParams == settings
        assert matplotlib.get_backend() == "svg"
        assert pyplot.get_fignums() == shown
        assert pyplot.gcf() is theirs
        assert warnings.filters == filters
    finally:
        pyplot.close(theirs)
        pyplot.switch_backend(backend)


def test_one_plot_that_breaks_costs_no_other(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, caplog) -> None:
    def broken(*args, **options) -> None:
        pyplot.figure()
        raise KeyError("broken")

    monkeypatch.setattr(optuna.visualization.matplotlib, "plot_optimization_history", broken)
    shown = pyplot.get_fignums()
    files = write_plots(STUDIES["one"][0](), tmp_path)
    assert [file.name for file in files] == ["timeline.png", "study.html"]
    assert 'id="history"' not in files[-1].read_text(encoding="utf-8")
    assert "no plot of the History: KeyError" in caplog.text
    assert pyplot.get_fignums() == shown


def test_a_full_disk_is_no_plot_that_breaks(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def full(*args, **options) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(reporting, "save_figure", full)
    monkeypatch.setattr(reporting, "_interactive", lambda *args: "")
    with pytest.raises(OSError, match="No space"):
        write_plots(STUDIES["one"][0](), tmp_path)


def _ended(number: int, value: float | None, minute: int, state: TrialState = TrialState.COMPLETE, **options):
    trial = create_trial(state=state, value=value, **options)
    trial.datetime_start = datetime.datetime(2026, 1, 1, 12, 0)
    trial.datetime_complete = datetime.datetime(2026, 1, 1, 12, minute)
    return trial


@pytest.mark.parametrize(
    ("direction", "expected"),
    [("maximize", [(1, 0.5), (0, 0.7), (5, 0.7)]), ("minimize", [(1, 0.5), (0, 0.5), (5, 0.5)])],
)
def test_best_values_follow_the_order_of_completion(direction: str, expected: list[tuple[int, float]]) -> None:
    study = optuna.create_study(direction=direction)
    study.add_trials(
        [
            _ended(0, 0.7, minute=20),
            _ended(1, 0.5, minute=10),
            _ended(2, None, minute=5, state=TrialState.PRUNED),
            _ended(3, None, minute=6, state=TrialState.FAIL),
            _ended(4, math.inf, minute=7),
            _ended(5, 0.6, minute=30),
        ]
    )
    study.ask()
    entries = best_values(study)
    assert [entry[:2] for entry in entries] == expected
    times = [datetime.datetime.fromtimestamp(time / 1000) for _, _, time in entries]
    assert times == [datetime.datetime(2026, 1, 1, 12, minute) for minute in (10, 20, 30)]


def test_best_values_of_nothing_and_of_several_objectives_are_empty() -> None:
    assert best_values(optuna.create_study()) == []
    assert best_values(made(two, 2, directions=["minimize"] * 2)) == []


def test_best_value_keeps_to_the_constraints() -> None:
    def allowed(trial: optuna.trial.FrozenTrial) -> list[float]:
        return [1.0 if trial.number == 2 else -1.0]

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        sampler = optuna.samplers.TPESampler(seed=0, constraints_func=allowed)
    study = optuna.create_study(direction="maximize", sampler=sampler)
    study.optimize(lambda trial: float(trial.number), 3)
    assert [entry[:2] for entry in best_values(study)] == [(0, 0.0), (1, 1.0)]
    assert study.best_value == 1.0
