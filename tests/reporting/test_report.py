"""The report's sections, the files they become, learning curves with bands."""

import logging
import math
import re
from dataclasses import replace
from pathlib import Path

import pytest
from matplotlib.figure import Figure

from cifar_tuning.reporting import curves, document, forest, latex, summary
from cifar_tuning.reporting.comparisons import Effect
from cifar_tuning.reporting.drawing import VECTOR, also_as, cut_off, save_figure
from cifar_tuning.reporting.effects import find_effects
from cifar_tuning.reporting.latex import write_latex
from cifar_tuning.reporting.report import Material, blocks, duration, header, retrained_in_words, row
from cifar_tuning.reporting.statistics import Comparison, Summary
from cifar_tuning.reporting.table import build_table
from cifar_tuning.reporting.terminal import print_report
from cifar_tuning.reporting.winner import winner_in_words
from cifar_tuning.reporting.wording import mean_and_std
from tests.reporting.runs import make_runs


@pytest.fixture
def table():
    rows = [({"act": a, "seed": s}, 0.7 + 0.01 * (a == "swish") + 0.003 * s) for a in ("relu", "swish") for s in (0, 1)]
    published = [{"act": "relu", "val/acc_best": 0.71}]
    return build_table(make_runs(*rows), "val/acc_best", best_epochs={"0": 3}, published=published)


@pytest.fixture
def material(table, tmp_path):
    effects = find_effects(table)
    return Material(
        title="Sweep <one> & two",
        sources=["4 runs."],
        table=table,
        notes=["`x` is missing."],
        retrained=["The winner, trained again: `a` 0.8."],
        effects=effects,
        command="python train.py act=swish",
        overlay="act: swish\n",
        forest=forest.draw(effects, table, tmp_path / "effects.png"),
        curves=curves.draw({"val/acc": {"swish": curves.band([[(0, 0.1), (1, 0.5)]])}}, tmp_path / "curves.png"),
    )


def test_the_table(table):
    assert header(table) == ["act", "val/acc_best", "n", "best epoch", "time", "published", "difference"]
    swish, relu = (row(c, table) for c in table.configurations)
    assert swish == ["swish", "0.7115 ± 0.0021", "2", "", "1 min 00 s", "", ""]
    assert relu == ["relu", "0.7015 ± 0.0021", "2", "3", "1 min 00 s", "0.7100", "−0.8 points"]


def test_the_table_in_latex(table, tmp_path):
    named = replace(table, names=["act_100%"], metric="top_1")
    first, *lines = write_latex(named, tmp_path / "table.tex").read_text().splitlines()
    assert first.startswith("% `top_1`: mean ± standard deviation over n runs")
    assert [line.partition("{")[0] for line in lines if "&" not in line] == [
        r"\begin",
        r"\toprule",
        r"\midrule",
        r"\bottomrule",
        r"\end",
    ]
    assert lines[0].endswith("{lrrrrrr}")
    rows = [line.removesuffix(r" \\").split(" & ") for line in lines if "&" in line]
    assert rows[0] == [r"act\_100\%", r"top\_1", "n", "best epoch", "time", "published", "difference"]
    assert rows[2] == ["relu", r"0.7015 $\pm$ 0.0021", "2", "3", "1 min 00 s", "0.7100", "$-$0.8 points"]


def test_a_table_that_ends_before_the_last_configuration_says_so(table, tmp_path, monkeypatch):
    monkeypatch.setattr(latex, "TOP", 1)
    first, *lines = write_latex(table, tmp_path / "table.tex").read_text().splitlines()
    assert first.startswith("% The best 1 of 2 configurations. `val/acc_best`: mean")
    assert len([line for line in lines if "&" in line]) == 2


def test_values_that_latex_would_take_for_something_else(tmp_path):
    values = ["[0.8, 0.9]", "*", "a\n\nb", "<x|y>", "~^"]
    table = build_table(make_runs(*(({"betas": one}, -place) for place, one in enumerate(values))), "val/acc_best")
    text = write_latex(table, tmp_path / "table.tex").read_text()
    first = [line.partition(" & ")[0] for line in text.splitlines() if "&" in line][1:]
    assert first == ["{}[0.8, 0.9]", "{}*", "a b", "$<$x$|$y$>$", r"\textasciitilde \textasciicircum "]


