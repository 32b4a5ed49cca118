"""set_up_converter(): unpack llama.cpp's own conversion scripts from a pinned source distribution into the cache.

An allow-list of paths admits only plain Python files and the license: no link, no device, no path outside the folder,
no compiled code. The folder appears complete or not at all, with converter.json, which contains its digest.
"""

from __future__ import annotations

import hashlib
import html.parser
import logging
import os
import re
import subprocess
import sys
import tarfile
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable
from pathlib import Path, PurePosixPath

from lora_med.data.download import TIMEOUT_SECONDS, Remote, download
from lora_med.errors import InputMissingError, IntegrityError, SettingsError
from lora_med.files import sha256_file, write_json
from lora_med.folders import fresh_folder
from lora_med.run import cache_home

PACKAGE, VERSION = "llama-cpp-python", "0.3.36"
ARCHIVE = f"llama_cpp_python-{VERSION}.tar.gz"
ARCHIVE_SHA256 = "832db0699007f1be95a7e41ef12e88926b02ba836461e36a36372db2760c1a2e"
INSIDE = f"llama_cpp_python-{VERSION}/vendor/llama.cpp/"
WANTED = re.compile(r"LICENSE|convert_(hf|lora)_to_gguf\.py|conversion/\w+\.py|gguf-py/LICENSE|gguf-py/gguf/\w+\.py")
LARGEST_FILE_BYTES, MOST_FILES = 4 << 20, 500
DEFAULT_INDEX = "https://pypi.org/simple"
MANIFEST = "converter.json"
logger = logging.getLogger(__name__)


def cached_converter() -> Path:
    """The folder of the converter once it is set up."""
    return cache_home() / f"llama.cpp-{VERSION}-{ARCHIVE_SHA256[:12]}"


def set_up_converter(archive: Path | None = None, progress: Callable[[int, int], None] | None = None) -> Path:
    """The folder of the converter, downloaded and unpacked if it does not exist yet.

    Args:
        archive: the source distribution, if it is on this machine; None downloads it from the index that pip uses.
        progress: called with the bytes so far and in total.

    Raises:
        InputMissingError: no such file, or the index cannot be reached or does not have this version.
        IntegrityError: the archive is not the pinned one, or contains an entry that must not be unpacked.
    """
    target = cached_converter()
    if (target / MANIFEST).is_file():
        return target
    if archive is not None:
        _unpack_pinned(archive, target)
        return target
    downloads = target.with_name("download")
    downloads.mkdir(parents=True, exist_ok=True)
    fetched = download(Remote(_address(), ARCHIVE_SHA256), downloads, progress)
    _unpack_pinned(fetched, target)
    fetched.unlink()
    return target


def digest_tree(folder: Path) -> str:
    """SHA-256 over the names and SHA-256s of all files in `folder` that the conversion may run, sorted by name."""
    lines = []
    for path in sorted(folder.rglob("*.py")):
        name = path.relative_to(folder).as_posix()
        if WANTED.fullmatch(name):
            lines.append(f"{sha256_file(path)}  {name}\n")
    return hashlib.sha256("".join(lines).encode()).hexdigest()


def unpack(archive: Path, target: Path, *, inside: str = INSIDE) -> list[str]:
    """Unpack the allowed files below `inside` into the fresh folder `target`; returns the names.

    Raises:
        IntegrityError: an allowed entry is no plain file or is too large, or there is none.
    """
    names = []
    with fresh_folder(target) as temporary:
        try:
            with tarfile.open(archive, "r:gz") as entries:
                for entry in entries:
                    name = _allowed_name(entry, inside, archive)
                    if name is None:
                        continue
                    stream = entries.extractfile(entry)
                    if stream is None or name in names or len(names) == MOST_FILES:
                        raise _unfit(
                            f"the entry {name!r} occurs twice, or exceeds the limit of {MOST_FILES} files", archive
                        )
                    path = temporary / name
                    path.parent.mkdir(parents=True, exist_ok=True)
                    path.write_bytes(stream.read())
                    names.append(name)
        except (tarfile.TarError, EOFError) as error:
            raise _unfit("it is incomplete or no archive", archive) from error
        if not {"convert_hf_to_gguf.py", "convert_lora_to_gguf.py"} <= set(names):
            raise _unfit(f"it has no conversion scripts under {inside}", archive)
        facts = {"version": VERSION, "archive_sha256": sha256_file(archive), "digest": digest_tree(temporary)}
        write_json(temporary / MANIFEST, facts)
    return names


