"""How a CoNLL file is laid out: its separator, a header, and the columns of tokens, tags, sentences and documents.

The file itself shows it: a header line of known names; ten columns with a number each (CoNLL-U); a first column of
numbers, of the tokens or of the sentences; tags in the first column and not in the last; tags without prefix beside O.
"""

from __future__ import annotations

import csv
import itertools
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from lora_med.data.formats.entities.token_tags import is_tag
from lora_med.data.formats.line_blocks import Line, lines
from lora_med.data.formats.row_fields import Wrong
from lora_med.errors import DataError, SettingsError
from lora_med.files import archive_errors

BLANKS = re.compile(r"[ \t]+")  # other white space may be a token
DOCUMENT = re.compile(r"-DOCSTART-|###MEDLINE|# ?newdoc\b")
TAG_LIKE = re.compile(r"O|[A-Za-z]-\S+")
PLAIN_TYPE = re.compile(r"[A-Za-z][\w/&+-]*")
OTHER_SCHEME = re.compile(r"[BIMELSUW][^A-Za-z0-9].*|.*[^A-Za-z0-9][BIMELSUW]")  # B_Disease, Disease-B
QUOTED = re.compile(r'"(?:[^"]|"")*""(?:[^"]|"")*"')  # quotes that a quote within made necessary
NUMBER = re.compile(r"\d{1,9}(?:[-.]\d{1,9})?", re.ASCII)  # 1, the range 1-2, the empty node 1.1
MISC_TAG = re.compile(r"(?:^|[|\t])(?:NER|NE|BIO)=([^|\t]*)", re.IGNORECASE)
CONLLU_COLUMNS, MISC = 10, 9
PREFIXES = set("BIMELSUW")
PHRASES = {"NP", "VP", "PP", "ADVP", "ADJP", "SBAR", "PRT", "CONJP", "INTJ", "LST", "UCP"}
SAMPLE_LINES = 2000
MOST_TYPES = 50
TOKENS = ("token", "tokens", "word", "words", "form", "text")
TAGS = ("ner_tags", "ner_tag", "ner", "ne", "iob", "bio", "bio_tag", "tag", "tags", "label", "labels", "entity")
SENTENCES = ("sentence #", "sentence", "sentence_id", "sentence id", "sentence_idx", "sent_id", "sent")
DOCUMENTS = ("document", "document_id", "doc_id", "doc", "note_id", "pmid")


@dataclass(frozen=True, slots=True)
class Layout:
    """The columns of a file; `header` is the number of its header's line, 0 for none.

    `separator` is empty where each line shows its own: tabs, or else blanks. `no_prefix`: tags are types, without B- or
    I-. `conllu`: the tag is in the column MISC.
    """

    separator: str = ""
    header: int = 0
    token: int = 0
    tag: int = -1
    sentence: int | None = None
    document: int | None = None
    no_prefix: bool = False
    conllu: bool = False

    def cells(self, text: str) -> list[str]:
        """The cells of a line.

        Raises:
            Wrong: the line is no row of a table.
        """
        if self.separator in (",", ";"):
            try:
                return next(csv.reader([text], delimiter=self.separator), [])
            except csv.Error:
                raise Wrong("expected cells between separators") from None
        if not self.header:
            text = text.strip(" \t")
        if "\t" in text:
            return [_unquoted(cell) for cell in text.split("\t")]
        return BLANKS.split(text)


def _unquoted(cell: str) -> str:
    return cell[1:-1].replace('""', '"') if cell.startswith('"') and QUOTED.fullmatch(cell) else cell


def layout_of(path: Path, encoding: str | None, tag: str | None = None) -> Layout:
    """The layout that the first lines of a file show; `tag` names the column of tags, by its header or number from 1.

    Raises:
        SettingsError: there is no column `tag`.
        DataError: several columns look like tags, and neither `tag` nor a header says which.
    """
    sample = _sample(path, encoding)
    table = [line for line in sample if line.text.strip() and not line.text.startswith("#") and not is_mark(line)]
    if not table:
        return Layout()
    first = table[0]
    layout = _header(first) or _without_header(table)
    if layout.header:
        table = table[1:]
    elif not layout.conllu:
        layout = _with_numbers(sample, table, layout)
    rows = [cells for line in table if len(cells := _safe_cells(layout, line)) > 1]
    if tag is not None:
        layout = _with_tags_in(tag, layout, _safe_cells(layout, first), rows, path)
    elif not layout.header and not layout.conllu:
        _refuse_other_tags(layout, rows, path)
    tags = {cells[layout.tag] for cells in rows if len(cells) > layout.tag}
    if tags and not layout.conllu and not any(tag != "O" and is_tag(tag) for tag in tags) and tags != {"O"}:
        return replace(layout, no_prefix=_has_plain_types(path, encoding, layout))
    return layout


def _with_tags_in(tag: str, layout: Layout, names: Sequence[str], rows: Sequence[Sequence[str]], path: Path) -> Layout:
    if layout.header and tag in names:
        return replace(layout, tag=names.index(tag))
    width = len(rows[0]) if rows else 0
    number = int(tag) if tag.isascii() and tag.isdigit() and len(tag) < 10 else 0
    if not 0 < number <= width or number - 1 == layout.token:
        what = f"no column {tag!r}: the first row has {width}"
        fix = "data.columns.tag is the number of the column of tags, from 1, or its name in the header"
        raise SettingsError(what, where=f"data.columns.tag, {path}", fix=fix)
    return replace(layout, tag=number - 1, conllu=False)


