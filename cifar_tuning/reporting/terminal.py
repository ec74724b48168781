"""A report's summary on the terminal."""

from contextlib import suppress
from pathlib import Path
from typing import Literal

from cifar_tuning.reporting.interactions import Interaction
from cifar_tuning.reporting.report import Material, header, row
from cifar_tuning.reporting.summary import open_console
from cifar_tuning.text import counted, with_comment

TOP = 5
# Sentences that are shown; the report has all.
SENTENCES = 6


def print_report(material: Material, folder: Path) -> None:
    """Prints the best configurations, the first comparisons, what is missing, and where the files are."""
    from rich.table import Table as Grid

    console = open_console()
    table = material.table
    count = len(table.configurations)
    title = material.title
    grid = Grid(title=f"{title}: the {table.leading} {TOP} of {count}" if count > TOP else title)
    for place, name in enumerate(header(table)):
        justify: Literal["left", "right"] = "left" if place < len(table.names) else "right"
        whole = name == table.metric  # on a narrow terminal, too
        grid.add_column(name, justify=justify, overflow="fold", no_wrap=whole)
    for place, configuration in enumerate(table.configurations[:TOP]):
        grid.add_row(*row(configuration, table), style="bold" if place == 0 and table.has_best else None)
    console.print(grid)
    for sentence in material.retrained:
        console.print(sentence.replace("`", ""), soft_wrap=True)
    sentences = [one.text for one in material.effects if not isinstance(one, Interaction) or one.sure]
    for sentence in sentences[:SENTENCES]:
        console.print(sentence, soft_wrap=True)
    if len(sentences) > SENTENCES:
        console.print(f"… and {counted(len(sentences) - SENTENCES, 'comparison')} more in the report")
    for note in material.notes:
        console.print(f"note: {note.replace('`', '')}", soft_wrap=True)
    if material.command is not None:
        console.print("The best configuration once more:", style="bold")
        console.print(f"  {material.command}", soft_wrap=True)
    if material.export is not None:
        console.print(f"  {with_comment(material.export, 'the same as an overlay')}", soft_wrap=True)
    print_files(folder)


def print_files(folder: Path) -> None:
    """Prints where a report is."""
    with suppress(ValueError):
        folder = folder.resolve().relative_to(Path.cwd())
    print(f"The report: {folder / 'report.html'} (one file), {folder / 'report.md'} (with its pictures)")
