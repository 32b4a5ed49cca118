"""A report page as values, and its two formats: self-contained HTML for screen and print, and Markdown."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import jinja2

from lora_med.visible import markdown, visible, visible_value

TEMPLATE = Path(__file__).parents[2] / "assets" / "report" / "page.html.j2"
STYLE = TEMPLATE.with_name("style.css")
Kind = Literal["", "number", "verdict", "better", "worse", "unsure"]


@dataclass(frozen=True)
class Cell:
    """Text in a table, and how it is set.

    `number` is set flush right. `verdict` names the column that stays in view on a narrow screen. `better`, `worse` and
    `unsure` are colored labels.
    """

    text: str
    kind: Kind = ""


@dataclass(frozen=True)
class Table:
    """Columns, rows of cells, a note under them, and the terms of its headings explained as `(term, meaning)`."""

    columns: tuple[Cell, ...]
    rows: tuple[tuple[Cell, ...], ...]
    note: str = ""
    terms: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True)
class Figure:
    """A chart as an SVG element, and its caption."""

    svg: str
    caption: str


@dataclass(frozen=True)
class SampleBox:
    """A prompt, and by name the texts that follow it."""

    heading: str
    prompt: str
    texts: tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class Section:
    """A section of the page: paragraphs, then figures, tables, samples, and commands to type."""

    title: str
    paragraphs: tuple[str, ...] = ()
    figures: tuple[Figure, ...] = ()
    tables: tuple[Table, ...] = ()
    samples: tuple[SampleBox, ...] = ()
    commands: tuple[str, ...] = ()


@dataclass(frozen=True)
class Finding:
    """The verdict of one comparison as a colored label, and the finding in sentences."""

    verdict: Cell
    text: str


@dataclass(frozen=True)
class Page:
    """A complete report: the title, one line on how it was made, the findings, and the sections."""

    title: str
    made: str
    lead: tuple[Finding, ...]
    sections: tuple[Section, ...]


def text_row(*cells: str | Cell) -> tuple[Cell, ...]:
    """A table row from strings and cells."""
    return tuple(cell if isinstance(cell, Cell) else Cell(cell) for cell in cells)


def to_html(page: Page) -> str:
    """One HTML file that contains its styles and charts and fetches nothing."""
    environment = jinja2.Environment(
        autoescape=True, trim_blocks=True, undefined=jinja2.StrictUndefined, finalize=visible_value
    )
    template = environment.from_string(TEMPLATE.read_text(encoding="utf-8"))
    return template.render(page=page, style=STYLE.read_text(encoding="utf-8"))


def to_markdown(page: Page) -> str:
    """The page as Markdown, without its charts; no text in it counts as markup or HTML."""
    lines = [f"# {markdown(page.title)}", "", page.made, "", *(f"{markdown(finding.text)}\n" for finding in page.lead)]
    for section in page.sections:
        lines += [f"## {markdown(section.title)}", ""]
        lines += [f"{markdown(text)}\n" for text in section.paragraphs]
        for table in section.tables:
            lines += [*_markdown_table(table), ""]
        for sample in section.samples:
            lines += [f"**{markdown(sample.heading)}**: {markdown(sample.prompt)}", ""]
            lines += [f"- {markdown(name)}: {markdown(text)}" for name, text in sample.texts] + [""]
        if section.commands:
            lines += ["```", *(visible(command, one_line=True) for command in section.commands), "```", ""]
    return "\n".join(lines).rstrip() + "\n"


def _markdown_table(table: Table) -> list[str]:
    def line(cells: Sequence[str]) -> str:
        return "| " + " | ".join(map(markdown, cells)) + " |"

    rule = "| " + " | ".join("---:" if cell.kind == "number" else "---" for cell in table.columns) + " |"
    rows = [line([cell.text for cell in row]) for row in table.rows]
    note = ["", markdown(table.note)] if table.note else []
    terms = ["", *(f"- **{markdown(term)}**: {markdown(meaning)}" for term, meaning in table.terms)]
    return [line([cell.text for cell in table.columns]), rule, *rows, *note, *(terms if table.terms else [])]
