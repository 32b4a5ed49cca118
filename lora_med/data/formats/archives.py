"""The documents in a file: the file itself, or each member of a zip or tar with a matching name; and XML trees.

One document is in memory at a time. A broken or too large member is one drop and does not affect the others. An archive
without a matching member is an error. XML is parsed with entities off and without a network: a document type definition
that a file names is never fetched.
"""

from __future__ import annotations

import codecs
import gzip
import tarfile
import zipfile
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from lxml import etree  # pyright: ignore[reportAttributeAccessIssue]

from lora_med.data.formats.documents.unsupported_formats import unsupported_content
from lora_med.data.outcome import Again, Drop, Input, Outcome, input_names
from lora_med.errors import DataError
from lora_med.files import archive_errors, open_stream

FIX = "restore the file, or set data.skip_bad=true (--skip-bad)"
RESTORE = "download or restore it, and compare its checksum"
LONGEST_BYTES = 1 << 26
TAR_MAGIC_AT = 257
ZIP_MAGIC = (b"PK\x03\x04", b"PK\x05\x06")  # of an archive with members, and of an empty one
MOST_ENDINGS = 5  # in a message


@dataclass(frozen=True, slots=True)
class Document:
    """One document's bytes.

    `name` is the file's name and `where` its position for messages. `label` names it uniquely among the inputs, for
    identifiers. `member` is its path within its archive, empty where it is a file of its own.
    """

    name: str
    where: str
    content: bytes
    label: str = ""
    member: str = ""


def outcomes_of(
    inputs: Sequence[Input], suffixes: tuple[str, ...], make: Callable[[Document], Iterable[Outcome]]
) -> Iterable[Outcome]:
    """The outcomes of `make(document)` for each document; a DataError makes the document a `damaged_file` drop."""
    names = input_names(inputs)

    def again() -> Iterator[Outcome]:
        for path in inputs:
            if isinstance(path, Path):
                for document in documents(path, suffixes, names[path]):
                    yield from _outcomes(document, make) if isinstance(document, Document) else (document,)

    return Again(again)


def _outcomes(document: Document, make: Callable[[Document], Iterable[Outcome]]) -> Iterator[Outcome]:
    try:
        yield from make(document)
    except DataError as error:
        yield Drop("damaged_file", error)


def documents(path: Path, suffixes: tuple[str, ...], label: str | None = None) -> Iterator[Document | Drop]:
    """The documents of a plain file, a gz, a zip or a tar; of an archive only members whose name ends in `suffixes`.

    Members may be gz too. An archive without such a member is one drop, `no_document`. `label` names the file in the
    documents' labels; left out, by its name.
    """
    label = path.name.removesuffix(".gz") if label is None else label
    try:
        with archive_errors(path), open_stream(path) as stream:
            head = _head(stream)
            if head.startswith(ZIP_MAGIC):
                yield from _checked(_zip(path, suffixes, label), path, suffixes)
            elif _is_tar(head):
                yield from _checked(_tar(stream, path, suffixes, label), path, suffixes)
            else:
                content = _limited(stream, str(path))
                yield _supported(Document(path.name.removesuffix(".gz"), str(path), content, label))
    except DataError as error:
        yield Drop("damaged_file", error)


def is_archive(path: Path) -> bool:
    """Whether a file is a zip or tar, by its content.

    Raises:
        InputMissingError: no such file.
        DataError: it is empty, or a torn gz.
    """
    with archive_errors(path), open_stream(path) as stream:
        head = _head(stream)
    return head.startswith(ZIP_MAGIC) or _is_tar(head)


def member_names(path: Path, suffixes: tuple[str, ...]) -> list[str]:
    """The names of an archive's members that end in `suffixes`; none of a plain file, and none of a damaged one."""
    names: list[str] = []
    try:
        with archive_errors(path), open_stream(path) as stream:
            head = _head(stream)
            if head.startswith(ZIP_MAGIC):
                with zipfile.ZipFile(path) as archive:
                    names += [member.filename for member in archive.infolist() if not member.is_dir()]
            elif _is_tar(head):
                with tarfile.open(fileobj=stream, mode="r|") as archive:
                    names += [member.name for member in archive if member.isfile()]
    except (DataError, zipfile.BadZipFile, tarfile.TarError, NotImplementedError, OSError, ValueError):
        pass  # reading names the fault
    return [name for name in names if _is_document(name, suffixes)]


