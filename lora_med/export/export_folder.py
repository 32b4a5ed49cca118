"""The folder of an export: fresh, complete or absent, private where the data require it, with export.json."""

from __future__ import annotations

import contextlib
import importlib.util
import math
import shutil
import time
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from lora_med.adapters.store.memorization_bound import accept_excess
from lora_med.adapters.store.published import Published
from lora_med.errors import DependencyMissingError, DiskError
from lora_med.files import read_json, sha256_file, write_json
from lora_med.folders import fresh_folder, held, sweep_folders
from lora_med.models.files.resolve import display_name
from lora_med.models.files.weight_files import read_headers
from lora_med.models.on_disk.dequantized_base import values_folder
from lora_med.run import keep_private, versions

EXPORT = "export.json"
SCHEMA = "lora_med.export/1"
WORK = ".work"  # inside the temporary folder, so that a kill leaves one hidden folder
SPARE_BYTES = 64 << 20


@dataclass(frozen=True)
class Export:
    """The folder of an export, and the content of its export.json."""

    folder: Path
    facts: dict[str, Any]


def read_export(out: Path | str) -> Export:
    """The complete export in the folder `out`."""
    return Export(Path(out), read_json(Path(out) / EXPORT))


def check_packages(needed: Mapping[str, str], target: str) -> None:
    """Refuse an export if a package that it needs is not installed.

    Args:
        needed: module -> package.
        target: what is exported to, for the message.

    Raises:
        DependencyMissingError: with the command that installs the packages.
    """
    absent = [package for module, package in needed.items() if importlib.util.find_spec(module) is None]
    if absent:
        raise DependencyMissingError(
            f"{target} needs {', '.join(absent)}, which {'is' if len(absent) == 1 else 'are'} not installed",
            where="lora-med export",
            fix='pip install "lora-med[export]"',
        )


def count_parameters(base: Path) -> int:
    """The number of weights of the base in that folder."""
    return sum(math.prod(stored.shape) for stored in read_headers(values_folder(base)).values())


@contextlib.contextmanager
def fresh_export(
    out: Path,
    adapter: Published,
    *,
    needed_bytes: int,
    facts: dict[str, Any],
    accept_memorization: str | None = None,
) -> Iterator[Path]:
    """A temporary folder to fill, which becomes `out` with export.json in it on leaving without an error.

    Its subfolder `.work` is for temporary files of the export. Until the export is complete, only its owner may read
    the folder.

    Args:
        needed_bytes: the largest disk use of the export at one time.
        facts: results of the export; added to export.json when the block ends, so the block may fill them in.
        accept_memorization: who accepts that the adapter exceeds the bound of its memorization audit.

    Raises:
        NotPermittedError: it exceeds that bound, and nobody accepts it.
        OutputError: `out` is not empty or cannot be written.
        DiskError: the disk has less free space.
    """
    acceptance = accept_excess(adapter.card, "exporting", accept_memorization)
    sweep_folders(out)
    with fresh_folder(out) as temporary, held(temporary):
        temporary.chmod(0o700)
        _check_disk_space(out, temporary, needed_bytes)
        (temporary / WORK).mkdir()
        yield temporary
        shutil.rmtree(temporary / WORK)
        write_json(
            temporary / EXPORT,
            {**_origin(adapter), **_audited(adapter, acceptance), **facts, "files": _files(temporary)},
        )
        if adapter.data.access == "credentialed":
            keep_private(temporary)
        else:
            temporary.chmod(0o755)


def _check_disk_space(out: Path, temporary: Path, needed_bytes: int) -> None:
    free = shutil.disk_usage(temporary).free
    if free < needed_bytes + SPARE_BYTES:
        raise DiskError(
            f"the export needs {needed_bytes / 1e9:.1f} GB temporarily, and {free / 1e9:.1f} GB are free",
            where=str(out),
            fix="free some space, or choose a folder on another disk",
        )


def _origin(adapter: Published) -> dict[str, Any]:
    card, data = adapter.card, adapter.data
    return {
        "schema": SCHEMA,
        "adapter": {
            "name": card.name,
            "template": card.template,
            "card_sha256": adapter.card_sha256,
            "files": dict(card.files),
        },
        "base": {
            "name": display_name(adapter.base_name),
            "revision": adapter.revision,
            "fingerprint": asdict(card.base.fingerprint),
        },
        "data": {
            "source": data.source,
            "earlier_sources": data.earlier_sources,
            "license": data.license,
            "access": data.access,
        },
        "versions": versions(),
        "created": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
    }


def _audited(adapter: Published, acceptance: dict[str, str] | None) -> dict[str, Any]:
    """What export.json says of the memorization audit, if there was one."""
    audit = adapter.card.memorization
    return {"memorization": {"bound": audit.get("bound"), "accepted": acceptance}} if audit else {}


def _files(folder: Path) -> dict[str, dict[str, Any]]:
    facts = {}
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            name = path.relative_to(folder).as_posix()
            facts[name] = {"bytes": path.stat().st_size, "sha256": sha256_file(path)}
    return facts
