"""The documents in a file: the file itself, or each member of a zip or tar with a matching name; and XML trees.

One document is in memory at a time. A broken or too large member is one drop and does not affect the others. XML is
parsed with entities off and without a network: a document type definition that a file names is never fetched.
"""

from __future__ import annotations

import codecs
import tarfile
import zipfile
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from lxml import etree  # pyright: ignore[reportAttributeAccessIssue]

from lora_med.data.outcome import Again, Drop, Input, Outcome
from lora_med.errors import DataError
from lora_med.files import archive_errors, open_stream

FIX = "restore the file, or set data.skip_bad=true (--skip-bad)"
RESTORE = "download or restore it, and compare its checksum"
ZIP_MAGIC = b"PK\x03\x04", b"PK\x05\x06"  # of an archive with members, and of an empty one
LONGEST_BYTES = 1 << 26
TAR_MAGIC_AT = 257


@dataclass(frozen=True, slots=True)
class Document:
    """One document's bytes; `name` is the file's name, `where` is its position for messages."""

    name: str
    where: str
    content: bytes


def outcomes_of(
    inputs: Sequence[Input], suffixes: tuple[str, ...], make: Callable[[Document], Iterable[Outcome]]
) -> Iterable[Outcome]:
    """The outcomes of `make(document)` for each document; a DataError makes the document a `damaged_file` drop."""

    def again() -> Iterator[Outcome]:
        for path in inputs:
            if isinstance(path, Path):
                for document in documents(path, suffixes):
                    yield from _outcomes(document, make) if isinstance(document, Document) else (document,)

    return Again(again)


def _outcomes(document: Document, make: Callable[[Document], Iterable[Outcome]]) -> Iterator[Outcome]:
    try:
        yield from make(document)
    except DataError as error:
        yield Drop("damaged_file", error)


def documents(path: Path, suffixes: tuple[str, ...]) -> Iterator[Document | Drop]:
    """The documents of a plain file, a gz, a zip or a tar; of an archive only members whose name ends in `suffixes`.

    An archive without such a member is one drop, `no_document`.
    """
    try:
        with archive_errors(path), open_stream(path) as stream:
            head = stream.peek(TAR_MAGIC_AT + 5)  # type: ignore[attr-defined]
            if head.startswith(ZIP_MAGIC):
                members = yield from _zip(path, suffixes)
            elif head[TAR_MAGIC_AT : TAR_MAGIC_AT + 5] == b"ustar":
                members = yield from _tar(stream, path, suffixes)
            else:
                yield Document(path.name.removesuffix(".gz"), str(path), _limited(stream, str(path)))
                return
        if members is not None:
            endings = ", ".join(suffixes)
            what = f"no document in the archive: of its {members:,} files none has a name that ends in {endings}"
            fix = "check source and file: lora-med data list shows what each reads"
            yield Drop("no_document", DataError(what, where=str(path), fix=fix))
    except DataError as error:
        yield Drop("damaged_file", error)


def _limited(stream: Any, where: str) -> bytes:
    content = stream.read(LONGEST_BYTES + 1)
    if len(content) > LONGEST_BYTES:
        raise DataError(f"a document of more than {LONGEST_BYTES:,} bytes", where=where, fix=FIX)
    return content


def _zip(path: Path, suffixes: tuple[str, ...]) -> Generator[Document | Drop, None, int | None]:
    """Yields the documents; returns the number of files where none is a document, else None."""
    documents = 0
    try:
        with zipfile.ZipFile(path) as archive:
            files = [member for member in archive.infolist() if not member.is_dir()]
            for member in files:
                if _is_document(member.filename, suffixes):
                    documents += 1
                    yield _zip_member(archive, member, f"{path}, member {member.filename}")
    except (zipfile.BadZipFile, NotImplementedError, OSError, ValueError) as error:
        raise DataError("the zip archive ends early or is corrupt", where=str(path), fix=RESTORE) from error
    return None if documents else len(files)


def _zip_member(archive: zipfile.ZipFile, member: zipfile.ZipInfo, where: str) -> Document | Drop:
    try:
        with archive_errors(Path(where)), archive.open(member) as stream:
            return Document(Path(member.filename).name, where, _limited(stream, where))
    except DataError as error:
        return Drop("damaged_file", error)
    except (zipfile.BadZipFile, NotImplementedError, RuntimeError, OSError, ValueError) as error:
        return Drop("damaged_file", DataError(f"cannot be unpacked ({type(error).__name__})", where=where, fix=FIX))


def _tar(stream: BinaryIO, path: Path, suffixes: tuple[str, ...]) -> Generator[Document | Drop, None, int | None]:
    """As `_zip`."""
    files = documents = 0
    try:
        with tarfile.open(fileobj=stream, mode="r|") as archive:
            for member in archive:
                files += member.isfile()
                member_stream = (
                    archive.extractfile(member) if member.isfile() and _is_document(member.name, suffixes) else None
                )
                if member_stream is not None:
                    documents += 1
                    yield _tar_member(member_stream, member.name, f"{path}, member {member.name}")
    except (tarfile.TarError, ValueError) as error:
        raise DataError("the tar archive ends early or is corrupt", where=str(path), fix=RESTORE) from error
    return None if documents else files


def _tar_member(stream: Any, name: str, where: str) -> Document | Drop:
    try:
        return Document(Path(name).name, where, _limited(stream, where))
    except DataError as error:
        return Drop("damaged_file", error)


def _is_document(name: str, suffixes: tuple[str, ...]) -> bool:
    """Whether a member is a document; macOS adds a file whose name begins with `._` beside each file."""
    return name.lower().endswith(suffixes) and not Path(name).name.startswith("._")


def is_xml(document: Document) -> bool:
    """Whether a document is XML, not JSON: in UTF-8, with or without a byte order mark, or in UTF-16."""
    head = document.content[:64]
    if head.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        return head.decode("utf-16", "replace").lstrip().startswith("<")
    return head.removeprefix(codecs.BOM_UTF8).lstrip().startswith(b"<")


def xml_root(document: Document) -> Any:
    """The outermost element of an XML document, comments and processing instructions left out.

    Raises:
        DataError: it is not well-formed, or uses an entity that XML itself does not define.
    """
    parser = etree.XMLParser(
        resolve_entities=False, no_network=True, load_dtd=False, remove_comments=True, remove_pis=True
    )
    try:
        root = etree.fromstring(document.content, parser)
    except (etree.XMLSyntaxError, ValueError) as error:
        line = getattr(error, "lineno", None) or 1
        what = "the file is not well-formed XML, or ends early"
        raise DataError(what, where=f"{document.where}:{line}", fix=FIX) from None
    entity = next(root.iter(etree.Entity), None)
    if entity is not None:
        what = "the file uses an entity that XML does not define"
        raise DataError(what, where=f"{document.where}:{entity.sourceline}", fix=FIX)
    return root
