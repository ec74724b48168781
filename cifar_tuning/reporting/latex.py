"""A report's table as a paper has it: in LaTeX."""

import re
from pathlib import Path

from cifar_tuning.files import write_text
from cifar_tuning.reporting.report import TOP, header, row, what_is_shown
from cifar_tuning.reporting.table import Table

# What pdfLaTeX does not know by itself, or sets narrower or, in its oldest encoding, as another sign.
SIGNS = str.maketrans({"−": "$-$", "±": r"$\pm$", "<": "$<$", ">": "$>$", "|": "$|$"})


def write_latex(table: Table, file: Path) -> Path:
    """Writes the table of the report, to be read by `\\input` into a `table`; it needs the package booktabs."""
    from pandas import DataFrame

    rows = DataFrame([row(c, table) for c in table.configurations[:TOP]], columns=header(table))
    names = len(table.names)
    aligned = "l" * names + "r" * (len(rows.columns) - names)
    tabular = rows.to_latex(index=False, escape=True, column_format=aligned).translate(SIGNS)
    # Behind the end of a row, \\[…] would be a distance, and \\* one that breaks no page.
    tabular = re.sub(r"^(?=[\[*])", "{}", tabular, flags=re.MULTILINE)
    count = len(table.configurations)
    which = f"The {table.leading} {TOP} of {count} configurations. " if count > TOP else ""
    return write_text(file, f"% {which}{what_is_shown(table)} Needs \\usepackage{{booktabs}}.\n{tabular}")
