"""The text of HTML, of FHIR's XHTML narratives and of the narrative blocks of CDA, as lines.

A paragraph, a heading and an item of a list are a line each, an item with `- ` before it. A row of a table is a line,
its cells separated by ` | `. Pictures, scripts and what CDA marks as deleted are left out. Narrative block:
https://hl7.org/cda/stds/core (StrucDoc.Text); XHTML: https://hl7.org/fhir/R4/narrative.html.
"""

from __future__ import annotations

import re
from typing import Any

from lxml import etree  # pyright: ignore[reportAttributeAccessIssue]

BLOCKS = {
    *("p", "div", "paragraph", "li", "item", "tr", "caption", "table", "thead", "tbody", "tfoot", "ul", "ol", "list"),
    *("dl", "dt", "dd", "h1", "h2", "h3", "h4", "h5", "h6", "blockquote", "pre", "section", "article", "header"),
    *("footer", "address", "hr", "br", "title", "fieldset", "form", "main", "aside", "figure"),
}
ITEMS, CELLS, ROW = {"li", "item"}, {"td", "th"}, "tr"
SKIPPED = {"script", "style", "head", "rendermultimedia", "img", "noscript", "template", "object", "svg"}
SPACES = re.compile(r"[ \t\r\n\f\u00a0]+")


def html_lines(text: str) -> str:
    """The lines of an HTML or XHTML text; empty where it shows none. Nothing that it names is fetched."""
    parser = etree.HTMLParser(encoding="utf-8", no_network=True, remove_comments=True, remove_pis=True)
    try:
        root = etree.fromstring(text.encode("utf-8", "replace"), parser)
    except (etree.XMLSyntaxError, ValueError):  # nothing but blanks or comments
        return ""
    return "" if root is None else markup_lines(root)


def markup_lines(root: Any) -> str:
    """The lines below an element, in order."""
    if len(root) == 0:  # plain text: its own line breaks are all there is
        lines = (SPACES.sub(" ", line).strip() for line in (root.text or "").splitlines())
        return re.sub(r"\n{3,}", "\n\n", "\n".join(lines)).strip()
    lines = _Lines()
    walker = etree.iterwalk(root, events=("start", "end"))
    for event, node in walker:
        name = local_name(node).lower()
        if event == "start":
            if name in SKIPPED or node.get("revised") == "delete":
                walker.skip_subtree()
                continue
            lines.begin(name)
            lines.add(node.text)
        else:
            if name not in SKIPPED:
                lines.end(name)
            if node is not root:
                lines.add(node.tail)
    lines.flush()
    return "\n".join(lines.lines)


def local_name(node: Any) -> str:
    """An element's name without its namespace or prefix."""
    return str(node.tag).rpartition("}")[2].rpartition(":")[2]


class _Lines:
    """Lines while they are written; `_cell` is the depth of table cells, within which a block begins no line."""

    def __init__(self) -> None:
        self.lines: list[str] = []
        self._pieces: list[str] = []
        self._mark = ""
        self._cell = self._cells = self._verbatim = 0

    def begin(self, name: str) -> None:
        if name in CELLS:
            self._pieces.append(" | " if self._cells else "")
            self._cells += 1
            self._cell += 1
        elif name in BLOCKS:
            self._break()
            if name in ITEMS and not self._cell:
                self._mark = "- "
            if name == ROW and not self._cell:
                self._cells = 0
        self._verbatim += name == "pre"

    def end(self, name: str) -> None:
        if name in CELLS:
            self._cell = max(0, self._cell - 1)
        elif name in BLOCKS:
            self._break()
            if name in ITEMS:
                self._mark = ""
        self._verbatim -= name == "pre"

    def add(self, text: str | None) -> None:
        if not text:
            return
        if self._verbatim and not self._cell:
            for number, line in enumerate(text.replace("\r\n", "\n").split("\n")):
                if number:
                    self.flush()
                self._pieces.append(line)
        else:
            self._pieces.append(text)

    def flush(self) -> None:
        text = "".join(self._pieces)
        text = text.rstrip() if self._verbatim else SPACES.sub(" ", text).strip()
        if text.strip(" |"):
            self.lines.append(self._mark + text)
            self._mark = ""
        self._pieces.clear()

    def _break(self) -> None:
        if self._cell:
            self._pieces.append(" ")
        else:
            self.flush()
