"""The access class of a base that was made of an adapter's data: a merged model, or an export of one."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

from lora_med.data.access import CLASSES, CREDENTIALED, Access, strictest
from lora_med.files import read_json

PAPERS = ("merge_certificate.json", "export.json")


def base_access(base: str) -> Access | None:
    """The strictest class in the papers beside a local base; None where there are none, as of a published base.

    Papers that name no class that exists count as the strictest one.

    Raises:
        IntegrityError: a paper cannot be read.
    """
    found: list[Access] = []
    for folder in _folders(base):
        for paper in (folder / name for name in PAPERS):
            if paper.is_file():
                content = read_json(paper)
                data = content.get("data") if isinstance(content, dict) else None
                stated = data.get("access") if isinstance(data, dict) else None
                found.append(stated if stated in CLASSES else CREDENTIALED)
    return strictest(found) if found else None


def _folders(base: str) -> list[Path]:
    """Where the papers of a base may be: in its folder, or beside its file."""
    with suppress(RuntimeError, OSError):  # no such user's home; a name too long for any file
        path = Path(base).expanduser()
        if path.is_dir():
            return [path]
        if path.is_file():
            return [path.parent, path.resolve().parent]
    return []
