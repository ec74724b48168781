"""A report in Markdown, part by part, and the single HTML file made of it, which needs no network."""

import base64
import html
import re
from collections.abc import Sequence
from pathlib import Path

PAGE = """<!DOCTYPE html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}</title>
<meta name="color-scheme" content="light dark">
<style>
:root {{ color-scheme: light dark; --soft: light-dark(#f5f5f5, #262626); --line: light-dark(#ddd, #444); }}
body {{ font: 16px/1.5 system-ui, sans-serif; margin: 2rem auto; max-width: 60rem; padding: 0 1rem; }}
body {{ color: light-dark(#222, #ddd); background: light-dark(#fff, #171717); overflow-wrap: anywhere; }}
h1, h2, h3 {{ line-height: 1.2; }} h2 {{ margin-top: 2.5rem; border-bottom: 1px solid var(--line); }}
h2 {{ padding-bottom: .3rem; }} ul {{ padding-left: 1.5rem; }}
.table {{ overflow-x: auto; }} table {{ border-collapse: collapse; font-size: .9rem; }}
table {{ font-variant-numeric: tabular-nums; }} th, td {{ padding: .25rem .7rem; vertical-align: top; }}
th, td {{ min-width: 5rem; max-width: 16rem; border-bottom: 1px solid var(--line); text-align: left; }}
th {{ border-bottom: 2px solid #999; vertical-align: bottom; overflow-wrap: break-word; }}
[style*=right] {{ min-width: 0; max-width: none; white-space: nowrap; }}
.ranked .table:first-of-type tbody tr:first-child {{ font-weight: 600; }}
pre, code {{ background: var(--soft); }} pre {{ padding: .8rem; font-size: .85rem; white-space: pre-wrap; }}
figure {{ margin: 1rem 0; }} img {{ max-width: 100%; background: #fff; vertical-align: top; }}
figcaption {{ font-size: .9rem; color: light-dark(#555, #aaa); }}
@media screen and (max-width: 40rem) {{ .picture {{ overflow-x: auto; }} img {{ max-width: none; width: 42rem; }} }}
@media print {{ body {{ max-width: none; margin: 0; font-size: 10pt; }} figure, tr, pre {{ break-inside: avoid; }} }}
@media print {{ h2, h3 {{ break-after: avoid; }} .table {{ overflow: visible; }} }}
@media print {{ table {{ font-size: .8rem; }} th, td {{ min-width: 3rem; padding: .2rem .4rem; }} }}
</style></head>
<body{kind}><main>
{body}
</main></body></html>
"""
# What is wider than the page is scrolled, with a keyboard too, which a screen reader has to call something.
SCROLLED = '<div class="{0}" tabindex="0" role="group" aria-label="{0}">'
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
    fence = "`" * max([3, *(len(ticks) + 1 for ticks in re.findall("`+", text))])
    return f"{fence}{language}\n{text.rstrip()}\n{fence}"


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
        return f"<figure>{SCROLLED.format('picture')}{image}</div><figcaption>{found[2]}</figcaption></figure>"

    markdown = MarkdownIt("zero").enable(RULES)
    # The report's own, and no others: names and values come out of a store that strangers may write to.
    pictures = {file.name for file in folder.glob("*.png")}
    markdown.validateLink = lambda url: url in pictures  # type: ignore[method-assign]
    page: str = markdown.render(text)
    page = page.replace("<table>", f"{SCROLLED.format('table')}<table>").replace("</table>", "</table></div>")
    page = re.sub(r"(?<=>)[^<]+(?=</th>)", lambda name: re.sub(r"(?<=[./_])(?=\w)", "<wbr>", name[0]), page)
    return re.sub(r'<p><img src="([^"]+)" alt="([^"]*)"></p>', held, page)
