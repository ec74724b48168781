"""All goals in one table, with the figures that hold them or miss them."""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from benchmarks import agreement, measure
from benchmarks.ours import NAMES
from benchmarks.tables import points_gained

HOLDS, MISSED, ABSENT = "holds", "**missed**", "not measured yet"
EPYC, H200 = "AMD EPYC", "NVIDIA H200"


class Goal(NamedTuple):
    """A row of the table.

    Args:
        what: is measured, in which unit.
        wanted: the goal.
        benchmark: the name of the figures, `gpu_` before those of a GPU.
        found: takes them; returns the figure, and whether it holds, or a verdict in words.
    """

    what: str
    wanted: str
    benchmark: str
    found: Callable[[Any], tuple[str, bool | str]]

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


def table(known: Mapping[str, Any]) -> list[str]:
    """Returns the table as lines of Markdown.

    Args:
        known: figures by name, as the page has them.
    """
    return [
        "| what | goal | figure | verdict | measured on | command |",
        "|---|---|---|---|---|---|",
        *(goal.row(known) for goal in _goals()),
    ]


def _row(what: str, wanted: str, figure: str, holds: bool | str, machine: str, source: str) -> str:
    verdict = holds if isinstance(holds, str) else HOLDS if holds else MISSED
    return f"| {what} | {wanted} | {figure} | {verdict} | {machine} | {source} |"


def _goals() -> list[Goal | Told]:
    """In the order of the page's sections."""
    pages_own = "[below](#the-test-accuracy-that-people-quote)"
    return [
        *(_times_the_usual(network, goal) for network, goal in (("simplenn_bn", 4), ("simplenn", 5), ("resnet20", 2))),
        Goal("ResNet-20, share of the matrix product's rate", "45 %", "pipeline", _share_of_flops),
        Told("ResNet-20, the same", "45 %", "36 and 13 %", False, "Intel Xeon with AMX", "[below](#a-single-run)"),
        Goal("making batches, times the usual loader", "20", "loading", _loading),
        Goal("making batches, share of a training step", "at most 10 %", "loading", _share_of_step),
        Goal("starting a job, beyond the imports", "at most 1.0 s", "start", _start),
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
        Told("ResNet-20, test accuracy on a CPU", ".915", ".9226, one seed", "holds, by one run", EPYC, pages_own),
        Goal("study with pruning, times fewer epochs than the stock sweeper", "2", "pruning", _fewer_epochs),
        Goal(
            *("study with pruning, best accuracy against the stock sweeper's, points", "at least −0.5", "pruning"),
            lambda content: points_gained(content["rounds"]),
        ),
        Goal("two workers, share of the time that batches of two take", "at most 0.75", "waiting", _waiting),
        Goal("study sweeper, time a trial", "at most 150 ms", "overhead", _overhead),
        *(
            _stacked(network, 8, goal, against)
            for network, goals in (("simplenn_bn", (7, 1.7)), ("simplenn", (8, 1.4)))
            for goal, against in zip(goals, ("ratio", "ratio_to_one_by_one"), strict=True)
        ),
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
            "7 min 21 s at best",
            False,
            "Intel Xeon with AMX",
            "[below](#a-study-in-stacks)",
        ),
        *(
            _times_the_usual(network, goal, on_gpu=True)
            for network, goal in (("simplenn_bn", 15), ("simplenn", 15), ("resnet20", 6))
        ),
        *(
            _stacked(network, count, goal, "ratio_to_one_by_one", on_gpu=True)
            for network, count, goal in (("simplenn_bn", 32, 10), ("simplenn", 32, 10), ("resnet20", 8, 3))
        ),
        Told(
            "200 epochs of ResNet-20, training",
            "180 s",
            "154 s, by images/s, of one by one",
            True,
            H200,
            "`python -m benchmarks stacks`",
        ),
        Goal(
            *("the learning-rate table as one stack, training", "under 10 s", "gpu_targets"),
            lambda content: (f"{content['table']['seconds']:.1f} s", content["table"]["seconds"] < 10),
        ),
        Goal("ResNet-20 to 90 % validation accuracy, training", "under 30 s", "gpu_targets", _to_90),
    ]


def _times_the_usual(network: str, goal: float, on_gpu: bool = False) -> Goal:
    def found(content: Any) -> tuple[str, bool]:
        ratio = content["networks"][network]["ours"]["ratio"]
        return f"{ratio:.2f}", ratio >= goal

    what = f"{NAMES[network]}, images/s, times the usual pipeline"
    return Goal(what, f"{goal:g}", f"{measure.GPU}_pipeline" if on_gpu else "pipeline", found)


def _stacked(network: str, count: int, goal: float, against: str, on_gpu: bool = False) -> Goal:
    def found(content: Any) -> tuple[str, bool]:
        ratio = content["networks"][network]["stacked"][against]
        return f"{ratio:.2f}", ratio >= goal

    baseline = "the usual pipeline" if against == "ratio" else "one by one"
    what = f"{count} stacked, {NAMES[network]}, times {baseline}"
    return Goal(what, f"{goal:g}", f"{measure.GPU}_stacks" if on_gpu else "stacks", found)


def _share_of_flops(content: Any) -> tuple[str, bool]:
    share = content["networks"]["resnet20"]["roofline"]["of_flops"]
    return f"{share:.0%}", share >= 0.45


def _loading(content: Any) -> tuple[str, bool]:
    ratio = content["contestants"]["ours"]["ratio"]
    return f"{ratio:.0f}", ratio >= 20


def _share_of_step(content: Any) -> tuple[str, bool]:
    return f"{content['of_step']:.1%}", content["of_step"] <= 0.1


def _start(content: Any) -> tuple[str, bool]:
    return f"{content['over_imports']:.2f} s", content["over_imports"] <= 1


def _fewer_epochs(content: Any) -> tuple[str, bool]:
    fewer = content["summary"]["times_fewer_epochs"]
    return f"{fewer:.2f}", fewer >= 2


def _waiting(content: Any) -> tuple[str, bool]:
    return f"{content['ratio']:.2f}", content["ratio"] <= 0.75


def _overhead(content: Any) -> tuple[str, bool]:
    return f"{content['ms_per_trial']:.0f} ms", content["ms_per_trial"] < 150


def _agreement(content: Any) -> tuple[str, bool]:
    points, error = content["points_mean"], content["points_standard_error"]
    return f"{points:+.2f} ± {error:.2f}, {content['jobs']} runs", abs(points) <= agreement.GOAL


def _to_90(content: Any) -> tuple[str, bool]:
    seconds = content["resnet20"]["to_90"]
    return ("not reached", False) if seconds is None else (f"{seconds:.1f} s", seconds < 30)