@pytest.mark.parametrize(("kind", "begins"), [("pdf", b"%PDF"), ("svg", b"<?xml"), (None, None)])
def test_pictures_for_a_paper(kind, begins, tmp_path, monkeypatch, caplog):
    assert kind in (None, *VECTOR)
    contents = []
    for seconds in ("0", "86400"):
        monkeypatch.setenv("SOURCE_DATE_EPOCH", seconds)  # what Matplotlib takes for now
        figure = Figure()
        figure.subplots().plot([1, 2])
        with also_as(kind), caplog.at_level(logging.INFO):
            save_figure(figure, tmp_path / "a.png")
        contents.append((tmp_path / f"a.{kind or 'png'}").read_bytes())
    assert {file.name for file in tmp_path.iterdir()} == {"a.png"} | ({f"a.{kind}"} if kind else set())
    assert contents[0].startswith(begins or b"\x89PNG")
    assert b"/Type3" not in contents[0]
    assert contents[0] == contents[1]
    assert not caplog.messages


def test_markdown(material, tmp_path):
    document.write(blocks(material), tmp_path)
    text = (tmp_path / "report.md").read_text()
    assert text.index("4 runs.") < text.index("The winner, trained again") < text.index("What is missing")
    assert "| relu | 0.7015 ± 0.0021 | 2 | 3 | 1 min 00 s | 0.7100 | −0.8 points |" in text
    assert text.index("](effects.png)") < text.index("### act")  # what is seen at once stands above the sentences
    assert re.findall(r"^#+ (.*)$", text, re.MULTILINE) == [
        "Sweep <one> & two",
        "What is missing",
        "The best configuration",
        "Configurations",
        "What each hyperparameter does",
        "act",
        "Learning curves",
        "The best configuration as an overlay",
    ]
    pictures = re.findall(r"!\[.*\]\((.*)\)", text)
    assert pictures
    assert [name for name in pictures if not (tmp_path / name).is_file()] == []


def test_the_page_is_one_file(material, tmp_path):
    document.write(blocks(material), tmp_path, ranked=True)
    page = (tmp_path / "report.html").read_text()
    assert "<h1>Sweep &lt;one&gt; &amp; two</h1>" in page
    assert page.count('src="data:image/png;base64,') == 2
    assert not re.findall(r"(?:src|href)=\"(?!data:)", page)
    assert "<code>x</code> is missing." in page
    assert '<td style="text-align:right">0.7015 ± 0.0021</td>' in page
    assert "<p>The winner, trained again: <code>a</code> 0.8.</p>" in page
    assert '<body class="ranked">' in page
    scrolled = re.findall(r'<div class="(\w+)" tabindex="0" role="group" aria-label="\1"><(\w+)', page)
    assert scrolled == [("table", "table"), *[("picture", "img")] * 2]
    assert ">val/<wbr>acc_<wbr>best</th>" in page  # where a long name may be broken


def test_only_what_a_report_has_is_markup(tmp_path):
    names = "*a* __b__ model._target_=C [d](e) http://f & <g>"
    (tmp_path / "p").touch()
    fetched = "![1](http://h/p) ![2](/etc/hostname) ![3](p)"
    copied = document.code("a: |\n  ```\n  ![1](http://h/p)", "yaml")
    table = document.grid(["a|b"], [["x|*y*"]], left=1)
    document.write([document.heading("t", 1), names, table, fetched, "![](/etc/hostname)", copied], tmp_path)
    page = (tmp_path / "report.html").read_text()
    assert "<img" not in page
    assert f"<p>{fetched}</p>" in page
    assert "```\n  ![1](http://h/p)\n</code></pre>" in page
    assert "<p>*a* __b__ model._target_=C [d](e) http://f &amp; &lt;g&gt;</p>" in page
    assert "<th>a|b</th>" in page
    assert "<td>x|*y*</td>" in page


def test_on_the_terminal(material, tmp_path, capsys):
    print_report(material, tmp_path)
    out = capsys.readouterr().out
    assert "Sweep <one> & two" in out
    assert "note: x is missing." in out
    assert "The winner, trained again: a 0.8." in out
    assert "python train.py act=swish" in out
    assert str(tmp_path / "report.html") in out


