"""What known tests hold, kept out of training: block-lists of hashed identifiers, and runs of words of test files.

A block-list is a text file: lines that begin with `#` say what it is, every other line is the first 16 hexadecimal
digits of the SHA-256 of an identifier such as `pmid:12345678`. Those of PubMedQA's, BC5CDR's and NCBI-disease's test
sets ship with lora_med. The hash is no secret, only a way to name test items without a list of them. Overlap is a run
of 13 words that a training record shares with a test file (Brown et al. 2020, appendix C).
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np

from lora_med.config.names import unknown
from lora_med.data.record import Record, texts_of
from lora_med.data.tables import FORMATS, LONGEST_LINE, TableRow, rows
from lora_med.data.words import Hashes, ngrams, word_hashes
from lora_med.errors import DataError, InputMissingError, SettingsError
from lora_med.files import archive_errors, open_stream, sha256_file, write_atomic

OVERLAP_WORDS = 13
PMID = re.compile(r"[1-9]\d{0,8}")
HASHED = re.compile(r"[0-9a-f]{16}")
PMID_SOURCES = ("pubmed", "pmc", "pubmedqa", "bc5cdr", "ncbi_disease", "bioc")  # whose groups are PMIDs if digits


@dataclass(frozen=True)
class BlockList:
    """Hashed identifiers that may not be trained on; `name` is its file's, `sha256` that of its content."""

    name: str
    sha256: str
    ids: frozenset[str]


@dataclass(frozen=True)
class TestText:
    """The runs of 13 words of a test file, sorted; `short` counts its texts with fewer words, which cannot match."""

    name: str
    sha256: str
    texts: int
    short: int
    runs: Hashes

    __test__ = False  # no test class, whatever pytest thinks of its name

    def shares(self, words: Sequence[Hashes]) -> bool:
        """Whether any of these texts, given as hashed words, has a run in common with the file."""
        return len(self.runs) > 0 and any(_common(ngrams(text, OVERLAP_WORDS), self.runs) for text in words)


def _common(found: Hashes, known: Hashes) -> bool:
    places = np.minimum(np.searchsorted(known, found), len(known) - 1)
    return bool((known[places] == found).any())


def hashed(identifier: str) -> str:
    """How a block-list names an identifier."""
    return hashlib.sha256(identifier.encode("utf-8")).hexdigest()[:16]


def identifiers_of(record: Record) -> set[str]:
    """What a record may be listed by: its uid, and the PMID of its article."""
    found = {record.uid}
    if record.source in PMID_SOURCES and PMID.fullmatch(record.group):
        found.add(f"pmid:{record.group}")
    return found


def shipped() -> list[str]:
    """The names of the block-lists that come with lora_med."""
    return sorted(path.name.removesuffix(".txt") for path in (files("lora_med") / "assets" / "blocklists").iterdir())


def load_block_list(name: str) -> BlockList:
    """The block-list that ships under `name`, or the file of that path.

    Raises:
        SettingsError: neither.
        DataError: a line is no hash; the message names it.
    """
    path = Path(str(files("lora_med") / "assets" / "blocklists" / f"{name}.txt"))
    if "/" in name or not path.is_file():
        path = Path(name).expanduser()
    if not path.is_file():
        raise SettingsError(
            unknown("block-list", name, shipped()),
            where="data.block_lists",
            fix="name one that ships, or a file that `lora-med data blocklist` wrote",
        )
    ids: list[str] = []
    for number, line in enumerate(path.read_text(encoding="utf-8", errors="replace").splitlines(), 1):
        if line.strip() and not line.startswith("#"):
            if not HASHED.fullmatch(line.strip()):
                raise DataError(
                    "expected 16 hexadecimal digits",
                    where=f"{path}:{number}",
                    fix="lora-med data blocklist writes such files",
                )
            ids.append(line.strip())
    return BlockList(path.name.removesuffix(".txt"), sha256_file(path), frozenset(ids))


def write_block_list(path: Path, identifiers: Iterable[str], title: str) -> int:
    """Write the hashes of `identifiers`, sorted, under one line that says what they are; returns how many."""
    ids = sorted({hashed(identifier) for identifier in identifiers})
    write_atomic(path, f"# {title}\n" + "".join(f"{item}\n" for item in ids))
    return len(ids)


def load_test_file(name: str) -> TestText:
    """The runs of words of a test file: rows of any format that is read (their texts), else lines of plain text.

    Raises:
        InputMissingError: no such file.
        DataError: it cannot be read.
    """
    path = Path(name).expanduser()
    if not path.is_file():
        raise InputMissingError(f"no such file: {name}", where="data.test_files", fix="check the path")
    texts = 0
    short = 0
    runs: list[Hashes] = []
    for text in _texts(path):
        found = ngrams(word_hashes(text), OVERLAP_WORDS)
        texts += 1
        short += len(found) == 0
        runs.append(found)
    merged = np.unique(np.concatenate(runs)) if runs else np.empty(0, np.uint64)
    return TestText(path.name, sha256_file(path), texts, short, merged)


def _texts(path: Path) -> Iterator[str]:
    if path.name.lower().removesuffix(".gz").endswith(tuple(f".{name}" for name in FORMATS)):
        for row in rows(path):
            if not isinstance(row, TableRow):
                assert row.error is not None
                raise row.error
            yield from _inside(row.values)
        return
    with archive_errors(path), open_stream(path) as stream:
        for line in iter(lambda: stream.readline(LONGEST_LINE), b""):
            yield re.sub(r"<[^>]*>", " ", line.decode("utf-8", "replace"))


def _inside(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        for inner in value.values():
            yield from _inside(inner)
    elif isinstance(value, Sequence):
        for inner in value:
            yield from _inside(inner)


def record_words(record: Record) -> list[Hashes]:
    """Each of a record's texts as hashed words."""
    return [word_hashes(text) for text in texts_of(record)]
