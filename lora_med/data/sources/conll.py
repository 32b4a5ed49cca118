"""CoNLL files: one token and its tag on each line, an empty line after each sentence; IOB, IOB2 and IOBES.

The first cell is the token and the last the tag (`B-Disease`, `I-`, `E-`, `S-`, `O`), between tabs or blanks. A
sentence is a record, its tokens joined by one blank. This format loses the original spacing, nesting and documents, so
scores on it do not compare with those on PubTator. `-DOCSTART-` lines, if present, make the groups. Otherwise each
sentence is its own group, and only published files keep documents separate. License and citation: those of the corpus.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from lora_med.data.formats.line_blocks import Line, blocks
from lora_med.data.formats.row_fields import Wrong, stem
from lora_med.data.formats.tables import is_encodable
from lora_med.data.outcome import Again, Drop, Input, Outcome, ReadOptions, input_names
from lora_med.data.record import Annotated, Span
from lora_med.errors import DataError
from lora_med.files import archive_errors

TAG = re.compile(r"O|(?P<prefix>[BIES])-(?P<type>\S+)")
BLANKS = re.compile(r"[ \t]+")  # other white space may be a token
DOCUMENT = "-DOCSTART-"
FIX = "fix the sentence, or set data.skip_bad=true (--skip-bad)"


@dataclass(frozen=True, slots=True)
class _Token:
    line: int
    text: str
    tag: str


def read(inputs: Sequence[Input], options: ReadOptions) -> Iterable[Outcome]:
    """The sentences of the files. Drops with an error: bad, damaged_file; a bad sentence does not affect the others."""
    names = input_names(inputs)

    def again() -> Iterator[Outcome]:
        for path in inputs:
            if isinstance(path, Path):
                yield from _file(path, names[path])

    return Again(again)


def _file(path: Path, name: str) -> Iterator[Outcome]:
    document = 0
    try:
        with archive_errors(path):
            for block in blocks(path):
                for begins, lines in _sentences(block):
                    document += begins
                    if not lines:
                        continue
                    try:
                        tokens = [_token(line) for line in lines]
                        yield _record(tokens, name, f"{name}:document {document}" if document else "")
                    except Wrong as wrong:
                        yield Drop("bad", DataError(str(wrong), where=f"{path}:{lines[0].number}", fix=FIX))
    except DataError as error:
        yield Drop("damaged_file", error)


def _sentences(block: Sequence[Line]) -> Iterator[tuple[int, list[Line]]]:
    """The sentences of a block, each with the number of documents that begin before it; a marker may share a block."""
    begins, sentence = 0, list[Line]()
    for line in block:
        if not line.text.startswith(DOCUMENT):
            sentence.append(line)
            continue
        if sentence:
            yield begins, sentence
            begins, sentence = 0, []
        begins += 1
    if sentence or begins:
        yield begins, sentence


def _token(line: Line) -> _Token:
    if not is_encodable(line.text):
        raise Wrong(f"line {line.number} is not UTF-8")
    text = line.text.strip(" \t")
    cells = text.split("\t") if "\t" in text else BLANKS.split(text)
    if len(cells) < 2:
        raise Wrong(f"line {line.number}: expected a token and a tag")
    if TAG.fullmatch(cells[-1]) is None or not cells[0]:
        raise Wrong(f"line {line.number}: expected a token, then O or a tag such as B-Disease")
    return _Token(line.number, cells[0], cells[-1])


def _record(tokens: Sequence[_Token], name: str, document: str) -> Annotated:
    text = " ".join(token.text for token in tokens)
    spans: list[Span] = []
    begin, end, kind = 0, -1, ""  # the open mention, if kind is not empty
    offset = 0
    for token in tokens:
        match = TAG.fullmatch(token.tag)
        prefix, tag_type = (match["prefix"], match["type"]) if match and match["type"] else ("O", "")
        if kind and (prefix in "OBS" or tag_type != kind):
            spans.append(Span(begin, end, kind, text[begin:end]))
            kind = ""
        if tag_type and not kind:
            begin, kind = offset, tag_type
        end = offset + len(token.text)
        if kind and prefix in "ES":
            spans.append(Span(begin, end, kind, text[begin:end]))
            kind = ""
        offset = end + 1
    if kind:
        spans.append(Span(begin, end, kind, text[begin:end]))
    return Annotated(f"conll:{name}:{tokens[0].line}", document or stem(text), "conll", text, tuple(spans))
