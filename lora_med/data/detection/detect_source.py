"""Which source reads a file: decided by what is in the file, with the reason, so that the user can judge it.

Each published format has a mark of its own: the root element of its XML, the keys of its JSON, the header of its
table, the form of its lines. What has no such mark is `custom` (a table of rows) or `plain_text`.
"""

from __future__ import annotations

import re
import zipfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lora_med.data.catalog import SOURCES
from lora_med.data.formats.tables import FORMATS, TableRow, format_of, rows
from lora_med.data.outcome import TableFormat
from lora_med.data.shapes.columns.cells import listed
from lora_med.errors import DataError, InputMissingError
from lora_med.files import archive_errors, open_stream

HEAD_BYTES = 1 << 16
SHOWN = 5  # file names in a message
ARCHIVES = (".zip", ".tar", ".tgz", ".tar.gz")
PROLOG = re.compile(r"\s*(?:<\?[^>]*\?>|<!--.*?-->|<!DOCTYPE[^>\[]*(?:\[[^\]]*\])?\s*>|\s+)*", re.DOTALL)
ROOT = re.compile(r"<(?:[\w.-]+:)?([\w.-]+)")
PUBTATOR = re.compile(r"^\S+\|[ta]\|", re.MULTILINE)
NBIB = re.compile(r"^PMID- ?\d+", re.MULTILINE)
TAGGED = re.compile(r"^\S+(?:[ \t].*)?[ \t](?:O|[BILUES]-\S+)[ \t]*$", re.MULTILINE)
CONLL_U = re.compile(r"^\d+\t(?:[^\t\n]*\t){8}[^\t\n]*$", re.MULTILINE)
NCBI_TYPES = re.compile(r"\t(?:SpecificDisease|DiseaseClass|CompositeMention|Modifier)\t")
FHIR = re.compile(r'"resourceType"\s*:\s*"[A-Z]')
CONCEPT = re.compile(r"<TAGS>")


OTHER_TEXTS = (  # formats of text that no source reads, by how they begin, and what to do
    (
        re.compile(r"#FORMAT=WebAnno TSV"),
        "a table of WebAnno or INCEpTION (WebAnno TSV)",
        "export it as CoNLL 2002, for the source conll, or as brat, for the source brat",
    ),
    (
        re.compile(r"(?:FHS|BHS|MSH)\|\^~\\&"),
        "HL7 version 2 messages",
        "write the text of each report into a row of a .csv or .jsonl, with the patient in a column of its own",
    ),
)
CELL_MARKS = {"|": "a vertical bar", "\t": "a tab", ";": "a semicolon"}
TABLE_LINES = 3  # at least so many lines with as many cells are a table


@dataclass(frozen=True)
class Detected:
    """The source that reads a file, and the reason: what in the file shows it."""

    source: str
    reason: str


def detect_sources(paths: Sequence[Path], table: TableFormat) -> dict[Path, Detected]:
    """The source of each file; those of a folder with `.ann` beside `.txt` are brat's.

    Raises:
        InputMissingError: no such file.
        DataError: a file is empty, or of a format that nothing reads; the message names it.
    """
    stems = {path.with_suffix("") for path in paths if path.suffix.lower() == ".ann"}
    return {
        path: Detected("brat", "a .ann file with the annotations is beside the .txt file")
        if path.with_suffix("") in stems and path.suffix.lower() in (".ann", ".txt")
        else detect_source(path, table)
        for path in paths
    }