def _refuse_other_tags(layout: Layout, rows: Sequence[Sequence[str]], path: Path) -> None:
    """Refuse a file in which columns other than the one that is read look like tags of entities."""
    width = len(rows[0]) if rows else 0
    columns = list(zip(*(row for row in rows if len(row) == width), strict=True))
    read = layout.tag % width if width else 0
    places = [place for place in range(width) if place not in (layout.token, layout.sentence, layout.document)]
    marked = [place for place in places if place != read and _marks_entities(columns[place])]
    if marked:
        numbers = [
            place for place in range(width) if place in marked or (place == read and all(map(is_tag, columns[read])))
        ]
        listed = " and ".join(str(place + 1) for place in numbers)
        what = (
            f"columns {listed} look like tags" if len(numbers) > 1 else f"column {listed} looks like tags, not the last"
        )
        fix = f"name the one to read: data.columns.tag={numbers[0] + 1} (--column tag={numbers[0] + 1})"
        raise DataError(what, where=str(path), fix=fix)


def _marks_entities(column: Sequence[str]) -> bool:
    """Whether a column holds tags, and not those of phrases, which CoNLL's files of 2000 and 2003 have too."""
    types = {cell.partition("-")[2] for cell in column if cell != "O"}
    return all(map(is_tag, column)) and bool(types) and not types <= PHRASES


def is_mark(line: Line) -> bool:
    """Whether a line begins a document."""
    return DOCUMENT.match(line.text) is not None


def _sample(path: Path, encoding: str | None) -> list[Line]:
    """The first lines; a damaged file's are those before the damage."""
    sample: list[Line] = []
    try:
        with archive_errors(path):
            sample.extend(itertools.islice(lines(path, encoding), SAMPLE_LINES))
    except DataError:  # the reader meets it again, and names it
        pass
    return sample


def _safe_cells(layout: Layout, line: Line) -> list[str]:
    try:
        return [cell.strip() for cell in layout.cells(line.text)]
    except Wrong:
        return []


def _header(line: Line) -> Layout | None:
    """The layout that a header line names; None if the line is none."""
    for separator in ("\t", ",", ";", ""):
        layout = Layout(separator, header=line.number)
        names = [name.lower() for name in _safe_cells(layout, line)]
        token, tag = _position(names, TOKENS), _position(names, TAGS)
        if token is not None and tag is not None and not is_tag(names[-1].upper()):
            sentence, document = _position(names, SENTENCES), _position(names, DOCUMENTS)
            return replace(layout, token=token, tag=tag, sentence=sentence, document=document)
    return None


def _position(names: Sequence[str], known: Sequence[str]) -> int | None:
    return next((names.index(name) for name in known if name in names), None)


def _without_header(table: Sequence[Line]) -> Layout:
    rows = [line.text.split("\t") for line in table]
    if all(len(row) >= CONLLU_COLUMNS and NUMBER.fullmatch(row[0]) for row in rows):
        tags_last = all(is_tag(row[-1].strip()) for row in rows)
        return Layout("\t", token=1, conllu=not tags_last)
    for separator in ("", ",", ";"):
        layout = Layout(separator)
        cells = [row for line in table if len(row := _safe_cells(layout, line)) > 1]
        if cells and is_tag(cells[0][-1]):
            return layout
        if cells and len(cells) == len(table) and all(len(row) == 2 and is_tag(row[0]) for row in cells):
            return replace(layout, token=1, tag=0)
    return Layout()


def _with_numbers(sample: Sequence[Line], table: Sequence[Line], layout: Layout) -> Layout:
    """The layout of a table of three or more columns whose first holds numbers: of tokens, or of sentences."""
    rows = [_safe_cells(layout, line) for line in table]
    numbers = [row[0] for row in rows if len(row) > 2 and row[0].isascii() and row[0].isdigit()]
    if len(numbers) < 2 or len(numbers) < len(rows):
        return layout
    repeats = any(first == second for first, second in itertools.pairwise(numbers))
    has_empty_lines = any(not line.text.strip(" \t") for line in sample[table[0].number : table[-1].number])
    return replace(layout, token=1, sentence=0 if repeats and not has_empty_lines else None)


def _has_plain_types(path: Path, encoding: str | None, layout: Layout) -> bool:
    """Whether all tags of a file are O or one of few words, and O is one of them: types without a prefix."""
    tags: set[str] = set()
    try:
        with archive_errors(path):
            for line in lines(path, encoding):
                if not line.text.strip() or line.text.startswith("#") or is_mark(line) or line.number == layout.header:
                    continue
                cells = _safe_cells(layout, line)
                tags.add(cells[layout.tag] if len(cells) > 1 else "")
                if len(tags) > MOST_TYPES:
                    return False
    except DataError:
        return False
    types = tags - {"O"}
    if types <= PREFIXES:  # B and I without a type
        return False
    return "O" in tags and all(PLAIN_TYPE.fullmatch(name) and not OTHER_SCHEME.fullmatch(name) for name in types)
