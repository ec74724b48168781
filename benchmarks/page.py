"""Puts the figures of `benchmarks/results/` into docs/performance.md: between its markers stands what this writes."""

import json
import re
from pathlib import Path
from typing import Any

from benchmarks import goals, measure, picture
from benchmarks.tables import TABLES
from cifar_tuning import PROJECT_ROOT
from cifar_tuning.files import write_text

PAGE = PROJECT_ROOT / "docs" / "performance.md"
GOALS = "goals"
MARKED = re.compile(r"(<!-- figures: (\w+) -->\n).*?(<!-- end -->)", re.DOTALL)


def write() -> Path:
    """Writes the tables and the pictures anew; returns the page.

    Raises:
        KeyError: the page has a marker that no table belongs to.
    """
    page = PAGE.read_text(encoding="utf-8")
    known = _known()

    def filled(match: re.Match[str]) -> str:
        name = match[2]
        if name == GOALS:
            return "\n".join([match[1], *goals.table(known), "", match[3]])
        benchmark = name.removeprefix(f"{measure.GPU}_")
        here = "" if name == benchmark else " on a GPU"
        absent = f"Not measured yet{here}: `python -m benchmarks {benchmark}`."
        table = TABLES[benchmark](known[name]) if name in known else [absent]
        return "\n".join([match[1], *table, "", match[3]])

    text = MARKED.sub(filled, page)
    if text != page:
        write_text(PAGE, text)
    if {"pipeline", "stacks"} <= known.keys():
        picture.draw(known["pipeline"]["networks"], known["stacks"]["networks"])
    if "stack_sizes" in known:
        picture.draw_sizes(known["stack_sizes"]["networks"])
    return PAGE


def _known() -> dict[str, Any]:
    """Returns all figures by the names that the page has for them: those of a GPU are `gpu_pipeline` and so on."""
    of_gpu = sorted((measure.RESULTS / measure.GPU).glob("*.json"))
    known = {file.stem: file for file in sorted(measure.RESULTS.glob("*.json"))}
    known |= {f"{measure.GPU}_{file.stem}": file for file in of_gpu}
    return {name: json.loads(file.read_text()) for name, file in known.items()}
