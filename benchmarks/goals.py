"""All goals in one table, with the figures that hold them or miss them."""

from collections.abc import Callable, Mapping
from operator import ge, le, lt
from typing import Any, NamedTuple

from benchmarks import agreement, measure, pipeline, stacks
from benchmarks.ours import NAMES
from benchmarks.tables.cells import Figures, verdict
from benchmarks.tables.studies import points_gained

ABSENT = "not measured yet"
EPYC, H200 = "AMD EPYC", "NVIDIA H200"

# Takes a benchmark's figures; returns one of them, and whether it holds, or a verdict in words.
Found = Callable[[Figures], tuple[str, bool | str]]


class Goal(NamedTuple):
    """A row of the table.

    Args:
        what: is measured, in which unit.
        wanted: the goal.
        benchmark: the name of the figures, `gpu_` before those of a GPU.
        found: reads them.
    """

    what: str
    wanted: str
    benchmark: str
    found: Found

    def row(self, known: Mapping[str, Any]) -> str:
        """Returns the row as Markdown, by all figures that are known."""
        name = self.benchmark.removeprefix(f"{measure.GPU}_")
        machine = ""
        try:
            figure, holds = self.found(known[self.benchmark])
            machine = known[self.benchmark]["machine"]["gpu"] or known[self.benchmark]["machine"]["processor"]
        except KeyError:
            figure, holds = "", ABSENT
        return _row(self.what, self.wanted, figure, holds, machine, f"`python -m benchmarks {name}`")


class Told(NamedTuple):
    """A row of a goal that no benchmark measures, in the order of the columns; its figure was taken by hand."""

    what: str
    wanted: str
    figure: str
    holds: bool | str
    machine: str
    source: str

    def row(self, known: Mapping[str, Any]) -> str:
        """Returns the row as Markdown."""
        return _row(*self)


def _row(what: str, wanted: str, figure: str, holds: bool | str, machine: str, source: str) -> str:
    said = holds if isinstance(holds, str) else verdict(holds)
    return f"| {what} | {wanted} | {figure} | {said} | {machine} | {source} |"


def _value(path: str, spelled: str, compared: Callable[[float, float], bool], goal: float) -> Found:
    """Returns what reads one value of the figures.

    Args:
        path: the keys to it.
        spelled: a format.
        compared: of the value and the goal; whether it holds.
        goal: as a number.
    """

    def found(content: Figures) -> tuple[str, bool]:
        value: Any = content
        for key in path.split("/"):
            value = value[key]
        return spelled.format(value), compared(value, goal)

    return found


def _times_the_usual(network: str, on_gpu: bool = False) -> Goal:
    goal = (pipeline.GPU_GOALS if on_gpu else pipeline.GOALS)[network]
    what = f"{NAMES[network]}, images/s, times the usual pipeline"
    found = _value(f"networks/{network}/ours/ratio", "{:.2f}", ge, goal)
    return Goal(what, f"{goal:g}", f"{measure.GPU}_pipeline" if on_gpu else "pipeline", found)


def _stacked(network: str, against: str, on_gpu: bool = False) -> Goal:
    count, (usual, own) = (stacks.ON_GPU if on_gpu else stacks.ON_CPU)[network]
    goal, baseline = (usual, "the usual pipeline") if against == "ratio" else (own, "one by one")
    assert goal is not None
    what = f"{count} stacked, {NAMES[network]}, times {baseline}"
    found = _value(f"networks/{network}/stacked/{against}", "{:.2f}", ge, goal)
    return Goal(what, f"{goal:g}", f"{measure.GPU}_stacks" if on_gpu else "stacks", found)


def _agreement(content: Figures) -> tuple[str, bool]:
    points, error = content["points_mean"], content["points_standard_error"]
    return f"{points:+.2f} ± {error:.2f}, {content['jobs']} runs", abs(points) <= agreement.GOAL


def _to_90(content: Figures) -> tuple[str, bool]:
    seconds = content["resnet20"]["to_90"]
    return ("not reached", False) if seconds is None else (f"{seconds:.1f} s", seconds < 30)


