"""Texts with their annotations in a second file: pairs of files, and brat's .ann.

A line of an .ann is `T1<TAB>Type start end[;start end]<TAB>text`; offsets count characters, the end exclusive. The
other lines (relations, events, attributes, normalizations, notes) are not mentions; they are counted.
https://brat.nlplab.org/standoff.html
"""

from __future__ import annotations

import codecs
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from lora_med.data.formats.containers.text_encoding import decoded
from lora_med.data.formats.entities.mentions import Mention, place_mentions
from lora_med.data.formats.row_fields import Wrong
from lora_med.data.outcome import Drop, Outcome, PartDrop, input_names
from lora_med.data.record import Annotated
from lora_med.errors import DataError
from lora_med.files import archive_errors, open_stream

FIX = "fix the annotation, or set data.skip_bad=true (--skip-bad)"
PAIR = "put it beside the other, under the same name, or leave the file out, or set data.skip_bad=true (--skip-bad)"
MARK = "\ufeff"  # of byte order
LONGEST_BYTES = 1 << 26
PIECE = re.compile(r"(\d{1,9}) (\d{1,9})", re.ASCII)
OTHER_LINES = {
    "R": "relation",
    "*": "relation",
    "E": "event",
    "A": "attribute",
    "M": "attribute",
    "N": "normalization",
    "#": "note",
}


@dataclass(frozen=True, slots=True)
class TextPair:
    """A text file, and the file with its annotations; one of them may be missing."""

    text: Path | None
    annotations: Path | None


def bare_name(path: Path) -> str:
    """A file's name without `.gz` and its last ending."""
    return Path(path.name.removesuffix(".gz")).stem


def ending(path: Path) -> str:
    """A file's last ending in lower case, `.gz` left out."""
    return Path(path.name.lower().removesuffix(".gz")).suffix


def pairs(paths: Iterable[Path], suffix: str, folders: Sequence[str] = ("",)) -> list[TextPair]:
    """Each text with its annotations, those in files that end in `suffix`; the order is that of the paths.

    A file's other half is sought beside it, and in the `folders` beside its own folder (`../txt`).
    """
    text_pairs: dict[TextPair, None] = {}
    for path in paths:
        if ending(path) == suffix:
            text_pairs[TextPair(_beside(path, ".txt", folders), path)] = None
        elif ending(path) == ".txt":
            text_pairs[TextPair(path, _beside(path, suffix, folders))] = None
    return list(text_pairs)


def _beside(path: Path, suffix: str, folders: Sequence[str]) -> Path | None:
    name = bare_name(path)
    for folder in (path.parent, *(path.parent.parent / sibling for sibling in folders if sibling)):
        for candidate in (suffix, f"{suffix}.gz", suffix.upper()):
            if (folder / f"{name}{candidate}").is_file():
                return folder / f"{name}{candidate}"
    return None


def pair_names(text_pairs: Sequence[TextPair]) -> dict[TextPair, str]:
    """The name of each pair in identifiers: the file's name, with folders only where names are equal."""
    paths = {pair: (pair.text or pair.annotations or Path()) for pair in text_pairs}
    names = input_names(paths.values())
    return {pair: str(Path(names[path].removesuffix(".gz")).with_suffix("")) for pair, path in paths.items()}


def half(pair: TextPair, suffix: str) -> Drop | None:
    """The drop of a pair that lacks one of its files; None for a whole pair."""
    if pair.text is None:
        return Drop("no_text_file", DataError(f"no {bare_name(_any(pair))}.txt", where=str(pair.annotations), fix=PAIR))
    if pair.annotations is None:
        what = f"no {bare_name(pair.text)}{suffix}: a text without annotations is not a text without mentions"
        return Drop("not_annotated", DataError(what, where=str(pair.text), fix=PAIR))
    return None


def _any(pair: TextPair) -> Path:
    return pair.text or pair.annotations or Path()


