"""Plain texts: one Passage a file, `.txt`, `.text` or `.md`, from files, folders and archives.

The encoding is that of `data.encoding` or of a byte order mark, else UTF-8: a file in another is refused, with the
likely name. Line ends become "\\n"; nothing else is changed. Empty files are dropped and counted.

The group is the sub-folder that a file is in, the first below the folder that all files share: so the notes of a
patient in a folder of their own stay in one split. Files beside each other are a group each. `data.columns.group:
file` makes every file a group of its own, for sub-folders that mean something else, such as years. License: that of the
texts, which only their owner knows.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path, PurePosixPath

from lora_med.data.formats.archives import Document, documents, member_names
from lora_med.data.formats.documents.text_decoding import decoded
from lora_med.data.formats.documents.unsupported_formats import unsupported_ending
from lora_med.data.outcome import Again, Drop, Input, Outcome, ReadOptions, input_names
from lora_med.data.record import Passage
from lora_med.errors import DataError, SettingsError

SUFFIXES = (".txt", ".text", ".md")
GROUPS = ("file", "folder")
Parts = tuple[str, ...]
logger = logging.getLogger(__name__)


def read(inputs: Sequence[Input], options: ReadOptions) -> Iterable[Outcome]:
    """The texts of the files. Drops: empty_file; with an error: bad, damaged_file, unsupported_format.

    Raises:
        SettingsError: `data.columns` says something else than how files are grouped.
    """
    by_file = _grouped_by(options) == "file"
    paths = [item for item in inputs if isinstance(item, Path)]
    names = input_names(inputs)

    shared_depth: list[int] = []  # found in the first pass

    def again() -> Iterator[Outcome]:
        if not shared_depth:
            shared_depth.append(_shared_depth(paths))
        outcomes = (
            _outcome(document, path, shared_depth[0], options.table.encoding, by_file=by_file)
            for path in paths
            for document in _documents(path, names[path])
        )
        yield from _with_empty_ones_counted(outcomes)

    return Again(again)


def _with_empty_ones_counted(outcomes: Iterable[Outcome]) -> Iterator[Outcome]:
    """The outcomes; an empty file is an error only where all files are empty. Logs how the files are grouped."""
    last_empty: Drop | None = None
    others, texts, groups = 0, 0, set[str]()
    for outcome in outcomes:
        if isinstance(outcome, Drop) and outcome.reason == "empty_file":
            if last_empty is not None:
                yield Drop("empty_file")
            last_empty = outcome
            continue
        others += 1
        if isinstance(outcome, Passage):
            texts += 1
            groups.add(outcome.group)
        yield outcome
    if last_empty is not None:
        yield Drop("empty_file") if others else last_empty
    by_folder = len(groups) < texts
    how = "the files of a sub-folder are one; data.columns.group=file splits them" if by_folder else "each file is one"
    logger.info("plain_text: %s texts in %s groups: %s", f"{texts:,}", f"{len(groups):,}", how)


def _grouped_by(options: ReadOptions) -> str:
    if set(options.columns) - {"group"} or options.columns.get("group", "folder") not in GROUPS:
        raise SettingsError(
            "plain_text has no columns; data.columns.group says only how its files are grouped",
            where="data.columns",
            fix="data.columns.group=file, data.columns.group=folder, or leave it out",
        )
    return options.columns.get("group", "folder")


def _documents(path: Path, name: str) -> Iterator[Document | Drop]:
    """The documents of a file; one of 0 bytes is a document too."""
    if path.is_file() and path.stat().st_size == 0:
        return iter([Document(path.name, str(path), b"", name)])
    return documents(path, SUFFIXES, name)


def _shared_depth(paths: Sequence[Path]) -> int:
    """How many folders all files are in together, archives counted as folders."""
    folders = [parts[:-1] for path in paths for parts in _all_parts(path)]
    levels = zip(*folders, strict=False)
    return next((depth for depth, names in enumerate(levels) if len(set(names)) > 1), min(map(len, folders), default=0))


def _all_parts(path: Path) -> list[Parts]:
    """The parts of a file's path, or those of each text in an archive; documents beside them are named in a warning."""
    members = member_names(path, ("",))
    left_out = Counter(PurePosixPath(member).suffix.lower() for member in members if unsupported_ending(member))
    if left_out:
        counts = ", ".join(f"{count:,} of {ending}" for ending, count in sorted(left_out.items()))
        logger.warning("%s: not read, because no source reads their format: %s", path, counts)
    path_parts = path.absolute().parts
    texts = [member for member in members if member.lower().removesuffix(".gz").endswith(SUFFIXES)]
    return [path_parts + PurePosixPath(member).parts for member in texts] or [path_parts]


def _outcome(document: Document | Drop, path: Path, shared: int, encoding: str | None, *, by_file: bool) -> Outcome:
    if isinstance(document, Drop):
        return document
    try:
        text = decoded(document.content, document.where, encoding).strip("\n")
    except DataError as error:
        return Drop("bad", error)
    if not text.strip():
        what = "the file is empty" if not document.content else "the file holds only blanks"
        fix = "give files with a text; empty ones beside others are left out and counted"
        return Drop("empty_file", DataError(what, where=document.where, fix=fix))
    parts = path.absolute().parts + PurePosixPath(document.member).parts
    inner = parts[shared:]
    group = document.label if by_file or len(inner) < 2 else inner[0]
    return Passage(f"plain_text:{document.label}", group, "plain_text", text)
