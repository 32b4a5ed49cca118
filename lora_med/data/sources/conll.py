"""CoNLL files: one token and its tag on each line, an empty line after each sentence.

The schemes are IOB, IOB2, IOBES, BILOU, BMES, and IO with or without prefix. The first cell is the token and the last
the tag (`B-Disease`, `O`), between tabs, blanks, commas or semicolons; the tag may also be first, a column may number
the tokens, and a header line may name the columns (`Sentence #,Word,POS,Tag`). In CoNLL-U the tag is in MISC
(`NER=B-Disease`), or in an eleventh column. If another column looks like tags of entities too, the file is refused
until `data.columns.tag` names one, by its number from 1 or by its header. Comments (`# id 1`) are left out.

A sentence is a record, its tokens joined by one blank. This format loses the original spacing, nesting and documents,
so scores on it do not compare with those on PubTator. Marks of documents (`-DOCSTART-`, `# newdoc`, `###MEDLINE`), if
present, make the groups. Otherwise each sentence is its own group, and only published files keep documents separate.
License and citation: those of the corpus.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from lora_med.data.formats.entities.conll_layout import (
    BLANKS,
    MISC,
    MISC_TAG,
    PREFIXES,
    TAG_LIKE,
    Layout,
    is_mark,
    layout_of,
)
from lora_med.data.formats.entities.token_tags import UnknownTag, is_tag, tagged_text
from lora_med.data.formats.line_blocks import Line, blocks_of, holds_nul, lines
from lora_med.data.formats.row_fields import Wrong, stem
from lora_med.data.formats.tables import is_encodable
from lora_med.data.outcome import Again, Drop, Input, Outcome, ReadOptions, input_names
from lora_med.data.record import Annotated
from lora_med.errors import DataError, SettingsError
from lora_med.files import archive_errors

FIX = "fix the sentence, or set data.skip_bad=true (--skip-bad)"


@dataclass(frozen=True, slots=True)
class _Token:
    line: int
    text: str
    tag: str


def read(inputs: Sequence[Input], options: ReadOptions) -> Iterable[Outcome]:
    """The sentences of the files. Drops with an error: bad, no_tags, unclear_tags, damaged_file."""
    if options.columns.keys() - {"tag"}:
        raise SettingsError(
            "conll has no columns to map; data.columns.tag names the column of tags",
            where="data.columns",
            fix="data.columns.tag=NUMBER, counted from 1, or the header's name",
        )
    names = input_names(inputs)
    encoding, tag = options.table.encoding, options.columns.get("tag")

    def again() -> Iterator[Outcome]:
        for path in inputs:
            if isinstance(path, Path):
                yield from _file(path, names[path], encoding, tag)

    return Again(again)


def _file(path: Path, name: str, encoding: str | None, tag: str | None) -> Iterator[Outcome]:
    try:
        layout = layout_of(path, encoding, tag)
    except DataError as error:
        yield Drop("unclear_tags", error)
        return
    document = 0
    try:
        with archive_errors(path):
            if layout.conllu and not any(MISC_TAG.search(line.text) for line in lines(path, encoding)):
                what = (
                    "CoNLL-U without tags: expected NER=B-Disease in MISC, the tenth column, or an eleventh with tags"
                )
                yield Drop("no_tags", DataError(what, where=str(path), fix="add the tags, or name another source"))
                return
            for block in _blocks(path, encoding, layout):
                for begins, sentence in _sentences(block):
                    document += begins
                    if not sentence:
                        continue
                    group = f"{name}:document {document}" if document else ""
                    try:
                        yield from _records(sentence, layout, name, group)
                    except Wrong as wrong:
                        yield Drop("bad", DataError(str(wrong), where=f"{path}:{sentence[0].number}", fix=FIX))
    except DataError as error:
        yield Drop("damaged_file", error)


def _blocks(path: Path, encoding: str | None, layout: Layout) -> Iterator[list[Line]]:
    """The blocks of a file without its header; those of a table with a column of sentences end where its value does."""
    content = (line for line in lines(path, encoding) if line.number != layout.header)
    if layout.sentence is None:
        separators = f" \t{layout.separator}"
        yield from blocks_of(
            (Line(line.number, line.text if line.text.strip(separators) else "") for line in content), path
        )
        return
    block: list[Line] = []
    current = ""
    for line in content:
        cells = _cells(layout, line)
        value = cells[layout.sentence].strip() if len(cells) > layout.sentence else ""
        if block and ((value and value != current) or not any(cells)):
            yield block
            block = []
        current = value or current
        if any(cells):
            block.append(line)
    if block:
        yield block


def _cells(layout: Layout, line: Line) -> list[str]:
    try:
        return layout.cells(line.text)
    except Wrong:  # the sentence is refused where its tokens are read
        return [line.text]


def _sentences(block: Sequence[Line]) -> Iterator[tuple[int, list[Line]]]:
    """The sentences of a block, each with the number of documents that begin before it; a marker may share a block."""
    begins, sentence = 0, list[Line]()
    for line in block:
        if not is_mark(line):
            sentence.append(line)
            continue
        if sentence:
            yield begins, _without_comments(sentence)
            begins, sentence = 0, []
        begins += 1
    if sentence or begins:
        yield begins, _without_comments(sentence)


def _without_comments(sentence: Sequence[Line]) -> list[Line]:
    """The lines of tokens: a line that begins with # is one only if it is built as the others are."""
    others = [line.text for line in sentence if not line.text.startswith("#")]
    if len(others) == len(sentence):
        return list(sentence)
    has_tabs = any("\t" in text for text in others)
    widths = {len(BLANKS.split(text.strip(" \t"))) for text in others}
    return [
        line
        for line in sentence
        if not line.text.startswith("#") or not _is_comment(line.text, has_tabs=has_tabs, widths=widths)
    ]