def read_text(path: Path, encoding: str | None, *, empty: bool = False) -> str:
    """A file's text in `encoding` or UTF-8, as written: line ends and a byte order mark are left in it.

    Raises:
        SettingsError: there is no such encoding.
        DataError: it is not in the encoding, longer than LONGEST_BYTES, holds NUL, or is empty where it must not be.
    """
    if empty and path.stat().st_size == 0:
        return ""
    with archive_errors(path), open_stream(path) as stream:
        content = stream.read(LONGEST_BYTES + 1)
    if len(content) > LONGEST_BYTES:
        raise DataError(f"a text of more than {LONGEST_BYTES:,} bytes", where=str(path), fix=FIX)
    text = decoded(content, str(path), encoding)
    if (position := text.find("\0")) >= 0:
        what = f"line {text.count(chr(10), 0, position) + 1} holds a NUL character (U+0000)"
        raise DataError(what, where=str(path), fix=FIX)
    return MARK + text if content.startswith(codecs.BOM_UTF8) else text


def read_brat(
    text_pairs: Iterable[TextPair], names: dict[TextPair, str], source: str, encoding: str | None
) -> Iterator[Outcome]:
    """The documents of brat's pairs as records of `source`; the group is the file."""
    for pair in text_pairs:
        missing = half(pair, ".ann")
        if missing is not None:
            yield missing
            continue
        try:
            yield from _document(pair, names[pair], source, encoding)
        except DataError as error:
            yield Drop("damaged_file", error)


def _document(pair: TextPair, name: str, source: str, encoding: str | None) -> Iterator[Outcome]:
    assert pair.text is not None and pair.annotations is not None  # `half` refuses other pairs
    text, lines = read_text(pair.text, encoding), read_text(pair.annotations, encoding, empty=True)
    try:
        mentions, others = _annotations(lines.removeprefix(MARK), pair.annotations)
    except _BadLine as wrong:
        yield Drop("bad", DataError(str(wrong), where=wrong.where, fix=FIX))
        return
    placement = place_mentions(text.removeprefix(MARK), mentions, from_one=text.startswith(MARK))
    if not placement.text.strip():
        yield Drop("no_text")
    elif len(mentions) > 1 and len(placement.unfit) == len(mentions):
        name_of = pair.annotations.name
        what = f"none of the {len(mentions)} mentions of {name_of} fits: its offsets are those of another text"
        yield Drop("bad", DataError(what, where=str(pair.text), fix=FIX))
    else:
        yield from [*others, *placement.part_drops(str(pair.annotations))]
        yield Annotated(f"{source}:{name}", f"{source}:{name}", source, placement.text, placement.spans)


class _BadLine(Wrong):
    def __init__(self, what: str, where: str) -> None:
        super().__init__(what)
        self.where = where


def _annotations(content: str, path: Path) -> tuple[list[Mention], list[PartDrop]]:
    mentions: list[Mention] = []
    others: list[PartDrop] = []
    for number, line in enumerate(content.replace("\r\n", "\n").split("\n"), 1):
        if not line.strip():
            continue
        if line[0] == "T":
            mentions.append(_mention(line, f"{path}:{number}"))
        elif line[0] in OTHER_LINES:
            others.append(PartDrop(OTHER_LINES[line[0]], f"{path}:{number}"))
        else:
            raise _BadLine("expected a line that begins with T, R, E, A, M, N, # or *", f"{path}:{number}")
    return mentions, others


def _mention(line: str, where: str) -> Mention:
    cells = line.split("\t")
    type_and_offsets = cells[1].split(" ", 1) if len(cells) > 1 else []
    if len(type_and_offsets) < 2:
        raise _BadLine("expected an identifier, a tab, a type and the offsets of a mention", where)
    pieces = [PIECE.fullmatch(piece.strip()) for piece in type_and_offsets[1].split(";")]
    if not all(pieces):
        raise _BadLine("expected the start and the end of a mention as numbers of characters", where)
    offsets = tuple((int(piece[1]), int(piece[2])) for piece in pieces if piece)
    return Mention(type_and_offsets[0], offsets, cells[2] if len(cells) > 2 else None)
