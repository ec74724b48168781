"""A report as a list of blocks, written as Markdown and as a single HTML file that needs no network."""

import base64
import html
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

PAGE = """<!DOCTYPE html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}</title>
<style>
body {{ font: 16px/1.5 system-ui, sans-serif; margin: 2rem auto; max-width: 60rem; padding: 0 1rem; color: #222; }}
h1, h2 {{ line-height: 1.2; }} h2 {{ margin-top: 2.5rem; border-bottom: 1px solid #ddd; padding-bottom: .3rem; }}
table {{ border-collapse: collapse; font-size: .9rem; font-variant-numeric: tabular-nums; }}
.wide {{ overflow-x: auto; }} th, td {{ padding: .25rem .7rem; border-bottom: 1px solid #e3e3e3; text-align: right; }}
th {{ border-bottom: 2px solid #999; }} .text {{ text-align: left; }} .best tr:first-child td {{ font-weight: 600; }}
pre {{ background: #f5f5f5; padding: .8rem; font-size: .85rem; white-space: pre-wrap; overflow-wrap: anywhere; }}
code {{ background: #f5f5f5; }} img {{ max-width: 100%; }} figcaption {{ font-size: .9rem; color: #555; }}
figure {{ margin: 1rem 0; }}
</style></head>
<body>
{body}
</body></html>
"""


class Block(Protocol):
    """A part of a report."""

    def markdown(self) -> str:
        """As Markdown."""

    def html(self) -> str:
        """As HTML."""


@dataclass(frozen=True)
class Heading:
    """A heading.

    Args:
        text: plain.
        level: 1 for the title.
    """

    text: str
    level: int = 2

    def markdown(self) -> str:
        """As Markdown."""
        return f"{'#' * self.level} {self.text}"

    def html(self) -> str:
        """As HTML."""
        return f"<h{self.level}>{html.escape(self.text)}</h{self.level}>"


@dataclass(frozen=True)
class Text:
    """A paragraph; only `code` is marked up."""

    text: str

    def markdown(self) -> str:
        """As Markdown."""
        return self.text

    def html(self) -> str:
        """As HTML."""
        return f"<p>{_inline(self.text)}</p>"


@dataclass(frozen=True)
class Items:
    """A list of sentences."""

    texts: Sequence[str]

    def markdown(self) -> str:
        """As Markdown."""
        return "\n".join(f"- {text}" for text in self.texts)

    def html(self) -> str:
        """As HTML."""
        return "<ul>" + "".join(f"<li>{_inline(text)}</li>" for text in self.texts) + "</ul>"


@dataclass(frozen=True)
class Code:
    """Something to copy.

    Args:
        text: as it is.
        language: for highlighting in Markdown.
    """

    text: str
    language: str = ""

    def markdown(self) -> str:
        """As Markdown."""
        return f"```{self.language}\n{self.text.rstrip()}\n```"

    def html(self) -> str:
        """As HTML."""
        return f"<pre>{html.escape(self.text.rstrip())}</pre>"


@dataclass(frozen=True)
class Grid:
    """A table.

    Args:
        header: the columns' names.
        rows: their cells.
        left: how many columns, from the left, are text; the others are numbers.
        ranked: the first row is the best.
    """

    header: Sequence[str]
    rows: Sequence[Sequence[str]]
    left: int = 0
    ranked: bool = False

    def markdown(self) -> str:
        """As Markdown."""
        rules = ["---" if place < self.left else "---:" for place in range(len(self.header))]
        return "\n".join(f"| {' | '.join(map(_cell, row))} |" for row in (self.header, rules, *self.rows))

    def html(self) -> str:
        """As HTML."""
        head = "".join(self._td("th", place, text) for place, text in enumerate(self.header))
        body = "".join(
            "<tr>" + "".join(self._td("td", place, text) for place, text in enumerate(row)) + "</tr>"
            for row in self.rows
        )
        kind = ' class="best"' if self.ranked else ""
        return f'<div class="wide"><table{kind}><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>'

    def _td(self, tag: str, place: int, text: str) -> str:
        kind = ' class="text"' if place < self.left else ""
        return f"<{tag}{kind}>{html.escape(text)}</{tag}>"


@dataclass(frozen=True)
class Picture:
    """A PNG beside the report; the HTML file holds it.

    Args:
        file: where it is while the report is written.
        caption: what it shows.
    """

    file: Path
    caption: str

    def markdown(self) -> str:
        """As Markdown."""
        return f"![{self.caption}]({self.file.name})"

    def html(self) -> str:
        """As HTML."""
        data = base64.b64encode(self.file.read_bytes()).decode()
        caption = html.escape(self.caption)
        image = f'<img alt="{caption}" src="data:image/png;base64,{data}">'
        return f"<figure>{image}<figcaption>{caption}</figcaption></figure>"


def write(blocks: Sequence[Block], folder: Path, name: str = "report") -> list[Path]:
    """Writes `report.md` and `report.html`; the pictures must be in the same folder."""
    title = next((block.text for block in blocks if isinstance(block, Heading)), name)
    markdown, page = folder / f"{name}.md", folder / f"{name}.html"
    markdown.write_text("\n\n".join(block.markdown() for block in blocks) + "\n", encoding="utf-8")
    body = "\n".join(block.html() for block in blocks)
    page.write_text(PAGE.format(title=html.escape(title), body=body), encoding="utf-8")
    return [markdown, page]


def _cell(text: str) -> str:
    return text.replace("|", "\\|")


def _inline(text: str) -> str:
    return re.sub(r"`([^`]+)`", r"<code>\1</code>", html.escape(text))