def _allowed_name(entry: tarfile.TarInfo, inside: str, archive: Path) -> str | None:
    name = entry.name.removeprefix(inside)
    if name == entry.name or not WANTED.fullmatch(name):
        return None
    if ".." in PurePosixPath(name).parts or not entry.isfile() or entry.size > LARGEST_FILE_BYTES:
        raise _unfit(f"the entry {name!r} is no plain file of at most {LARGEST_FILE_BYTES >> 20} MiB", archive)
    return name


def _unfit(reason: str, archive: Path) -> IntegrityError:
    return IntegrityError(
        f"the archive was not unpacked: {reason}", where=str(archive), fix=f"use {ARCHIVE} as it was published"
    )


def _unpack_pinned(archive: Path, target: Path) -> None:
    if not archive.is_file():
        raise InputMissingError(f"no such file: {archive.name}", where=str(archive.parent), fix="check --archive")
    digest = sha256_file(archive)
    if digest != ARCHIVE_SHA256:
        raise IntegrityError(
            f"{archive.name} has SHA-256 {digest[:16]}..., expected {ARCHIVE_SHA256[:16]}...",
            where=str(archive),
            fix=f"use {ARCHIVE} as {PACKAGE} {VERSION} was published",
        )
    unpack(archive, target)


class _Links(html.parser.HTMLParser):
    """The addresses on an index page."""

    def __init__(self) -> None:
        super().__init__()
        self.addresses: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag == "a":
            self.addresses += [value for name, value in attrs if name == "href" and value]


def _index() -> str:
    """The package index that pip is configured for."""
    configured = os.environ.get("PIP_INDEX_URL")
    if not configured:
        pip = subprocess.run(
            [sys.executable, "-m", "pip", "config", "get", "global.index-url"], capture_output=True, text=True
        )
        configured = pip.stdout.strip() if pip.returncode == 0 else ""
    index = (configured or DEFAULT_INDEX).rstrip("/")
    if "@" in urllib.parse.urlsplit(index).netloc:
        raise SettingsError(
            "the package index asks for a name and password, which are not sent",
            where="PIP_INDEX_URL or pip's configuration",
            fix=f"fetch {ARCHIVE} from it yourself, then: lora-med export setup --archive {ARCHIVE}",
        )
    return index


def _address() -> str:
    """The address of the archive on the index (its checksum is pinned here, not taken from the index)."""
    page = f"{_index()}/{PACKAGE}/"
    request = urllib.request.Request(page, headers={"Accept": "text/html"})
    try:
        with urllib.request.urlopen(request, timeout=TIMEOUT_SECONDS) as answer:
            text = answer.read(64 << 20).decode("utf-8", "replace")
    except (urllib.error.URLError, TimeoutError, ConnectionError) as error:
        raise InputMissingError(
            f"the package index does not answer ({getattr(error, 'reason', None) or error})",
            where=page,
            fix=f"fetch {ARCHIVE} elsewhere, then: lora-med export setup --archive {ARCHIVE}",
        ) from error
    links = _Links()
    links.feed(text)
    for link in links.addresses:
        address = urllib.parse.urldefrag(urllib.parse.urljoin(page, link)).url
        if address.endswith(f"/{ARCHIVE}"):
            return address
    raise InputMissingError(
        f"the package index has no {ARCHIVE}",
        where=page,
        fix=f"fetch it elsewhere, then: lora-med export setup --archive {ARCHIVE}",
    )