def detect_source(path: Path, table: TableFormat) -> Detected:
    """The source of one file, by its content.

    Raises:
        InputMissingError: no such file.
        DataError: the file is empty, or its content shows no format that is read.
    """
    name, text = _head(path)
    if name.lower().endswith((".parquet", ".xlsx")):
        return _of_rows(path, table)
    start = text[PROLOG.match(text).end() :]  # type: ignore[union-attr] - the pattern matches the empty text
    if start.startswith("<") and (root := ROOT.match(start)):
        return _of_xml(root[1], text, path)
    if NBIB.match(text.lstrip()):
        return Detected("pubmed", "its first line is the PMID of a MEDLINE record (.nbib)")
    if PUBTATOR.match(text.lstrip()):
        own = NCBI_TYPES.search(text)
        kind = "the types of the NCBI disease corpus" if own else "a title and mentions with offsets"
        return Detected("ncbi_disease" if own else "bc5cdr", f"PubTator lines: {kind}")
    if start[:1] in "{[" and FHIR.search(start):
        return Detected("fhir", "it holds FHIR resources (resourceType)")
    ending = name.lower().removesuffix(".gz").rpartition(".")[2]
    _refuse_other_text(text, path)
    if CONLL_U.search(text) or (ending not in ("csv", "json", "jsonl", "ndjson") and _is_tagged(text)):
        return Detected("conll", "one token a line, with a tag such as B-Disease or O")
    if ending in FORMATS:
        return _of_rows(path, table)
    if start[:1] in "{[":
        raise DataError(
            "the file holds JSON, and its name does not say so",
            where=str(path),
            fix="name it .json (one value) or .jsonl (one a line)",
        )
    _refuse_table(text, path)
    return Detected("plain_text", "running text without a format of its own")


def _refuse_other_text(text: str, path: Path) -> None:
    for start, label, fix in OTHER_TEXTS:
        if start.match(text.lstrip()):
            raise DataError(f"the file holds {label}, which no source reads", where=str(path), fix=fix)


def _refuse_table(text: str, path: Path) -> None:
    """Refuse a text whose every line has as many cells: a table, of which a run would train the signs between them."""
    lines = [line for line in text.split("\n")[:-1] or [text] if line.strip()]
    for mark, label in CELL_MARKS.items():
        counts = {line.count(mark) for line in lines}
        if len(lines) >= TABLE_LINES and len(counts) == 1 and counts != {0}:
            cells = counts.pop() + 1
            raise DataError(
                f"the file looks like a table: {label} divides each line into {cells} cells, and its name does not say "
                "so",
                where=str(path),
                fix="name it .csv if it is one; --source plain_text reads it as text",
            )


def _head(path: Path) -> tuple[str, str]:
    """The name and the first 64 KiB of a file as text; of an archive, those of its first member with content."""
    if zipfile.is_zipfile(path) and not path.name.lower().endswith(".xlsx"):
        with archive_errors(path), zipfile.ZipFile(path) as archive:
            member = next((item for item in archive.infolist() if item.file_size and not item.is_dir()), None)
            if member is None:
                raise DataError("the archive holds no file", where=str(path), fix="check what was packed")
            with archive.open(member) as stream:
                return member.filename, _as_text(stream.read(HEAD_BYTES))
    with archive_errors(path), open_stream(path) as stream:
        head = stream.read(HEAD_BYTES)
    if path.name.lower().endswith(ARCHIVES) and head[257:262] == b"ustar":
        name = head[:100].rstrip(b"\0").decode("utf-8", "replace")
        return name, _as_text(head[512:])
    return path.name, _as_text(head)


def _as_text(head: bytes) -> str:
    for mark, encoding in ((b"\xef\xbb\xbf", "utf-8-sig"), (b"\xff\xfe", "utf-16"), (b"\xfe\xff", "utf-16")):
        if head.startswith(mark):
            return head.decode(encoding, "replace").replace("\r\n", "\n")
    return head.decode("utf-8", "replace").replace("\r\n", "\n").replace("\r", "\n")


def _is_tagged(text: str) -> bool:
    """Whether nearly every line that holds something ends in an IOB tag."""
    lines = [line for line in text.split("\n")[:-1] or [text] if line.strip() and not line.startswith("#")]
    return bool(lines) and sum(TAGGED.match(line) is not None for line in lines) >= 0.8 * len(lines)


XML_ROOTS: dict[str, str] = {
    "PubmedArticleSet": "pubmed",
    "MedlineCitationSet": "pubmed",
    "PubmedArticle": "pubmed",
    "article": "pmc",
    "pmc-articleset": "pmc",
    "OAI-PMH": "pmc",
    "clinical_study": "clinicaltrials",
    "doc": "medquad",
    "DiseaseFile": "medquad",
    "Document": "medquad",
    "collection": "bioc",
    "ClinicalDocument": "cda",
}