# In the order of the page's sections.
GOALS: tuple[Goal | Told, ...] = (
    *(_times_the_usual(network) for network in pipeline.GOALS),
    Goal(
        "ResNet-20, share of the matrix product's rate",
        "45 %",
        "pipeline",
        _value("networks/resnet20/roofline/of_flops", "{:.0%}", ge, 0.45),
    ),
    Told("ResNet-20, the same", "45 %", "36 and 13 %", False, "Intel Xeon with AMX", "[below](#a-single-run)"),
    Goal("making batches, times the usual loader", "20", "loading", _value("contestants/ours/ratio", "{:.0f}", ge, 20)),
    Goal("making batches, share of a training step", "at most 10 %", "loading", _value("of_step", "{:.1%}", le, 0.1)),
    Goal("starting a job, beyond the imports", "at most 1.0 s", "start", _value("over_imports", "{:.2f} s", le, 1)),
    Told(
        "ResNet-20 to 90 % validation accuracy, two cores",
        "under 12 min",
        "11.8 min, one seed",
        True,
        EPYC,
        "`python train.py experiment=resnet20_fast seed=1 hydra/launcher=basic`",
    ),
    Told(
        "ResNet-20, test accuracy after at most 200 epochs",
        ".926",
        ".9263 ± .0029, five seeds",
        "in the mean, not beyond chance",
        H200,
        "`python train.py -m experiment=resnet20_accuracy`",
    ),
    Told(
        "ResNet-20, test accuracy on a CPU",
        ".915",
        ".9226, one seed",
        "holds, by one run",
        EPYC,
        "[below](#the-test-accuracy-that-people-quote)",
    ),
    Goal(
        "study with pruning, times fewer epochs than the stock sweeper",
        "2",
        "pruning",
        _value("summary/times_fewer_epochs", "{:.2f}", ge, 2),
    ),
    Goal(
        "study with pruning, best accuracy against the stock sweeper's, points",
        "at least −0.5",
        "pruning",
        lambda content: points_gained(content["rounds"]),
    ),
    Goal(
        "two workers, share of the time that batches of two take",
        "at most 0.75",
        "waiting",
        _value("ratio", "{:.2f}", le, 0.75),
    ),
    Goal("study sweeper, time a trial", "at most 150 ms", "overhead", _value("ms_per_trial", "{:.0f} ms", lt, 150)),
    *(_stacked(network, against) for network in stacks.ON_CPU for against in ("ratio", "ratio_to_one_by_one")),
    Goal("stacked minus one by one, mean accuracy in points", "within 0.15", "agreement", _agreement),
    Told(
        "stacked minus one by one, each of six runs of 30 epochs, points",
        "within 0.5",
        "two of six differ by more",
        False,
        EPYC,
        "[below](#accuracies)",
    ),
    Goal("bf16 minus fp32, mean accuracy in points", "within 0.15", "precision", _agreement),
    Told(
        "a study of 40 trials in stacks",
        "7 min",
        "5 min 53 s, 6:17, 6:20, 6:41, 7:47; another was at 26 trials after 9 min",
        "in four studies of six",
        "AMD EPYC",
        "[below](#a-study-in-stacks)",
    ),
    *(_times_the_usual(network, on_gpu=True) for network in pipeline.GPU_GOALS),
    *(_stacked(network, "ratio_to_one_by_one", on_gpu=True) for network in stacks.ON_GPU),
    Told(
        "200 epochs of ResNet-20, training",
        "180 s",
        "154 s, by images/s, of one by one",
        True,
        H200,
        "`python -m benchmarks stacks`",
    ),
    Goal(
        "the learning-rate table as one stack, training",
        "under 10 s",
        f"{measure.GPU}_targets",
        _value("table/seconds", "{:.1f} s", lt, 10),
    ),
    Goal("ResNet-20 to 90 % validation accuracy, training", "under 30 s", f"{measure.GPU}_targets", _to_90),
)


def table(known: Mapping[str, Any]) -> list[str]:
    """Returns the table as lines of Markdown.

    Args:
        known: figures by name, as the page has them.
    """
    return [
        "| what | goal | figure | verdict | measured on | command |",
        "|---|---|---|---|---|---|",
        *(goal.row(known) for goal in GOALS),
    ]
