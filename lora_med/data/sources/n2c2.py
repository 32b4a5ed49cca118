"""n2c2 and i2b2: clinical notes with annotations, in the three forms in which the challenges published them.

    XML              <TEXT>, and <TAGS> with start, end and text each (2012, 2014, 2016); the type is the attribute TYPE
    .con and .txt    concepts by line and word, `c="fever" 12:3 12:3||t="problem"` (2010)
    .ann and .txt    brat's format (2018, 2022)

Each note is one Annotated. Offsets of 2012 count from one; a note's own texts prove it. Tags without offsets state
something of the note as a whole: they are counted, and a note that has only those is refused. Files of 2014 are named
after patient and record (`110-01.xml`): their group is the patient; otherwise it is the file.

License: the data use agreement of Harvard's DBMI portal; the class is credentialed. Uzuner et al. 2011,
https://doi.org/10.1136/amiajnl-2011-000203; Stubbs et al. 2015, https://doi.org/10.1016/j.jbi.2015.06.007.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from lora_med.data.formats.archives import FIX, Document, documents, xml_root
from lora_med.data.formats.entities.mentions import Mention, place_mentions
from lora_med.data.formats.entities.standoff import (
    MARK,
    TextPair,
    ending,
    half,
    pair_names,
    pairs,
    read_brat,
    read_text,
)
from lora_med.data.formats.row_fields import Wrong
from lora_med.data.outcome import Again, Drop, Input, Outcome, PartDrop, ReadOptions, input_names
from lora_med.data.record import Annotated, Span
from lora_med.errors import DataError, SettingsError

SUFFIXES = (".xml",)
PATIENT_AND_RECORD = re.compile(r"(\d+)-(\d+)", re.ASCII)
CONCEPT = re.compile(r'c="(?P<text>.*)" (?P<words>\d{1,9}:\d{1,9} \d{1,9}:\d{1,9})\|\|t="(?P<type>[^"]+)"\s*', re.ASCII)
WORD = re.compile(r"\S+")
PIECES = re.compile(r"(\d{1,9})~(\d{1,9})", re.ASCII)
FOLDERS = ("txt", "concept", "concepts")  # beside each other in 2010

TEXTS = (".txt", ".con", ".ann")


def read(inputs: Sequence[Input], options: ReadOptions) -> Iterable[Outcome]:
    """The notes of the files. Drops: no_text; with an error: bad, not_annotated, no_text_file, damaged_file."""

    if options.table.encoding is not None:
        _refuse_encoding(inputs)

    def again() -> Iterator[Outcome]:
        paths = [path for path in inputs if isinstance(path, Path)]
        names = input_names(paths)
        for path in paths:
            if ending(path) not in TEXTS:
                for document in documents(path, SUFFIXES):
                    yield from _notes(document, path, names[path]) if isinstance(document, Document) else [document]
        yield from _pairs([path for path in paths if ending(path) in TEXTS], options.table.encoding)

    return Again(again)


def _refuse_encoding(inputs: Sequence[Input]) -> None:
    """Refuse an encoding for XML, which states its own."""
    xml = next((path for path in inputs if isinstance(path, Path) and ending(path) not in TEXTS), None)
    if xml is not None:
        raise SettingsError(
            f"data.encoding is for texts with annotations beside them, and {xml.name} states its own",
            where="data.encoding (--encoding)",
            fix="leave it out, or set it to null",
        )


def _pairs(paths: Sequence[Path], encoding: str | None) -> Iterator[Outcome]:
    """Texts with concepts, and with brat's annotations; a text with neither is refused once."""
    concepts = pairs(paths, ".con", FOLDERS)
    standoff = pairs(paths, ".ann")
    with_concepts = [pair for pair in concepts if pair.annotations is not None]
    texts = {pair.text for pair in with_concepts}
    with_standoff = [pair for pair in standoff if pair.text is None or pair.text not in texts]
    names = pair_names([*with_concepts, *with_standoff])
    for pair in with_concepts:
        missing = half(pair, ".con")
        if missing is not None:
            yield missing
            continue
        try:
            yield from _concepts(pair, names[pair], encoding)
        except DataError as error:
            yield Drop("damaged_file", error)
    yield from read_brat(with_standoff, names, "n2c2", encoding)


def _notes(document: Document, path: Path, name: str) -> Iterator[Outcome]:
    stem = Path(name if document.where == str(path) else document.name)
    try:
        yield from _note(document, str(stem.with_suffix("")))
    except Wrong as wrong:
        yield Drop("bad", DataError(str(wrong), where=document.where, fix=FIX))
    except DataError as error:
        yield Drop("damaged_file", error)


