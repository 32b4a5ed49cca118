"""Test files excluded from training: their runs of 13 words, to compare with training records.

Overlap is a run of 13 words that a training record shares with a test file (Brown et al. 2020, appendix C). A file of a
format that lora_med reads is best named with its source, `bc5cdr:CDR_TestSet.txt`: then its records are compared. Of
any other file the texts are compared: every value of rows and JSON, the text between the tags of XML, else the
paragraphs.
"""

from __future__ import annotations

import io
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from lora_med.data.catalog import SOURCES
from lora_med.data.formats.archives import Document, documents, is_xml
from lora_med.data.formats.tables import AS_SHOWN, TableRow, fitting_settings, load_json, rows
from lora_med.data.outcome import Drop, ReadOptions, TableFormat
from lora_med.data.reading import read_records
from lora_med.data.record import Record, texts_of
from lora_med.data.splitting.ngrams import Hashes, ngrams, word_hashes
from lora_med.errors import DataError, InputMissingError
from lora_med.files import sha256_file

OVERLAP_WORDS = 13
TABLES = (".jsonl", ".ndjson", ".csv", ".tsv", ".parquet", ".xlsx")
TAGS = re.compile(r"<[^>]*>")
EMPTY_LINE = re.compile(r"\n[ \t]*\n")


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
        """Whether any of these texts, as hashed words, has a run in common with the file."""
        return len(self.runs) > 0 and any(_common(ngrams(text, OVERLAP_WORDS), self.runs) for text in words)


def _common(runs: Hashes, file_runs: Hashes) -> bool:
    positions = np.minimum(np.searchsorted(file_runs, runs), len(file_runs) - 1)
    return bool((file_runs[positions] == runs).any())


def test_file(name: str) -> Path:
    """The file that `name` names, by its path or as `source:path`."""
    return _source_and_path(name)[1]


def _source_and_path(name: str) -> tuple[str, Path]:
    source, _, rest = name.partition(":")
    names_source = source in SOURCES and rest != ""
    return (source, Path(rest).expanduser()) if names_source else ("", Path(name).expanduser())


def load_test_file(name: str, table: TableFormat = AS_SHOWN) -> TestText:
    """The runs of words of a test file, named by its path or as `source:path`.

    Of `table`, what concerns the file's format is used, as for the data itself.

    Raises:
        InputMissingError: no such file.
        DataError: it cannot be read, or nothing in it can be compared.
    """
    source, path = _source_and_path(name)
    if not path.is_file():
        raise InputMissingError(f"no such file: {path}", where="data.test_files", fix="check the path")
    texts = short = 0
    runs: list[Hashes] = []
    for text in _records(source, path, table) if source else _texts(path, table):
        text_runs = ngrams(word_hashes(text), OVERLAP_WORDS)
        texts += 1
        short += len(text_runs) == 0
        runs.append(text_runs)
    if texts == short:
        raise DataError(
            f"nothing in the file can be compared: {texts:,} texts, none of {OVERLAP_WORDS} words",
            where=f"data.test_files, {path}",
            fix="name its source before it, as in conll:test.tsv; lora-med data list shows the sources",
        )
    return TestText(path.name, sha256_file(path), texts, short, np.unique(np.concatenate(runs)))


def _records(source: str, path: Path, table: TableFormat) -> Iterator[str]:
    own = fitting_settings(table, path, SOURCES[source].table_settings)
    options = ReadOptions(keep_retracted=True, stops_at_columns=False, table=own)
    for record in read_records(SOURCES[source], [path], options):
        yield from texts_of(record)


def _texts(path: Path, table: TableFormat) -> Iterator[str]:
    if path.name.lower().removesuffix(".gz").endswith(TABLES):
        for row in rows(path, fitting_settings(table, path)):
            if isinstance(row, Drop):
                raise row.error or DataError("a row cannot be read", where=str(path))
            if isinstance(row, TableRow):
                yield from _inside(row.values)
        return
    for document in documents(path, ("",)):
        if isinstance(document, Drop):
            raise document.error or DataError("cannot be read", where=str(path))
        yield from _said(document)


def _said(document: Document) -> Iterator[str]:
    """The texts of a document."""
    if document.name.lower().endswith(".json"):
        yield from _inside(_json(document))
        return
    text = document.content.decode(
        "utf-16" if document.content[:2] in (b"\xff\xfe", b"\xfe\xff") else "utf-8", "replace"
    )
    if is_xml(document):
        yield without_tags(text)
    else:
        yield from EMPTY_LINE.split(text.replace("\r\n", "\n"))


def without_tags(text: str) -> str:
    """The text of a marked-up document, a blank for each tag."""
    last = text.rfind(">") + 1  # what opens behind it is closed nowhere
    return TAGS.sub(" ", text[:last]) + text[last:]


def _json(document: Document) -> Any:
    """One JSON value, or one per line."""
    where = Path(document.where)
    try:
        return load_json(io.BytesIO(document.content), where)
    except DataError:
        return [load_json(io.BytesIO(line), where) for line in document.content.splitlines() if line.strip()]


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
