"""Files of formats that are not read, such as RTF and PDF: refused by name with what to do, never read as text.

A format is known by the first bytes of the content, and by the ending of the name.
"""

from __future__ import annotations

import re
import zipfile
from collections import Counter
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from lora_med.errors import DataError, LoraMedError
from lora_med.files import archive_errors, open_stream

HEAD_BYTES = 1024
ZIP = b"PK\x03\x04"


@dataclass(frozen=True, slots=True)
class UnsupportedFormat:
    """A format's name with its article, and what to do with such a file."""

    name: str
    advice: str

    def error(self, where: str) -> DataError:
        """The error for a file or document of this format."""
        return DataError(f"it is {self.name}, which is not read", where=where, fix=self.advice)


TEXT = "then read the .txt files with the source plain_text"
PDF = UnsupportedFormat("a PDF", f"extract its text, as in `pdftotext -layout FILE.pdf`, check it, {TEXT}")
RTF = UnsupportedFormat("RTF", f"save it as plain text, as in `soffice --headless --convert-to txt FILE`, {TEXT}")
WORD = UnsupportedFormat(
    "a Word document", f"save it as plain text, as in `soffice --headless --convert-to txt FILE`, {TEXT}"
)
OLD_OFFICE = UnsupportedFormat(
    "a document of an old Office (.doc, .xls, .ppt) or one with a password",
    f"save a workbook as .xlsx; save a text as plain text, {TEXT}",
)
OPEN_DOCUMENT = UnsupportedFormat(
    "an OpenDocument file", f"save it as plain text, as in `soffice --headless --convert-to txt FILE`, {TEXT}"
)
SLIDES = UnsupportedFormat("a PowerPoint file", f"save its outline as plain text, {TEXT}")
WORKBOOK = UnsupportedFormat("an Excel workbook", "read its rows with the source custom")
BOOK = UnsupportedFormat("an EPUB", f"save it as plain text, as in `pandoc -t plain FILE -o FILE.txt`, {TEXT}")
HTML = UnsupportedFormat("HTML", f"save it as plain text, as in `pandoc -t plain FILE -o FILE.txt`, {TEXT}")
PACKED = UnsupportedFormat(
    "a 7z, rar, bzip2, xz or zstd archive", "unpack it first; gz, zip and tar are read as they are"
)

ENDINGS = {
    ".pdf": PDF,
    ".rtf": RTF,
    ".docx": WORD,
    ".docm": WORD,
    ".doc": OLD_OFFICE,
    ".xls": OLD_OFFICE,
    ".ppt": OLD_OFFICE,
    ".odt": OPEN_DOCUMENT,
    ".pptx": SLIDES,
    ".epub": BOOK,
    ".html": HTML,
    ".htm": HTML,
    ".xhtml": HTML,
    ".7z": PACKED,
    ".rar": PACKED,
    ".bz2": PACKED,
    ".xz": PACKED,
    ".zst": PACKED,
}
STARTS = (
    (re.compile(rb"\s*%PDF-"), PDF),
    (re.compile(rb"\s*\{\\rtf"), RTF),
    (re.compile(rb"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1"), OLD_OFFICE),
    (re.compile(rb"7z\xbc\xaf\x27\x1c|Rar!\x1a\x07|BZh[1-9]1AY&SY|\xfd7zXZ\x00|\x28\xb5\x2f\xfd"), PACKED),
    (re.compile(rb"\s*(?:<\?xml[^>]*\?>\s*)?<(?:!doctype\s+html|html)[\s>]", re.IGNORECASE), HTML),
)
MEMBERS = (("word/", WORD), ("ppt/", SLIDES), ("xl/workbook", WORKBOOK), ("META-INF/container.xml", BOOK))


def unsupported_content(head: bytes) -> UnsupportedFormat | None:
    """The format that the first bytes show, if it is one that is not read."""
    head = head[:HEAD_BYTES].removeprefix(b"\xef\xbb\xbf")
    return next((form for start, form in STARTS if start.match(head)), None)


def unsupported_ending(name: str) -> UnsupportedFormat | None:
    """The format that a file's name shows, if it is one that is not read; a final `.gz` does not count."""
    return ENDINGS.get(Path(name.lower().removesuffix(".gz")).suffix)


def counted_endings(files: Iterable[Path]) -> str:
    """The endings of formats that are not read, with their numbers; empty where there is none."""
    endings = Counter(path.suffix.lower() for path in files if unsupported_ending(path.name))
    return ", ".join(f"{count:,} of {ending}" for ending, count in sorted(endings.items()))


def unsupported_file(path: Path, suffixes: Sequence[str]) -> UnsupportedFormat | None:
    """The format of a file that is not read, by its content, then by its name; endings in `suffixes` are read.

    A file that is missing, empty or torn is none of these formats: its reader names the fault.
    """
    head = b""
    with suppress(LoraMedError), archive_errors(path), open_stream(path) as stream:
        head = stream.read(HEAD_BYTES)
    form = unsupported_content(head) or (_office(path, suffixes) if head.startswith(ZIP) else None)
    if form is None and not path.name.lower().removesuffix(".gz").endswith(tuple(suffixes)):
        form = unsupported_ending(path.name)
    return form


def _office(path: Path, suffixes: Sequence[str]) -> UnsupportedFormat | None:
    """The format of an office file, which is a zip archive; a workbook counts only where workbooks are not read."""
    with suppress(zipfile.BadZipFile, NotImplementedError, OSError, ValueError), zipfile.ZipFile(path) as archive:
        names = archive.namelist()
        if names[:1] == ["mimetype"]:
            return BOOK if "META-INF/container.xml" in names else OPEN_DOCUMENT
        if "[Content_Types].xml" in names:
            forms = (form for start, form in MEMBERS if any(name.startswith(start) for name in names))
            form = next(forms, None)
            return None if form is WORKBOOK and ".xlsx" in suffixes else form
    return None