def _is_comment(text: str, *, has_tabs: bool, widths: set[int]) -> bool:
    if "\t" in text:
        return " " in text.split("\t")[0]
    cells = BLANKS.split(text.strip(" \t"))
    is_row = "," in text or ";" in text if len(cells) == 1 else TAG_LIKE.fullmatch(cells[-1]) is not None
    return has_tabs or not is_row or bool(widths and len(cells) not in widths)


def _records(sentence: Sequence[Line], layout: Layout, name: str, group: str) -> Iterator[Outcome]:
    tokens = [token for line in sentence if (token := _token(line, layout)) is not None]
    if not tokens:
        return
    try:
        text, spans = tagged_text(
            [token.text for token in tokens], [token.tag for token in tokens], no_prefix=layout.no_prefix
        )
    except UnknownTag as unknown:
        line = tokens[unknown.index].line
        raise Wrong(f"line {line}: expected a token, then O or a tag such as B-Disease") from None
    if layout.document is not None and not group:
        cells = _cells(layout, sentence[0])
        value = cells[layout.document].strip() if len(cells) > layout.document else ""
        group = f"{name}:{value}" if value else ""
    yield Annotated(f"conll:{name}:{tokens[0].line}", group or stem(text), "conll", text, spans)


def _token(line: Line, layout: Layout) -> _Token | None:
    """The token of a line; None for a range of CoNLL-U (1-2), whose words follow, or an empty node (1.1)."""
    if not is_encodable(line.text):
        raise Wrong(f"line {line.number} is not UTF-8: save the file as UTF-8, or name its encoding in data.encoding")
    if nul := holds_nul(line):
        raise Wrong(nul)
    cells = layout.cells(line.text)
    if len(cells) < 2 or len(cells) <= max(layout.token, layout.tag):
        raise Wrong(f"line {line.number}: expected a token and a tag")
    if layout.conllu:
        if len(cells) <= MISC:
            raise Wrong(f"line {line.number}: expected the ten columns of CoNLL-U")
        if not cells[0].isdigit():
            return None
        match = MISC_TAG.search(cells[MISC])
        tag = match[1] if match else "O"
    else:
        tag = cells[layout.tag].strip()
    token = cells[layout.token]
    if tag in PREFIXES and not layout.no_prefix:
        raise Wrong(f"line {line.number}: the tag {tag} has no type: write it as {tag}-Disease")
    if not token.strip(" ") or (not layout.no_prefix and not is_tag(tag)):
        raise Wrong(f"line {line.number}: expected a token, then O or a tag such as B-Disease")
    return _Token(line.number, token, tag)