def _note(document: Document, name: str) -> Iterator[Outcome]:
    root = xml_root(document)
    text, tags = root.find("TEXT"), root.find("TAGS")
    if text is None or tags is None:
        raise Wrong("expected a root with TEXT and TAGS")
    content = "".join(text.itertext())
    if not content.strip():
        yield Drop("no_text")
        return
    of_tags = [_mention(tag) for tag in tags.iterdescendants()]
    mentions = [mention for mention in of_tags if mention is not None]
    others = len(of_tags) - len(mentions)
    if others and not mentions:
        raise Wrong(f"none of the {others} tags has a start and an end: they are of the note as a whole")
    placement = place_mentions(content, mentions, from_one=True)
    if len(mentions) > 1 and len(placement.unfit) == len(mentions):
        raise Wrong(f"none of the {len(mentions)} tags fits the text: the offsets are those of another text")
    yield from [PartDrop("no_offsets", document.where)] * others
    yield from placement.part_drops(document.where)
    yield Annotated(f"n2c2:{name}", _group(name), "n2c2", placement.text, placement.spans)


def _group(name: str) -> str:
    match = PATIENT_AND_RECORD.fullmatch(Path(name).name)
    return f"n2c2:{match[1] if match else name}"


def _mention(tag: Any) -> Mention | None:
    """The mention of a tag; None for one without offsets."""
    text, pieces = tag.get("text"), [(tag.get("start"), tag.get("end"))]
    if tag.get("spans"):
        pieces = [PIECES.fullmatch(piece.strip()) for piece in tag.get("spans").split(",")]
        pieces = [match.groups() if match else ("", "") for match in pieces]
    elif tag.get("start") is None and tag.get("end") is None:
        return None
    if not all(
        number and number.isascii() and number.isdigit() and len(number) < 10 for piece in pieces for number in piece
    ):
        raise Wrong("expected the start and the end of a tag as numbers of characters")
    kind = tag.get("TYPE") or tag.get("type") or tag.tag
    return Mention(kind, tuple((int(start), int(end)) for start, end in pieces), text)


def _concepts(pair: TextPair, name: str, encoding: str | None) -> Iterator[Outcome]:
    """A note of 2010: lines count from 1, words (between blanks) from 0, the last word inclusive."""
    assert pair.text is not None and pair.annotations is not None  # `half` refuses other pairs
    text = place_mentions(read_text(pair.text, encoding).removeprefix(MARK), []).text
    if not text.strip():
        yield Drop("no_text")
        return
    words = _words(text)
    spans: list[Span] = []
    drops: list[PartDrop] = []
    lines = read_text(pair.annotations, encoding, empty=True).removeprefix(MARK).split("\n")
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        where = f"{pair.annotations}:{number}"
        match = CONCEPT.fullmatch(line)
        if match is None:
            what = 'expected a concept: c="text" line:word line:word||t="type"'
            yield Drop("bad", DataError(what, where=where, fix=FIX))
            return
        span = _concept(match, words, text)
        if isinstance(span, Span):
            spans.append(span)
        else:
            drops.append(PartDrop(span, where))
    if len(drops) > 1 and not spans:
        what = f"none of the {len(drops)} concepts is the text at its words"
        yield Drop("bad", DataError(what, where=str(pair.annotations), fix=FIX))
        return
    yield from drops
    yield Annotated(f"n2c2:{name}", _group(name), "n2c2", text, tuple(dict.fromkeys(spans)))


def _words(text: str) -> list[list[re.Match[str]]]:
    """The words of each line, with their offsets in the text."""
    words: list[list[re.Match[str]]] = []
    start = 0
    for line in text.split("\n"):
        words.append(list(WORD.finditer(text, start, start + len(line))))
        start += len(line) + 1
    return words


def _concept(match: re.Match[str], words: Sequence[Sequence[re.Match[str]]], text: str) -> Span | str:
    """The concept's span, or why it has none; the files of 2010 hold its text in lower case."""
    (first_line, first), (last_line, last) = (map(int, piece.split(":")) for piece in match["words"].split())
    if not 0 < first_line <= len(words) or not 0 < last_line <= len(words):
        return "outside_text"
    if first >= len(words[first_line - 1]) or last >= len(words[last_line - 1]):
        return "outside_text"
    start, end = words[first_line - 1][first].start(), words[last_line - 1][last].end()
    if start >= end:
        return "empty_mention"
    text_at_words = text[start:end]
    fits = text_at_words.casefold().split() == match["text"].casefold().split()
    return Span(start, end, match["type"], text_at_words) if fits else "text_differs"