def _head(stream: BinaryIO) -> bytes:
    return stream.peek(TAR_MAGIC_AT + 5)  # type: ignore[attr-defined]


def _is_tar(head: bytes) -> bool:
    return head[TAR_MAGIC_AT : TAR_MAGIC_AT + 5] == b"ustar"


def _checked(
    members: Iterator[Document | Drop | str], path: Path, suffixes: tuple[str, ...]
) -> Iterator[Document | Drop]:
    """The documents among `members`, where a text is the name of a member that is left out; or a drop,
    `no_document`."""
    count, endings = 0, Counter[str]()
    for member in members:
        if isinstance(member, str):
            endings[Path(member).suffix.lower() or "no ending"] += 1
        else:
            count += 1
            yield _supported(member) if isinstance(member, Document) else member
    if not count:
        what = f"no document in the archive: of its {endings.total():,} files none has a name that ends in "
        others = ", ".join(f"{number:,} of {ending}" for ending, number in endings.most_common(MOST_ENDINGS))
        what += ", ".join(suffixes) + (f"; it holds {others}" if others else "")
        fix = "check source and file: lora-med data list shows what each reads"
        yield Drop("no_document", DataError(what, where=str(path), fix=fix))


def _supported(document: Document) -> Document | Drop:
    form = unsupported_content(document.content)
    return document if form is None else Drop("unsupported_format", form.error(document.where))


def _limited(stream: Any, where: str) -> bytes:
    content = stream.read(LONGEST_BYTES + 1)
    if len(content) > LONGEST_BYTES:
        raise DataError(f"a document of more than {LONGEST_BYTES:,} bytes", where=where, fix=FIX)
    return content


def _zip(path: Path, suffixes: tuple[str, ...], label: str) -> Iterator[Document | Drop | str]:
    try:
        with zipfile.ZipFile(path) as archive:
            for member in archive.infolist():
                if member.is_dir():
                    continue
                if _is_document(member.filename, suffixes):
                    yield _zip_member(archive, member, path, label)
                else:
                    yield member.filename
    except (zipfile.BadZipFile, NotImplementedError, OSError, ValueError) as error:
        raise DataError("the zip archive ends early or is corrupt", where=str(path), fix=RESTORE) from error


def _zip_member(archive: zipfile.ZipFile, member: zipfile.ZipInfo, path: Path, label: str) -> Document | Drop:
    where = f"{path}, member {member.filename}"
    try:
        with archive.open(member) as stream:
            return _member(stream, member.filename, where, label)
    except DataError as error:
        return Drop("damaged_file", error)
    except (zipfile.BadZipFile, NotImplementedError, RuntimeError, OSError, ValueError) as error:
        locked = " with a password" if member.flag_bits & 1 else ""
        what = f"the member{locked} cannot be unpacked ({type(error).__name__})"
        return Drop("damaged_file", DataError(what, where=where, fix=FIX))


def _tar(stream: BinaryIO, path: Path, suffixes: tuple[str, ...], label: str) -> Iterator[Document | Drop | str]:
    try:
        with tarfile.open(fileobj=stream, mode="r|") as archive:
            for member in archive:
                is_document = member.isfile() and _is_document(member.name, suffixes)
                member_stream = archive.extractfile(member) if is_document else None
                if member_stream is not None:
                    yield _tar_member(member_stream, member.name, path, label)
                elif member.isfile():
                    yield member.name
    except (tarfile.TarError, ValueError) as error:
        raise DataError("the tar archive ends early or is corrupt", where=str(path), fix=RESTORE) from error


def _tar_member(stream: Any, name: str, path: Path, label: str) -> Document | Drop:
    try:
        return _member(stream, name, f"{path}, member {name}", label)
    except DataError as error:
        return Drop("damaged_file", error)


def _member(stream: Any, name: str, where: str, label: str) -> Document:
    bare = name[:-3] if name.lower().endswith(".gz") else name
    with archive_errors(Path(where)):
        content = _limited(stream if bare == name else gzip.GzipFile(fileobj=stream), where)
    return Document(Path(bare).name, where, content, f"{label}/{bare}", bare)


def _is_document(name: str, suffixes: tuple[str, ...]) -> bool:
    """Whether a member is a document; macOS adds a file whose name begins with `._` beside each file."""
    return name.lower().removesuffix(".gz").endswith(suffixes) and not Path(name).name.startswith("._")


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
