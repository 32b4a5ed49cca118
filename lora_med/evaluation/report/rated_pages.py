"""Blind ratings in report.html and report.md: their verdicts, and those of the other comparisons beside them.

The pages of `lora-med eval` stay as they are, since they were drawn from answers that no file holds as a whole. One
section is put before their findings (in report.md at the end), because a further test may take a finding back.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import jinja2

from lora_med.evaluation.report.charts import VERDICT_KINDS
from lora_med.files import readable, write_atomic
from lora_med.visible import markdown, visible_value

TEMPLATE = Path(__file__).parents[2] / "assets" / "report" / "blind_rating.html.j2"
BEGIN, END, BEFORE = '<section id="blind-rating">', "</section>\n", '<div class="lead">'
TITLE = "## Blind rating"
NOTE = (
    "These are all tests of the report, with p adjusted for their number (Holm). Where a verdict here differs from one "
    "below, this one holds."
)


def write_ratings(folder: Path, ratings: Sequence[Mapping[str, Any]], comparisons: Sequence[Mapping[str, Any]]) -> None:
    """Put the section into the pages in `folder`, in place of an earlier one; a page that is not there is left out.

    Args:
        ratings, comparisons: as report.json has them.

    Raises:
        DiskError, OutputError: a page cannot be written; it is as it was.
    """
    titles = [f"Blind rating: {each['adapter']} against {each['against']}" for each in ratings]
    lines = [(str(each["verdict"]), _line(each)) for each in comparisons]
    _rewrite(folder / "report.html", lambda text: _in_html(text, ratings, titles, lines))
    _rewrite(folder / "report.md", lambda text: _in_markdown(text, ratings, titles, lines))


def _rewrite(path: Path, change: Callable[[str], str]) -> None:
    if not path.is_file():
        return
    with readable(path):
        text = path.read_text(encoding="utf-8", errors="surrogateescape")
        is_private = not path.stat().st_mode & 0o077
    changed = change(text)
    if changed != text:
        write_atomic(path, changed.encode("utf-8", "surrogateescape"), private=is_private)


def _line(comparison: Mapping[str, Any]) -> str:
    adjusted = comparison["adjusted"]
    p_value = "no test" if adjusted is None else f"p = {adjusted:.3g} after Holm"
    names = (comparison[name] for name in ("adapter", "measure", "source", "template"))
    return f"{', '.join(map(str, names))}: {p_value} ({comparison['test']})"


def _in_html(
    text: str, ratings: Sequence[Mapping[str, Any]], titles: Sequence[str], lines: Sequence[tuple[str, str]]
) -> str:
    """The page with the section before its findings; a page without findings is left as it is."""
    start = text.find(BEGIN)
    if start >= 0:
        text = text[:start] + text[text.index(END, start) + len(END) :]
    environment = jinja2.Environment(
        autoescape=True, trim_blocks=True, undefined=jinja2.StrictUndefined, finalize=visible_value
    )
    section = environment.from_string(TEMPLATE.read_text(encoding="utf-8")).render(
        ratings=[
            {"title": title, "sentences": rating["sentences"]} for title, rating in zip(titles, ratings, strict=True)
        ],
        note=NOTE,
        comparisons=[
            {"verdict": verdict, "kind": VERDICT_KINDS.get(verdict, "unsure"), "text": line} for verdict, line in lines
        ],
    )
    return text.replace(BEFORE, f"{section}\n{BEFORE}", 1)


def _in_markdown(
    text: str, ratings: Sequence[Mapping[str, Any]], titles: Sequence[str], lines: Sequence[tuple[str, str]]
) -> str:
    """The page with the section at its end."""
    own = text.partition(f"\n{TITLE}\n")[0].rstrip()
    section = [TITLE, ""]
    for title, rating in zip(titles, ratings, strict=True):
        section += [f"### {markdown(title)}", "", *(f"- {markdown(str(each))}" for each in rating["sentences"]), ""]
    section += [NOTE.replace("below", "above"), "", *(f"- {verdict}: {markdown(line)}" for verdict, line in lines)]
    return "\n".join([own, "", *section, ""])
