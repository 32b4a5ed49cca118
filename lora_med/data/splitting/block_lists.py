"""Block-lists of hashed identifiers: they exclude the items of known test sets from training.

A block-list is a text file. Lines that begin with `#` describe it. Every other line is the first 16 hexadecimal digits
of the SHA-256 of an identifier such as `pmid:12345678`. Those of PubMedQA's, BC5CDR's and NCBI-disease's test
sets ship with lora_med. The hash is no secret, only a way to name test items without a list of them.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path

from lora_med.config.near_names import unknown
from lora_med.data.catalog import SOURCES
from lora_med.data.record import Record
from lora_med.data.splitting.scanned import RecordDigest
from lora_med.errors import DataError, SettingsError
from lora_med.files import sha256_file, write_atomic

PMID = re.compile(r"[1-9]\d{0,8}")
HASHED = re.compile(r"[0-9a-f]{16}")


@dataclass(frozen=True)
class BlockList:
    """Hashed identifiers that may not be trained on; `name` is its file's, `sha256` that of its content."""

    name: str
    sha256: str
    ids: frozenset[str]


def hashed(identifier: str) -> str:
    """How a block-list names an identifier."""
    return hashlib.sha256(identifier.encode("utf-8")).hexdigest()[:16]


def identifiers_of(record: Record) -> set[str]:
    """What a record may be listed by: its uid, and the PMID of its article."""
    pmid = pmid_of(record)
    return {record.uid} if pmid is None else {record.uid, pmid}


def pmid_of(record: Record | RecordDigest) -> str | None:
    """`pmid:` and the PMID of the article that a record is from, if its source groups by PMID."""
    source = SOURCES.get(record.source)
    is_pmid = source is not None and source.groups_are_pmids and PMID.fullmatch(record.group)
    return f"pmid:{record.group}" if is_pmid else None


def is_blocked(record: Record, block_lists: Sequence[BlockList]) -> bool:
    """Whether a block-list names the record or its article."""
    if not block_lists:
        return False
    names = {hashed(name) for name in identifiers_of(record)}
    return any(not names.isdisjoint(block.ids) for block in block_lists)


def shipped() -> list[str]:
    """The names of the block-lists that come with lora_med."""
    return sorted(path.name.removesuffix(".txt") for path in (files("lora_med") / "assets" / "blocklists").iterdir())


def block_list_file(name: str) -> Path:
    """The file of the block-list that ships under `name`, or of that path.

    Raises:
        SettingsError: neither.
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
    return path


def load_block_list(name: str) -> BlockList:
    """The block-list that ships under `name`, or the file of that path.

    Raises:
        SettingsError: neither.
        DataError: a line is no hash; the message names it.
    """
    path = block_list_file(name)
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


def write_block_list(path: Path, identifiers: Iterable[str], title: str, *, private: bool = False) -> int:
    """Write the hashes of `identifiers`, sorted, under one line that describes them; returns how many.

    A `private` file is its owner's alone: a hash of a guessable identifier can be guessed too.
    """
    ids = sorted({hashed(identifier) for identifier in identifiers})
    write_atomic(path, f"# {title}\n" + "".join(f"{item}\n" for item in ids), private=private)
    return len(ids)
