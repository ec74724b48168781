"""What the tables have in common: which command gave the figures on which machine, and how a figure is written."""

from collections.abc import Mapping
from typing import Any

from benchmarks.ours import NAMES
from cifar_tuning.text import counted

# A benchmark's file in `benchmarks/results/`.
Figures = Mapping[str, Any]

HOLDS, MISSED = "holds", "**missed**"
# With fewer rounds than that a median says little.
FEW = 5
TITLES = {
    "usual": "usual pipeline",
    "script": "plain script",
    "ours": "**ours**",
    "one by one": "ours, one by one",
    "stacked": "**ours, stacked**",
}


def beginning(content: Figures, name: str, *columns: str, settings: str = "") -> list[str]:
    """Returns the lines above a table's rows.

    Args:
        content: the benchmark's figures.
        name: of the benchmark.
        columns: their headings.
        settings: see `where`.
    """
    header = "|".join(f" {column} " if column else " " for column in columns)
    return [where(content, name, settings), "", f"|{header}|", f"|{'---|' * len(columns)}"]


def where(content: Figures, name: str, settings: str = "") -> str:
    """Returns what was measured where: the command, the machine, the versions, the rounds if they are few.

    Args:
        content: the benchmark's figures.
        name: of the benchmark.
        settings: what else to say, with the comma or semicolon before it.
    """
    machine = content["machine"]
    processor = machine["gpu"] or f"{machine['processor']}, {counted(machine['threads'], 'thread')}"
    versions = f"PyTorch {machine['versions']['torch']}, {_commits(content)}"
    measured = [content, *content.get("networks", {}).values()]
    rounds = min((one["repeats"] for one in measured if isinstance(one.get("repeats"), int)), default=FEW)
    few = f"; only {rounds} rounds" if rounds < FEW else ""
    few += f" ({content['note']})" if "note" in content else ""
    return f"`python -m benchmarks {name}` on {processor}, {versions}{few}{settings}:"


def _commits(content: Figures) -> str:
    """Returns which commit was measured; a network that was measured before keeps its own."""
    networks: dict[str, list[str]] = {}
    for network, one in content.get("networks", {}).items():
        networks.setdefault(one.get("commit", content["machine"]["commit"]), []).append(label(network))
    if len(networks) < 2:
        return f"commit {next(iter(networks), content['machine']['commit'])}"
    return "commits " + ", ".join(f"{commit} ({'; '.join(labels)})" for commit, labels in networks.items())


def label(network: str) -> str:
    """Returns the name of a network, or of `network, size` stacked."""
    name, _, size = network.partition(", ")
    return NAMES[name] + (f", {size} stacked" if size not in ("", "1") else "")


def spread(figure: Mapping[str, float]) -> str:
    """Returns the median of rounds, with the range."""
    return f"{figure['median']:,.0f} ({figure['min']:,.0f} to {figure['max']:,.0f})"


def against(ratio: float, goal: float | None) -> str:
    """Returns a ratio, with its goal if it has one."""
    if goal is None:
        return f"{ratio:.2f}"
    return f"{ratio:.2f} (goal {goal:g}: {verdict(ratio >= goal)})"


def verdict(holds: bool) -> str:
    """Returns whether a goal holds, as a word."""
    return HOLDS if holds else MISSED
