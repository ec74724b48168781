"""A report in Markdown, part by part, and the single HTML file made of it, which needs no network."""

import base64
import html
import re
from collections.abc import Sequence
from pathlib import Path

PAGE = """<!DOCTYPE html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}</title>
<style>
body {{ font: 16px/1.5 system-ui, sans-serif; margin: 2rem auto; max-width: 60rem; padding: 0 1rem; color: #222; }}
h1, h2 {{ line-height: 1.2; }} h2 {{ margin-top: 2.5rem; border-bottom: 1px solid #ddd; padding-bottom: .3rem; }}
table {{ border-collapse: collapse; font-size: .9rem; font-variant-numeric: tabular-nums; }}
table {{ display: block; overflow-x: auto; }} th, td {{ padding: .25rem .7rem; border-bottom: 1px solid #e3e3e3; }}
th {{ border-bottom: 2px solid #999; text-align: left; }}
.ranked table:first-of-type tbody tr:first-child {{ font-weight: 600; }}
pre {{ background: #f5f5f5; padding: .8rem; font-size: .85rem; white-space: pre-wrap; overflow-wrap: anywhere; }}
code {{ background: #f5f5f5; }} img {{ max-width: 100%; }} figcaption {{ font-size: .9rem; color: #555; }}
figure {{ margin: 1rem 0; }}
</style></head>
<body{kind}>
{body}
</body></html>
"""
# What a report is written with. All else that Markdown knows stays as it is: names have underscores and asterisks.
RULES = ["heading", "list", "fence", "table", "backticks", "image"]


def heading(text: str, level: int = 2) -> str:
    """Returns a heading; level 1 is the title."""
    return f"{'#' * level} {text}"


def items(texts: Sequence[str]) -> str:
    """Returns a list of sentences."""
    return "\n".join(f"- {text}" for text in texts)


def code(text: str, language: str) -> str:
    """Returns something to copy, as it is, with the language that it is highlighted in."""
    return f"```{language}\n{text.rstrip()}\n```"


def grid(header: Sequence[str], rows: Sequence[Sequence[str]], left: int) -> str:
    """Returns a table.

    Args:
        header: the columns' names.
        rows: their cells.
        left: how many columns, from the left, are text; the others are numbers.
    """
    rules = ["---" if place < left else "---:" for place in range(len(header))]
    cells = ([cell.replace("|", "\\|") for cell in row] for row in (header, rules, *rows))
    return "\n".join(f"| {' | '.join(row)} |" for row in cells)


def picture(file: Path, caption: str) -> str:
    """Returns a PNG that lies beside the report; the HTML file is going to hold it."""
    return f"![{caption}]({file.name})"


def write(parts: Sequence[str], folder: Path, ranked: bool = False) -> None:
    """Writes `report.md` and `report.html`.

    Args:
        parts: of the report, the title first.
        folder: where to; the pictures are there already.
        ranked: whether the first row of the first table is the best.
    """
    text = "\n\n".join(parts) + "\n"
    (folder / "report.md").write_text(text, encoding="utf-8")
    title, kind = html.escape(parts[0].lstrip("# ")), ' class="ranked"' if ranked else ""
    page = PAGE.format(title=title, kind=kind, body=_as_html(text, folder))
    (folder / "report.html").write_text(page, encoding="utf-8")


def _as_html(text: str, folder: Path) -> str:
    from markdown_it import MarkdownIt

    def held(found: re.Match[str]) -> str:
        data = base64.b64encode((folder / found[1]).read_bytes()).decode()
        image = f'<img alt="{found[2]}" src="data:image/png;base64,{data}">'
        return f"<figure>{image}<figcaption>{found[2]}</figcaption></figure>"

    page: str = MarkdownIt("zero").enable(RULES).render(text)
    return re.sub(r'<p><img src="([^"]+)" alt="([^"]*)"></p>', held, page)