def test_a_narrow_terminal_leaves_the_results_whole(material, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(summary, "WIDE", 60)
    print_report(material, tmp_path)
    assert "0.7115 ± 0.0021" in capsys.readouterr().out


@pytest.mark.parametrize("runs", [[({"a": 1}, 0.5)], [({"a": 1, "seed": s}, 0.5 + s / 10) for s in (0, 1)]])
def test_nothing_to_compare(runs):
    alone = build_table(make_runs(*runs), "val/acc_best")
    text = "\n".join(blocks(Material("s", [], alone, curves=Path("c.png"))))
    assert text.count("a single run") == 2 * (len(runs) == 1)
    assert text.count("standard deviation") == 2 * (len(runs) == 2)
    assert "nothing to compare" in text
    assert "flatters" not in text


@pytest.mark.parametrize(
    ("values", "state", "said"),
    [
        ((0.6, 0.6, 0.6), "complete", ["It shares this place: 3 configurations have the same mean (also lr=1, lr=2)."]),
        ((0.6, 0.5, 0.4), "complete", ["It is 10.0 points ahead of the next, lr=1 (n = 2, paired over seeds)."]),
        ((0.6, 0.5), "complete", []),
        ((0.6, 0.5), "diverged", ["2 of its 2 runs diverged"]),
    ],
)
def test_what_is_to_be_known_of_the_best(values, state, said):
    runs = make_runs(*(({"lr": lr, "seed": s}, v + s / 100) for lr, v in enumerate(values) for s in (0, 1)))
    for run in runs[:2]:
        run.state = state
    sentences = winner_in_words(build_table(runs, "val/acc_best"))
    assert len(sentences) == len(said)
    assert all(sentence.startswith(start) for sentence, start in zip(sentences, said, strict=True))


# What two configurations have in common: by all its seeds the first is ahead of the second, by those of both behind.
RAGGED = [{0: 0.7, 1: 0.71, 2: 0.9}, {0: 0.72, 1: 0.74}, {0: 0.4, 1: 0.4}]


@pytest.mark.parametrize(
    ("groups", "metric", "lost", "said"),
    [
        (
            RAGGED,
            "val/acc_best",
            [],
            "Its mean is the best, but where both ran it is 2.5 ± 6.4 points behind the next, lr=1 "
            "(n = 2, paired over seeds): no difference can be told.",
        ),
        (
            [{0: 0.7, 1: 0.9}, {0: 0.72}, {0: 0.4}],
            "val/acc_best",
            [],
            "Its mean is the best, but where both ran it is 2.0 points behind the next, lr=1, "
            "in a single comparison, which may be chance.",
        ),
        # A loss that is smaller is ahead.
        (
            [{0: 0.5, 1: 0.51}, {0: 0.7, 1: 0.73}, {0: 0.9, 1: 0.9}],
            "val/loss",
            [],
            "It is 0.21 ± 0.13 ahead of the next, lr=1 (n = 2, paired over seeds).",
        ),
        # What lost a seed is not the next, though its mean is the larger one.
        (
            [{0: 0.7, 1: 0.7}, {0: 0.9, 1: 0.9}, {0: 0.6, 1: 0.6}],
            "val/acc_best",
            [1],
            "It is 10.0 points ahead of the next, lr=2 (n = 2, paired over seeds).",
        ),
        ([{0: 0.7, 1: 0.7}, {0: 0.7, 1: 0.7}, {0: 0.6, 1: 0.6}], "val/acc_best", [1, 2], None),
    ],
)
def test_how_far_ahead_of_the_next_the_best_is(groups, metric, lost, said):
    rows = [({"lr": lr, "seed": s}, value) for lr, group in enumerate(groups) for s, value in group.items()]
    runs = make_runs(*rows, *(({"lr": lr, "seed": 9}, math.nan) for lr in lost), metric=metric)
    table = build_table(runs[: len(rows)], metric, lost=runs[len(rows) :])
    assert winner_in_words(table) == ([said] if said else [])


@pytest.mark.parametrize(
    ("states", "said"),
    [
        # Of lr=1 a seed ended; that of lr=2 failed, so it could not win.
        (["pruned", "failed", "pruned", "pruned"], ", the best of 3, 1 of them pruned. Being the best of 3 flatters"),
        (["failed", "failed", "failed", "killed"], ", the best of 2. Being the best of 2 flatters"),
    ],
)
def test_what_was_pruned_was_among_those_that_the_best_was_chosen_from(states, said):
    runs = make_runs(*(({"lr": lr, "seed": s}, 0.5) for lr, s in ((0, 0), (1, 0), (1, 1), (2, 0), (3, 0), (3, 1))))
    for run, state in zip(runs[2:], states, strict=True):
        run.state = state
    table = build_table(runs[:2], "val/acc_best", lost=runs[2:])
    assert said in "\n".join(blocks(Material("s", [], table)))


def test_lost_and_diverged_seeds_have_their_columns():
    runs = make_runs(*(({"lr": lr, "seed": s}, 0.5 + s / 100) for lr in (0, 1) for s in (0, 1)))
    runs[3].state = "diverged"
    table = build_table(runs[1:], "val/acc_best", lost=runs[:1])
    assert header(table)[:4] == ["lr", "val/acc_best", "n", "diverged"]
    assert [row(c, table)[2:4] for c in table.configurations] == [["2", "1"], ["1 of 2", ""]]


def test_of_many_comparisons_the_surest_are_drawn(tmp_path, monkeypatch):
    rows = [
        (
            {"a": a, "b": b, "seed": s},
            0.5 + a * (0.1 if b == "q" else 0.001) + s * (1 + a + 3 * (b == "q")) ** 2 / 3000 + (s == 2 and a) / 777,
        )
        for a in (0, 1)
        for b in "pq"
        for s in (0, 1, 2)
    ]
    table = build_table(make_runs(*rows), "val/acc_best")
    effects = [effect for effect in find_effects(table) if isinstance(effect, Effect)]
    monkeypatch.setattr(forest, "MOST", 1)
    seen = []
    monkeypatch.setattr(forest, "_label", lambda effect, apart: seen.append(effect) or "")
    picture = forest.draw(effects, table, tmp_path / "e.png")
    assert [effect.p for effect in seen] == [min(effect.p for effect in effects if effect.p is not None)]
    parts = blocks(Material("t", [], table, effects=effects, forest=picture))
    (caption,) = [part for part in parts if part.startswith("![")]
    assert f"1 of {len(effects)}, the surest first" in caption


@pytest.mark.parametrize(
    ("halves", "expected"),
    [
        ((0.01, 2.5), [forest.LEGEND["o", forest.SURE], forest.LEGEND["o", forest.UNSURE]]),
        ((None,), [forest.LEGEND["x", forest.UNSURE]]),
    ],
)
def test_the_picture_of_the_comparisons_stands_alone(table, tmp_path, monkeypatch, halves, expected):
    drawn = []
    monkeypatch.setattr(forest, "save_figure", lambda figure, file: drawn.append(figure))
    ps = {0.01: 0.001, 2.5: 0.4, None: None}
    effects = [Effect("act", ("a", "b"), "", "", Comparison(0.1, half, ps[half], 3, True), ps[half]) for half in halves]
    effects += [replace(effects[0], names=("b", "a"), setting="lr=1")]
    forest.draw(effects, table, tmp_path / "e.png")
    (axes,), (legend,) = drawn[0].axes, drawn[0].legends
    labels = [label.get_text() for label in axes.get_yticklabels()]
    assert labels == [*["a − b  (on average)"] * len(halves), "b − a  (at lr=1)"]
    assert [text.get_text() for text in legend.get_texts()] == expected
    assert axes.get_xlabel().startswith("difference in validation accuracy, percentage points")
    dots = [line for line in axes.lines if line.get_marker() == "o" and len(line.get_xdata())]
    assert [line.get_markerfacecolor() for line in dots] == [forest.SURE, "white", forest.SURE][: len(dots)]
    assert -100 <= axes.get_xlim()[0] < axes.get_xlim()[1] <= 100


def test_configurations_of_which_no_two_can_be_compared():
    table = build_table(make_runs(*(({"lr": 1.3**i}, 0.5) for i in range(9))), "val/acc_best")
    texts = blocks(Material("t", [], table))
    assert "No two values could be compared, and no trend can be told." in texts
    assert not [text for text in texts if "same hyperparameters" in text]


@pytest.mark.parametrize(
    ("summary", "text"),
    [
        (Summary(0.70123, 0.0021, 3), "0.7012 ± 0.0021"),
        (Summary(2.345678e-5, 1.23456e-6, 3), "2.346e-05 ± 1.235e-06"),
        (Summary(0.00123456, None, 1), "0.001235"),
        (Summary(0.0, 0.0, 2), "0.0000 ± 0.0000"),
        (Summary(0.5, 1e-6, 2), "0.5000 ± 0.0000"),
        (Summary(12345.6, None, 1), "12,346"),
        (Summary(9999.7, None, 1), "10,000"),
        (Summary(3.2e30, 1e30, 3), "3.2e+30 ± 1e+30"),
        (Summary(5e15, 3e13, 3), "5e+15 ± 3e+13"),
        (Summary(12345.6, 12.34, 3), "12,346 ± 12"),
        (Summary(716.328, 0.0, 3), "716 ± 0"),
        (Summary(716.328, 0.256, 3), "716.33 ± 0.26"),
    ],
)
def test_means(summary, text):
    assert mean_and_std(summary) == text


@pytest.mark.parametrize(("seconds", "text"), [(58.2, "58 s"), (751, "12 min 31 s"), (7500, "2 h 05 min")])
def test_durations(seconds, text):
    assert duration(seconds) == text


def test_a_winner_that_was_trained_again():
    metrics = [{"val/acc_best": 0.7, "test/acc": 0.6}, {"val/acc_best": 0.8}]
    (sentence,) = retrained_in_words(metrics, "val/acc_best")
    assert "`val/acc_best` 0.7500 ± 0.0707 (n = 2), test accuracy 0.6000 (n = 1)" in sentence
    assert retrained_in_words([], "val/acc_best") == []


def test_bands():
    line = curves.band([[(0, 1.0), (1, 2.0)], [(0, 3.0), (1, math.nan), (2, 5.0)]])
    # The first curve ends there: the mean of the others would seem to leap.
    assert (line.steps, line.mean, line.n) == ([0, 1], [2.0, 2.0], 2)
    assert line.spread == pytest.approx([math.sqrt(2), 0])


@pytest.mark.parametrize(
    ("curve", "maximize", "step"),
    [
        ([(0, 0.1), (1, 0.5), (2, 0.5)], True, 1),
        ([(0, 0.1), (1, 0.5)], False, 0),
        ([(0, math.nan), (1, 0.5), (2, 0.7)], True, 2),
        ([(7, 0.5)], True, None),
    ],
)
def test_best_step(curve, maximize, step):
    assert curves.best_step(curve, maximize) == step


@pytest.mark.parametrize(
    ("steps", "expected"),
    [
        ({"lr": 2, "val/acc": 2, "val/acc_best": 2, "train/loss": 2, "model/macs": 1}, ["train/loss", "val/acc"]),
        ({"accuracy": 3, "z": 3}, ["accuracy", "z"]),
        ({"val/acc_best": 2, "lr": 3}, ["val/acc_best"]),
        ({"a": 1}, []),
    ],
)
def test_metrics_worth_drawing(steps, expected):
    made = {name: [(i, float(i)) for i in range(count)] for name, count in steps.items()}
    assert curves.worth_drawing(made, "val/acc_best") == expected


@pytest.fixture
def seen(monkeypatch):
    """The figures, in place of their files."""
    figures = []
    for module in (curves, forest):
        monkeypatch.setattr(module, "save_figure", lambda figure, file: figures.append(figure) or file)
    return figures


def test_curves_of_many_and_of_exploding_runs(seen, tmp_path):
    """Names of any length are whole, a diverged run does not rule the axis, nor does a deviation beyond what can be."""
    bands = {
        f"c{i} {'policy=' * 30}": curves.band([[(s, 1e9 if i > 5 and s > 5 else 1 / (s + 1)) for s in range(20)]])
        for i in range(8)
    }
    wide = curves.band([[(0, 0.0), (1, 0.9), (2, 0.1)], [(0, 0.1), (1, 0.0), (2, 1.0)]])
    curves.draw({"train/loss": bands, "val/acc": dict.fromkeys(bands, wide), "b": bands}, tmp_path / "c.png")
    seen[0].draw_without_rendering()
    (legend,), page = seen[0].legends, seen[0].bbox
    assert all(page.x0 <= text.get_window_extent().x0 < text.get_window_extent().x1 <= page.x1 for text in legend.texts)
    loss, accuracy = seen[0].axes[:2]
    assert loss.get_title() == "training loss, cut off above"
    assert loss.get_ylim()[1] < 2
    assert -0.1 < accuracy.get_ylim()[0] < accuracy.get_ylim()[1] < 1.1


@pytest.mark.parametrize(
    ("values", "top"),
    [
        ([[2.3, 1.0, 0.01, 0.001, 0.001, 0.001]] * 2, None),  # a beginning is no outlier
        ([[2.3, 1.0, math.nan], [2.3, 1.0, 1e9]], 2.43),
        ([[math.nan], []], None),
    ],
)
def test_what_is_cut_off(values, top):
    axes = Figure().subplots()
    for curve in values:
        axes.plot(curve)
    before = axes.get_ylim()
    assert bool(cut_off(axes, values)) == (top is not None)
    assert axes.get_ylim()[1] == pytest.approx(before[1] if top is None else top)


def test_long_names_leave_room_for_the_differences(table, seen, tmp_path):
    name = "torchvision.transforms.RandAugment(num_ops=2,magnitude=9)"
    effects = [Effect("act", (name, f"{name} again"), "", "", Comparison(0.1, 0.01, 0.4, 3, True), 0.4)]
    forest.draw(effects, table, tmp_path / "e.png")
    seen[0].draw_without_rendering()
    assert seen[0].axes[0].get_window_extent().width > seen[0].bbox.width / 2