def _of_xml(root: str, text: str, path: Path) -> Detected:
    reason = f"its XML begins with <{root}>"
    if CONCEPT.search(text) and "<TEXT>" in text:
        return Detected("n2c2", f"{reason}, with <TEXT> and <TAGS>")
    if root in XML_ROOTS:
        return Detected(XML_ROOTS[root], reason)
    raise DataError(
        f"no source reads XML that begins with <{root}>",
        where=str(path),
        fix="lora-med data list shows what is read; export it as JSON lines or CSV for the source custom",
    )


def _has(*keys: str) -> Callable[[Mapping[str, Any]], bool]:
    return lambda row: all(key in row for key in keys)


def _lower(*keys: str) -> Callable[[Mapping[str, Any]], bool]:
    return lambda row: set(keys) <= {str(name).lower() for name in row}


# The first that fits decides: (source, what shows it, whether the first row's columns do).
ROW_MARKS: tuple[tuple[str, str, Callable[[Mapping[str, Any]], bool]], ...] = (
    ("clinicaltrials", "it holds studies of ClinicalTrials.gov (protocolSection)", _has("protocolSection")),
    ("bioc", "it holds BioC documents (passages with annotations)", _has("PubTator3")),
    (
        "bioc",
        "it holds BioC documents (passages)",
        lambda row: (
            isinstance(row.get("passages"), list)
            and all(isinstance(item, Mapping) and "infons" in item for item in row["passages"])
        ),
    ),
    ("mimic3", "its columns are those of NOTEEVENTS", _lower("row_id", "subject_id", "category", "text")),
    ("mimic4_note", "its columns are those of MIMIC-IV-Note", _lower("note_id", "subject_id", "note_type", "text")),
    ("pubmedqa", "its fields are those of PubMedQA (final_decision)", _lower("final_decision", "question")),
    ("medqa", "its columns are those of the Hub's MedQA (sent1, ending0)", _has("sent1", "ending0", "label")),
    ("medqa", "its fields are those of MedQA (options, answer_idx)", _has("question", "options", "answer_idx")),
    ("medmcqa", "its columns are those of MedMCQA (opa to opd, cop)", _has("question", "opa", "opd", "cop")),
    ("mmlu", "its columns are those of the Hub's MMLU", _has("question", "subject", "choices", "answer")),
    ("mts_dialog", "its columns are those of MTS-Dialog", _has("dialogue", "section_text")),
    ("aci_bench", "its columns are those of ACI-Bench", _has("dialogue", "note", "encounter_id")),
    ("meqsum", "its columns are those of MeQSum (CHQ, Summary)", _has("CHQ", "Summary")),
)


def _of_rows(path: Path, table: TableFormat) -> Detected:
    row = next((item for item in rows(path, table) if isinstance(item, TableRow)), None)
    values: Mapping[str, Any] = {} if row is None else row.values
    for source, reason, fits in ROW_MARKS:
        if source in SOURCES and fits(values):
            return Detected(source, reason)
    if values and all(isinstance(value, Mapping) for value in values.values()):  # one object keyed by identifiers
        inner: Mapping[str, Any] = next(iter(values.values()))
        for source, reason, fits in ROW_MARKS:
            if fits(inner):
                return Detected(source, reason)
    columns = f", with the columns {listed(map(str, values))}" if values else ""
    return Detected("custom", f"rows of your own in {format_of(path)}{columns}")


def files_in(names: Sequence[str]) -> list[Path]:
    """The files that `names` mean: files, and all visible files within folders, sorted by name.

    Raises:
        InputMissingError: a name that is no file or folder, or a folder without a file.
    """
    files: list[Path] = []
    for name in names:
        path = Path(name).expanduser()
        if path.is_dir():
            inside = sorted(item for item in path.rglob("*") if item.is_file() and not item.name.startswith("."))
            if not inside:
                raise InputMissingError(f"the folder {name!r} holds no file", where=name, fix="name another folder")
            files += inside
        elif path.is_file():
            files.append(path)
        else:
            raise InputMissingError(f"no such file: {name}", where=name, fix="check the path")
    return list(dict.fromkeys(files))
